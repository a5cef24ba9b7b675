"""A training inside of a graph: the host's devices, memory, progress bar and interruption around `training.loop`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from ..preprocessors.downloads import is_plain
from ..training.batch import Data
from ..training.encode import TextEncoder, encode, schedule_of
from ..training.errors import TrainingError
from ..training.recipe import Recipe
from ..training.record import Record
from ..training.settings import Settings
from ..training.validation import Validation, decoder, spread
from .training_page import Interruption, Live

FOLDER = ("control_composer", "training")
PREPARED = ("control_composer", "prepared")
"""Latents and texts, shared by all trainings on the same data set and base."""


@dataclass(frozen=True)
class ValidationPlan:
    """How validation pictures are drawn."""

    dataset: Any
    """A ConditionDataset that is not learned from, or None for pictures of the one that is."""
    pictures: int
    steps: int
    guidance: float

    def told(self, dataset: Any) -> dict[str, Any]:
        """What makes scores comparable, where `dataset` is learned from."""
        fingerprint = (self.dataset or dataset).fingerprint
        return {"data set": fingerprint, "pictures": self.pictures, "steps": self.steps, "guidance": self.guidance}


@dataclass(frozen=True, eq=False)
class Result:
    average: dict[str, Tensor]
    step: int
    """Steps done."""


def training_folder(name: str) -> Path:
    """Of the training with this name, in the output folder. Raises TrainingError for a name that leads elsewhere."""
    if not is_plain(name) or not name.isprintable():
        raise TrainingError(
            "The training's name",
            found=f"is {name!r}",
            expected='one of a folder, without / \\ : * ? " < > |, was expected',
            remedy="choose another, as my canny control",
        )
    return Path(folder_paths.get_output_directory(), *FOLDER, name.strip())


def prepare(dataset: Any, vae: Any, text: TextEncoder, model: Any, base: str) -> Data:
    """Latents and texts of the data set, made now or found on the disk. Interrupted, it goes on from there the next time."""
    folder = Path(folder_paths.get_output_directory(), *PREPARED, f"{dataset.fingerprint[:16]}-{base[:8]}")
    bar = comfy.utils.ProgressBar(len(dataset))

    def on_row(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    data: Data = encode(dataset, vae, text, model, folder, on_row=on_row)
    return data


def run(
    recipe: Recipe,
    data: Data,
    validation_data: Data,
    plan: ValidationPlan,
    dataset: Any,
    vae: Any,
    settings: Settings,
    record: Record,
    show: Callable[[str], None],
) -> Result:
    """Trains until the end or until the page says stop; the state is saved then, and the host's exception passes on. Raises TrainingError."""
    # Here, because they are slow to import.
    from ..training.copy import trainable_copy
    from ..training.frozen import frozen_unet, moved
    from ..training.loop import DTYPES, train

    management = comfy.model_management
    device, interruption = management.get_torch_device(), Interruption()
    management.unload_all_models()
    management.soft_empty_cache()
    record.with_validation(plan.told(dataset) | {"seed": settings.seed})
    # Before the first state, or a training that is killed would not know what it was begun with.
    record.save()
    started = time.monotonic()
    with torch.inference_mode(False), torch.enable_grad():
        unet = frozen_unet(recipe.model, torch.float32, torch.device("cpu"))
        control = trainable_copy(unet, recipe.hint_channels, recipe.start, recipe.form, seed=recipe.seed, device=device)
        unet = moved(unet, DTYPES.get(settings.precision, torch.float32), device)
        schedule = schedule_of(recipe.model)
        judged = plan.dataset or dataset
        validation = Validation(
            validation_data,
            spread(len(validation_data), plan.pictures),
            unet,
            schedule,
            decoder(vae, recipe.model.model),
            record.folder,
            judged.condition,
            judged.annotate,
            settings.seed,
            plan.steps,
            plan.guidance,
            interruption,
        )
        page = Live(
            f"Loss of '{record.folder.name}'",
            record.folder,
            settings,
            interruption,
            validation.higher_is_better,
            show,
            record.step,
        )

        def on_validate(step: int, network: nn.Module) -> None:
            with interruption.heard():
                drawn = validation(step, network)
                if drawn is not None:
                    page.validated(drawn)

        def should_stop() -> bool:
            page.stepped()
            return interruption()

        try:
            trained = train(
                unet,
                control,
                data,
                schedule,
                settings,
                record.folder,
                on_step=page.logged,
                on_validate=on_validate,
                should_stop=should_stop,
            )
        except management.OOM_EXCEPTION as error:
            raise TrainingError(
                "The training",
                found=f"needs more memory than '{device}' has",
                expected=f"room for {settings.batch // settings.accumulation} pictures at once was expected",
                remedy="raise accumulation, turn checkpointing on, or use smaller pictures, and queue again to continue",
            ) from error
        average = {name: values.detach().to("cpu", copy=True) for name, values in trained.average.items()}
    record.step, record.seconds = trained.step, record.seconds + time.monotonic() - started
    record.save()
    record.check_steps(settings)
    del trained, control, unet
    management.soft_empty_cache()
    interruption.pass_on()
    return Result(average, record.step)


def one_text_encoder(clip: Any, world: Any) -> TextEncoder:
    """That of the one that is connected. Raises TrainingError for none and for both."""
    from ..training.encode import of_clip, of_demo_world

    if (clip is None) == (world is None):
        raise TrainingError(
            "Train ControlNet",
            found="has neither clip nor world connected" if clip is None else "has clip and world connected",
            expected="one of them was expected, which reads the captions",
            remedy="connect clip, or for the demo world its world output",
        )
    return of_clip(clip) if world is None else of_demo_world(world)


def hints_fit(recipe: Recipe, datasets: Sequence[Data]) -> None:
    """Raises TrainingError where the copy reads hints of another number of channels."""
    for data in datasets:
        channels = data.batch(torch.tensor([0])).hint.shape[1]
        if channels != recipe.hint_channels:
            raise TrainingError(
                "The trainable copy",
                found=f"reads hints of {recipe.hint_channels} channels",
                expected=f"{channels} were expected, as the data set's hints have",
                remedy=f"set hint_channels of Trainable Copy to {channels}",
            )
