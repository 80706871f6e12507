"""Your own log with MMOE and DLEN's head, which has a latent state "the user prefers the item".

dlen_cam2 train --config=own/mmoe_dlen --data_dir=DIR --model_dir=DIR \
    --train_days=A..B --eval_days=C
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.own import experiment
from dlen_cam2.models import DLEN, MMOE


def get_config() -> Config:
    return experiment(MMOE(), DLEN())
