"""Tests of the online features."""
