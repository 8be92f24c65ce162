"""Cards: the model folder of a checkpoint, which claims what the target and the start of its training say, and nothing else."""
