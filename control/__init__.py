"""Controls: a network and a hint become residuals inside the host's sampler."""

from .control import Control
from .errors import ControlError
from .network import EncoderNetwork

__all__ = ["Control", "ControlError", "EncoderNetwork"]
