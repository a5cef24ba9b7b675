"""The paper's study on the demo world: `python host.py python -m control_composer.demo.study`.

Trains, measures and writes docs/study.md; what is finished is not repeated.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..train import HERE, SCALES, Training, use_cpu_without_cuda
from ..world import WEIGHTS

log = logging.getLogger("demo.study")

STAGES = ("train", "draw", "measure", "report")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The paper's study on the demo world; run it again to continue.")
    parser.add_argument(
        "--runs", type=Path, default=HERE / "runs" / "study", help="where weights, rows and pictures go"
    )
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="where study.md and its pictures go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=40, help="held-out scenes for each cell")
    parser.add_argument("--guided", type=int, default=16, help="those of them that the host draws")
    parser.add_argument("--steps", type=int, default=20, help="of the samplers")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the study's own sampler")
    parser.add_argument(
        "--last-first", action="store_true", help="draw in the other direction, for a second process beside the first"
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    options = parser.parse_args(arguments)
    # The host has set up its own log by now.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    use_cpu_without_cuda()
    # They need the host, which needs to know first whether there is CUDA.
    from .base import Base
    from .heldout import HeldOut
    from .learn import runs as all_runs
    from .measure import Measuring, names
    from .recogniser import recogniser
    from .report import write_report

    options.runs.mkdir(parents=True, exist_ok=True)
    runs = all_runs(range(options.seeds))
    if "train" in options.stages:
        train(options.runs, options.seeds)
    if set(options.stages) <= {"train"}:
        return
    # Only drawing goes without it.
    network = None if set(options.stages) <= {"train", "draw"} else recogniser(options.runs)
    held_out = HeldOut(options.scenes, network, options.runs)
    measuring = Measuring(
        options.runs,
        held_out,
        Base.load(),
        guided=options.guided,
        steps=options.steps,
        precision=options.precision,
    )
    waiting = measuring.draw(runs, last_first=options.last_first) if "draw" in options.stages else []
    if "measure" in options.stages:
        waiting = measuring.run(runs)
    if waiting:
        log.info("not trained yet, so not drawn: %s", names(waiting))
    if "report" in options.stages:
        for claim in write_report(runs, measuring, options.docs):
            log.info("%s: %s. %s.", claim.verdict, claim.paper, claim.figures)


def train(folder: Path, seeds: int) -> None:
    """All runs that are not finished, on the pairs that the demo's controls learn from."""
    from ..watch import Watch
    from .learn import learn
    from .learn import runs as all_runs

    cpu = torch.device("cpu")
    world = Training(SCALES["cpu"], folder, WEIGHTS, cpu)
    autoencoder = world._autoencoder()
    pairs = world._pairs(SCALES["cpu"].scenes, autoencoder)
    unet, words = world._unet(pairs)
    watch = Watch(SCALES["cpu"].watched, autoencoder, unet, words, folder, cpu)
    for run in all_runs(range(seeds)):
        learn(run, unet, words, pairs, watch, folder)


if __name__ == "__main__":
    main()
