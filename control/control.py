"""The control: the host's CONTROL_NET."""

from __future__ import annotations

from comfy.controlnet import ControlBase

from .network import EncoderNetwork


class Control(ControlBase):  # type: ignore[misc]
    """An ordered tuple of layers, evaluated in one place."""

    def __init__(self, network: EncoderNetwork | None = None) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def unbound(cls, network: EncoderNetwork) -> Control:
        """A control that has a network and waits for its hint: what a Load node hands out."""
        return cls(network)
