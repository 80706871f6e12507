"""The simulated feed, mmoe trunk, CAM2; `--config.model.causal.variant=…` as for KuaiRand:

dlen_cam2 train --config=dlen_cam2/configs/simulated_cam2.py --data_dir=DIR --model_dir=DIR \
    --train_days=20240101..20240107 --eval_days=20240108,20240108_random
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import CAM2


def get_config() -> Config:
    """X is the rate at which a video has been clicked so far, and the tenth of the exposures with the highest X belongs
    to conformity. Ids stay with the trunk: an id's embedding learns how popular a single video is. There is one pass,
    since in a second one the towers would read embeddings that have seen the labels of the row.
    """
    causal = CAM2(
        statistic="video_click_rate", thresh=0.9, relevance="interests", interest_feature="topics",
        without=("user_id", "video_id", "author_id"), blocks=1,
    )
    return Config(
        name="simulated_cam2", model=ModelConfig(causal=causal),
        train=TrainConfig(order="days", batch_size=256, learning_rate=0.002, embedding_learning_rate=0.1),
    )
