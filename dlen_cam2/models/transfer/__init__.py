"""Transfer: what tasks hand to each other between towers and head, a paper each."""
