"""Tests of pipelines.logs."""
