"""Step time and peak memory with and without control: ours, the stock nodes, and Advanced-ControlNet when its folder is given.

    python host.py python benchmarks/step.py [--width sd15|sdxl|narrow] [--sizes 256 512] [--rounds 7] [--json FILE]
    python host.py python benchmarks/step.py --device cuda --dtype float16 --width sdxl --sizes 512 1024
    python host.py python benchmarks/step.py --variants stock-1 ours-1 ours-cond-only --sizes 256 --rounds 3
    python host.py python benchmarks/step.py --advanced-controlnet FOLDER_OF_COMFYUI_ADVANCED_CONTROLNET

Random weights at the real widths, one picture, both branches of CFG in one batch, through the host's own guider: the sampling runs of all variants
are open at once, their steps take turns, and every round has a new latent and sigma. Nothing is read from disk or downloaded.

  ratio     step time over that of the same round without control: median [least..most]
  run       time of all its steps over that of all steps without control: what counts where steps differ, as under reuse
  added     time that the variant adds, over the time that the stock nodes with as many layers add in the same round
  peak      memory of a step beside the weights, with what the run keeps from step to step (hints, embeddings), MiB
  first     the same of the first step, which embeds the hints
  kept      what the run keeps
  rows      of each evaluation of the UNet in a step; [2] is CFG as one batch
  differs   from the stock nodes' prediction, relative L2; only where the two should be equal

`--clock process` counts the processor's time instead of the wall's, for a CPU that others use too; one thread, or waiting threads count as well.
On a CPU the memory is that of torch's allocator, the same at every run; see benchmarks/memory.py. The weights need 5 GB (sd15) or 16 GB (sdxl) in
float32, half in the 16-bit types, and more for the variants with three networks, which run only when they are asked for by name.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.cli_args
import torch

if TYPE_CHECKING:
    from control_composer.benchmarks.runs import Measured
    from control_composer.benchmarks.variants import Variant
    from control_composer.benchmarks.widths import Width

# The host's other modules choose a device when they are imported, so those that use them are imported after the options are read.

MEBI = 2**20
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
HEADROOM = 1.15
"""Memory that must be free, over that of the weights."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.device == "cpu" or not torch.cuda.is_available():
        comfy.cli_args.args.cpu = True
    if options.attention == "pytorch":
        comfy.cli_args.args.use_pytorch_cross_attention = True
    if options.threads:
        torch.set_num_threads(options.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler complains of a missing GPU
    from comfy import model_management

    device = model_management.get_torch_device()
    if options.device and device.type != options.device:
        raise SystemExit(
            f"--device is {options.device}, but the host runs on {device.type} here and that was expected; "
            "leave --device out, or run where there is such a device."
        )
    report = run(options, device)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", default="sd15", choices=["sd15", "sdxl", "narrow"])
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[256, 512],
        metavar="PIXELS",
        help="side of the picture, multiples of 64",
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the host's own choice if left out")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each variant")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these; 'none' is always there")
    parser.add_argument("--advanced-controlnet", type=Path, metavar="FOLDER")
    parser.add_argument("--attention", default="host", choices=["host", "pytorch"], help="the host's choice, or SDPA")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="process: see above")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, but at least 1 was expected; give a number of timed steps.")
    if wrong := [size for size in options.sizes if size < 64 or size % 64]:
        parser.error(f"--sizes has {wrong[0]}, but multiples of 64 pixels were expected; give for example 512.")
    return options


