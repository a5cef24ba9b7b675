"""diffusers' training script in a process of its own, step by step."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from control_composer.benchmarks.training_runs import Scene

BESIDE = Path(__file__).with_name("training_reference.py")
NEVER = str(10**9)


class Script:
    """The process stands between steps."""

    def __init__(self, options: argparse.Namespace, scene: Scene, folder: Path) -> None:
        self._options, self._scene, self._folder = options, scene, folder

    def __enter__(self) -> Script:
        from control_composer.benchmarks.training_models import write_models, write_pictures

        options, folder, settings = self._options, self._folder, self._scene.settings
        write_models(folder / "models", options.width, self._scene.tokens)
        write_pictures(folder / "pictures", options.pixels)
        arguments = {
            "pretrained_model_name_or_path": folder / "models",
            "train_data_dir": folder / "pictures",
            "output_dir": folder / "output",
            "cache_dir": folder / "cache",
            "resolution": options.pixels,
            "train_batch_size": settings.batch,
            "learning_rate": settings.rate,
            "adam_weight_decay": settings.weight_decay,
            "max_grad_norm": settings.clip,
            "proportion_empty_prompts": settings.empty_prompts,
            "mixed_precision": "no" if options.precision == "fp32" else options.precision,
            "max_train_steps": NEVER,
            "checkpointing_steps": NEVER,
            "report_to": "all",
            "seed": 0,
        }
        given = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
        # Clock and threads as here; nothing is to be looked for elsewhere.
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        if options.device == "cpu":
            offline |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, str(BESIDE), str(options.script), options.clock, str(options.threads)]
        self._process = subprocess.Popen(
            [*command, *given, "--set_grads_to_none"],
            env=os.environ | offline,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def step(self) -> dict[str, float]:
        """Seconds of the next step, and of them those within the networks that encode pictures and texts."""
        assert self._process.stdin is not None and self._process.stdout is not None
        # A process that has ended is told of below.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("step "):
                told: dict[str, float] = json.loads(line.removeprefix("step "))
                return told
        raise SystemExit(
            f"{self._options.script} ended with code {self._process.wait()} before its next step, but steps without end were expected; "
            "read what it wrote above."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
