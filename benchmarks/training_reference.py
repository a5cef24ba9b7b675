"""Another training script's steps, one at a time: what benchmarks/training.py starts beside itself.

    python benchmarks/training_reference.py SCRIPT CLOCK THREADS ARGUMENTS…

Runs diffusers' examples/controlnet/train_controlnet.py as it is, from the user's own copy, with ARGUMENTS. Before each of its steps it waits for a
line on its standard input, so that another program can run while it stands, and after it writes one that begins with "step" and goes on in JSON.
Where it stands is its progress bar.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tqdm.auto  # type: ignore[import-untyped]


class Encoding:
    """Time inside of the networks that make latents and texts, which our loop runs before the training, once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock
        # Those that the script has imported.
        for module, name, call in (
            ("diffusers", "AutoencoderKL", "encode"),
            ("transformers", "CLIPTextModel", "forward"),
        ):
            if module in sys.modules:
                self._wrap(getattr(sys.modules[module], name), call)

    def _wrap(self, kind: Any, name: str) -> None:
        inner = getattr(kind, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            finish()
            start = self._clock()
            try:
                return inner(*arguments, **options)
            finally:
                finish()
                self.seconds += self._clock() - start

        setattr(kind, name, timed)


def finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(script: Path, arguments: list[str], clock: Callable[[], float]) -> None:
    class Bar(tqdm.auto.tqdm):
        """The script's progress bar, which stands still between steps until a line comes."""

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.stands = options.get("desc") == "Steps"
            if self.stands:
                self.encoding = Encoding(clock)
                self._wait()

        def _wait(self) -> None:
            sys.stdin.readline()
            self.encoding.seconds, self.begun = 0.0, clock()

        def update(self, n: float | None = 1) -> bool | None:
            if self.stands:
                finish()
                told = {"seconds": clock() - self.begun, "encoding": self.encoding.seconds}
                if torch.cuda.is_available():
                    told["peak"] = torch.cuda.max_memory_allocated()
                print("step", json.dumps(told), flush=True)
                self._wait()
            shown: bool | None = super().update(n)
            return shown

    tqdm.auto.tqdm = Bar
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    clocks = {"wall": time.perf_counter, "process": time.process_time}
    torch.set_num_threads(int(sys.argv[3]))
    main(Path(sys.argv[1]), sys.argv[4:], clocks[sys.argv[2]])
