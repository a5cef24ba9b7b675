"""Controls: networks and hints become residuals inside the host's sampler."""

from .apply import apply_control, layer_of
from .compose import compose_controls
from .control import Control
from .errors import ControlError
from .layer import Layer
from .network import EncoderNetwork

__all__ = ["Control", "ControlError", "EncoderNetwork", "Layer", "apply_control", "compose_controls", "layer_of"]
