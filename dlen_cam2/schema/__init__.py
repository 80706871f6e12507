"""What the columns of a data set are, and where that is written."""

from dlen_cam2.schema.columns import Feature, Task
from dlen_cam2.schema.schema import KEYS, Schema

__all__ = ["KEYS", "Feature", "Schema", "Task"]
