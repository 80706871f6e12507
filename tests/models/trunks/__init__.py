"""Tests of trunks."""
