"""Writing a data set, as a whole or not at all, and reading it back as stored."""
