"""What trains the yardstick: our package and its peers, each a process in an environment that has it."""
