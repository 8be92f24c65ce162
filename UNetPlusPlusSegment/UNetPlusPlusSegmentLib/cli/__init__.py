"""The command line: `parser` and `main`. Imports any other room; nothing imports it."""
