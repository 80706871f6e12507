"""The checks of a data set, one module for each, and the page that shows their findings."""
