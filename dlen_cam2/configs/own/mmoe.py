"""Your own log with MMOE: a starting point for any log.

dlen_cam2 train --config=own/mmoe --data_dir=DIR --model_dir=DIR \
    --train_days=A..B --eval_days=C
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.own import experiment
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    return experiment(MMOE(), Logistic())
