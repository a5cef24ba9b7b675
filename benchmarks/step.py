"""Step time and peak memory with and without control: ours, the stock nodes, Advanced-ControlNet and diffusers where they are given.

    python host.py python benchmarks/step.py [--width sd15|sdxl|narrow] [--sizes 256 512] [--batch 1 4 16] [--rounds 7] [--json FILE]
    python host.py python benchmarks/step.py --preset gpu | gpu-sdxl | gpu-layers | gpu-sizes | gpu-sdxl-batches | cpu
    python host.py python benchmarks/step.py --variants stock-1 ours-1 ours-cond-only --sizes 256 --rounds 3 --timeline FILE.png
    python host.py python benchmarks/step.py --advanced-controlnet FOLDER_OF_COMFYUI_ADVANCED_CONTROLNET --diffusers

Random weights at the real widths, one picture, both branches of CFG in one batch, through the host's own guider: the sampling runs of all variants
are open at once, their steps take turns, and every round has a new latent and sigma. Nothing is read from disk or downloaded.

  step      time of a step: median [least..most]
  ratio     step time over that of the same round without control: median [least..most]
  run       time of all its steps over that of all steps without control: what counts where steps differ, as under reuse
  added     time that the variant adds, over the time that the stock nodes with as many layers add in the same round
  differs   from the stock nodes' prediction, relative L2; only where the two should be equal
  peak      memory of a step beside the weights, with what the run keeps from step to step (hints, embeddings, graphs), MiB
  first     the same of the first step, which embeds the hints
  kept      what the run keeps
  first s   time of the first step, and of the second, at which graphs are recorded
  more s    how much longer the two are than two later ones
  control s time that the host spends in `get_control` in a step, on average: on CUDA until all is launched, on a CPU until it is computed
  launches  of a step: on CUDA what the host puts on the device one by one, a graph being one; on a CPU operators
  kernels   that a CUDA device runs in a step
  rows      of each evaluation of the UNet in a step; [2] is CFG as one batch

Names that end in -beside run beside the model (`beside_model` on), on a CUDA device only; all others do not, on any. Names with -networks have a
network for each layer, others one for all. The runs of --diffusers are pipelines of its own; their ratios are over its own step without control.

`--clock process` counts the processor's time instead of the wall's, for a CPU that others use too; one thread, or waiting threads count as well.
On a CPU the memory is that of torch's allocator, the same at every run; see benchmarks/memory.py: times of its first steps hold the profiler's own.
The weights need 5 GB (sd15) or 16 GB (sdxl) in float32, half in the 16-bit types, and more for the variants with several networks, which run only
when they are asked for by name. `--preset gpu` and the other ones are command lines (PRESETS); what stands beside them counts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import comfy.cli_args
import torch

# The host's other modules choose a device when they are imported, so those that use them are imported after the options are read.

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
TABLE = (
    "stock-1 stock-3 stock-3-networks stock-cond-only ours-1 ours-1-beside ours-3 ours-3-beside ours-3-networks ours-3-networks-beside "
    "ours-cond-only ours-cond-only-beside ours-every-2 ours-every-2-beside ours-every-3 ours-every-3-beside "
    "acn-1 acn-3 acn-cond-only diffusers-1 diffusers-3 diffusers-cond-only"
)
LAYERS = " ".join(
    f"{name}{end}"
    for name in ("stock", "ours", "acn", "diffusers")
    for end in ("-1", "-2", "-2-networks", "-3", "-3-networks", "-4", "-4-networks")
)
BESIDE = " ".join(f"{name}-beside" for name in LAYERS.split() if name.startswith("ours"))
SHORT = "stock-1 ours-1 ours-1-beside ours-cond-only ours-cond-only-beside ours-every-2 ours-every-2-beside diffusers-1"
ON_GPU = "--device cuda --dtype float16 --diffusers --goals --rounds 24"
PRESETS = {
    "gpu": f"{ON_GPU} --width sd15 --sizes 512 --batch 1 16 --variants {TABLE}",
    "gpu-sdxl": f"{ON_GPU} --width sdxl --sizes 1024 --variants {TABLE}",
    "gpu-layers": f"{ON_GPU} --width sd15 --sizes 512 --variants {LAYERS} {BESIDE}",
    "gpu-sizes": f"{ON_GPU} --width sd15 --sizes 512 768 --batch 1 4 16 --variants {SHORT}",
    "gpu-sdxl-batches": f"{ON_GPU} --width sdxl --sizes 1024 --batch 4 16 --variants {SHORT}",
    "cpu": "--device cpu --width sd15 --sizes 512 --rounds 20 --attention pytorch --goals --variants stock-1 ours-1 ours-cond-only ours-every-2",
}
"""Rounds are whole turns of variants that do the same again after two and after three steps."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.device == "cpu" or not torch.cuda.is_available():
        comfy.cli_args.args.cpu = True
    if options.attention == "pytorch":
        comfy.cli_args.args.use_pytorch_cross_attention = True
    if options.threads:
        torch.set_num_threads(options.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler complains of a missing GPU
    # Profiling CUDA graphs a second time in a process has crashed where CUPTI was taken down in between (torch.profiler does the same).
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    from comfy import model_management

    from control_composer.benchmarks.goals import show_goals
    from control_composer.benchmarks.step_run import run
    from control_composer.benchmarks.step_table import show

    device = model_management.get_torch_device()
    if options.device and device.type != options.device:
        raise SystemExit(
            f"--device is {options.device}, but the host runs on {device.type} here and that was expected; "
            "leave --device out, or run where there is such a device."
        )
    report = run(options, device, CLOCKS[options.clock])
    show(report)
    if options.goals:
        show_goals(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    preset = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    preset.add_argument("--preset", choices=list(PRESETS), help="a command line; options beside it go before its own")
    chosen, rest = preset.parse_known_args(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[preset]
    )
    parser.add_argument("--width", default="sd15", choices=["sd15", "sdxl", "narrow"])
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[256, 512],
        metavar="PIXELS",
        help="side of the picture, multiples of 64",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1], metavar="PICTURES", help="made at once, each size")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the host's own choice if left out")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each variant")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these; 'none' is always there")
    parser.add_argument("--advanced-controlnet", type=Path, metavar="FOLDER")
    parser.add_argument("--diffusers", action="store_true", help="its own pipelines as well; needs diffusers")
    parser.add_argument("--attention", default="host", choices=["host", "pytorch"], help="the host's choice, or SDPA")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="process: see above")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--goals", action="store_true", help="what was to be reached, and whether it was")
    parser.add_argument("--timeline", type=Path, metavar="FILE", help="a picture, .png or .jpg, of two steps")
    parser.add_argument("--timeline-of", metavar="NAME", help="the last of the variants if left out; at the first size")
    options = parser.parse_args([*(PRESETS[chosen.preset].split() if chosen.preset else ()), *rest])
    options.preset = chosen.preset
    for name in ("rounds", "batch"):
        given = getattr(options, name)
        if wrong := [number for number in (given if isinstance(given, list) else [given]) if number < 1]:
            what = "timed steps" if name == "rounds" else "pictures"
            parser.error(f"--{name} is {wrong[0]}, but at least 1 was expected; give a number of {what}.")
    if wrong := [size for size in options.sizes if size < 64 or size % 64]:
        parser.error(f"--sizes has {wrong[0]}, but multiples of 64 pixels were expected; give for example 512.")
    if options.timeline and options.timeline.suffix not in (".png", ".jpg"):
        parser.error(f"--timeline is {options.timeline.name}, but a name with .png or .jpg was expected; add one.")
    return options


if __name__ == "__main__":
    main()
