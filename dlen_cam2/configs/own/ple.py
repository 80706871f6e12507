"""Your own log with PLE.

dlen_cam2 train --config=own/ple --data_dir=DIR --model_dir=DIR \
    --train_days=A..B --eval_days=C
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.own import experiment
from dlen_cam2.models import PLE, Logistic


def get_config() -> Config:
    return experiment(PLE(), Logistic())
