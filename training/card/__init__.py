"""Cards: the model folder of a checkpoint, which claims what the target's description says and nothing else."""
