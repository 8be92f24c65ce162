"""What a model folder says of its target, and the model folder of a checkpoint."""
