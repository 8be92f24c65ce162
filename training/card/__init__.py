"""Cards: the text and values for each target, and the model folder of a checkpoint."""
