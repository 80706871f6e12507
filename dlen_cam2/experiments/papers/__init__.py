"""The tables of papers, a module each."""
