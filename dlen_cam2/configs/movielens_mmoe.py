"""MovieLens-1M, mmoe trunk, plain head:

python -m dlen_cam2 train --config=dlen_cam2/configs/movielens_mmoe.py --data_dir=DIR --model_dir=DIR \
    --train_days=200004..200011 --eval_days=200012
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def get_config() -> Config:
    """DESIGN: no paper of ours uses MovieLens. Sizes for 0.8 million rows; one pass, for ids overfit in the second."""
    return Config(
        name="movielens_mmoe",
        model=ModelConfig(trunk="mmoe", head="plain", experts=4, expert_units=(128, 64)),
        train=TrainConfig(epochs=1, batch_size=512),
    )
