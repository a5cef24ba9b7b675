"""Whether a control was made for the model that is about to be sampled."""

from __future__ import annotations

from typing import Any

from ..residuals.blocks import Layout
from .errors import ControlError
from .network import EncoderNetwork, adm_channels_of, context_dim_of, layout_of


def unet_layout(model: Any) -> Layout | None:
    """Blocks of a host model (`comfy.model_base.BaseModel`); None if it is no UNet of Stable Diffusion's kind."""
    unet = model.diffusion_model
    if not all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "model_channels")):
        return None
    return layout_of(unet)


def check_base(network: EncoderNetwork, model: Any) -> None:
    """Raises ControlError, naming both, unless `network` is the encoder of the model's kind of UNet."""
    base = type(model.model_config).__name__
    layout = unet_layout(model)
    if layout is None:
        raise ControlError(
            f"{network.name} is an {network.base} control, but the model is {base}, which has no UNet; use a control made for {base}, "
            f"or a model of base {network.base}."
        )
    unet = model.diffusion_model
    context_dim, adm_channels = context_dim_of(unet), adm_channels_of(unet)
    fits = (
        layout == network.layout
        and network.context_dim in (None, context_dim)
        and network.adm_channels in (None, adm_channels)
    )
    if not fits:
        raise ControlError(
            f"{network.name} is an {network.base} control ({describe(network.layout, network.context_dim, network.adm_channels)}), but "
            f"the model is {base} ({describe(layout, context_dim, adm_channels)}); use a control made for {base}, or a model of base "
            f"{network.base}."
        )
    latents = model.latent_format.latent_channels
    if network.latent_channels != latents:
        raise ControlError(
            f"{network.name} reads latents of {network.latent_channels} channels, but those of the model have {latents}, and a control sees nothing "
            f"that an inpaint model has beside them; use a control made for latents of {latents} channels."
        )


def describe(layout: Layout, context_dim: int | None, adm_channels: int | None) -> str:
    """The numbers by which bases differ, in words."""
    words = [
        f"{layout.connections} connections",
        f"context {context_dim}",
        f"{layout.encoder[0][1]} to {layout.middle[1]} channels",
    ]
    if adm_channels is not None:
        words.append(f"pooled vector {adm_channels}")
    return ", ".join(words)
