"""Keras callbacks that run beside the training steps."""
