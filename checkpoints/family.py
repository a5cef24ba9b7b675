"""A kind of file: how it is known, and, if this pack loads it, how."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .about import about_lines
from .base import ConnectedBase
from .canonical import Canonical
from .condition import Condition
from .heads import Heads

METADATA = "the file's metadata"
LOAD_A_CONTROL = "choose a ControlNet file here"


@dataclass(frozen=True)
class Match:
    """What a file is, known from its names, shapes and metadata alone."""

    family: Family
    base: str
    hyperparameters: Any
    """A frozen dataclass with `hint_channels`: EncoderHyperparameters for what has a ControlNet's encoder, else the family's own."""
    heads: Heads
    names: Mapping[str, str]
    """Name in the network -> name in the file."""
    parameter_count: int
    dtype: torch.dtype
    """The dtype that holds most of the file's numbers."""
    pooling: bool | None
    """Global average pooling as the file or what stands beside it says; None where nothing does."""
    notes: tuple[str, ...] = ()
    """What else the description says, one line each."""
    pooling_source: str = METADATA
    """What says so."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the file says of itself in words (about.py)."""

    @property
    def key(self) -> Hashable:
        """Equal for two matches of one file that make the same network."""
        return (self.heads.count, self.heads.width, getattr(self.hyperparameters, "settings", None))

    def describe(self) -> str:
        """Family, base, hint channels, parameters and dtype, one a line."""
        return "\n".join(
            (
                f"family: {self.family.name}",
                f"base: {self.base}",
                f"hint: {_channels(self.hyperparameters.hint_channels)}",
                *about_lines(self.about),
                *self.notes,
                f"parameters: {_short_count(self.parameter_count)}",
                f"weights in the file: {dtype_name(self.dtype)}",
            )
        )


@dataclass(frozen=True)
class Built:
    """A network of the host with its weights, and how the host computes with it."""

    module: Any
    dtype: torch.dtype
    manual_cast_dtype: torch.dtype | None
    load_device: torch.device
    offload_device: torch.device
    notes: tuple[str, ...] = ()
    """What the description says of the network that was built, one line each."""


Kind = Literal["encoder", "adapter", "control lora", "lllite", "xs", "controlnext", "sparsectrl", "ctrlora", "host"]


class Loader(Protocol):
    """How a family's file becomes a network."""

    @property
    def kind(self) -> Kind:
        """What `build` makes: which of the host's classes computes the residuals."""

    @property
    def adds_to_model(self) -> bool:
        """Whether the file holds differences to the connected model's weights, which must be added before `build`."""

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        """Hyperparameters from shapes, with every tensor accounted for. Raises CheckpointError."""

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        """The network with these weights (names of the network); the only step that needs the host."""


@dataclass(frozen=True)
class Family:
    """`name` follows "is": 'a LoRA'. Without a loader the file is refused with `remedy`."""

    name: str
    condition: Condition
    remedy: str = LOAD_A_CONTROL
    loader: Loader | None = None

    @property
    def noun(self) -> str:
        """The name without its article."""
        return self.name.split(" ", 1)[1] if self.name.startswith(("a ", "an ")) else self.name


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _channels(count: int) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"


def _short_count(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count / size < 1000 else f"{count / size:.0f} {unit}"
    return str(count)
