"""Controls: networks and hints become residuals inside the host's sampler."""

from .adapter import AdapterControl
from .apply import apply_control, layer_of
from .compose import compose_controls
from .control import Control
from .control_lora import LoraControl
from .errors import ControlError
from .foreign import ForeignControl
from .frame_indices import FrameIndices
from .layer import Layer
from .lllite import LLLiteNetwork
from .network import EncoderNetwork
from .sparsectrl import SparseControl

__all__ = [
    "AdapterControl",
    "Control",
    "ControlError",
    "EncoderNetwork",
    "ForeignControl",
    "FrameIndices",
    "LLLiteNetwork",
    "Layer",
    "LoraControl",
    "SparseControl",
    "apply_control",
    "compose_controls",
    "layer_of",
]
