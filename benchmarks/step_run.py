"""The measurements of benchmarks/step.py."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from comfy import model_management
from comfy.ldm.modules.attention import optimized_attention

from .diffusers_step import Piped, Pipelines, diffusers_version, measure_pipelines, piped
from .heads import lanes_of
from .peers import PeerError, advanced_controlnet
from .runs import Profile, measure
from .step_table import row
from .surroundings import commit, hardware
from .timeline import draw_timeline
from .variants import BESIDE, VARIANTS, Scene, Variant
from .widths import WIDTHS, Networks, Width

HEADROOM = 1.15
"""Memory that must be free, over that of the weights."""


def run(options: argparse.Namespace, device: torch.device, clock: Callable[[], float]) -> dict[str, Any]:
    """Everything that was measured, as it goes into the JSON file."""
    peer, skipped = peer_nodes(options.advanced_controlnet)
    with_diffusers, more = diffusers_version() if options.diffusers else ("", [])
    variants, pipes, left_out = chosen(options.variants, bool(peer), device.type == "cuda", bool(with_diffusers))
    profiled = timeline_of(options, variants)
    width, dtype = WIDTHS[options.width], getattr(torch, options.dtype)
    networks = [max(variant.networks for variant in variants), max((pipe.networks for pipe in pipes), default=0)]
    report: dict[str, Any] = {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "hardware": hardware(device.type),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "comfyui": host_version(),
        "diffusers": with_diffusers or None,
        "attention": str(optimized_attention.__name__),
        "patcher": patcher_name(),
        "allocator": torch.cuda.get_allocator_backend() if device.type == "cuda" else None,
        "width": options.width,
        "dtype": options.dtype,
        "rounds": options.rounds,
        "clock": options.clock,
        "preset": options.preset,
        **weights_of(width, dtype, networks[0], device, networks[1] if pipes else None),
        "skipped": skipped + more + left_out,
        "sizes": [],
    }
    with torch.inference_mode():
        ours = Networks(width, dtype)
        theirs = Pipelines(options.width, dtype, device)
        for pixels in options.sizes:
            for batch in options.batch:
                first = not report["sizes"]
                scene = Scene(ours, pixels, peer)
                conditionings = {variant.name: variant.attach(scene) for variant in variants}
                measured = measure(
                    ours.model,
                    conditionings,
                    pixels,
                    options.rounds,
                    tell,
                    clock,
                    batch=batch,
                    periods={variant.name: variant.period for variant in variants},
                    warm=warm(variants),
                    profile=(profiled, profile_of(options, report, ours, conditionings[profiled], profiled, batch))
                    if profiled and first
                    else None,
                )
                rows = [row(one, measured) | {"lanes": lanes_of(conditionings[one.name])} for one in variants]
                del conditionings, scene
                others = measure_pipelines(theirs, pipes, pixels, batch, options.rounds, tell, clock) if pipes else {}
                report["sizes"].append(
                    {
                        "pixels": pixels,
                        "batch": batch,
                        "variants": rows,
                        "diffusers": [row(one, others, none=pipes[0].name) for one in pipes],
                    }
                )
    return report


def warm(variants: Sequence[Variant]) -> list[str]:
    """The UNet by itself and under the first control that is not ours: ours may keep what they set up."""
    return [variant.name for variant in variants if not variant.name.startswith("ours-")][:2]


def peer_nodes(folder: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Advanced-ControlNet's nodes; none, and a sentence, where it cannot be compared with."""
    if folder is None:
        return {}, ["Advanced-ControlNet is left out: give its folder with --advanced-controlnet."]
    try:
        return advanced_controlnet(folder), []
    except PeerError as problem:
        return {}, [f"Advanced-ControlNet is left out: {problem}"]


