"""Menu section "train", second half: MODEL -> TRAINABLE_COPY -> CONTROL_NET."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import comfy.cldm.cldm
import comfy.model_management
import comfy.ops
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..checkpoints import connected_base
from ..checkpoints.build import INFERENCE_DTYPES
from ..control import Control, EncoderNetwork
from ..control.lite import LiteNetwork
from ..training.checkpoint import load
from ..training.convergence import sudden_step
from ..training.copy import Form, arguments, encoder_of
from ..training.encode import schedule_of
from ..training.lite import LiteControl
from ..training.picture import charts, read_losses
from ..training.recipe import Recipe
from ..training.record import Record
from ..training.settings import Optimiser, Settings
from ..training.start import Start
from ..training.validation import latest, read_rows, read_scores
from .demo import DemoWorld
from .text import show_text
from .training_session import (
    FOLDER,
    Result,
    ValidationPlan,
    duration,
    hints_fit,
    one_text_encoder,
    prepare,
    run,
    training_folder,
)

TrainableCopyType = io.Custom("TRAINABLE_COPY")
Dataset = io.Custom("CONDITION_DATASET")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LARGEST_SEED = 2**63 - 1


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
                for parameter in _empty_network(model, Recipe(model, hint_channels, form=form)).parameters()
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
            inputs=[
                TrainableCopyType.Input("copy", tooltip="From Trainable Copy."),
                Dataset.Input("dataset", tooltip="From Condition Dataset: what is learned from."),
                io.Vae.Input("vae", tooltip="The VAE of the base."),
                io.String.Input(
                    "name",
                    default="my control",
                    tooltip="Of this training. Everything it writes goes into the folder "
                    f"{'/'.join(FOLDER)}/NAME of the output folder; another name begins anew.",
                ),
                io.Int.Input(
                    "steps",
                    default=5000,
                    min=1,
                    max=10**8,
                    tooltip="How often the weights are changed. The paper's models begin to obey, all at once, before step 10 000. Raise it to train on.",
                ),
                io.Int.Input(
                    "batch",
                    default=4,
                    min=1,
                    max=2**16,
                    tooltip="Pictures that each step learns from. More are steadier and take more memory; see accumulation.",
                ),
                io.Float.Input(
                    "rate",
                    default=1e-5,
                    min=1e-8,
                    max=1.0,
                    step=1e-6,
                    round=False,
                    tooltip="Learning rate: 0.00001 for Stable Diffusion, as in the paper's code; about 0.0005 for the demo world.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Decides order, times, noise and which prompts are left out. The same seed gives the same control.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The CLIP of the base, which reads the captions."),
                DemoWorld.Input("world", optional=True, tooltip="In place of clip, for the demo world."),
                Dataset.Input(
                    "validation",
                    optional=True,
                    tooltip="Pictures that are not learned from: their hints are drawn from time to time. Without it, hints of the dataset are.",
                ),
                io.Int.Input(
                    "validate_every",
                    default=250,
                    min=0,
                    max=10**8,
                    optional=True,
                    tooltip="Steps between two validations; 0 for one before and one after the training. Each takes the time of some steps.",
                ),
                io.Int.Input(
                    "validation_pictures",
                    default=4,
                    min=1,
                    max=16,
                    optional=True,
                    tooltip="Hints that each validation draws, always the same with the same noise, so that pictures can be compared.",
                ),
                *_advanced(),
            ],
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
        higher = _higher_is_better(validation or dataset)
        report = _report(folder, record, result, how, dataset, validation, higher)
        show_text(cls, report)
        chart = _as_image(charts(folder, f"Loss of '{folder.name}'", higher))
        drawn = latest(folder)
        pictures = chart if drawn is None else drawn.pictures
        control = Control.unbound(network_of(copy, dataset, result, folder.name))
        return io.NodeOutput(control, chart, pictures, report, ui=ui.PreviewImage(chart, cls=cls))


def network_of(recipe: Recipe, dataset: Any, result: Result, name: str) -> EncoderNetwork:
    """The trained weights in the host's hands, in full precision, computing in what the host would choose for them."""
    base = connected_base(recipe.model).name
    about = {"base": base, "steps": str(result.step)}
    about |= {"condition": dataset.condition} if dataset.condition else {}
    with torch.inference_mode(False), torch.no_grad():
        module = _empty_network(recipe.model, recipe)
        module.load_state_dict(dict(result.average), assign=True)
        module.eval().requires_grad_(False)
    if recipe.form == "lite":
        return LiteNetwork.from_module(module, name=name, base=base, about=about)
    return EncoderNetwork.from_module(module, name=name, base=base, about=about, manual_cast_dtype=_cast())


def _empty_network(model: Any, recipe: Recipe) -> Any:
    """The network of a recipe without numbers."""
    unet = model.get_model_object("diffusion_model")
    net = encoder_of(unet, recipe.hint_channels)
    with torch.device("meta"):
        if recipe.form == "lite":
            return LiteControl(net)
        operations = comfy.ops.pick_operations(torch.float32, _cast())
        # SD2's attention overflows in half precision; the host keeps it in full (supported_models.SD20).
        precision = model.model.model_config.unet_config.get("attn_precision")
        return comfy.cldm.cldm.ControlNet(**arguments(unet, net), attn_precision=precision, operations=operations)


def _cast() -> torch.dtype | None:
    """What the host would keep such weights in, in which it computes; None for full precision."""
    dtype = comfy.model_management.unet_dtype(
        model_params=-1, supported_dtypes=INFERENCE_DTYPES, weight_dtype=torch.float32
    )
    return None if dtype == torch.float32 else dtype


