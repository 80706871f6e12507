"""A local stand-in for TensorFlow Serving, for tests and trying out."""
