"""Training a ControlNet: trainable copy, data, loop. No nodes in here; the host is imported only by files that say so."""