def _advanced() -> list[Any]:
    """The settings that few need. They have the names of `training.settings`, but for clip, which is another input."""
    whole, share = {"optional": True, "advanced": True}, {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Int.Input(
            "validation_steps",
            default=20,
            min=1,
            max=1000,
            tooltip="Sampling steps (DDIM) of validation pictures.",
            **whole,
        ),
        io.Float.Input(
            "guidance",
            default=4.0,
            min=1.0,
            max=30.0,
            step=0.5,
            tooltip="CFG of validation pictures; 1 is without.",
            **whole,
        ),
        io.Int.Input(
            "accumulation",
            default=1,
            min=1,
            max=2**16,
            tooltip="Parts in which the pictures of a step are computed, one after the other: the same result with less memory. The batch must be a "
            "multiple of it.",
            **whole,
        ),
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            default="auto",
            tooltip="What is computed in; the weights that are learned stay in full precision. auto: bf16 where the device has it, else fp16, and fp32 on "
            "the CPU.",
            **whole,
        ),
        io.Boolean.Input(
            "checkpointing",
            default=False,
            tooltip="Compute the insides of blocks anew in the backward pass in place of keeping them: much less memory, about a third more time.",
            **whole,
        ),
        io.Combo.Input(
            "optimiser",
            options=list(get_args(Optimiser)),
            default="adamw",
            tooltip="adamw8bit keeps its moments in 8 bits, for a quarter of the memory, and needs the package bitsandbytes.",
            **whole,
        ),
        io.Int.Input(
            "warm_up",
            default=500,
            min=0,
            max=10**8,
            tooltip="Steps over which the rate rises from nothing at the start.",
            **whole,
        ),
        io.Float.Input(
            "decay",
            default=0.0,
            tooltip="Share of the steps, the last ones, over which the rate falls to 1 %.",
            **whole,
            **share,
        ),
        io.Float.Input(
            "ema",
            default=0.999,
            min=0.0,
            max=0.999999,
            step=0.0001,
            round=False,
            tooltip="How much of the moving average of the weights, which is what comes out, stays at each step; 0 for the last weights themselves.",
            **whole,
        ),
        io.Float.Input(
            "weight_decay", default=0.01, min=0.0, max=10.0, step=0.001, round=False, tooltip="Of AdamW.", **whole
        ),
        io.Float.Input(
            "gradient_clip",
            default=1.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip="Longest gradient; 0 for any length.",
            **whole,
        ),
        io.Float.Input(
            "empty_prompts",
            default=0.5,
            tooltip="Share of the captions that are left out, so that the control reads meaning from the hint; a half in the paper.",
            **whole,
            **share,
        ),
        io.Float.Input(
            "middle_times",
            default=0.0,
            tooltip="Share of the pictures whose noise is of the middle of the schedule, where shapes form, in place of evenly drawn; 1 learns shapes in "
            "fewer steps.",
            **whole,
            **share,
        ),
        io.Float.Input(
            "min_snr",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.5,
            tooltip="Gamma of min-SNR weights, 5 in its paper: counts pictures with little noise less. 0 is off.",
            **whole,
        ),
        io.Int.Input(
            "save_every",
            default=500,
            min=1,
            max=10**8,
            tooltip="Steps between two states on the disk. A crash loses the steps since the last one; stopping loses none.",
            **whole,
        ),
        io.Int.Input(
            "log_every",
            default=10,
            min=1,
            max=10**8,
            tooltip="Steps that each point of the loss is the mean of.",
            **whole,
        ),
    ]


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
    return None if state is None or state.step != step else Result(state.average, step, None)


def _higher_is_better(dataset: Any) -> bool:
    from ..evaluation.fidelity import MEASURES

    return dataset.condition not in MEASURES or MEASURES[dataset.condition].higher_is_better


def _report(
    folder: Path, record: Record, result: Result, how: str, dataset: Any, validation: Any, higher_is_better: bool
) -> str:
    steps, losses = read_losses(folder)
    at, scores = read_scores(folder)
    lines = [f"'{folder.name}': step {result.step} of {record.settings['steps']}, {how}"]
    if losses:
        lines.append(f"loss: {losses[0]:.4g} at step {steps[0]}, {losses[-1]:.4g} at step {steps[-1]}")
    if record.seconds:
        lines.append(f"time: {duration(record.seconds)}")
    lines.append(
        f"learned from: {len(dataset)} pictures" + (f", hints by {dataset.condition}" if dataset.condition else "")
    )
    lines += [f"changed on the way: {change}" for change in record.changes]
    whose = "pictures that were learned from" if validation is None else "pictures that were not learned from"
    if at:
        lines.append(
            f"validation on {whose}, {read_rows(folder)[-1].measure}: {scores[0]:.3g} at step {at[0]}, {scores[-1]:.3g} at step {at[-1]}"
        )
        sudden = sudden_step(at, scores, higher_is_better)
        lines.append("no sudden convergence seen" if sudden is None else f"sudden convergence at step {sudden}")
    else:
        lines.append(f"validation on {whose}; their hints have no measure")
    lines.append(f"folder: {folder}")
    return "\n".join(lines)


def _as_image(picture: Image.Image) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(picture)).float()[None] / 255


NODES: list[type[io.ComfyNode]] = [ControlComposerTrainableCopy, ControlComposerTrain]
