"""Menu section "load": control files of the host's `controlnet` folders -> CONTROL_NET."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_patcher
import folder_paths
import torch
from comfy_api.latest import io

from ..checkpoints import Loaded, Opened, connected_base, open_control
from ..checkpoints.beside import companions
from ..checkpoints.cache import FileStamp, WeakCache, file_stamp
from ..checkpoints.difference import add_model
from ..checkpoints.errors import NoModelError, PoolingError, UnionTypeError
from ..checkpoints.families import UNION_TYPES
from ..checkpoints.family import METADATA, Kind, Match
from ..checkpoints.load import build_network, read_weights
from ..checkpoints.pair import pair
from ..control import Control
from ..control.layer import Source
from .model import companion_note
from .sources import SOURCES, UNPATCHED, Held
from .text import show_text

POOLING = ("auto", "on", "off")
NO_BASE = "none"
# Shuffle models were trained with it, and nothing in their weights says so; a name decides nothing, but it is worth a word.
POOLED_BY_NAME = "shuffle"


class Facts(NamedTuple):
    """What is kept of a loaded file beside its network."""

    computes: str
    """The line of the description that says in which dtypes; empty where the model decides."""
    manual_cast_dtype: torch.dtype | None


# These act inside of the model.
WITHOUT_RESIDUALS: tuple[Kind, ...] = ("lllite", "xs", "controlnext")

# Holds nothing by itself: a network lives as long as a control that uses it.
NETWORKS: WeakCache[Any, Facts] = WeakCache()


class ControlComposerLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerLoad",
            display_name="Load ControlNet (Control Composer)",
            category="Control Composer/load",
            description="Loads a control file of any family for Stable Diffusion 1, 2 and XL: ControlNet, Union, T2I-Adapter, Control-LoRA, LLLite, XS, "
            "ControlNeXt, SparseCtrl, CtrLoRA, and through the host those of transformer models. It shows what the file is; one that is something else is "
            "refused with its name and the way out.",
            search_aliases=[
                "controlnet",
                "control net",
                "controlnet loader",
                "load controlnet model",
                "ControlNetLoader",
                "ControlNetLoaderAdvanced",
                "load advanced controlnet model",
                "DiffControlNetLoader",
                "LLLiteLoader",
                "t2i adapter",
                "control lora",
                "lllite",
                "controlnet xs",
                "controlnext",
                "sparsectrl",
                "ctrlora",
                "union",
            ],
            inputs=[
                io.Combo.Input(
                    "control_net_name",
                    options=folder_paths.get_filename_list("controlnet"),
                    tooltip="A file in one of the controlnet folders: .safetensors, .pth, .pt, .ckpt or .bin.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that the control will steer. Optional: with it, a control made for another base is refused right "
                    "here, and networks of unusual width learn their number of attention heads from it.",
                ),
                io.Combo.Input(
                    "pooling",
                    options=list(POOLING),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Global average pooling, with which the shuffle models were trained: every residual becomes its average over "
                    "the picture. auto: as the file's metadata say, or the .yaml of its name beside it, else off.",
                ),
                io.Combo.Input(
                    "union_type",
                    options=["auto", *UNION_TYPES],
                    default="auto",
                    optional=True,
                    tooltip="Which type of hint a Union or ProMax network is to read; the description lists those of the file. auto: none is "
                    "told to it, or the one that the stock node Set Union ControlNet Type chose. Several types in one "
                    "pass are for Union Control Layer; layers of one type each run in one batch.",
                ),
                io.Combo.Input(
                    "base_name",
                    options=[NO_BASE, *folder_paths.get_filename_list("controlnet")],
                    default=NO_BASE,
                    optional=True,
                    advanced=True,
                    tooltip="For a LoRA file of CtrLoRA: the file of the base that it was trained on. All other files need none.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.ControlNet.Output(
                    "control_net", display_name="control_net", tooltip="For Apply Control, ours or the stock one."
                ),
                io.String.Output(
                    "description",
                    display_name="description",
                    tooltip="Family, base, hint channels, number of parameters and dtype, as the node shows them.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, control_net_name: str, base_name: str = NO_BASE, **_: Any
    ) -> tuple[FileStamp | str, ...]:
        names = (control_net_name,) if base_name == NO_BASE else (control_net_name, base_name)
        found = [folder_paths.get_full_path("controlnet", name) for name in names]
        read = [Path(path) for path in found if path is not None]
        read += [other for path in read for other in companions(path)]
        return (*names, *(file_stamp(path) for path in read))

    @classmethod
    def execute(
        cls,
        control_net_name: str,
        model: Any = None,
        pooling: str = "auto",
        union_type: str = "auto",
        base_name: str = NO_BASE,
    ) -> io.NodeOutput:
        path = Path(folder_paths.get_full_path_or_raise("controlnet", control_net_name))
        base = None if base_name == NO_BASE else Path(folder_paths.get_full_path_or_raise("controlnet", base_name))
        source, description = load_source(path, model, pooling, union_type, base)
        show_text(cls, description)
        return io.NodeOutput(Control.unbound(source), description)


def load_source(
    path: Path, model: Any, pooling: str, union_type: str = "auto", base: Path | None = None
) -> tuple[Source, str]:
    """What computes the residuals of a file, and its description; a file that is in use already is not loaded twice.

    `base` is the second file of a control that comes in two. Raises CheckpointError.
    """
    connected = None if model is None else connected_base(model)
    opened = pair(open_control(path, connected), None if base is None else open_control(base, connected))
    match = opened.match
    loader = match.family.loader
    assert loader is not None, "only families with a loader are matched"
    number = type_number(path, match, union_type)
    if pooling == "on" and loader.kind in WITHOUT_RESIDUALS:
        raise PoolingError(
            path,
            found=f"is {match.family.name}, which has no residuals to average",
            expected="pooling is on",
            remedy="set pooling to auto or off",
        )
    if loader.adds_to_model and model is None:
        raise NoModelError(
            path,
            found=f"is {match.family.name}",
            expected="no model is connected",
            remedy="connect the model that it is to steer, with its LoRAs",
        )

    def load() -> tuple[Any, Facts]:
        loaded = opened.load() if not loader.adds_to_model else load_difference(opened, model)
        built = loaded.built
        if loader.kind in UNPATCHED:
            return built.module, Facts("\n".join(built.notes), None)
        patcher = comfy.model_patcher.CoreModelPatcher(built.module, built.load_device, built.offload_device)
        return patcher, Facts(loaded.computes, built.manual_cast_dtype)

    with_model = model.patches_uuid if loader.adds_to_model else None
    files = tuple(file_stamp(file) for file in (path, base) if file is not None)
    held, facts = NETWORKS.get((files, match.key, with_model), load)
    pooled, reason = resolve_pooling(pooling, match.pooling, path.name, match.pooling_source)
    source = SOURCES[loader.kind](Held(held, match, path.name, pooled, facts.manual_cast_dtype, number))
    words = [match.describe(), facts.computes, f"pooling: {reason}", "" if number is None else f"type: {union_type}"]
    words.append(companion_note(model) if loader.kind == "controlnext" else "")
    return source, "\n".join(filter(None, words))


def load_difference(opened: Opened, model: Any) -> Loaded:
    """The network that a file of differences makes together with the connected model as it is now. Raises CheckpointError."""
    match, path = opened.match, opened.checkpoint.path
    return build_network(path, match, add_model(path, read_weights(opened.checkpoint, match), model))


def type_number(path: Path, match: Match, union_type: str) -> int | None:
    """The position of a type among the file's; None for auto. Raises UnionTypeError for one that the file lacks."""
    if union_type == "auto":
        return None
    names = getattr(match.hyperparameters, "type_names", ())
    if union_type not in names:
        raise UnionTypeError(
            path,
            found=f"has the types {', '.join(names)}" if names else f"is {match.family.name}, which has no types",
            expected=f"union_type {union_type} was asked for",
            remedy="choose one of its types, auto, or another file" if names else "set union_type to auto",
        )
    position: int = names.index(union_type)
    return position


def resolve_pooling(choice: str, told: bool | None, name: str, told_by: str = METADATA) -> tuple[bool, str]:
    """Whether to pool, and the words that say so and why."""
    if choice != "auto":
        return choice == "on", choice
    if told is not None:
        return told, f"{'on' if told else 'off'}, by {told_by}"
    if POOLED_BY_NAME in name.lower():
        return False, "off; the name suggests a shuffle model, which wants pooling on"
    return False, "off"


NODES: list[type[io.ComfyNode]] = [ControlComposerLoad]
