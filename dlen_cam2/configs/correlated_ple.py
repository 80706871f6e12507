"""Two tasks of known correlation (pipelines.correlated), ple trunk, logistic head; the synthetic suite's sizes:

dlen_cam2 train --config=correlated_ple --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes; neither paper states them. An expert of each task's own, besides four that are shared.
"""

from dlen_cam2.config import Config
from dlen_cam2.configs import correlated_mmoe
from dlen_cam2.models import PLE


def get_config() -> Config:
    config = correlated_mmoe.get_config()
    config.name = "correlated_ple"
    config.model.trunk = PLE(experts=4, task_experts=1, units=(32,))
    return config
