"""The command line: `parser` and `main`. May import every other room; none imports it."""
