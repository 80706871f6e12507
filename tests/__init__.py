"""Tests; they mirror the packages."""

import dlen_cam2  # noqa: F401  first of all, for it sets what TensorFlow reads when it is imported
