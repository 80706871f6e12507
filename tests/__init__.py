"""Tests; they mirror the packages."""

import os

import dlen_cam2  # noqa: F401  first of all, for it sets what TensorFlow reads when it is imported

# gRPC's handlers of fork would run in processes that tests start (Spark's), beside servers of other tests.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# An operation of networks as small as the tests' takes less time than it takes to divide it among threads.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
