"""Tests; they mirror the packages."""

import os

import dlen_cam2  # noqa: F401  first of all, for it sets what TensorFlow reads when it is imported

# gRPC's handlers of fork would run in processes that tests start (Spark's), beside servers of other tests.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
