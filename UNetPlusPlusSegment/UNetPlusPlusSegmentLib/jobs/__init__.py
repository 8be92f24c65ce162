"""Jobs in a process of their own: `worker_client` for the parent, which never imports torch, and `worker_main` for the child, which does."""
