"""Three tasks whose scores are fused."""

from dlen_cam2.schema import Task

TASKS = (Task("click"), Task("like"), Task("hate", negative=True))
NEGATIVE = ["hate"]
