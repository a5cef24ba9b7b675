"""Menu section "load", for models: the UNet weights that come with a ControlNeXt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
from comfy_api.latest import io

from ..checkpoints import connected_base
from ..checkpoints.cache import FileStamp, WeakCache, file_stamp
from ..checkpoints.families.controlnext import WEIGHTS_NODE
from ..checkpoints.unet_weights import KINDS, UnetWeights, open_unet_weights
from .text import show_text

FOLDERS = ("controlnet", "diffusion_models")
MARK = "control_composer_controlnext"
"""The attachment by which a model tells which of these weights it carries."""
LIMIT = 10.0

# Holds nothing by itself: weights live as long as a model that carries them.
WEIGHTS: WeakCache[UnetWeights, None] = WeakCache()


class Carried(NamedTuple):
    """Weights that were applied to a model."""

    weights: UnetWeights
    strength: float


class ControlComposerControlNeXtModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerControlNeXtModel",
            display_name=WEIGHTS_NODE,
            category="Control Composer/load",
            description="Applies the second file of a ControlNeXt, the UNet weights that were trained with it, to a model. They add up with LoRAs, "
            "before or after them.",
            search_aliases=["controlnext", "control next", "unet delta", "unet weights"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model of the base that the ControlNeXt was made for, with or without LoRAs."
                ),
                io.Combo.Input(
                    "unet_name",
                    options=weight_files(),
                    tooltip="The larger of the two files of a ControlNeXt, often named unet.safetensors, in one of the controlnet or "
                    "diffusion_models folders. Of two files of one name the one in controlnet is meant.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-LIMIT,
                    max=LIMIT,
                    step=0.05,
                    tooltip="1 is as trained, 0 leaves the model as it is.",
                ),
                io.Combo.Input(
                    "holds",
                    options=["auto", *KINDS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Whether the file holds trained weights or differences to the weights of the base, which its names do not tell. auto: "
                    "by a comparison with the model.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Model.Output(
                    "model",
                    display_name="model",
                    tooltip="For a sampler, for more LoRAs, and for Load ControlNet, which says that they are there.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, unet_name: str, **_: Any) -> FileStamp | str:
        path = find(unet_name)
        return unet_name if path is None else file_stamp(path)

    @classmethod
    def execute(cls, model: Any, unet_name: str, strength: float, holds: str = "auto") -> io.NodeOutput:
        path = find(unet_name) or Path(folder_paths.get_full_path_or_raise(FOLDERS[0], unet_name))
        patched, text = with_weights(model, path, strength, holds)
        show_text(cls, text)
        return io.NodeOutput(patched)


def with_weights(model: Any, path: Path, strength: float, holds: str = "auto") -> tuple[Any, str]:
    """A clone of the model with the weights of a file, and what was done. Raises CheckpointError."""
    chosen = next((kind for kind in KINDS if kind == holds), None)

    def load() -> tuple[UnetWeights, None]:
        return open_unet_weights(path, model, connected_base(model).name, chosen), None

    weights, _ = WEIGHTS.get((file_stamp(path), id(model.model), chosen), load)
    patched = model.clone()
    if strength != 0:
        patched.add_patches({key: ("diff", (tensor,)) for key, tensor in weights.differences.items()}, strength)
        patched.set_attachments(MARK, (*carried(model), Carried(weights, strength)))
    reason = ", by comparison with the model" if weights.told else ""
    return patched, f"changes {len(weights.differences)} weights of the UNet\nthe file holds: {weights.holds}{reason}"


def carried(model: Any) -> tuple[Carried, ...]:
    """The weights that this node gave to a model."""
    found: tuple[Carried, ...] = model.get_attachment(MARK) or ()
    return found


def companion_note(model: Any) -> str:
    """What Load ControlNet says of the second file of a ControlNeXt; `model` is the connected one, or None."""
    if model is None:
        return f"needs its UNet weights, in a second file: {WEIGHTS_NODE}"
    there = ", ".join(f"{one.weights.name} at strength {one.strength:g}" for one in carried(model))
    if not there:
        return f"needs its UNet weights, absent from the connected model: {WEIGHTS_NODE}"
    return f"UNet weights in the connected model: {there}"


def weight_files() -> list[str]:
    """The files of all folders that may hold such weights."""
    return list(dict.fromkeys(name for folder in FOLDERS for name in folder_paths.get_filename_list(folder)))


def find(name: str) -> Path | None:
    paths = (folder_paths.get_full_path(folder, name) for folder in FOLDERS)
    return next((Path(path) for path in paths if path is not None), None)


NODES: list[type[io.ComfyNode]] = [ControlComposerControlNeXtModel]
