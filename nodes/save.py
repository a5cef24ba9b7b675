"""Menu section "train", its last node: CONTROL_NET -> a file in the host's `controlnet` folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ..checkpoints.about import about_lines
from ..checkpoints.encoder_shapes import MissingNameError, hint_widths_of, read_encoder
from ..checkpoints.families.controlnet import POOLING_KEY
from ..control import Control, EncoderNetwork
from ..preprocessors.downloads import is_plain
from ..training.copy import heads_of
from ..training.errors import TrainingError
from ..training.export import DIFFUSERS_FILE, Layout, export
from .text import show_text

SUFFIX = ".safetensors"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SUBJECT = "The connected control_net"


class ControlComposerSave(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSave",
            display_name="Save ControlNet (Control Composer)",
            category="Control Composer/train",
            description="Writes a control that was trained or loaded here as a file that this pack, the stock loader and diffusers read. The file says "
            "what it is: base, condition, steps of training, pooling and licence.",
            search_aliases=["save controlnet", "export controlnet", "convert controlnet", "controlnet to diffusers"],
            inputs=[
                io.ControlNet.Input(
                    "control_net", tooltip="From Train ControlNet, or a ControlNet from any Load ControlNet node."
                ),
                io.String.Input(
                    "filename",
                    default="my_control",
                    tooltip="Name of the file in the first controlnet folder, with or without .safetensors; folders before it with /. In diffusers' layout "
                    "it names a folder.",
                ),
                io.Combo.Input(
                    "layout",
                    options=["cldm", "diffusers"],
                    default="cldm",
                    tooltip="cldm: one file, for ComfyUI and other programs. diffusers: a folder with config.json, for ControlNetModel.from_pretrained.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="fp16",
                    tooltip="Precision of the numbers in the file. fp16: half the size of fp32, and what published controls have. fp32: to train on.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Whether a file of this name may be replaced. Off: that is an error, and the file stays.",
                ),
                io.String.Input(
                    "condition",
                    default="",
                    optional=True,
                    tooltip="What the hints are, as Canny or Depth. Empty: as the training or the loaded file says.",
                ),
                io.String.Input(
                    "licence",
                    default="",
                    optional=True,
                    tooltip="Who may use the file for what, in your words. Empty: as the loaded file says.",
                ),
                io.String.Input(
                    "base",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="The model that it was trained for. Empty: as the training or the loaded file says, else as its shapes tell.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.String.Output("path", display_name="path", tooltip="Where the file is."),
                io.String.Output(
                    "description", display_name="description", tooltip="What was written, as the node shows it."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        control_net: Any,
        filename: str,
        layout: Layout = "cldm",
        dtype: str = "fp16",
        overwrite: bool = False,
        condition: str = "",
        licence: str = "",
        base: str = "",
    ) -> io.NodeOutput:
        comfy.model_management.throw_exception_if_processing_interrupted()
        network = network_of(control_net)
        path = place(filename, layout, overwrite)
        told = {"base": base, "condition": condition, "licence": licence}
        about = (
            {"base": network.base} | dict(network.about) | {word: text for word, text in told.items() if text.strip()}
        )
        file = save(network, path, layout, DTYPES[dtype], about)
        description = described(file, layout, dtype, about, network.pooling)
        show_text(cls, description)
        return io.NodeOutput(str(file), description)


def network_of(control_net: Any) -> EncoderNetwork:
    """The plain ControlNet in a CONTROL_NET of ours or the stock loader's. Raises TrainingError for any other control."""
    source = control_net.network if isinstance(control_net, Control) else EncoderNetwork.from_stock(control_net)
    if type(source) is EncoderNetwork and not source.control_types:
        return source
    what = type(control_net if source is None else source).__name__
    raise TrainingError(
        SUBJECT,
        found=f"is no plain ControlNet ({what})",
        expected="a copy of an encoder, as Train ControlNet makes it, was expected",
        remedy="connect Train ControlNet with a copy of the form 'copy', or a Load ControlNet node with the file of a ControlNet",
    )


def place(filename: str, layout: Layout, overwrite: bool) -> Path:
    """The file that is to be written, or in diffusers' layout the folder. Raises TrainingError for a name that leads elsewhere or is taken."""
    parts = filename.strip().removesuffix(SUFFIX).replace("\\", "/").split("/")
    if not all(is_plain(part) and part.isprintable() for part in parts):
        raise TrainingError(
            "The filename",
            found=f"is {filename!r}",
            expected='a name inside of the controlnet folder, without : * ? " < > |, was expected',
            remedy="choose another, as my_controls/canny",
        )
    *folders, name = parts
    path = Path(folder_paths.get_folder_paths("controlnet")[0], *folders)
    path = path / name if layout == "diffusers" else path / f"{name}{SUFFIX}"
    taken = path / DIFFUSERS_FILE if layout == "diffusers" else path
    if taken.exists() and not overwrite:
        raise TrainingError(
            f"The file '{taken}'",
            found="is there already",
            expected="a new name was expected, since overwrite is off",
            remedy="choose another filename, or turn overwrite on",
        )
    return path


def save(network: EncoderNetwork, path: Path, layout: Layout, dtype: torch.dtype, about: Mapping[str, str]) -> Path:
    """Writes a network's weights; the file. Raises TrainingError."""
    weights = network.module.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        net = replace(read_encoder(shapes), hint_widths=hint_widths_of(shapes))
    except MissingNameError as error:
        raise TrainingError(
            SUBJECT,
            found=f"has no tensor '{error}' of the expected kind",
            expected="a copy of an encoder was expected",
            remedy="connect Train ControlNet with a copy of the form 'copy', or load the file of a ControlNet",
        ) from None
    metadata = dict(about) | {POOLING_KEY: str(network.pooling).lower()}
    return export(path, weights, net, heads_of(network.module), layout=layout, dtype=dtype, about=metadata)


def described(file: Path, layout: Layout, dtype: str, about: Mapping[str, str], pooling: bool) -> str:
    """What was written, one fact a line."""
    lines = [f"{file} ({file.stat().st_size / 1e6:,.1f} MB)", f"layout: {layout}, {dtype}", *about_lines(about)]
    if pooling:
        lines.append("pooling: on; the stock loader does it only where a file's name ends with _shuffle")
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [ControlComposerSave]
