"""Controls: a network and a hint become residuals inside the host's sampler."""

from .apply import apply_control
from .control import Control
from .errors import ControlError
from .layer import Layer
from .network import EncoderNetwork

__all__ = ["Control", "ControlError", "EncoderNetwork", "Layer", "apply_control"]
