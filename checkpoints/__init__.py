"""Control files: what they are, and the host's network with their weights."""

from .base import connected_base
from .errors import CheckpointError
from .load import Loaded, Opened, load_checkpoint, open_control

__all__ = ["CheckpointError", "Loaded", "Opened", "connected_base", "load_checkpoint", "open_control"]
