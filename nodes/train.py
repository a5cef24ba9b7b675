"""Menu section "train", second half: MODEL -> TRAINABLE_COPY -> CONTROL_NET."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from ..checkpoints import connected_base
from ..control import Control
from ..training.checkpoint import load
from ..training.copy import Form, encoder_of
from ..training.encode import schedule_of
from ..training.picture import charts
from ..training.recipe import Recipe
from ..training.record import Record
from ..training.settings import Settings
from ..training.start import Start
from ..training.validation import latest
from .text import show_text
from .train_inputs import LARGEST_SEED, TrainableCopyType, train_inputs
from .trained import as_image, empty_network, higher_is_better, network_of, report_of
from .training_session import (
    Result,
    ValidationPlan,
    hints_fit,
    one_text_encoder,
    prepare,
    run,
    training_folder,
)


class ControlComposerTrainableCopy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerTrainableCopy",
            display_name="Trainable Copy (Control Composer)",
            category="Control Composer/train",
            description="The beginning of a ControlNet: the encoder of a Stable Diffusion 1, 2 or XL model (or of the demo world), copied, with a new "
            "hint network and zero convolutions, so that at first it changes nothing. For Train ControlNet.",
            search_aliases=[
                "train controlnet",
                "controlnet training",
                "create controlnet",
                "new controlnet",
                "zero convolution",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The base that the control will be for, with its LoRAs. It stays as it is.",
                ),
                io.Int.Input(
                    "hint_channels",
                    default=3,
                    min=1,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip="Channels of the hints: 3 for pictures, which is what Condition Dataset gives.",
                ),
                io.Combo.Input(
                    "start",
                    options=list(get_args(Start)),
                    default="zero",
                    optional=True,
                    advanced=True,
                    tooltip="How the convolutions between copy and base begin. zero is the method; gaussian is the paper's ablation, which disturbs "
                    "the base at first and learns worse.",
                ),
                io.Combo.Input(
                    "form",
                    options=list(get_args(Form)),
                    default="copy",
                    optional=True,
                    advanced=True,
                    tooltip="copy is a ControlNet; lite has one convolution for each block in place of the copy (ControlNet-lite, the paper's other "
                    "ablation), and is no ControlNet file.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    optional=True,
                    advanced=True,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Decides the layers that are not copied.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                TrainableCopyType.Output(
                    "copy",
                    display_name="copy",
                    tooltip="For Train ControlNet: how the copy is made. It is made when training begins, so one node serves several trainings.",
                ),
                io.String.Output(
                    "description",
                    display_name="description",
                    tooltip="Base and number of parameters, as the node shows them.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, hint_channels: int = 3, start: Start = "zero", form: Form = "copy", seed: int = 0
    ) -> io.NodeOutput:
        net = encoder_of(model.get_model_object("diffusion_model"), hint_channels)
        schedule = schedule_of(model)
        with torch.device("meta"):
            count = sum(
                parameter.numel()
                for parameter in empty_network(model, Recipe(model, hint_channels, form=form)).parameters()
            )
        description = "\n".join(
            (
                f"base: {connected_base(model).name}, predicts {'velocity' if schedule.prediction == 'v' else 'noise'}",
                f"form: {form}, {start} convolutions, {net.hint_channels} hint channels",
                f"parameters: {count / 1e6:,.1f} M",
            )
        )
        show_text(cls, description)
        return io.NodeOutput(Recipe(model, hint_channels, start, form, seed), description)


class ControlComposerTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerTrain",
            display_name="Train ControlNet (Control Composer)",
            category="Control Composer/train",
            description="Trains a ControlNet and shows losses and validation pictures meanwhile. Stop it at any time: its state is kept, and queueing the "
            "same again goes on from there. A finished training gives its control at once.",
            search_aliases=["train controlnet", "controlnet training", "fine-tune", "finetune", "learn"],
            inputs=train_inputs(),
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.ControlNet.Output(
                    "control_net",
                    display_name="control_net",
                    tooltip="The averaged weights, for Apply Control and Save ControlNet.",
                ),
                io.Image.Output("chart", display_name="chart", tooltip="Losses and validation scores over the steps."),
                io.Image.Output(
                    "validation", display_name="validation", tooltip="The pictures of the last validation, as a batch."
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="What was learned, how fast, and where it lies."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        copy: Recipe,
        dataset: Any,
        vae: Any,
        name: str,
        steps: int,
        batch: int,
        rate: float,
        seed: int,
        clip: Any = None,
        world: Any = None,
        validation: Any = None,
        validate_every: int = 250,
        validation_pictures: int = 4,
        validation_steps: int = 20,
        guidance: float = 4.0,
        precision: str = "auto",
        min_snr: float = 0.0,
        gradient_clip: float = 1.0,
        **advanced: Any,
    ) -> io.NodeOutput:
        from ..training.frozen import base_fingerprint  # here, because importing the pack must stay fast

        comfy.model_management.throw_exception_if_processing_interrupted()
        settings = Settings(
            steps=steps,
            batch=batch,
            rate=rate,
            seed=seed,
            validate_every=validate_every,
            precision=_precision(precision),
            min_snr=min_snr or None,
            clip=gradient_clip,
            **advanced,
        )
        text = one_text_encoder(clip, world)
        folder = training_folder(name)
        base = base_fingerprint(copy.model)
        record = Record.open(folder, _identity(copy, dataset, settings, base), settings)
        plan = ValidationPlan(validation, validation_pictures, validation_steps, guidance)
        if record.finished and (kept := _kept(folder, record.step)) is not None:
            result, how = kept, "finished before; nothing was left to do"
        else:
            before = record.step
            data = prepare(dataset, vae, text, copy.model, base)
            judged = data if validation is None else prepare(validation, vae, text, copy.model, base)
            hints_fit(copy, [data, judged])
            result = run(
                copy, data, judged, plan, dataset, vae, settings, record, lambda status: show_text(cls, status)
            )
            how = f"continued after step {before}" if before else "trained from the beginning"
        higher = higher_is_better(validation or dataset)
        report = report_of(folder, record, result, how, dataset, validation, higher)
        show_text(cls, report)
        chart = as_image(charts(folder, f"Loss of '{folder.name}'", higher))
        drawn = latest(folder)
        pictures = chart if drawn is None else drawn.pictures
        control = Control.unbound(network_of(copy, dataset, result, folder.name))
        return io.NodeOutput(control, chart, pictures, report, ui=ui.PreviewImage(chart, cls=cls))


def _precision(choice: str) -> Any:
    if choice != "auto":
        return choice
    management = comfy.model_management
    device = management.get_torch_device()
    if management.is_device_cpu(device):
        return "fp32"
    if management.should_use_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def _identity(recipe: Recipe, dataset: Any, settings: Settings, base: str) -> Mapping[str, Any]:
    """What must not change between two starts, by a name for people."""
    return {
        "base": base,
        "data set": dataset.fingerprint,
        "form": recipe.form,
        "start": recipe.start,
        "hint_channels": recipe.hint_channels,
        "seed of the copy": recipe.seed,
        "seed": settings.seed,
        "batch": settings.batch,
        "optimiser": settings.optimiser,
    }


def _kept(folder: Path, step: int) -> Result | None:
    """What a finished training has learned; None where its state is of another step, as after a hand in the folder."""
    with torch.inference_mode(False):
        state = load(folder, torch.device("cpu"))
    return None if state is None or state.step != step else Result(state.average, step)


NODES: list[type[io.ComfyNode]] = [ControlComposerTrainableCopy, ControlComposerTrain]
