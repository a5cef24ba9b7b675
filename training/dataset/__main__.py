"""`accelerate launch -m control_composer.training.dataset CONFIG.json`: pictures and conditions as shards; see docs/cluster.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from ...checkpoints.errors import CheckpointError
from ...preprocessors import PreprocessorError
from ..errors import TrainingError
from ..stop import StopSignal
from .condition import condition_from
from .shard_config import DTYPES, ShardConfig, read_shard_config
from .sharded import PROBLEMS, Shard, ShardMaker, share_of_environment
from .sources import from_path

log = logging.getLogger("control_composer.training.dataset")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m control_composer.training.dataset",
        description="Makes the hints of a set of pictures and writes all as shards; the same command goes on with one that was stopped.",
    )
    parser.add_argument("config", type=Path, help="the JSON file; docs/cluster.md explains it")
    parser.add_argument(
        "--share", metavar="I/N", help="be number I, from 0, of N processes that nothing but this tells of each other"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout, force=True)
    stop = StopSignal()
    stop.listen()
    try:
        share = _share(options.share) if options.share else share_of_environment()
        done = run(read_shard_config(options.config), share, stop)
    except (TrainingError, PreprocessorError, CheckpointError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if done else stop.status


def run(config: ShardConfig, share: tuple[int, int], stop: StopSignal) -> bool:
    """Makes the shards of one process; whether it was asked to stop before the last. Raises TrainingError, PreprocessorError or CheckpointError."""
    condition = None
    if config.condition:
        condition = condition_from(
            config.condition,
            config.parameters,
            resolution=config.settings.resolution,
            annotators=config.annotators,
            device=_device(config.device),
            dtype=DTYPES[config.dtype],
        )
    maker = ShardMaker(from_path(config.pictures, config.hints), config.shards, condition, config.settings)
    mine = len(maker.missing(share))
    log.info(
        "process %d of %d: %d of %d shards to make, %d examples in all",
        share[0] + 1,
        share[1],
        mine,
        maker.count,
        len(maker.found.examples),
    )
    done = maker.make(share, _told, stop)
    if not done:
        log.info("stopped; the same command goes on from the last whole shard")
    elif not maker.missing():
        log.info("all %d shards are there; what was left out is listed in %s", maker.count, config.shards / PROBLEMS)
    return done


def _told(shard: Shard) -> None:
    pictures = shard.rows + shard.problems
    log.info(
        "shard %d: %d examples, %d left out, %.3g pictures/s",
        shard.number,
        shard.rows,
        shard.problems,
        pictures / max(shard.seconds, 1e-9),
    )


def _device(name: str) -> torch.device:
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu" if name == "auto" else name)


def _share(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if index.isdigit() and count.isdigit() and int(index) < int(count):
        return int(index), int(count)
    raise TrainingError(
        "The share",
        found=f"is {text!r}",
        expected="two numbers as 0/8 were expected, the first below the second",
        remedy="correct it",
    )


if __name__ == "__main__":
    sys.exit(main())
