"""Two tasks of known correlation (pipelines.correlated), mmoe trunk, plain head; the synthetic suite's sizes:

python -m dlen_cam2 train --config=dlen_cam2/configs/correlated_mmoe.py --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes; neither paper states them. CGC and PLE have an expert of each task's own besides.
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="correlated_mmoe",
        model=ModelConfig(experts=4, task_experts=1, expert_units=(32,), tower_units=(16,)),
        train=TrainConfig(epochs=3, batch_size=256, learning_rate=0.003),
    )
