"""The commands, a module each: flags, then one call."""
