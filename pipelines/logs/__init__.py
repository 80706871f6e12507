"""Reading any log: its files, the meaning of its columns, and the splits of its rows."""
