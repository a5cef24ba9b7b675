"""`accelerate launch -m control_composer.training CONFIG.json`: see docs/cluster.md."""

from __future__ import annotations

import argparse
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.errors import CheckpointError
from ..preprocessors import PreprocessorError
from .config import read_config
from .errors import TrainingError
from .stop import StopSignal

log = logging.getLogger("control_composer.training")
PATIENCE = timedelta(days=7)
"""How long processes wait for each other: some prepare their share of the data, or draw for the validation, longer than the usual ten minutes."""


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
    except ImportError:
        raise TrainingError(
            "The Python that runs this",
            found="has no accelerate",
            expected="it was expected, since it starts and joins the processes",
            remedy="install it with 'pip install accelerate'",
        ) from None
    return Accelerator(
        # Several processes without a GPU would else be as many trainings, of one process each.
        cpu=not getattr(torch, "accelerator", torch.cuda).is_available(),
        # The loop itself knows the precision.
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m control_composer.training",
        description="Trains a ControlNet as a file says; the same command goes on with one that was stopped.",
    )
    parser.add_argument("config", type=Path, help="the JSON file; docs/cluster.md explains it")
    options = parser.parse_args()
    stop = StopSignal()
    stop.listen()
    try:
        config = read_config(options.config)
        accelerator = _accelerator()
        # The host has set up a log already, and tells much of itself in it.
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stdout, force=True)
        if accelerator.is_main_process:
            log.setLevel(logging.INFO)
        from .command import StoppedError, run

        try:
            finished = run(config, accelerator, stop).step >= config.settings.steps
        except StoppedError:
            # The others wait for this process's rows: whoever started them ends them.
            log.info("stopped while the data was prepared; the same command goes on from there")
            return stop.status
        accelerator.end_training()
    except (TrainingError, PreprocessorError, CheckpointError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if finished else stop.status


if __name__ == "__main__":
    sys.exit(main())
