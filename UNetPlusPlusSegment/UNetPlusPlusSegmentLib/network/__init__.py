"""The network, its weights on disk and the device that it runs on. `bundle` reads cards without torch; imports only core."""
