"""A schema proposed for a log: what names say, what values say, and what follows."""
