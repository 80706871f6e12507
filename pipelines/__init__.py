"""Raw logs in, TFRecord data sets out. One SQL file and one small reader per source."""

import dlen_cam2  # noqa: F401  (selects Keras 2 before any module here imports TensorFlow)
