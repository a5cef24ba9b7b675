"""ControlNet-XS by diffusers, beside the host's UNet with the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.utils
import diffusers
import torch
from torch import Tensor, nn

from control_composer.tests import narrow

Call = tuple[tuple[Any, ...], dict[str, Any], Tensor]


def diffusers_unet(model: Any) -> Any:
    """Diffusers' UNet2DConditionModel with the weights of a host MODEL."""
    config = model.model.model_config.unet_config
    mult, width = config["channel_mult"], config["model_channels"]
    widths = [width * factor for factor in mult]
    depths = config["transformer_depth"][::2]
    attention = ["CrossAttn" if depth else "" for depth in depths]
    heads = config.get("num_heads", -1)
    pooled = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": config["adm_in_channels"],
    }
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=16,
            block_out_channels=widths,
            down_block_types=[f"{name}DownBlock2D" for name in attention],
            up_block_types=[f"{name}UpBlock2D" for name in reversed(attention)],
            layers_per_block=2,
            cross_attention_dim=config["context_dim"],
            transformer_layers_per_block=[max(1, depth) for depth in depths[:-1]]
            + [config["transformer_depth_middle"]],
            attention_head_dim=heads if heads > 0 else [channels // config["num_head_channels"] for channels in widths],
            use_linear_projection=config["use_linear_in_transformer"],
            **(pooled if config["adm_in_channels"] else {}),
        )
    names = comfy.utils.unet_to_diffusers(config)
    weights = model.model.diffusion_model.state_dict()
    unet.load_state_dict({name: weights[names[name]] for name in unet.state_dict()}, assign=True)
    return unet.eval()


def adapter_for(
    unet: Any, channels: Sequence[int], heads: Sequence[int], mix: float | None = None, seed: int = 3, **changes: Any
) -> Any:
    """A ControlNetXSAdapter with random weights, its zero convolutions included; `mix` gives it a time embedding of its own."""
    adapter = diffusers.ControlNetXSAdapter.from_unet(
        unet,
        block_out_channels=list(channels),
        num_attention_heads=list(heads),
        learn_time_embedding=mix is not None,
        time_embedding_mix=1.0 if mix is None else mix,
        **changes,
    )
    narrow.fill(adapter, seed)
    return adapter.eval()


def fused(unet: Any, adapter: Any, as_made: bool = False) -> Any:
    """Both as diffusers' UNetControlNetXSModel, sharing their weights, with the settings of the norms as these two have them.

    `from_unet` makes the blocks anew: those of the model with the epsilon of its classes' defaults (1e-6 for 1e-5), and those of the control with the
    groups of its very first norm as the largest number. `as_made` leaves it so.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weights are not copied to where there is no memory
        whole = diffusers.UNetControlNetXSModel.from_unet(unet, adapter)
    for one, other in pairs(unet, adapter, whole):
        other.load_state_dict(one.state_dict(), assign=True)
        if not as_made:
            as_in(one, other)
    assert not any(parameter.is_meta for parameter in whole.parameters())
    return whole.eval()


def pairs(unet: Any, adapter: Any, whole: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each part of the two and the part of the whole that has its weights."""
    for part in ("time_embedding", "conv_in", "conv_norm_out", "conv_out", "add_embedding"):
        if getattr(unet, part, None) is not None:
            yield getattr(unet, part), getattr(whole, f"base_{part}")
    for part in ("controlnet_cond_embedding", "control_to_base_for_conv_in"):
        yield getattr(adapter, part), getattr(whole, part)
    yield adapter.conv_in, whole.ctrl_conv_in
    if adapter.time_embedding is not None:
        yield adapter.time_embedding, whole.ctrl_time_embedding
    for base, control, both in zip(unet.down_blocks, adapter.down_blocks, whole.down_blocks, strict=True):
        yield from ((base.resnets, both.base_resnets), (control.resnets, both.ctrl_resnets))
        yield from ((control.base_to_ctrl, both.base_to_ctrl), (control.ctrl_to_base, both.ctrl_to_base))
        if hasattr(base, "attentions"):
            yield from ((base.attentions, both.base_attentions), (control.attentions, both.ctrl_attentions))
        if base.downsamplers is not None:
            yield from ((base.downsamplers[0], both.base_downsamplers), (control.downsamplers, both.ctrl_downsamplers))
    yield unet.mid_block, whole.mid_block.base_midblock
    yield adapter.mid_block.midblock, whole.mid_block.ctrl_midblock
    yield adapter.mid_block.base_to_ctrl, whole.mid_block.base_to_ctrl
    yield adapter.mid_block.ctrl_to_base, whole.mid_block.ctrl_to_base
    for base, control, both in zip(unet.up_blocks, adapter.up_connections, whole.up_blocks, strict=True):
        yield from ((base.resnets, both.resnets), (control.ctrl_to_base, both.ctrl_to_base))
        if hasattr(base, "attentions"):
            yield base.attentions, both.attentions
        if base.upsamplers is not None:
            yield base.upsamplers[0], both.upsamplers


def as_in(one: nn.Module, other: nn.Module) -> None:
    """Gives the norms of `other` the groups and epsilons of `one`."""
    for a, b in zip(one.modules(), other.modules(), strict=True):
        if isinstance(a, nn.GroupNorm):
            assert isinstance(b, nn.GroupNorm)
            b.num_groups, b.eps = a.num_groups, a.eps


@dataclass
class Watched:
    """What the host's UNet was called with, and what it gave."""

    calls: list[Call]

    def worst(self, whole: Any, hint: Tensor, scale: float = 1.0) -> float:
        """The largest relative difference of its outputs from those of diffusers, the hint (1 or B, channels, H, W) being the same for all."""
        return max(narrow.relative(output, reference(whole, call, hint, scale)) for *call, output in self.calls)


@torch.no_grad()
def reference(whole: Any, call: Sequence[Any], hint: Tensor, scale: float) -> Tensor:
    (x, timesteps, *_), given = call
    rows, (height, width) = x.shape[0], x.shape[-2:]
    added: dict[str, Any] = {}
    if given.get("y") is not None:
        sizes = torch.tensor([[8 * height, 8 * width, 0, 0, 8 * height, 8 * width]] * rows)
        added = {"added_cond_kwargs": {"text_embeds": given["y"][:, :1280], "time_ids": sizes}}
    hint = hint.repeat(rows // hint.shape[0], 1, 1, 1)
    found = whole(x, timesteps, given["context"], controlnet_cond=hint, conditioning_scale=scale, **added)
    sample: Tensor = found.sample
    return sample


@contextmanager
def watched(model: Any) -> Iterator[Watched]:
    """Keeps every call of the host's UNet."""
    seen = Watched([])

    def keep(module: Any, args: Any, kwargs: Any, output: Tensor) -> None:
        seen.calls.append((tuple(args), dict(kwargs), output.clone()))

    handle = model.model.diffusion_model.register_forward_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
