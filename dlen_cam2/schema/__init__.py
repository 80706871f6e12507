"""The schema: what the columns of a data set are, and the file that describes them."""

from dlen_cam2.schema.columns import Feature, Task
from dlen_cam2.schema.computed import Computed, Known
from dlen_cam2.schema.schema import KEYS, Schema

__all__ = ["KEYS", "Computed", "Feature", "Known", "Schema", "Task"]
