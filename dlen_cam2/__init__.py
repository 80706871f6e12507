"""Multi-task ranking for feeds in TensorFlow: shared bottom, MMOE, CGC, PLE, DLEN, ESMM and CAM2.

The Python API is `dlen_cam2.api`: `open`, `Model`, `load`, and the parts of a model. This package exports all of them.

Importing the package selects Keras 2 (`tf_keras`), because tensorflow-recommenders refuses Keras 3. It also selects
oneDNN's operations, which TensorFlow leaves off on processors without AVX-512. `docs/decisions/tooling.md` and
`docs/decisions/speed.md` give the reasons and the measurements.
"""

import importlib
import os
import sys
from typing import Any

from dlen_cam2.utils import quiet_start

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# No lines that TensorFlow's C++ calls errors: a machine without a GPU gives some, and `rebatch` one for each column of
# a batch that it joins of two pieces. What stops a job is an exception, and what is fatal is printed at any level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
quiet_start.install()

# TensorFlow decides when it is first imported, perhaps by us later on, perhaps by somebody else before us.
_LEGACY = os.environ["TF_USE_LEGACY_KERAS"]
if "tensorflow" in sys.modules:
    _KERAS = sys.modules["tensorflow"].keras.layers.Dense.__module__
else:
    _KERAS = "tf_keras" if _LEGACY.lower() in ("1", "true") else "keras"
if not _KERAS.startswith("tf_keras"):
    raise ImportError(
        "dlen_cam2 needs tf.keras to be Keras 2 (package tf_keras). Set the environment variable "
        "TF_USE_LEGACY_KERAS=1 before TensorFlow is first imported, or import dlen_cam2 first. "
        f"Received: tf.keras.layers.Dense from {_KERAS}, TF_USE_LEGACY_KERAS={_LEGACY!r}."
    )

__version__ = "0.2.0"

# The Python API, by name; what it needs is imported when it is first asked for, so that commands start quickly.
_API = {
    **dict.fromkeys(("Dataset", "Model", "load", "open"), "dlen_cam2.api"),
    **dict.fromkeys(
        ("CAM2", "CGC", "DLEN", "ESMM", "MMOE", "PLE", "Logistic", "Mean", "SharedBottom"), "dlen_cam2.models"
    ),
    **dict.fromkeys(("Config", "ModelConfig", "TrainConfig"), "dlen_cam2.config"),
    **dict.fromkeys(("Feature", "Schema", "Task"), "dlen_cam2.schema"),
}


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'dlen_cam2' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted([*_API, *(name for name in globals() if name.startswith("__"))])
