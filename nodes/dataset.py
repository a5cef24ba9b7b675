"""Menu section "train", first half: pictures, captions and hints -> CONDITION_DATASET."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..preprocessors import PREPROCESSORS, Preprocessor
from ..preprocessors.sizing import Size
from ..training.dataset.dataset import ConditionDataset
from ..training.dataset.example import Found, fingerprint
from ..training.dataset.hints import Condition
from ..training.dataset.settings import DatasetSettings, HintKind
from ..training.dataset.sources import from_lists, from_path
from ..training.errors import TrainingError
from .annotators import networks_for
from .preprocess import parameter_input

FROM_FOLDER = "from folder"
HINTS_FOLDER = ("control_composer", "hints")
"""In the output folder, so that it outlives the host's temporary files."""
BY_ID = {one.id: one for one in PREPROCESSORS}
Dataset = io.Custom("CONDITION_DATASET")


class ControlComposerDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDataset",
            display_name="Condition Dataset (Control Composer)",
            category="Control Composer/train",
            description="Pictures with captions and hints, to train a ControlNet on: from a folder, a JSONL file, shards, or connected lists. Any "
            "preprocessor can make the hints. What cannot be used is listed in the report and left out.",
            search_aliases=[
                "dataset",
                "training data",
                "load dataset",
                "fill50k",
                "train controlnet",
                "image folder",
                "jsonl",
            ],
            is_input_list=True,  # the host's dataset nodes give lists
            inputs=[
                io.String.Input(
                    "path",
                    default="",
                    tooltip="A folder of pictures with a .txt of the same name beside each, a JSONL file as in the fill50k tutorial (source, "
                    "target, prompt), or a folder of shards. In full, or as it lies in the input folder. Empty where images are connected.",
                ),
                io.DynamicCombo.Input(
                    "condition",
                    options=[
                        io.DynamicCombo.Option(FROM_FOLDER, _own_hints()),
                        *(
                            io.DynamicCombo.Option(one.id, [parameter_input(parameter) for parameter in one.parameters])
                            for one in PREPROCESSORS
                        ),
                    ],
                    tooltip="Where hints come from: a folder (or the JSONL file, the shards, the connected hints), or a preprocessor that makes "
                    "them of the pictures. They are kept in output/control_composer/hints and not made twice.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=8192,
                    step=64,
                    tooltip="Side of a square picture in pixels: 512 for SD1, 768 for SD2, 1024 for SDXL, 128 for the demo world. Other "
                    "shapes have as many pixels in all.",
                ),
                io.Int.Input(
                    "crops",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="How many parts of each picture to learn from: the centre, and others at random. None is enlarged for it.",
                ),
                io.Boolean.Input(
                    "flip",
                    default=False,
                    tooltip="Learn from mirrored pictures too; their hints are mirrored as they have to be. Captions with left or right "
                    "become wrong.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,  # another one is another set, which a training refuses to go on with
                    tooltip="Which parts the random crops show.",
                ),
                io.Float.Input(
                    "widest",
                    default=2.0,
                    min=1.0,
                    max=8.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Longer side over shorter side, at most: what is wider or taller is cropped. 1 crops all to squares.",
                ),
                io.Boolean.Input(
                    "empty_captions",
                    default=False,
                    advanced=True,
                    tooltip="Use pictures without a caption as well. Off: they are listed in the report and left out.",
                ),
                io.Boolean.Input(
                    "read_all",
                    default=True,
                    advanced=True,
                    tooltip="Read every file to its end now, so that broken ones are in the report. Off: only their heads, for very large sets.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="Pictures in place of a path, as of Load Image-Text (from Folder)."
                ),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="The captions of the connected images, one for each or one for all.",
                ),
                io.Image.Input("hints", optional=True, tooltip="The hints of the connected images, one for each."),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="dataset", tooltip="For Train ControlNet."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="What there is, what was left out and why, what is worth a look.",
                ),
                io.Image.Output(
                    "contact_sheet",
                    display_name="contact_sheet",
                    tooltip="Some of the rows: the picture as it will be learned from, its hint, its caption.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, path: Sequence[str | None], condition: Mapping[str, Any], **_: Any) -> str | float:
        """Another one when a file in the folders changes, so that the host makes the set again."""
        place, hints = path[0], _first(condition.get("hints_path", ""))
        if place is None or hints is None:
            return math.nan  # linked to a node, and not known yet
        if not place.strip():
            return ""
        found = examples(place, hints)
        return f"{fingerprint(found.examples)} {len(found.problems)}"

    @classmethod
    def execute(
        cls,
        path: Sequence[str],
        condition: Mapping[str, Any],
        resolution: Sequence[int],
        crops: Sequence[int],
        flip: Sequence[bool],
        seed: Sequence[int],
        widest: Sequence[float] = (2.0,),
        empty_captions: Sequence[bool] = (False,),
        read_all: Sequence[bool] = (True,),
        images: Sequence[Tensor] | None = None,
        texts: Sequence[str] | None = None,
        hints: Sequence[Tensor] | None = None,
    ) -> io.NodeOutput:
        choice = {name: _first(value) for name, value in condition.items()}
        chosen = choice.pop("condition")
        settings = DatasetSettings(
            resolution=resolution[0],
            widest=widest[0],
            crops=crops[0],
            flip=flip[0],
            seed=seed[0],
            hint_kind=choice.get("hint_kind", "picture"),
            empty_captions=empty_captions[0],
            read_all=read_all[0],
        )
        found = examples(path[0], choice.get("hints_path", ""), images, texts, hints)
        progress = comfy.utils.ProgressBar(len(found.examples))

        def before(done: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update_absolute(done)

        made = None if chosen == FROM_FOLDER else condition_of(BY_ID[chosen], choice)
        kept = Path(folder_paths.get_output_directory(), *HINTS_FOLDER)
        dataset = ConditionDataset(found, settings, made, kept, on_example=before)
        progress.update_absolute(len(found.examples))
        sheet = dataset.contact_sheet().to(
            comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
        )
        return io.NodeOutput(dataset, dataset.report(), sheet, ui=ui.PreviewImage(sheet, cls=cls))


def examples(
    path: str,
    hints_path: str = "",
    images: Sequence[Tensor] | None = None,
    texts: Sequence[str] | None = None,
    hints: Sequence[Tensor] | None = None,
) -> Found:
    """What the node's inputs name. Raises TrainingError where they name nothing, or two things."""
    if images is not None:
        for name, given in (("path", path), ("hints_path", hints_path)):
            if given.strip():
                raise TrainingError(
                    f"The input '{name}'",
                    found=f"is '{given}'",
                    expected="nothing was expected there, since images are connected",
                    remedy="empty it, or disconnect the images",
                )
        return from_lists(images, texts, hints)
    for name, connected in (("texts", texts is not None), ("hints", hints is not None)):
        if connected:
            raise TrainingError(
                f"The input '{name}'",
                found="is connected",
                expected="it was expected to be so only where images are",
                remedy="connect images too, or disconnect it",
            )
    if not path.strip():
        raise TrainingError(
            "The input 'path'",
            found="is empty",
            expected="a folder of pictures, a JSONL file or a folder of shards was expected",
            remedy="fill it in, or connect images",
        )
    return from_path(resolved(path), resolved(hints_path) if hints_path.strip() else None)


def resolved(path: str) -> Path:
    """As it stands, or in the input folder; without the quotation marks that file managers put around it."""
    return Path(folder_paths.get_input_directory(), os.path.expanduser(path.strip().strip("\"'").strip()))


def condition_of(preprocessor: Preprocessor, parameters: Mapping[str, Any]) -> Condition:
    """The preprocessor on the host's device, its networks loaded and evicted by the host; it hears the page's interruption."""

    def annotate(image_bhwc: Tensor) -> Tensor:
        management = comfy.model_management
        management.throw_exception_if_processing_interrupted()
        networks = None
        if needed := preprocessor.needed(parameters):
            size = preprocessor.network_size(Size(*image_bhwc.shape[1:3]), 0, parameters)
            networks = networks_for(needed, size).networks
        with torch.no_grad():
            return preprocessor(image_bhwc.to(management.get_torch_device()), 0, networks, **parameters).cpu()

    return Condition(preprocessor.id, annotate, preprocessor.with_defaults(parameters))


def _own_hints() -> list[Any]:
    return [
        io.String.Input(
            "hints_path",
            default="",
            tooltip="A folder with a hint of each picture's name. Empty where the JSONL file, the shards or connected hints have them.",
        ),
        io.Combo.Input(
            "hint_kind",
            options=list(get_args(HintKind)),
            default="picture",
            tooltip="How hints are mirrored: as pictures; as normals, whose red says left and right; poses and text cannot be.",
        ),
    ]


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) else value


NODES: list[type[io.ComfyNode]] = [ControlComposerDataset]
