"""Jobs in a separate process: `worker_client` in the parent, without torch, and `worker_main` in the child, with it; and cohorts."""
