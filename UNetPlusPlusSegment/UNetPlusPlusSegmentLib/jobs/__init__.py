"""Jobs in a separate process: `worker_client` for the parent, which does not import torch, `worker_main` for the child, which does."""
