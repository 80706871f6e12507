"""KuaiRand-Pure, shared_bottom trunk, logistic head:

dlen_cam2 train --config=kuairand_shared_bottom --data_dir=DIR --model_dir=DIR \
    --train_days=20220425..20220504 --eval_days=20220505
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.kuairand import experiment
from dlen_cam2.models import Logistic, SharedBottom


def get_config() -> Config:
    return experiment(SharedBottom(), Logistic())
