"""The command line: `parser` and `main`. May import every other folder; none imports it."""
