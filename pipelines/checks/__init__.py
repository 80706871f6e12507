"""The checks of a data set, a module each, and the page that shows what they found."""
