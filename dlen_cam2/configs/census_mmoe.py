"""Census-Income, mmoe trunk, plain head: 8 experts of one layer.

python -m dlen_cam2 train --config=dlen_cam2/configs/census_mmoe.py --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes. Where only the test file is at hand, --train_days=validation.
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="census_mmoe",
        model=ModelConfig(trunk="mmoe", head="plain", experts=8, expert_units=(64,), tower_units=(16,)),
        train=TrainConfig(epochs=3, batch_size=512),
    )
