"""The names of ControlNet-XS files before diffusers' ControlNetXSAdapter, in its names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .diffusers_layout import RES_BLOCK
from .xs import RES_BLOCKS

PER_LEVEL = RES_BLOCKS + 1
"""Blocks of the encoder in a level: two ResBlocks and a halving; in the decoder three ResBlocks."""
NUMBERED = re.compile(r"([a-z_]+)\.(0|[1-9]\d?)(?:\.0)?\.(weight|bias)", re.ASCII)
INPUT_BLOCK = re.compile(r"control_model\.input_blocks\.([1-9]\d?)\.([01])\.(.+)", re.ASCII)
MODEL_PARTS = (
    (re.compile(r"control_model\.(down_blocks\.\d+\.downsamplers)\.0\.(.+)"), r"\1.\2"),
    (re.compile(r"control_model\.mid_block\.(.+)"), r"mid_block.midblock.\1"),
    (re.compile(r"control_model\.((?:conv_in|time_embedding|down_blocks)\..+)"), r"\1"),
    (re.compile(r"middle_block_out\.(?:0\.)?(weight|bias)"), r"mid_block.ctrl_to_base.\1"),
)
ORIGINAL_PARTS = (
    ("control_model.input_blocks.0.0.", "conv_in."),
    ("control_model.time_embed.0.", "time_embedding.linear_1."),
    ("control_model.time_embed.2.", "time_embedding.linear_2."),
    ("control_model.middle_block.1.", "mid_block.midblock.attentions.0."),
    ("input_hint_block.0.", "controlnet_cond_embedding.conv_in."),
)
RES_NAMES = {cldm: name for name, cldm in RES_BLOCK.items()}
# Of the original: a buffer of ones that its script multiplies by the strength while it runs, the annotator of its depth networks, and an embedding
# of the pooled vector that it takes from the model instead.
NO_WEIGHTS = ("scale_list", "hint_model.", "control_model.label_emb.")


def model_names(names: Iterable[str]) -> dict[str, str]:
    """Name of diffusers' ControlNetXSModel (0.25 to 0.27) -> the adapter's, for every name; one without a counterpart stays as it is."""
    names = list(names)
    last = encoder_length(names, "down_zero_convs_out.")
    return {name: _connection(name, last) or _model_part(name) for name in names}


def original_names(names: Iterable[str]) -> dict[str, str]:
    """Name of vislearn/ControlNet-XS -> the adapter's, for every name that stands for weights of the network."""
    names = [name for name in names if not name.startswith(NO_WEIGHTS)]
    last = encoder_length(names, "enc_zero_convs_out.")
    hints = sum(name.startswith("input_hint_block.") and name.endswith(".weight") for name in names)
    return {name: _connection(name, last) or _original_part(name, hints) for name in names}


def encoder_length(names: list[str], prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith(".weight") for name in names)


def _connection(name: str, length: int) -> str | None:
    """A zero convolution between stream and model; they are numbered through the encoder and through the decoder."""
    found = NUMBERED.fullmatch(name)
    if found is None:
        return None
    kind, number, end = found[1], int(found[2]), found[3]
    if kind in ("down_zero_convs_out", "enc_zero_convs_out"):
        if number == 0:
            return f"control_to_base_for_conv_in.{end}"
        return f"{_place(number - 1, 'ctrl_to_base')}.{end}"
    if kind in ("down_zero_convs_in", "enc_zero_convs_in"):
        # The one behind the last block of the encoder leads to the middle.
        return f"mid_block.base_to_ctrl.{end}" if number == length - 1 else f"{_place(number, 'base_to_ctrl')}.{end}"
    if kind in ("up_zero_convs_out", "dec_zero_convs_out"):
        return f"up_connections.{number // PER_LEVEL}.ctrl_to_base.{number % PER_LEVEL}.{end}"
    return None


def _place(part: int, what: str) -> str:
    return f"down_blocks.{part // PER_LEVEL}.{what}.{part % PER_LEVEL}"


def _model_part(name: str) -> str:
    for pattern, to in MODEL_PARTS:
        if pattern.fullmatch(name):
            return pattern.sub(to, name)
    return name


def _original_part(name: str, hints: int) -> str:
    for start, to in ORIGINAL_PARTS:
        if name.startswith(start):
            return to + name.removeprefix(start)
    if name.startswith("middle_block_out."):
        return _model_part(name)
    if name.startswith("input_hint_block."):
        number, _, end = name.removeprefix("input_hint_block.").partition(".")
        if not number.isascii() or not number.isdigit():
            return name
        position = int(number) // 2
        part = "conv_out" if position == hints - 1 else f"blocks.{position - 1}"
        return f"controlnet_cond_embedding.{part}.{end}"
    for resnet, start in enumerate(("control_model.middle_block.0.", "control_model.middle_block.2.")):
        if name.startswith(start):
            return f"mid_block.midblock.resnets.{resnet}.{_res_name(name.removeprefix(start))}"
    found = INPUT_BLOCK.fullmatch(name)
    if found is None:
        return name
    level, position = divmod(int(found[1]) - 1, PER_LEVEL)
    if found[3].startswith("op."):
        return f"down_blocks.{level}.downsamplers.conv.{found[3].removeprefix('op.')}"
    if found[2] == "1":
        return f"down_blocks.{level}.attentions.{position}.{found[3]}"
    return f"down_blocks.{level}.resnets.{position}.{_res_name(found[3])}"


def _res_name(name: str) -> str:
    module, _, end = name.rpartition(".")
    return f"{RES_NAMES.get(module, module)}.{end}"
