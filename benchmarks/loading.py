"""Time and peak memory of loading a ControlNet file: our loader against the stock one, each in a fresh process.

    python host.py python benchmarks/loading.py [--dtype float16 ...] [--format pth] [--keep] [--folder WHERE_1.5_GB_FIT] [--rounds 3]

The file has SD1.5's architecture and random weights, in cldm layout, and is in the page cache. The processes take turns; the best of the rounds
counts, in seconds of the clock and, since other work makes those longer, of the processor. Each one loads the file and then evaluates the network once (one 64 × 64 picture), because weights that are only mapped could shift
their cost there; the results of both must be the same bytes.

Peak memory, less what stood before the load (Linux only), in two ways: "resident" has the mapped pages of the file in it, "own" has not (RssAnon, looked
at every few milliseconds), which is what the system cannot take back without swapping.

A CPU computes in fp32, to which the host converts the file's numbers when it loads them; with --keep it holds them in the file's dtype and converts at
each use (its own options --fp16-unet and so on), as it does on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.cli_args
import safetensors.torch
import torch

# On the CPU wherever it runs; before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.controlnet  # noqa: E402

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
# What the host calls the option by which it keeps a dtype.
KEEP = {
    "float32": "fp32_unet",
    "float16": "fp16_unet",
    "bfloat16": "bf16_unet",
    "float8_e4m3fn": "fp8_e4m3fn_unet",
    "float8_e5m2": "fp8_e5m2_unet",
}
MEASURES = {
    "seconds": "{:5.2f} s",
    "processor": "processor {:5.2f} s",
    "with first evaluation": "with first evaluation {:5.2f} s",
    "resident": "peak: resident {:5.0f} MiB",
    "own": "own {:5.0f} MiB",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", default=["float32", "float16"], choices=KEEP, help="what the file holds")
    parser.add_argument("--format", default="safetensors", choices=["safetensors", "pth"])
    parser.add_argument("--keep", action="store_true", help="the host holds the weights in the file's dtype")
    parser.add_argument("--folder", type=Path, help="where the file is written for the time of the run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {commit()}, {hardware()}, torch {torch.__version__}; SD1.5, computed in fp32")
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / f"control.{options.format}"
            apart(write, path, getattr(torch, dtype))
            kept = ", kept in its dtype" if options.keep else ""
            print(f"{dtype}, {options.format} file of {path.stat().st_size / 2**20:.0f} MiB{kept}")
            report(path, options.rounds, KEEP[dtype] if options.keep else "")


def write(path: Path, dtype: torch.dtype) -> None:
    tensors = {name: (torch.randn(shape) / 30).to(dtype) for name, shape in expected_shapes(SD1).items()}
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)


def apart(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own: a copy of this one, which has imported the host and computed nothing."""
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: send.send(task(*arguments)))
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def report(path: Path, rounds: int, host_option: str) -> None:
    runs: dict[str, list[dict[str, Any]]] = {loader: [] for loader in LOADERS}
    for _ in range(rounds):
        for loader in LOADERS:
            runs[loader].append(apart(measure, loader, path, host_option))
    best = {loader: {key: min(run[key] for run in runs[loader]) for key in MEASURES} for loader in LOADERS}
    for loader in LOADERS:
        print(f"  {loader:6} ", "  ".join(words.format(best[loader][key]) for key, words in MEASURES.items()))
    ratios = {key: best["ours"][key] / max(best["stock"][key], 1e-9) for key in MEASURES}
    print("  ratio  ", "  ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items()))
    same = len({run["result"] for loader in LOADERS for run in runs[loader]}) == 1
    times = []
    for _ in range(5):
        start = time.perf_counter()
        open_control(path)
        times.append(1000 * (time.perf_counter() - start))
    print(f"  results {'identical' if same else 'DIFFERENT'}; detection alone: {min(times):.1f} ms")


def measure(loader: str, path: Path, host_option: str) -> dict[str, Any]:
    if host_option:
        setattr(comfy.cli_args.args, host_option, True)
    before = status("VmRSS"), status("RssAnon")
    own = Highest("RssAnon")
    start, worked = time.perf_counter(), time.process_time()
    if loader == "ours":
        module = load_checkpoint(path).built.module
    else:
        module = comfy.controlnet.load_controlnet(str(path)).control_model
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    resident, peak = status("VmHWM"), own.stop()
    result = evaluate(module)
    return {
        "seconds": seconds,
        "processor": worked,
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
