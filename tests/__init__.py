"""Tests; they mirror the packages."""

from absl import flags


def forget_flags() -> None:
    """Let a second module define --output: two pipelines that are imported in one process both define it."""
    if "output" in flags.FLAGS:
        delattr(flags.FLAGS, "output")
