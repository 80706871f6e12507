"""Any log: its files, what its columns are, and where its rows go."""
