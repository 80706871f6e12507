"""The simulated feed of `make quickstart`, MMOE with the logistic head."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    return Config(
        name="quickstart_mmoe",
        model=ModelConfig(trunk=MMOE(), head=Logistic()),
        train=TrainConfig(epochs=2, batch_size=512, embedding_learning_rate=0.1),
    )
