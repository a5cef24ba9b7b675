"""The base that a control was trained for, and whether the connected model is of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .encoder import EncoderHyperparameters
from .errors import BaseMismatchError

# Widths of the pooled vector y.
SDXL_ADM = 2816
REFINER_ADM = 2560


@dataclass(frozen=True)
class ConnectedBase:
    """What the connected model's UNet says of itself; zeros and None where it has no such thing."""

    name: str
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    context_dim: int | None
    adm_in_channels: int | None
    num_heads: int
    num_head_channels: int


def base_name(net: EncoderHyperparameters) -> str:
    """SD1, SD2, SDXL and their kin by name; any other by its sizes."""
    return _name(net.model_channels, net.channel_mult, net.context_dim, net.adm_in_channels)


def _name(width: int, mult: tuple[int, ...], context: int | None, adm: int | None) -> str:
    if width == 320 and mult == (1, 2, 4) and adm == SDXL_ADM:
        return "SDXL"
    if width == 384 and mult == (1, 2, 4, 4) and adm == REFINER_ADM:
        return "SDXL refiner"
    if width == 320 and mult == (1, 2, 4, 4) and context == 768 and adm is None:
        return "SD1"
    if width == 320 and mult == (1, 2, 4, 4) and context == 1024:
        return "SD2" if adm is None else "SD2 unCLIP"
    levels = "-".join(str(factor) for factor in mult)
    text = "no text" if context is None else f"text of {context}"
    pooled = "" if adm is None else f", pooled vector of {adm}"
    return f"custom ({width} channels x {levels}, {text}{pooled})"


def connected_base(model: Any) -> ConnectedBase:
    """Read a host MODEL (comfy.model_patcher.ModelPatcher); one without a Stable Diffusion UNet has 0 channels."""
    model_config = model.model.model_config
    config = model_config.unet_config
    width = int(config.get("model_channels") or 0)
    mult = tuple(config.get("channel_mult") or ())
    context, adm = config.get("context_dim"), config.get("adm_in_channels")
    is_unet = width > 0 and isinstance(context, int | None)
    return ConnectedBase(
        name=_name(width, mult, context, adm) if is_unet else type(model_config).__name__,
        model_channels=width,
        channel_mult=mult,
        num_res_blocks=_per_level(config.get("num_res_blocks"), len(mult)),
        context_dim=context if isinstance(context, int) else None,
        adm_in_channels=adm,
        num_heads=int(config.get("num_heads") or 0),
        num_head_channels=int(config.get("num_head_channels") or 0),
    )


def check_base(path: Path, net: EncoderHyperparameters, connected: ConnectedBase) -> None:
    """Refuse a control whose residuals, text or pooled vector are not those of the connected model, naming both.

    Raises BaseMismatchError.
    """
    same_blocks = (net.model_channels, net.channel_mult, net.num_res_blocks) == (
        connected.model_channels,
        connected.channel_mult,
        connected.num_res_blocks,
    )
    same_text = net.context_dim is None or net.context_dim == connected.context_dim
    # As with text: what a control does not read cannot be the wrong one (SD2 controls on SD2 unCLIP models).
    same_pooled = net.adm_in_channels in (None, connected.adm_in_channels)
    if not (same_blocks and same_text and same_pooled):
        raise other_base(path, base_name(net), connected)


def other_base(path: Path, base: str, connected: ConnectedBase) -> BaseMismatchError:
    """The error for a control of one base and a model of another."""
    return BaseMismatchError(
        path,
        found=f"is a control for the base {base}",
        expected=f"the connected model is of the base {connected.name}",
        remedy="connect a model that it was made for, or choose a control made for the connected one",
    )


def _per_level(value: Any, levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value or ())
