"""A training: its settings, losses, augmentation, data, steps and trainer (Lightning)."""
