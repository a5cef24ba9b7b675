"""diffusers' own pipelines, random weights at the widths of benchmarks/widths.py: steps of its denoising loop, as its callback tells them.

UNet, ControlNets and scheduler are its own, both branches of CFG one batch of it; texts come encoded and pictures stay latents, so neither
encoder is there. The pipelines take turns of TURN steps, since their loop cannot stand still.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .launches import Launches, launches_of
from .memory import memory_of
from .runs import CFG, Measured, Watch, finish, without_collector
from .widths import WIDTHS, fill, picture

# The UNets of benchmarks/widths.py in diffusers' words, where "attention_head_dim" is the number of heads.
FOUR = {"in_channels": 4, "out_channels": 4}
UNETS: dict[str, dict[str, Any]] = {
    "narrow": FOUR | {"block_out_channels": (32, 64, 128, 128), "attention_head_dim": 8, "cross_attention_dim": 24},
    "sd15": FOUR | {"attention_head_dim": 8, "cross_attention_dim": 768},
    "sdxl": FOUR
    | {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
STRENGTH = 0.8
TURN = 3
"""Steps of a call of a pipeline. The first is not timed, since what the call prepares is before it."""


@dataclass(frozen=True)
class Piped:
    """A pipeline: so many ControlNets, of so many networks; `guess` is the conditional branch alone."""

    name: str
    words: str
    layers: int
    networks: int
    guess: bool = False
    optional: bool = False
    against: str | None = None
    equal: bool = False


def piped() -> Iterator[Piped]:
    yield Piped("diffusers-none", "its pipeline without control", 0, 0, optional=True)
    yield Piped("diffusers-1", "its pipeline with 1 ControlNet", 1, 1)
    for layers in (2, 3, 4):
        for networks in (1, layers):
            own = networks > 1
            words = f"its pipeline with {layers} ControlNets{f', {networks} networks' if own else ''}"
            name = f"diffusers-{layers}{'-networks' if own else ''}"
            yield Piped(name, words, layers, networks, optional=own or layers == 4)
    yield Piped("diffusers-cond-only", "its guess mode", 1, 1, guess=True)


def diffusers_version() -> tuple[str, list[str]]:
    """Of the one that is installed; empty, and a sentence, where there is none."""
    try:
        import diffusers
    except ImportError as problem:
        return "", [f"diffusers is left out: it cannot be imported ({problem}); install it beside torch."]
    return str(diffusers.__version__), []


class Pipelines:
    """The networks of one width and dtype, each made when it is first asked for."""

    def __init__(self, width: str, dtype: torch.dtype, device: torch.device) -> None:
        self.width, self.dtype, self.device = width, dtype, device
        self._controls: list[Any] = []

    @functools.cached_property
    def unet(self) -> Any:
        return self._made(meta_unet(self.width), 100)

    def control(self, index: int) -> Any:
        """The ControlNetModel with this number."""
        while len(self._controls) <= index:
            self._controls.append(self._made(meta_control(self.unet), 101 + len(self._controls)))
        return self._controls[index]

    def _made(self, module: Any, seed: int) -> Any:
        # torch's own `to`: the library's warns of layers that some models keep in float32, and these have none.
        module = nn.Module.to(module, dtype=self.dtype).to_empty(device=self.device).eval().requires_grad_(False)
        fill(module, seed, self.device)
        return module

    def pipeline(self, one: Piped) -> Any:
        """StableDiffusionPipeline, its XL, or the ControlNet pipeline of either."""
        import diffusers

        xl = self.width == "sdxl"
        kind = "StableDiffusionXL" if xl else "StableDiffusion"
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "feature_extractor"))
        parts |= {"text_encoder_2": None, "tokenizer_2": None} if xl else {"safety_checker": None}
        settings: dict[str, Any] = {"add_watermarker": False} if xl else {"requires_safety_checker": False}
        if one.layers:
            networks = [self.control(number % one.networks) for number in range(one.layers)]
            settings["controlnet"] = networks[0] if one.layers == 1 else networks
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        name = f"{kind}ControlNetPipeline" if one.layers else f"{kind}Pipeline"
        pipeline = getattr(diffusers, name)(unet=self.unet, scheduler=scheduler, **parts, **settings)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def opened(self, one: Piped, pixels: int, batch: int) -> Opened:
        return Opened(self, one, pixels, batch)


class Opened:
    """A pipeline with all that a call of it is given."""

    def __init__(self, networks: Pipelines, one: Piped, pixels: int, batch: int) -> None:
        self.pipeline, self.device = networks.pipeline(one), networks.device
        self.pixels = pixels
        (positive, pooled), (negative, other) = (WIDTHS[networks.width].conditioning(seed)[0] for seed in (1, 2))

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(networks.device, networks.dtype)

        self.given: dict[str, Any] = {
            "prompt_embeds": moved(positive),
            "negative_prompt_embeds": moved(negative),
            "num_images_per_prompt": batch,
            "guidance_scale": CFG,
            "height": pixels,
            "width": pixels,
            "output_type": "latent",
        }
        if pooled:
            self.given["pooled_prompt_embeds"] = moved(pooled["pooled_output"])
            self.given["negative_pooled_prompt_embeds"] = moved(other["pooled_output"])
        if one.layers:
            pictures = [picture(pixels, 10 + layer).movedim(-1, 1) for layer in range(one.layers)]
            self.given["image"] = pictures[0] if one.layers == 1 else pictures
            self.given["controlnet_conditioning_scale"] = STRENGTH if one.layers == 1 else [STRENGTH] * one.layers
            self.given["guess_mode"] = one.guess

    def __call__(self, steps: int, on_step: Callable[[], None] = lambda: None) -> Tensor:
        """The latents after so many steps; `on_step` is called after each."""

        def told(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return {}

        generator = torch.Generator(self.device).manual_seed(self.pixels)
        done = self.pipeline(**self.given, num_inference_steps=steps, callback_on_step_end=told, generator=generator)
        latents: Tensor = done.images
        return latents

    def step_seconds(self, clock: Callable[[], float]) -> float:
        """Of a step, the mean of those of a turn."""
        stamps: list[float] = []

        def on_step() -> None:
            finish(self.device)
            stamps.append(clock())

        with without_collector():
            self(TURN, on_step)
        return (stamps[-1] - stamps[0]) / (len(stamps) - 1)

    def launches(self) -> Launches | None:
        """Of a step: what two take more than one."""
        one, two = launches_of(lambda: self(1), self.device), launches_of(lambda: self(2), self.device)
        if one is None or two is None:
            return None
        kernels = None if one.kernels is None or two.kernels is None else two.kernels - one.kernels
        return Launches(two.launched - one.launched, kernels)

    def rows(self) -> tuple[int, ...]:
        """Of each evaluation of the UNet in a step."""
        seen: list[int] = []
        hook = self.pipeline.unet.register_forward_pre_hook(lambda module, given: seen.append(int(given[0].shape[0])))
        try:
            self(1)
        finally:
            hook.remove()
        return tuple(seen)


def measure_pipelines(
    networks: Pipelines,
    pipes: Sequence[Piped],
    pixels: int,
    batch: int,
    rounds: int,
    tell: Callable[[str], None],
    clock: Callable[[], float],
) -> dict[str, Measured]:
    """Time of steps of each pipeline, `rounds` times the mean of TURN - 1, taking turns; memory is that of a call of one step, preparations included."""
    opened = {one.name: networks.opened(one, pixels, batch) for one in pipes}
    results: dict[str, Measured] = {}
    next(iter(opened.values()))(1)  # what libraries set up once in a process
    for name, call in opened.items():
        tell(f"{pixels} px, batch {batch}, memory of {name}")
        watch = Watch(networks.device, clock)
        _, first = memory_of(watch.around(lambda call=call: call(1)), networks.device)  # type: ignore[misc]
        result, later = memory_of(watch.around(lambda call=call: call(1)), networks.device)  # type: ignore[misc]
        results[name] = Measured(first, later, call.rows(), result.float().cpu(), tuple(watch.seconds), call.launches())
    for index in range(rounds):
        tell(f"{pixels} px, batch {batch}, round {index + 1} of {rounds} of diffusers")
        first_in_turn = index % len(opened)
        for name in [*opened][first_in_turn:] + [*opened][:first_in_turn]:
            results[name].seconds.append(opened[name].step_seconds(clock))
    return results


def meta_unet(width: str) -> Any:
    """Without weights."""
    import diffusers

    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(**UNETS[width])


def meta_control(unet: Any) -> Any:
    """The ControlNet of such a UNet, without weights."""
    import diffusers

    with torch.device("meta"):
        return diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
