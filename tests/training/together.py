"""A short training in two processes under accelerate: one file of losses and one of weights in the folder given."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Where a test imports this file, the pack is there.
if "control_composer" not in sys.modules:
    package = types.ModuleType("control_composer")
    package.__path__ = [str(ROOT)]
    sys.modules["control_composer"] = package

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from control_composer.tests.training.bases import SMALL, make_unet  # noqa: E402
from control_composer.tests.training.rows import Rows  # noqa: E402
from control_composer.training.copy import trainable_copy  # noqa: E402
from control_composer.training.loop import train  # noqa: E402
from control_composer.training.objective import Schedule  # noqa: E402
from control_composer.training.settings import Settings  # noqa: E402


def start_of_both() -> Any:
    return trainable_copy(make_unet("sd1", **SMALL), start="gaussian")


def together(folder: Path, accelerator: Accelerator | None) -> list[float]:
    """Losses of four steps, the first two of them before a stop."""
    unet = make_unet("sd1", **SMALL)
    alphas = torch.linspace(0.999, 0.005, 1000)
    settings = Settings(steps=4, batch=8, accumulation=2, rate=1e-4, warm_up=0, log_every=1, validate_every=3)
    losses: list[float] = []
    for stop in (2, 4):
        trained = train(
            unet,
            start_of_both(),
            Rows(11, 24, sizes=(8, 4)),
            Schedule(alphas, "eps"),
            settings,
            folder,
            accelerator=accelerator,
            on_step=lambda row: losses.append(row.loss),
            # Known in the first process only.
            should_stop=lambda stop=stop: len(losses) == stop,
        )
        assert trained.step == stop
    if accelerator is None or accelerator.is_main_process:
        save_file(trained.average, folder / "average.safetensors")
    return losses


if __name__ == "__main__":
    # Both have the imports of one, which take longer than all else. What is told in the environment is what `accelerate launch` tells.
    other = os.fork()
    rank = 1 if other == 0 else 0
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    together(Path(sys.argv[1]), accelerator)
    accelerator.end_training()
    if rank == 0:
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
