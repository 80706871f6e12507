"""Your own log with a shared bottom, the simplest of the networks.

dlen_cam2 train --config=own/shared_bottom --data_dir=DIR --model_dir=DIR \
    --train_days=A..B --eval_days=C
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.own import experiment
from dlen_cam2.models import Logistic, SharedBottom


def get_config() -> Config:
    return experiment(SharedBottom(), Logistic())
