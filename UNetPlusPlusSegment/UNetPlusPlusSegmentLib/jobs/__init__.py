"""Jobs in a process of their own: `client` for the parent, which never imports torch, and `worker` for the child, which does."""
