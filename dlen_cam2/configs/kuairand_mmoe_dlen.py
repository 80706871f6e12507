"""KuaiRand-Pure, mmoe trunk, dlen head:

dlen_cam2 train --config=kuairand_mmoe_dlen --data_dir=DIR --model_dir=DIR \
    --train_days=20220425..20220504 --eval_days=20220505
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.kuairand import experiment
from dlen_cam2.models import DLEN, MMOE


def get_config() -> Config:
    return experiment(MMOE(), DLEN())
