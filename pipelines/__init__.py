"""Pipelines: turn raw logs into TFRecord data sets, with one SQL file and one small reader for each source."""

import dlen_cam2  # noqa: F401  (selects Keras 2 before any module here imports TensorFlow)
