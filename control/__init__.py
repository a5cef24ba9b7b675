"""Controls: networks and hints become residuals inside the host's sampler."""

from .adapter import AdapterControl
from .apply import apply_control, layer_of
from .compose import compose_controls
from .control import Control
from .control_lora import LoraControl
from .errors import ControlError
from .foreign import ForeignControl
from .layer import Layer
from .network import EncoderNetwork

__all__ = [
    "AdapterControl",
    "Control",
    "ControlError",
    "EncoderNetwork",
    "ForeignControl",
    "Layer",
    "LoraControl",
    "apply_control",
    "compose_controls",
    "layer_of",
]
