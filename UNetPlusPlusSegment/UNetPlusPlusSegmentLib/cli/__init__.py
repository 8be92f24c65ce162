"""The command line: its start, its commands and their arguments. May import every other folder; none imports it."""
