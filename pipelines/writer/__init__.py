"""A data set on disk: written as a whole or not at all, and read back as it is stored."""
