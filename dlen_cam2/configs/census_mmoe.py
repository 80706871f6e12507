"""Census-Income, mmoe trunk, logistic head: 8 experts of one layer.

dlen_cam2 train --config=census_mmoe --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes. Where only the test file is at hand, --train_days=validation.
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    return Config(
        name="census_mmoe",
        model=ModelConfig(trunk=MMOE(experts=8, units=(64,)), head=Logistic(), tower_units=(16,)),
        train=TrainConfig(epochs=3, batch_size=512),
    )
