"""KuaiRand-Pure, mmoe trunk, CAM2; `--config.model.causal.variant=task_arch|joint_loss|all_features|proposed`:

dlen_cam2 train --config=dlen_cam2/configs/kuairand_cam2.py --data_dir=DIR --model_dir=DIR \
    --train_days=20220425..20220504 --eval_days=20220505
"""

from dlen_cam2.config import Config
from dlen_cam2.configs.kuairand import experiment
from dlen_cam2.models import CAM2, MMOE, Logistic


def get_config() -> Config:
    """The causes as in simulated_cam2; an item's interests are its tags."""
    config = experiment(MMOE(), Logistic())
    config.name = "kuairand_cam2"
    config.train.order, config.train.cooldown = "days", 0.0  # a day is some 30 steps: not tried
    config.model.causal = CAM2(
        statistic="video_click_rate", thresh=0.9, relevance="interests", interest_feature="tags",
        without=("user_id", "video_id", "author"), blocks=1,
    )
    return config
