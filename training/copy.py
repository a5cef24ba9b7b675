"""The trainable copy of a UNet's encoder (host side; arXiv 2302.05543, 3.1 and 3.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoints.encoder import EncoderHyperparameters, expected_shapes
from ..checkpoints.encoder_shapes import MissingNameError, read_encoder
from .attention import options
from .errors import TrainingError
from .hint_network import embed
from .layers import TrainingOperations
from .lite import LiteControl
from .start import Start, start_layers

Form = Literal["copy", "lite"]
COPIED = ("input_blocks.", "middle_block.", "time_embed.", "label_emb.")
LATENT_CHANNELS = 4
SUBJECT = "The connected model's UNet"


class TrainableCopy(ControlNet):
    """The host's ControlNet with plain layers. Its state dict has the names of cldm, which every loader reads."""

    gradient_checkpointing = False
    """Whether the backward pass computes each block anew in place of keeping what is inside."""

    def forward(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, **_: Any
    ) -> dict[str, list[Tensor]]:
        """The residuals of one call of the UNet, each before any weight, as `control` of the host's UNet wants them.

        x (B, 4, h, w), hint (B, C, 8h, 8w) in 0..1, timesteps (B,), context (B, tokens, width), y (B, width) or None.
        """
        x, context = x.to(self.dtype), context.to(self.dtype)
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(self.dtype))
        if self.num_classes is not None:
            assert y is not None, "a base that reads y was given one"
            emb = emb + self.label_emb(y.to(self.dtype))
        guided: Tensor | None = self._embedded(hint.to(self.dtype))
        output = []
        for block, zero_convolution in zip(self.input_blocks, self.zero_convs, strict=True):
            x = self._block(block, x, emb, context)
            if guided is not None:
                x, guided = x + guided, None
            output.append(zero_convolution(x, emb, context))
        x = self._block(self.middle_block, x, emb, context)
        return {"output": output, "middle": [self.middle_block_out(x, emb, context)]}

    def _embedded(self, hint: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            kept: Tensor = checkpoint(embed, self.input_hint_block, hint, use_reentrant=False)
            return kept
        return embed(self.input_hint_block, hint)

    def _block(self, block: nn.Module, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            kept: Tensor = checkpoint(block, x, emb, context, options(), use_reentrant=False)
            return kept
        out: Tensor = block(x, emb, context, options())
        return out


def trainable_copy(
    unet: nn.Module,
    hint_channels: int = 3,
    start: Start = "zero",
    form: Form = "copy",
    *,
    seed: int = 0,
    device: torch.device | None = None,
) -> nn.Module:
    """A control for a UNet of the host (`comfy.ldm…UNetModel` of SD1, SD2, SDXL or the demo world), float32, ready to train.

    With `start="zero"` the UNet's output beside it is the UNet's own. "gaussian" and `form="lite"` are the paper's ablations. `seed` decides
    the layers that are not copied; `device` is the UNet's unless told. Raises TrainingError for another kind of UNet.
    """
    if not 1 <= hint_channels <= 2**10:
        raise TrainingError(
            "The trainable copy",
            found=f"was asked to read hints of {hint_channels} channels",
            expected="1 to 1024 were expected",
            remedy="use 3 for pictures",
        )
    net = encoder_of(unet, hint_channels)
    weights = {name: tensor for name, tensor in unet.state_dict().items() if name.startswith(COPIED)}
    device = device or next(iter(weights.values())).device
    control: Any
    if form == "lite":
        control = LiteControl(net).to(device)
    else:
        control = TrainableCopy(**arguments(unet, net), operations=TrainingOperations, device=torch.device("meta"))
        control.to_empty(device=device)
        copied = {name: tensor.to(device, torch.float32) for name, tensor in weights.items()}
        left = control.load_state_dict(copied, strict=False)
        assert not left.unexpected_keys, "encoder_of compared the names"
    hint_layers = [layer for layer in control.input_hint_block if isinstance(layer, nn.Conv2d)]
    start_layers(hint_layers, zero_convolutions(control), start, seed)
    trainable: nn.Module = control.train().requires_grad_(True)
    return trainable


def zero_convolutions(control: Any) -> list[nn.Conv2d]:
    """Those behind the blocks and the middle (Z(…; Θz2)); that of the input is the hint network's last layer."""
    return [layer for layers in (*control.zero_convs, control.middle_block_out) for layer in layers]


def encoder_of(unet: nn.Module, hint_channels: int) -> EncoderHyperparameters:
    """What a control for this UNet looks like. Raises TrainingError where it is no UNet of Stable Diffusion's encoder."""
    if not isinstance(unet, UNetModel):
        raise _foreign(f"is a {type(unet).__name__}")
    shapes = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items() if name.startswith(COPIED)}
    try:
        net = read_encoder(shapes | {"input_hint_block.0.weight": (16, hint_channels, 3, 3)})
    except MissingNameError as error:
        raise _foreign(f"has no tensor '{error}' of the expected kind") from None
    expected = {name: shape for name, shape in expected_shapes(net).items() if name.startswith(COPIED)}
    different = sorted(name for name in expected.keys() | shapes if expected.get(name) != shapes.get(name))
    if different:
        raise _foreign(f"has another encoder (first difference: '{different[0]}')")
    if net.in_channels != LATENT_CHANNELS:
        raise TrainingError(
            SUBJECT,
            found=f"reads {net.in_channels} channels",
            expected="the 4 of a latent were expected, since the host gives a control nothing else",
            remedy="connect the model that it was made from, not its version for inpainting or depth",
        )
    return net


def heads_of(unet: Any) -> dict[str, int]:
    """The number of attention heads or the width of each, under the name that the host and a file's metadata have for it."""
    told = {"num_heads": unet.num_heads, "num_head_channels": unet.num_head_channels}
    # With both, the host goes by the width.
    return {
        name: value
        for name, value in told.items()
        if value > 0 and (name != "num_heads" or told["num_head_channels"] <= 0)
    }


def arguments(unet: Any, net: EncoderHyperparameters) -> dict[str, Any]:
    """What the host's ControlNet class wants to know."""
    return {
        "image_size": 32,
        "in_channels": net.in_channels,
        "model_channels": net.model_channels,
        "hint_channels": net.hint_channels,
        "num_res_blocks": list(net.num_res_blocks),
        "channel_mult": list(net.channel_mult),
        "num_classes": None if net.adm_in_channels is None else "sequential",
        "adm_in_channels": net.adm_in_channels,
        "num_heads": unet.num_heads,
        "num_head_channels": unet.num_head_channels,
        "use_spatial_transformer": True,
        "transformer_depth": list(net.transformer_depth),
        "transformer_depth_middle": net.transformer_depth_middle,
        "context_dim": net.context_dim or 1,
        "legacy": False,
        "use_linear_in_transformer": net.use_linear_in_transformer,
        "dtype": torch.float32,
    }


def _foreign(found: str) -> TrainingError:
    return TrainingError(
        SUBJECT,
        found=found,
        expected="the UNet of SD1, SD2, SDXL or the demo world was expected",
        remedy="connect such a model",
    )
