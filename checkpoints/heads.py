"""The number of attention heads: the one thing about a ControlNet that its shapes do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .base import ConnectedBase
from .encoder import EncoderHyperparameters
from .errors import AmbiguousHeadsError

Source = Literal["metadata", "config.json", "model", "convention", "no attention", "base file", "host"]


@dataclass(frozen=True)
class Heads:
    """Either a number of heads that is the same at every width, or a width of each head; and how that is known."""

    count: int | None
    width: int | None
    source: Source

    def fits(self, net: EncoderHyperparameters) -> bool:
        return all(channels % (self.count or self.width or 1) == 0 for channels in net.attention_channels)


# (model channels, channel_mult, context, linear) -> heads, as the bases that are in use were trained (their v1/v2/XL inference yamls).
# Diffusers' configs call the number of heads `attention_head_dim`.
CONVENTIONS = {
    (320, (1, 2, 4, 4), 768, False): Heads(count=8, width=None, source="convention"),
    (320, (1, 2, 4, 4), 1024, True): Heads(count=None, width=64, source="convention"),
    (320, (1, 2, 4), 2048, True): Heads(count=None, width=64, source="convention"),
    (384, (1, 2, 4, 4), 1280, True): Heads(count=None, width=64, source="convention"),
}


def resolve_heads(
    path: Path,
    net: EncoderHyperparameters,
    metadata: Mapping[str, str],
    connected: ConnectedBase | None,
    config: Mapping[str, Any] | None = None,
) -> Heads:
    """The heads by the file's metadata, else by diffusers' `config` beside it, by the connected model, or by the base's convention.

    Raises AmbiguousHeadsError rather than guess: a wrong number changes the picture without any error.
    """
    if not net.attention_channels:
        return Heads(count=None, width=net.model_channels, source="no attention")
    found = (
        _from_metadata(metadata)
        or _from_config(net, config or {})
        or _from_model(net, connected)
        or _from_convention(net)
    )
    if found is None:
        raise _ambiguous(
            path, f"splits {_widths(net)} channels into a number of attention heads that its shapes cannot tell"
        )
    if not found.fits(net):
        what = f"{found.count} heads" if found.count else f"heads of {found.width} channels"
        raise _ambiguous(
            path, f"is said to have {what} (source: {found.source}), into which {_widths(net)} channels do not divide"
        )
    return found


def _widths(net: EncoderHyperparameters) -> str:
    return "/".join(str(channels) for channels in net.attention_channels)


def _ambiguous(path: Path, found: str) -> AmbiguousHeadsError:
    return AmbiguousHeadsError(
        path,
        found=found,
        expected="the number must be the one it was trained with",
        remedy="connect the model that it was trained for, or save it with 'num_head_channels' or 'num_heads' in its safetensors metadata",
    )


def _from_metadata(metadata: Mapping[str, str]) -> Heads | None:
    width, count = _number(metadata.get("num_head_channels")), _number(metadata.get("num_heads"))
    if width is not None:
        return Heads(count=None, width=width, source="metadata")
    return Heads(count=count, width=None, source="metadata") if count is not None else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and 0 < int(text) < 2**16 else None


def _from_config(net: EncoderHyperparameters, config: Mapping[str, Any]) -> Heads | None:
    """What diffusers' config.json tells, if it is that of a ControlNet of these widths and this text: in a folder of many files it may be another's.

    `attention_head_dim` is a number of heads, in spite of its name, where there is no `num_attention_heads` (diffusers, models/controlnets/controlnet.py).
    """
    widths = [mult * net.model_channels for mult in net.channel_mult]
    if "ControlNet" not in str(config.get("_class_name")) or config.get("block_out_channels") != widths:
        return None
    # SD1 and SD2 have the same widths and other heads; older configs leave out what is the class's default.
    if net.context_dim not in (None, config.get("cross_attention_dim", net.context_dim)):
        return None
    told = config.get("num_attention_heads") or config.get("attention_head_dim")
    counts = told if isinstance(told, list) else [told] * len(widths)
    if len(counts) != len(widths) or not all(type(count) is int and 0 < count < 2**16 for count in counts):
        return None
    pairs = [(width, count) for width, count in zip(widths, counts, strict=True) if width in net.attention_channels]
    if len({count for _, count in pairs}) == 1:
        return Heads(count=pairs[0][1], width=None, source="config.json")
    if len({width / count for width, count in pairs}) == 1 and pairs[0][0] % pairs[0][1] == 0:
        return Heads(count=None, width=pairs[0][0] // pairs[0][1], source="config.json")
    return None


def _from_model(net: EncoderHyperparameters, connected: ConnectedBase | None) -> Heads | None:
    if connected is None or connected.model_channels != net.model_channels:
        return None
    if connected.num_head_channels > 0:
        return Heads(count=None, width=connected.num_head_channels, source="model")
    return Heads(count=connected.num_heads, width=None, source="model") if connected.num_heads > 0 else None


def _from_convention(net: EncoderHyperparameters) -> Heads | None:
    key = (net.model_channels, net.channel_mult, net.context_dim, net.use_linear_in_transformer)
    return CONVENTIONS.get(key)  # type: ignore[arg-type]
