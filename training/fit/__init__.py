"""A training: its settings, losses, data, steps and trainer (Lightning), and the fit of a nodule model's decision."""
