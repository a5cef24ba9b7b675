"""Controls of transformer models and of Stable Cascade, which the host's own loader reads and the host's classes compute.

Sources: `load_controlnet_state_dict` and `load_t2i_adapter` of ComfyUI's `comfy/controlnet.py`, whose order this is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..base import ConnectedBase, other_base
from ..canonical import Canonical
from ..condition import AllOf, AnyOf, Condition, Key, NoneOf, Starting
from ..encoder_shapes import SCALES, incomplete
from ..errors import HostLoaderError
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..tensors import main_dtype

PICTURE = 3


@dataclass(frozen=True)
class HostHyperparameters:
    """What this pack needs to know of a network that the host computes."""

    hint_channels: int
    path: Path
    """For messages."""


@dataclass(frozen=True)
class HostLoader:
    """The file as it is, for the host's loader. `base` begins the names of the host's models that it steers."""

    base: str
    hint: str = ""
    """The tensor whose inputs are the hint's channels, where a hint need be no picture."""
    kind: Kind = "host"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        """Shapes are the host's business, but for those that promise numbers which the file does not hold."""
        empty = [name for name, info in file.tensors.items() if info.numel == 0]
        if empty:
            raise incomplete(file.path, family.noun, empty, ())
        # The host's loader of controls passes them over without a word.
        scaled = next((name for name in file.tensors if name.endswith(SCALES)), None)
        if scaled is not None:
            raise HostLoaderError(
                file.path,
                found=f"is {family.name} with quantised weights (it has the key '{scaled}')",
                expected="plain weights were expected, because the host's loader of controls knows no others",
                remedy="choose its float16, bfloat16 or plain float8 version",
            )
        if connected is not None and (connected.model_channels or not connected.name.startswith(self.base)):
            raise other_base(file.path, self.base, connected)
        hint = file.tensors[self.hint].shape if self.hint else (0, PICTURE)
        return Match(
            family=family,
            base=self.base,
            hyperparameters=HostHyperparameters(hint[1] if len(hint) > 1 else PICTURE, file.path),
            heads=Heads(count=None, width=None, source="host"),
            names={name: info.name for name, info in file.tensors.items()},
            parameter_count=sum(info.numel for info in file.tensors.values()),
            dtype=main_dtype(file.tensors.values()),
            pooling=None,
            notes=("loaded and computed by: the host, whose residuals are weighted as they come",),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        """The host's control. Raises HostLoaderError."""
        from ..build_host import build_host

        return build_host(match, tensors)


def family(name: str, base: str, *parts: Condition | str, hint: str = "") -> Family:
    return Family(name, AllOf(*parts), loader=HostLoader(base, hint))


BLOCKS = "controlnet_blocks.0.weight"
SD3_PICTURE = "pos_embed_input.proj.weight"
XLABS_BLOCK = "double_blocks.0.img_attn.norm.key_norm.scale"
QWEN_BLOCK = "transformer_blocks.0.img_mlp.net.0.proj.weight"
CASCADE_SMALL, CASCADE_LARGE = "backbone.0.0.weight", "backbone.10.blocks.0.weight"

HOST_CONTROLS = (
    family("a control for HunyuanDiT", "HunyuanDiT", "after_proj_list.18.bias"),
    family("a control for Flux (XLabs)", "Flux", BLOCKS, XLABS_BLOCK),
    family("a control for Stable Diffusion 3", "SD3", BLOCKS, SD3_PICTURE, NoneOf(XLABS_BLOCK)),
    family("a control for Qwen-Image (InstantX)", "QwenImage", BLOCKS, QWEN_BLOCK, NoneOf(XLABS_BLOCK, SD3_PICTURE)),
    family(
        "a control for Flux (InstantX)",
        "Flux",
        BLOCKS,
        "controlnet_x_embedder.weight",
        NoneOf(XLABS_BLOCK, SD3_PICTURE, QWEN_BLOCK),
    ),
    family(
        "a control for Qwen-Image (Fun)", "QwenImage", "control_blocks.0.after_proj.weight", "control_img_in.weight"
    ),
    family("a MistoLine control for Flux", "Flux", "controlnet_blocks.0.linear.weight"),
    family("a control for Stable Cascade", "Stable_Cascade", CASCADE_SMALL, hint=CASCADE_SMALL),
    family(
        "a large control for Stable Cascade",
        "Stable_Cascade",
        CASCADE_LARGE,
        "backbone.0.weight",
        NoneOf(CASCADE_SMALL),
        hint="backbone.0.weight",
    ),
)

# What the stock loader does not know, but the stock nodes for patches of models do (comfy_extras/nodes_model_patch.py).
MODEL_PATCH = "put it into the folder models/model_patches and load it with the stock node 'Load Model Patch'"
MODEL_PATCHES = (
    Family(
        "an Anima ControlNet-LLLite",
        AnyOf(Starting("lllite_dit_blocks_"), Key("lllite_conditioning1.conv1.weight")),
        MODEL_PATCH,
    ),
    Family("a control for Qwen-Image (DiffSynth)", Key("controlnet_blocks.0.y_rms.weight"), MODEL_PATCH),
    Family("a control for Z-Image", Starting("control_all_x_embedder."), MODEL_PATCH),
    Family("a Uni3C control for Wan", Key("controlnet_patch_embedding.weight"), MODEL_PATCH),
)

__all__ = ["HOST_CONTROLS", "MODEL_PATCHES"]
