"""Files of public data sets as typed tables."""
