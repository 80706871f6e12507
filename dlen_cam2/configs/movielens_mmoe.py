"""MovieLens-1M, mmoe trunk, logistic head:

dlen_cam2 train --config=movielens_mmoe --data_dir=DIR --model_dir=DIR \
    --train_days=200004..200011 --eval_days=200012
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, Logistic


def get_config() -> Config:
    """DESIGN: no paper of ours uses MovieLens. Sizes for 0.8 million rows; one pass: ids overfit in the second."""
    return Config(
        name="movielens_mmoe",
        model=ModelConfig(trunk=MMOE(experts=4, units=(128, 64)), head=Logistic()),
        train=TrainConfig(epochs=1, batch_size=512),
    )
