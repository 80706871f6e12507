"""The simulated feed of `make quickstart`, MMOE with the dlen head."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="quickstart_mmoe_dlen",
        model=ModelConfig(trunk="mmoe", head="dlen"),
        train=TrainConfig(epochs=2, batch_size=512, embedding_learning_rate=0.1),
    )
