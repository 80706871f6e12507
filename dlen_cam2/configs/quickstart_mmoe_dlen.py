"""The simulated feed of `make quickstart`, MMOE with the dlen head."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import DLEN, MMOE


def get_config() -> Config:
    return Config(
        name="quickstart_mmoe_dlen",
        model=ModelConfig(trunk=MMOE(), head=DLEN()),
        train=TrainConfig(epochs=2, batch_size=512, embedding_learning_rate=0.1),
    )
