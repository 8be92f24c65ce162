"""One training: its settings, its losses, and its steps (Lightning)."""
