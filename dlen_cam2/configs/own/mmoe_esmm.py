"""Your own log with MMOE and ESMM's head, for tasks that follow each other (`mask:` in the schema).

dlen_cam2 train --config=own/mmoe_esmm --data_dir=DIR --model_dir=DIR \
    --train_days=A..B --eval_days=C
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.own import experiment
from dlen_cam2.models import ESMM, MMOE


def get_config() -> Config:
    return experiment(MMOE(), ESMM())
