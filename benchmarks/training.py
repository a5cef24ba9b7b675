"""What training a ControlNet costs: beside training the UNet by itself, and beside diffusers' script.

    python host.py python benchmarks/training.py [--width demo|narrow|half|sd15|sdxl] [--batch 4] [--rounds 7] [--json FILE]
    python host.py python benchmarks/training.py --device cuda --precision bf16 --width sd15 --pixels 512
    python host.py python benchmarks/training.py --width sd15 --pixels 64 --batch 1 --one-by-one
    python host.py python benchmarks/training.py --script FOLDER/examples/controlnet/train_controlnet.py

Random weights, random rows in memory, the pack's own loop: the same optimiser, batch, precision and length of the gradient for all. The steps of
all take turns; ratios are over the UNet alone (or the script) in the same round: median [least to most].

  memory     at most during a step, weights and optimiser's moments among it; what torch's allocator gives out (see benchmarks/memory.py)
  resident   of the process at most, over what it had before, with what the allocator cannot see; Linux only, of little use below 1 GB
  --script   runs the user's copy of diffusers' examples/controlnet/train_controlnet.py as it is, in a process of its own, on a folder of random weights
             of the same width and of random pictures. It encodes pictures and texts at every step, where ours are encoded before;
             "without encoding" takes the time within those two networks off. Needs diffusers, accelerate, transformers and datasets.
  --one-by-one  holds one training at a time in memory, all its rounds after one another

`--clock process` counts the processor's time instead of the wall's, for a CPU that others use too.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.cli_args
import torch

if TYPE_CHECKING:
    from control_composer.benchmarks.training_runs import Run, Scene

MEBI = 2**20
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
PIXELS = {"demo": 128, "narrow": 128, "half": 256, "sd15": 512, "sdxl": 1024}
WARM_UP = 2


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    # The host's other modules choose a device when they are imported.
    comfy.cli_args.args.cpu = options.device == "cpu"
    torch.set_num_threads(options.threads)
    report = run(options)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", default="demo", choices=list(PIXELS))
    parser.add_argument(
        "--pixels", type=int, help="side of the pictures, a multiple of 64; the width's usual one if left out"
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--ema", type=float, default=0.0, help="0: no average, as the script has none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each training")
    parser.add_argument("--trainings", nargs="*", default=["control", "unet alone"], choices=["control", "unet alone"])
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--script", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    options.pixels = options.pixels or PIXELS[options.width]
    if options.pixels < 64 or options.pixels % 64:
        parser.error(f"--pixels is {options.pixels}, but a multiple of 64 was expected; give for example 512.")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, but at least 1 was expected; give a number of timed steps.")
    if options.script and (options.one_by_one or "control" not in options.trainings or options.width == "sdxl"):
        parser.error("--script compares with the control of SD1's kinds in turns; leave out --one-by-one and sdxl.")
    if options.script and not options.script.is_file():
        parser.error(f"--script {options.script} is no file; give diffusers' examples/controlnet/train_controlnet.py.")
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured, as it goes into the JSON file."""
    from control_composer.benchmarks.surroundings import commit, hardware
    from control_composer.benchmarks.training_runs import Scene
    from control_composer.training.settings import Settings

    settings = Settings(
        steps=10**6, batch=options.batch, warm_up=0, precision=options.precision, ema=options.ema, validate_every=0
    )
    scene = Scene(options.width, options.pixels, settings, torch.device(options.device))
    with tempfile.TemporaryDirectory() as folder:
        trainings, reference = measured(options, scene, Path(folder))
    return {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "hardware": hardware(options.device),
        "torch": torch.__version__,
        **{
            name: getattr(options, name) for name in ("width", "pixels", "batch", "precision", "ema", "rounds", "clock")
        },
        "turns": not options.one_by_one,
        "trainings": trainings,
        "reference": reference,
    }


def measured(
    options: argparse.Namespace, scene: Scene, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """What each training took, and each step of the script where there is one."""
    from control_composer.benchmarks.training_runs import open_run
    from control_composer.benchmarks.training_script import Script

    clock = CLOCKS[options.clock]
    rows, open_runs = [], []
    with contextlib.ExitStack() as stack:
        script = stack.enter_context(Script(options, scene, folder / "script")) if options.script else None
        for name in options.trainings:
            tell(f"memory of {name}")
            one = open_run(name, scene, folder / "state")
            if options.one_by_one:
                for index in range(options.rounds):
                    tell(f"{name}, round {index + 1} of {options.rounds}")
                    one.time(clock)
                rows.append(row(one))
                del one
                gc.collect()
            else:
                open_runs.append(one)
        told = [script.step() for _ in range(WARM_UP)] if script else []
        told.clear()
        for index in range(options.rounds if open_runs else 0):
            tell(f"round {index + 1} of {options.rounds}")
            for one in open_runs if index % 2 else open_runs[::-1]:
                one.time(clock)
            if script:
                told.append(script.step())
    return rows or [row(one) for one in open_runs], told


def row(one: Run) -> dict[str, Any]:
    """One training's numbers."""
    memory = {"before": one.before, "moments": one.kept, "step": one.peak, "all": one.memory, "resident": one.resident}
    return {"name": one.name, "trained": one.weights, "seconds": one.seconds, "memory": memory}


def show(report: dict[str, Any]) -> None:
    """The report as tables for a person."""
    print(
        f"{report['date']}, commit {report['commit']}, {report['hardware']}, torch {report['torch']}; {report['width']}, {report['pixels']} px, "
        f"batch {report['batch']}, {report['precision']}, EMA {report['ema']}, {report['rounds']} rounds, {report['clock']} time"
    )
    by_name = {one["name"]: one for one in report["trainings"]}
    alone = by_name.get("unet alone")
    print(f"\n{'training':28}{'step s':>8}  {'ratio':22}{'memory MiB':>11}{'ratio':>7}{'resident':>10}")
    for one in report["trainings"]:
        memory, resident = one["memory"], one["memory"]["resident"]
        share = f"{memory['all'] / alone['memory']['all']:7.3f}" if alone else ""
        print(
            f"{one['name']:28}{statistics.median(one['seconds']):8.3f}  {ratio(one['seconds'], alone and alone['seconds']):22}"
            f"{memory['all'] / MEBI:11.1f}{share}{'' if resident is None else f'{resident / MEBI:10.1f}'}"
        )
    if not report["reference"]:
        return
    ours = by_name["control"]["seconds"]
    whole = [one["seconds"] for one in report["reference"]]
    within = [one["seconds"] - one["encoding"] for one in report["reference"]]
    print(f"\n{'images per second':28}{'':8}  script / ours in time")
    for name, seconds in (("ours", ours), ("the script", whole), ("the script without encoding", within)):
        print(f"{name:28}{report['batch'] / statistics.median(seconds):8.3f}  {ratio(seconds, ours)}")


def ratio(seconds: Sequence[float], over: Sequence[float] | None) -> str:
    if over is None:
        return ""
    ratios = [one / other for one, other in zip(seconds, over, strict=True)]
    return f"{statistics.median(ratios):.3f} [{min(ratios):.2f} to {max(ratios):.2f}]"


def tell(words: str) -> None:
    """Progress, kept apart from the table."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
