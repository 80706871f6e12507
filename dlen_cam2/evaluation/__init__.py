"""Score the rows of a day and measure every task, exactly."""

from dlen_cam2.evaluation.predictions import (
    USER_FAVOR,
    USER_FAVOR_NOTE,
    Predictions,
    Score,
    behaviours,
    entire_space,
    evaluate,
    predict,
    scorer,
    together,
)

__all__ = [
    "USER_FAVOR", "USER_FAVOR_NOTE", "Predictions", "Score", "behaviours", "entire_space", "evaluate", "predict",
    "scorer", "together",
]
