"""Menu section "evaluate", sets: how near made pictures are to real ones and to their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor, nn

from ..checkpoints.read import open_checkpoint
from ..evaluation.clip_score import ClipScore, clip_network, clip_score
from ..evaluation.errors import EvaluationError
from ..evaluation.set_report import set_report
from ..evaluation.sets import FeatureNetwork, SetDistance, inception, set_distance
from ..preprocessors.pixels import as_rgb, check_picture
from .annotators import Placeable
from .evaluate import CATEGORY
from .evaluation_files import FOLDER, NONE, clip_folder, clip_folders, feature_file, feature_files
from .text import show_text

FEATURES = ("2048", "768", "192", "64")
PICTURES_AT_ONCE = 16


class ControlComposerCompareSets(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerCompareSets",
            display_name="Compare Sets",
            category=CATEGORY,
            description="How far made pictures are from real ones as a set (FID and KID, of a network's features), and how well they fit their prompts "
            "(CLIP score). Networks are files of yours; the report names them, since only numbers of one network can be compared.",
            search_aliases=[
                "fid",
                "kid",
                "clip score",
                "clipscore",
                "inception distance",
                "compare images",
                "evaluate",
                "metric",
            ],
            inputs=[
                io.Image.Input(
                    "real",
                    tooltip="Pictures as they should be: a batch, or a list of any sizes. Thousands, for numbers to print.",
                ),
                io.Image.Input("made", tooltip="The pictures to judge: a batch, or a list of any sizes."),
                io.Combo.Input(
                    "features_name",
                    options=feature_files(),
                    tooltip=f"The weights of Inception-v3 as FID has them, in models/{FOLDER}; one that is not there says where to get it. none: no FID.",
                ),
                io.Combo.Input(
                    "features",
                    options=list(FEATURES),
                    default=FEATURES[0],
                    advanced=True,
                    tooltip="How many of the network's features are compared. 2048 is the FID that papers print; fewer, of earlier layers, for few pictures.",
                ),
                io.Combo.Input(
                    "clip_name",
                    options=clip_folders(),
                    default=NONE,
                    tooltip=f"A folder in models/{FOLDER} with all files of a published CLIP. none: no CLIP score.",
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="For the CLIP score: a line for each made picture, or one for all.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    optional=True,
                    advanced=True,
                    tooltip="Draws KID's subsets.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Float.Output(
                    "fid",
                    display_name="fid",
                    tooltip="Fréchet distance; lower is better. NaN where it was not asked for.",
                ),
                io.Float.Output(
                    "kid",
                    display_name="kid",
                    tooltip="Kernel distance; lower is better. NaN where it was not asked for.",
                ),
                io.Float.Output(
                    "clip_score",
                    display_name="clip_score",
                    tooltip="0 to 100; higher is better. NaN where it was not asked for.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The numbers, and the networks that they are in the eyes of.",
                ),
            ],
            is_output_node=True,
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        real: list[Tensor],
        made: list[Tensor],
        features_name: list[str],
        features: list[str],
        clip_name: list[str],
        prompts: Sequence[str] = ("",),
        seed: Sequence[int] = (0,),
    ) -> io.NodeOutput:
        if features_name[0] == NONE and clip_name[0] == NONE:
            raise EvaluationError(
                "Compare Sets: found neither a file of features nor a CLIP, but one of them was expected; choose features_name or clip_name."
            )
        distance, clip = None, None
        if features_name[0] != NONE:
            network = inception_of(features_name[0], int(features[0]))
            distance = distance_of(pictures_of("real", real), pictures_of("made", made), network, seed[0])
        if clip_name[0] != NONE:
            clip = clip_score_of(pictures_of("made", made), prompts, clip_name[0])
        report = set_report(distance, clip)
        show_text(cls, report)
        missing = float("nan")
        return io.NodeOutput(
            distance.fid if distance else missing,
            distance.kid if distance else missing,
            clip.mean if clip else missing,
            report,
            ui=ui.PreviewText(report),
        )


def pictures_of(name: str, batches: Sequence[Tensor]) -> list[Tensor]:
    """RGB pictures. Raises PreprocessorError."""
    pictures = [as_rgb(batch) for batch in batches]
    for one in pictures:
        check_picture(one, name)
    return pictures


def inception_of(name: str, features: int) -> FeatureNetwork:
    checkpoint = open_checkpoint(feature_file(name))
    return inception(checkpoint.fetch(checkpoint.tensors), name, features)


def distance_of(real: Sequence[Tensor], made: Sequence[Tensor], network: FeatureNetwork, seed: int) -> SetDistance:
    held = on_device(network.module)
    progress = comfy.utils.ProgressBar(sum(len(batch) for batches in (real, made) for batch in batches))

    def watched(pictures: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        found = network.features(pictures)
        progress.update(len(pictures))
        return found

    distance = set_distance(real, made, replace(network, features=watched), batch=PICTURES_AT_ONCE, seed=seed)
    del held
    return distance


def clip_score_of(made: Sequence[Tensor], prompts: Sequence[str], name: str) -> ClipScore:
    count = sum(len(batch) for batch in made)
    texts = texts_of(prompts, count)
    network = clip_network(clip_folder(name))
    held = on_device(network.model)
    progress, scores = comfy.utils.ProgressBar(count), []
    for part in (part for batch in made for part in batch.split(PICTURES_AT_ONCE)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        scores.append(clip_score(part, texts[: len(part)], network, batch=PICTURES_AT_ONCE).per_picture)
        texts = texts[len(part) :]
        progress.update(len(part))
    del held
    return ClipScore(torch.cat(scores), network.name)


def texts_of(prompts: Sequence[str], count: int) -> list[str]:
    """One for each picture: those of a list, or the lines of one text."""
    texts = [" ".join(text.split()) for text in (prompts if len(prompts) > 1 else prompts[0].splitlines())]
    texts = texts if len(prompts) > 1 else [text for text in texts if text]
    if len(texts) not in (1, count):
        raise EvaluationError(
            f"Compare Sets: found {len(texts)} prompts for {count} made pictures, but one for each, or one for all, was expected; write one on each "
            "line, or connect a list of them."
        )
    return texts * count if len(texts) == 1 else texts


def on_device(module: nn.Module | None) -> Any:
    """Puts a network on the host's device, where it stays while what is returned is held."""
    if module is None:
        return None
    management = comfy.model_management
    patcher = comfy.model_patcher.ModelPatcher(
        Placeable(module), management.get_torch_device(), management.unet_offload_device()
    )
    management.load_models_gpu([patcher], force_full_load=True)
    return patcher


NODES: list[type[io.ComfyNode]] = [ControlComposerCompareSets]