def chosen(
    names: Sequence[str] | None, with_peer: bool, on_gpu: bool = False, with_diffusers: bool = False
) -> tuple[list[Variant], list[Piped], list[str]]:
    """The variants and the pipelines to run, and a sentence where some that were asked for are not among them."""
    known = {variant.name: variant for variant in VARIANTS}
    pipes = {pipe.name: pipe for pipe in piped()}
    if unknown := [name for name in names or () if name not in known and name not in pipes]:
        raise SystemExit(
            f"--variants has {unknown[0]!r}, but one of {', '.join([*known, *pipes])} was expected; write the name as it is there."
        )
    usual = [one.name for one in known.values() if not one.optional]
    usual += [one.name for one in pipes.values() if not one.optional]
    # On a GPU what usually runs also runs beside the model.
    usual += [name for name, one in known.items() if one.of_gpu and name.removesuffix(BESIDE) in usual and on_gpu]
    wanted = {"none", *(usual if names is None else names)}
    reasons: dict[str, list[str]] = {}
    for name in sorted(wanted, key=[*known, *pipes].index):
        if name in pipes and not with_diffusers:
            reasons.setdefault("diffusers", []).append(name)
        elif name in known and known[name].of_peer and not with_peer:
            reasons.setdefault("Advanced-ControlNet", []).append(name)
        elif name in known and known[name].of_gpu and not on_gpu:
            reasons.setdefault("a CUDA device", []).append(name)
    dropped = {name for some in reasons.values() for name in some}
    told = [f"{', '.join(some)}: not run without {reason}." for reason, some in reasons.items() if names is not None]
    if names is None and not on_gpu:
        told.append("Variants beside the model are left out: they need a CUDA device.")
    kept = [pipe for name, pipe in pipes.items() if name in wanted - dropped]
    if kept and kept[0].layers:
        kept.insert(0, next(iter(pipes.values())))  # ratios are over it
    return [one for name, one in known.items() if name in wanted - dropped], kept, told


def timeline_of(options: argparse.Namespace, variants: Sequence[Variant]) -> str | None:
    """The variant whose steps are drawn, if any are."""
    if options.timeline is None:
        return None
    names = [variant.name for variant in variants]
    name = options.timeline_of or names[-1]
    if name not in names:
        raise SystemExit(
            f"--timeline-of is {name!r}, but one of the variants that run was expected ({', '.join(names)}); "
            "add it to --variants, or name one of these."
        )
    return str(name)


def profile_of(
    options: argparse.Namespace, report: dict[str, Any], networks: Networks, conditionings: Any, name: str, batch: int
) -> Profile:
    words = (
        f"{name}, {options.width} {options.sizes[0]} px, batch {batch}, {options.dtype}: two steps; {report['hardware']}, "
        f"{report['date']}, commit {report['commit']}"
    )
    unet, device = networks.model.model.diffusion_model, networks.model.load_device
    return lambda steps: draw_timeline(options.timeline, words, steps, unet, conditionings, device)


def weights_of(
    width: Width, dtype: torch.dtype, networks: int, device: torch.device, piped: int | None = None
) -> dict[str, Any]:
    """Parameters of both networks and the bytes of all weights; `piped` counts the networks of diffusers, which has its own UNet.

    Ends the program where they do not fit.
    """
    unet, control = width.parameter_counts()
    needed = (unet + networks * control) * dtype.itemsize
    if piped is not None:
        needed += (unet + piped * control) * dtype.itemsize
    free = model_management.get_free_memory(device)
    if needed * HEADROOM > free:
        raise SystemExit(
            f"The weights take {needed / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')} and {free / 1e9:.1f} GB are free on {device.type}, but at "
            f"least {needed * HEADROOM / 1e9:.1f} GB were expected; use --dtype bfloat16, fewer networks, --width sd15, or a larger machine."
        )
    and_theirs = "" if piped is None else f", and {piped + 1} of diffusers"
    tell(f"{unet / 1e6:.1f} M + {networks} × {control / 1e6:.1f} M parameters{and_theirs}, {needed / 1e9:.1f} GB")
    return {"parameters": {"unet": unet, "control": control}, "weight_bytes": needed}


def host_version() -> str:
    import comfyui_version  # type: ignore[import-untyped]

    return str(comfyui_version.__version__)


def patcher_name() -> str:
    """How the host keeps weights: its server on a NVIDIA card has another patcher than a program that imports it."""
    from comfy import model_patcher

    return str(model_patcher.CoreModelPatcher.__name__)


def tell(words: str) -> None:
    """Progress, kept apart from the table."""
    print(words, file=sys.stderr, flush=True)
