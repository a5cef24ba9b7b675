"""The inputs of Train ControlNet."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..training.settings import Optimiser
from .dataset import Dataset
from .demo import DemoWorld
from .training_session import FOLDER

TrainableCopyType = io.Custom("TRAINABLE_COPY")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LARGEST_SEED = 2**63 - 1


def train_inputs() -> list[Any]:
    """All of them, those that few need last."""
    return [
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
            step=1e-7,
            round=False,
            tooltip="Learning rate: 0.00001 for Stable Diffusion, as in the paper's code; 0.0015 for the demo world.",
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
    ]


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
