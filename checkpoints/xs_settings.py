"""What the shapes of a ControlNet-XS do not tell: heads, share of its time embedding, order of the hint's channels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

from .base import ConnectedBase
from .encoder import NO_ATTENTION
from .errors import AmbiguousHeadsError, short
from .heads import Source
from .xs import XSHyperparameters

Layout = Literal["adapter", "model", "original"]
"""Diffusers' ControlNetXSAdapter (0.28 and later), its ControlNetXSModel (0.25 to 0.27), and vislearn/ControlNet-XS itself."""

CLASSES = ("ControlNetXSAdapter", "ControlNetXSModel")
LONGEST_LIST = 16
SHARE_POWER = 0.3
"""Of `time_embedding_mix` the control's share is this power (diffusers' UNetControlNetXSModel.forward)."""


@dataclass(frozen=True)
class XSSettings:
    heads: tuple[int, ...]
    """Number of attention heads at each level."""
    time_mix: float | None
    """Diffusers' `time_embedding_mix`; None without a time embedding of its own."""
    bgr: bool = False
    """Whether it was trained with blue before green before red."""
    source: Source = field(default="metadata", compare=False)
    """How the heads are known."""

    @property
    def time_share(self) -> float:
        """The share of the control's own time embedding in that of control and model, 0 to 1."""
        return 0.0 if self.time_mix is None else float(self.time_mix**SHARE_POWER)


@dataclass(frozen=True)
class Published:
    """Width of heads (at least one head everywhere) or their number, and the mix in each layout, as the released networks have them."""

    head_width: int
    heads: int | None
    mix: Mapping[Layout, float]


# (base, stream) -> settings: config.json of UmerHA/Testing-ConrolNetXS-* (adapter) and UmerHA/ConrolNetXS-* (model), and the yaml files of
# vislearn/ControlNet-XS, which mixes by its control_scale, 1 unless the user says otherwise.
PUBLISHED = {
    ("SD2", (4, 8, 16, 16)): Published(8, None, {"adapter": 1.0, "model": 1.0, "original": 1.0}),
    ("SDXL", (32, 64, 128)): Published(64, None, {"adapter": 1.0, "model": 0.95, "original": 1.0}),
    ("SDXL", (16, 32, 64)): Published(64, None, {}),
    ("SD1", (64, 128, 256, 256)): Published(0, 8, {}),
}


def resolve_settings(
    path: Path,
    net: XSHyperparameters,
    base: str,
    layout: Layout,
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    connected: ConnectedBase | None,
) -> XSSettings:
    """By the file's metadata, else by diffusers' `config` beside it, else as the published networks of these sizes, else, for the heads alone, as
    diffusers takes them over from the connected model.

    Raises AmbiguousHeadsError rather than guess: a wrong number changes the picture without any error.
    """
    said = {name: parsed(text) for name, text in metadata.items()}
    config = of_this(config, net)
    told = {**config, **said}
    known = PUBLISHED.get((base, net.channels))
    heads, source = _heads(net, said, config, known, connected)
    if heads is None or not fit(heads, net):
        stream = "-".join(str(channels) for channels in net.channels)
        number = (
            "that its shapes cannot tell" if heads is None else f"said to be {'-'.join(map(str, heads))} ({source})"
        )
        raise AmbiguousHeadsError(
            path,
            found=f"splits a control stream of {stream} channels into numbers of attention heads {number}",
            expected="they must be those it was trained with",
            remedy="put the config.json that diffusers saved with it beside it, or save it with 'num_attention_heads' in its safetensors metadata",
        )
    return XSSettings(heads, _mix(path, net, layout, told, known), _bgr(told), source)


def fit(heads: tuple[int, ...], net: XSHyperparameters) -> bool:
    return len(heads) == net.levels and all(
        number > 0 and inner % number == 0 and inner // number == channels // number
        for number, inner, channels, used in zip(heads, net.inner, net.channels, _attends(net), strict=True)
        if used
    )


def _attends(net: XSHyperparameters) -> list[bool]:
    pairs = zip(net.depth[::2], net.depth[1::2], strict=True)
    used = [max(pair) != NO_ATTENTION for pair in pairs]
    used[-1] = used[-1] or net.depth_middle != NO_ATTENTION
    return used


def _heads(
    net: XSHyperparameters,
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    known: Published | None,
    connected: ConnectedBase | None,
) -> tuple[tuple[int, ...] | None, Source]:
    if not any(_attends(net)):
        return (1,) * net.levels, "no attention"
    if (heads := _told(net, metadata)) is not None:
        return heads, "metadata"
    if (heads := _told(net, config)) is not None:
        return heads, "config.json"
    if known is not None:
        return by_width(net, known.head_width) if known.heads is None else (known.heads,) * net.levels, "convention"
    return _from_model(net, connected), "model"


def _told(net: XSHyperparameters, told: Mapping[str, Any]) -> tuple[int, ...] | None:
    # Diffusers' older class calls the number of heads `attention_head_dim`, as its UNet does.
    for name in ("num_attention_heads", "num_heads", "attention_head_dim"):
        listed = told.get(name)
        if is_count(listed):
            return (listed,) * net.levels
        if isinstance(listed, list) and 0 < len(listed) <= LONGEST_LIST and all(is_count(number) for number in listed):
            return tuple(listed)
    width = told.get("num_head_channels")
    return by_width(net, width) if is_count(width) else None


def is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16


def by_width(net: XSHyperparameters, width: int) -> tuple[int, ...]:
    """Heads of so many channels, at least one at each level."""
    return tuple(max(1, channels // width) for channels in net.channels)


def _from_model(net: XSHyperparameters, connected: ConnectedBase | None) -> tuple[int, ...] | None:
    """As diffusers' `ControlNetXSAdapter.from_unet` does where it is told no number: the model's own, level by level."""
    if connected is None:
        return None
    if connected.num_head_channels > 0:
        return tuple(channels // connected.num_head_channels for channels in net.base_channels)
    return (connected.num_heads,) * net.levels if connected.num_heads > 0 else None


def _mix(
    path: Path, net: XSHyperparameters, layout: Layout, told: Mapping[str, Any], known: Published | None
) -> float | None:
    learned = told.get("learn_time_embedding", told.get("learn_embedding"))
    if not net.own_time or learned is False:
        return None
    mix = told.get("time_embedding_mix")
    if isinstance(mix, int | float) and not isinstance(mix, bool):
        if 0 <= mix <= 1:
            return float(mix)
        found, expected = f"is said to mix time embeddings by {short(str(mix))}", "a number from 0 to 1 was expected"
    elif known is not None and layout in known.mix:
        return known.mix[layout]
    else:
        found = "has a time embedding of its own, whose share in the model's its shapes cannot tell"
        expected = "it must be the one it was trained with"
    raise AmbiguousHeadsError(
        path,
        found=found,
        expected=expected,
        remedy="put the config.json that diffusers saved with it beside it, or save it with 'time_embedding_mix' in its safetensors metadata",
    )


def _bgr(told: Mapping[str, Any]) -> bool:
    names = ("conditioning_channel_order", "controlnet_conditioning_channel_order")
    return any(told.get(name) == "bgr" for name in names)


def parsed(text: str) -> Any:
    """A value of the metadata: JSON, numbers with commas between them, or a word."""
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return text


def of_this(config: Mapping[str, Any], net: XSHyperparameters) -> Mapping[str, Any]:
    """What diffusers wrote into the `config.json` beside the file, if it is that of a network of these sizes."""
    same = config.get("_class_name") in CLASSES and config.get("block_out_channels") == list(net.channels)
    return config if same else {}
