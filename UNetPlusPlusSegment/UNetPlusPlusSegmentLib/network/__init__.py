"""The network, its weights on disk and the device that it runs on. `bundle` reads cards without torch; imports no other room but core."""
