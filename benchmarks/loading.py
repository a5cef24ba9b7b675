"""Time and peak memory of loading a ControlNet file: our loader against the stock one, each in a fresh process.

    python host.py python benchmarks/loading.py [--dtype float16 ...] [--format pth] [--folder WHERE_1.5_GB_FIT] [--rounds 3]

The file has SD1.5's architecture and random weights, in cldm layout, and is in the page cache. The processes take turns; the best of the rounds
counts. Each one loads the file and then evaluates the network once (one 64 × 64 picture), because weights that are only mapped could shift
their cost there; the results of both must be the same bytes.

Peak memory, less what stood before the load (Linux only), in two ways: "resident" has the mapped pages of the file in it, "own" has not (RssAnon, looked
at every few milliseconds), which is what the system cannot take back without swapping.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import comfy.cli_args
import safetensors.torch
import torch

# On the CPU wherever it runs; before the host's other modules.
comfy.cli_args.args.cpu = True

from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.checkpoints import load_checkpoint, open_control  # noqa: E402
from control_composer.checkpoints.encoder import NO_ATTENTION, EncoderHyperparameters, expected_shapes  # noqa: E402

SD1 = EncoderHyperparameters(
    in_channels=4,
    model_channels=320,
    hint_channels=3,
    num_res_blocks=(2, 2, 2, 2),
    channel_mult=(1, 2, 4, 4),
    transformer_depth=(1, 1, 1, 1, 1, 1, NO_ATTENTION, NO_ATTENTION),
    transformer_depth_middle=1,
    context_dim=768,
    use_linear_in_transformer=False,
    adm_in_channels=None,
)
LOADERS = ("stock", "ours")
DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn")
MEASURES = ("seconds", "with first evaluation", "resident", "own")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "float16"], choices=DTYPES, help="what the file holds"
    )
    parser.add_argument("--format", default="safetensors", choices=["safetensors", "pth"])
    parser.add_argument("--folder", type=Path, help="where the file is written for the time of the run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("LOADER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return
    print(f"{datetime.date.today()}, {commit()}, {hardware()}, torch {torch.__version__}; SD1.5, computed in fp32")
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = write(Path(folder) / f"control.{options.format}", getattr(torch, dtype))
            print(f"{dtype}, {options.format} file of {path.stat().st_size / 2**20:.0f} MiB")
            report(path, options.rounds)


def write(path: Path, dtype: torch.dtype) -> Path:
    tensors = {name: (torch.randn(shape) / 30).to(dtype) for name, shape in expected_shapes(SD1).items()}
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)
    return path


def report(path: Path, rounds: int) -> None:
    runs: dict[str, list[dict[str, Any]]] = {loader: [] for loader in LOADERS}
    for _ in range(rounds):
        for loader in LOADERS:
            command = [sys.executable, __file__, "--measure", loader, str(path)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[loader].append(json.loads(output.splitlines()[-1]))
    best = {loader: {key: min(run[key] for run in runs[loader]) for key in MEASURES} for loader in LOADERS}
    for loader in LOADERS:
        seconds, both, resident, own = best[loader].values()
        print(
            f"  {loader:6}  {seconds:5.2f} s  with first evaluation {both:5.2f} s  peak: resident {resident:5.0f} MiB, own {own:5.0f} MiB"
        )
    ratios = [best["ours"][key] / best["stock"][key] for key in MEASURES]
    print(
        "  ratio   {:5.2f}    with first evaluation {:5.2f}    peak: resident {:5.2f},     own {:5.2f}".format(*ratios)
    )
    same = len({run["result"] for loader in LOADERS for run in runs[loader]}) == 1
    times = []
    for _ in range(5):
        start = time.perf_counter()
        open_control(path)
        times.append(1000 * (time.perf_counter() - start))
    print(f"  results {'identical' if same else 'DIFFERENT'}; detection alone: {min(times):.1f} ms")


def measure(loader: str, path: Path) -> dict[str, Any]:
    import comfy.controlnet

    before = status("VmRSS"), status("RssAnon")
    own = Highest("RssAnon")
    start = time.perf_counter()
    if loader == "ours":
        module = load_checkpoint(path).built.module
    else:
        module = comfy.controlnet.load_controlnet(str(path)).control_model
    seconds = time.perf_counter() - start
    resident, peak = status("VmHWM"), own.stop()
    result = evaluate(module)
    return {
        "seconds": seconds,
        "with first evaluation": time.perf_counter() - start,
        "resident": (resident - before[0]) / 1024,
        "own": (peak - before[1]) / 1024,
        "result": result,
    }


@torch.no_grad()
def evaluate(module: Any) -> str:
    """A digest of the residuals for one small picture."""
    noise = torch.Generator().manual_seed(0)
    latent = torch.randn(1, SD1.in_channels, 8, 8, generator=noise)
    hint = torch.rand(1, SD1.hint_channels, 64, 64, generator=noise)
    context = torch.randn(1, 77, SD1.context_dim or 0, generator=noise)
    residuals = module(x=latent, hint=hint, timesteps=torch.tensor([500.0]), context=context)
    digest = hashlib.sha256()
    for residual in (*residuals["output"], *residuals["middle"]):
        digest.update(residual.numpy().tobytes())
    return digest.hexdigest()


class Highest:
    """The highest value of a line of /proc/self/status between now and `stop`."""

    def __init__(self, field: str) -> None:
        self._field, self._value, self._done = field, status(field), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return max(self._value, status(self._field))

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._value = max(self._value, status(self._field))


def status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    main()
