"""Two tasks of known correlation (pipelines.correlated), mmoe trunk, logistic head; the synthetic suite's sizes:

dlen_cam2 train --config=correlated_mmoe --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes; neither paper states them. CGC and PLE have an expert of each task's own besides.
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    return Config(
        name="correlated_mmoe",
        model=ModelConfig(trunk=MMOE(experts=4, units=(32,)), head=Logistic(), tower_units=(16,)),
        train=TrainConfig(epochs=3, batch_size=256, learning_rate=0.003),
    )
