"""Jobs in a process of their own: `worker_client` for the parent, which imports no torch, `worker_main` for the child, which does."""