def run(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything that was measured, as it goes into the JSON file."""
    from control_composer.benchmarks.runs import measure
    from control_composer.benchmarks.surroundings import commit, hardware
    from control_composer.benchmarks.variants import Scene
    from control_composer.benchmarks.widths import WIDTHS, Networks

    peer, skipped = peer_nodes(options.advanced_controlnet)
    variants, left_out = chosen(options.variants, bool(peer))
    width, dtype = WIDTHS[options.width], getattr(torch, options.dtype)
    report = {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "hardware": hardware(device.type),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "comfyui": host_version(),
        "attention": attention(),
        "width": options.width,
        "dtype": options.dtype,
        "rounds": options.rounds,
        "clock": options.clock,
        **weights_of(width, dtype, max(variant.networks for variant in variants), device),
        "skipped": skipped + left_out,
        "sizes": [],
    }
    networks = Networks(width, dtype)
    with torch.inference_mode():
        for pixels in options.sizes:
            scene = Scene(networks, pixels, peer)
            conditionings = {variant.name: variant.attach(scene) for variant in variants}
            measured = measure(networks.model, conditionings, pixels, options.rounds, tell, CLOCKS[options.clock])
            report["sizes"].append({"pixels": pixels, "variants": [row(one, measured) for one in variants]})
    return report


def peer_nodes(folder: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Advanced-ControlNet's nodes; none, and a sentence, where it cannot be compared with."""
    from control_composer.benchmarks.peers import PeerError, advanced_controlnet

    if folder is None:
        return {}, ["Advanced-ControlNet is left out: give its folder with --advanced-controlnet."]
    try:
        return advanced_controlnet(folder), []
    except PeerError as problem:
        return {}, [f"Advanced-ControlNet is left out: {problem}"]


def chosen(names: Sequence[str] | None, with_peer: bool) -> tuple[list[Variant], list[str]]:
    """The variants to run, and a sentence where one that was asked for is not among them."""
    from control_composer.benchmarks.variants import VARIANTS

    known = {variant.name: variant for variant in VARIANTS}
    if unknown := [name for name in names or () if name not in known]:
        raise SystemExit(
            f"--variants has {unknown[0]!r}, but one of {', '.join(known)} was expected; write the name as it is there."
        )
    wanted = {name for name, variant in known.items() if not variant.optional} if names is None else {"none", *names}
    dropped = [name for name in names or () if known[name].of_peer and not with_peer]
    kept = [one for one in VARIANTS if one.name in wanted and (with_peer or not one.of_peer)]
    return kept, [f"{', '.join(dropped)}: not run without Advanced-ControlNet."] if dropped else []


def weights_of(width: Width, dtype: torch.dtype, networks: int, device: torch.device) -> dict[str, Any]:
    """Parameters of both networks and the bytes of all weights. Ends the program where they do not fit."""
    from comfy import model_management

    unet, control = width.parameter_counts()
    needed = (unet + networks * control) * dtype.itemsize
    free = model_management.get_free_memory(device)
    if needed * HEADROOM > free:
        raise SystemExit(
            f"The weights take {needed / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')} and {free / 1e9:.1f} GB are free on {device.type}, but at "
            f"least {needed * HEADROOM / 1e9:.1f} GB were expected; use --dtype bfloat16, fewer networks, --width sd15, or a larger machine."
        )
    tell(f"{unet / 1e6:.1f} M + {networks} × {control / 1e6:.1f} M parameters, {needed / 1e9:.1f} GB")
    return {"parameters": {"unet": unet, "control": control}, "weight_bytes": needed}


def row(variant: Variant, measured: dict[str, Measured]) -> dict[str, Any]:
    """One variant's numbers."""
    own, none, other = measured[variant.name], measured["none"], measured.get(variant.beside or "")
    added = None
    if other is not None:
        shares = [
            (mine - bare) / (theirs - bare)
            for mine, theirs, bare in zip(own.seconds, other.seconds, none.seconds, strict=True)
            if theirs > bare
        ]
        added = {"beside": variant.beside, **spread(shares)} if shares else None
    return {
        "name": variant.name,
        "words": variant.words,
        "seconds": own.seconds,
        "ratio": spread([mine / bare for mine, bare in zip(own.seconds, none.seconds, strict=True)]),
        "run": sum(own.seconds) / sum(none.seconds),
        "added": added,
        "memory": {"peak": own.peak, "first": own.first.peak, "kept": own.first.kept},
        "batches": list(own.batches),
        "differs": float((own.result - other.result).norm() / other.result.norm()) if variant.equal and other else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(report: dict[str, Any]) -> None:
    """The report as tables for a person."""
    print(
        f"{report['date']}, commit {report['commit']}, {report['hardware']}, torch {report['torch']}, ComfyUI {report['comfyui']}, "
        f"{report['attention']}; {report['width']}, {report['dtype']}, {report['rounds']} rounds, {report['clock']} time"
    )
    for sentence in report["skipped"]:
        print(sentence)
    for size in report["sizes"]:
        print(
            f"\n{size['pixels']} px          step s  ratio                run    added              peak   first    kept  rows    differs"
        )
        for one in size["variants"]:
            print(line(one))


def line(one: dict[str, Any]) -> str:
    def between(values: dict[str, Any] | None) -> str:
        return "" if values is None else f"{values['median']:.3f} [{values['least']:.2f}..{values['most']:.2f}]"

    memory = "".join(f"{one['memory'][name] / MEBI:8.1f}" for name in ("peak", "first", "kept"))
    differs = "" if one["differs"] is None else f"{one['differs']:.1e}"
    seconds = statistics.median(one["seconds"])
    return (
        f"{one['name']:16}{seconds:8.3f}  {between(one['ratio']):20} {one['run']:.3f}  {between(one['added']):18}{memory}  "
        f"{one['batches']!s:7} {differs}"
    ).rstrip()


def host_version() -> str:
    import comfyui_version  # type: ignore[import-untyped]

    return str(comfyui_version.__version__)


def attention() -> str:
    from comfy.ldm.modules.attention import optimized_attention

    return str(optimized_attention.__name__)


def tell(words: str) -> None:
    """Progress, kept apart from the table."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
