"""The sizes of DLEN's Ali-CCP experiments (section 4.2.2), PLE with the dlen head: 2 shared experts, 1 a task."""

from dlen_cam2.config import Config, ModelConfig


def get_config() -> Config:
    return Config(name="aliccp_ple_dlen", model=ModelConfig(trunk="ple", head="dlen", experts=2, task_experts=1))
