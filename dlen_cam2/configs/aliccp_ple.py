"""The sizes of DLEN's Ali-CCP experiments (section 4.2.2), PLE with the plain head: 2 shared experts, 1 a task."""

from dlen_cam2.config import Config, ModelConfig


def get_config() -> Config:
    return Config(name="aliccp_ple", model=ModelConfig(trunk="ple", head="plain", experts=2, task_experts=1))
