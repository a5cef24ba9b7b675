"""Pictures, captions and hints to train on: found, cut to size, hints made and kept. Nothing of the host."""
