"""Multi-task ranking for feeds in TensorFlow: shared bottom, MMOE, CGC, PLE and DLEN.

Importing the package selects Keras 2 (`tf_keras`), because tensorflow-recommenders refuses Keras 3;
`BUILD.md` holds the measurements behind that choice.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf  # noqa: E402

if not tf.keras.layers.Dense.__module__.startswith("tf_keras"):
    raise ImportError(
        "dlen_cam2 needs tf.keras to be Keras 2 (package tf_keras). Set the environment variable "
        "TF_USE_LEGACY_KERAS=1 before TensorFlow is first imported, or import dlen_cam2 first. "
        f"Received: tf.keras.layers.Dense from {tf.keras.layers.Dense.__module__}, "
        f"TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']!r}."
    )

__version__ = "0.1.0"
