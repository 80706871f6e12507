"""MMOE on KuaiRand-Pure."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def get_config() -> Config:
    return Config(name="kuairand_mmoe", model=ModelConfig(trunk="mmoe"), train=TrainConfig())
