"""The sizes of DLEN's Ali-CCP experiments (section 4.2.2), MMOE with the logistic head: 2 experts."""

from dlen_cam2.config import Config, ModelConfig
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    return Config(name="aliccp_mmoe", model=ModelConfig(trunk=MMOE(experts=2), head=Logistic()))
