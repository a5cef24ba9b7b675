"""Time and peak memory of loading a ControlNet file: our loader against the stock one, each in a fresh process.

    python host.py python benchmarks/loading.py [--dtype float16] [--folder WHERE_1.5_GB_FIT] [--rounds 3]

The file has SD1.5's architecture and random weights, in cldm layout. The processes take turns; the best of the rounds counts.
Peak memory is the resident set's, mapped pages of the file among it, less what stood before the load (Linux only).
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import comfy.cli_args
import safetensors.torch
import torch

# On the CPU wherever it runs; before the host's other modules.
comfy.cli_args.args.cpu = True

from control_composer.benchmarks.surroundings import hardware  # noqa: E402
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--folder", type=Path, help="where the file is written for the time of the run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("LOADER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "control.safetensors"
        dtype = getattr(torch, options.dtype)
        tensors = {name: torch.randn(shape).to(dtype) for name, shape in expected_shapes(SD1).items()}
        safetensors.torch.save_file(tensors, path)
        del tensors
        report(path, options.dtype, options.rounds)


def report(path: Path, dtype: str, rounds: int) -> None:
    size = path.stat().st_size / 2**20
    print(
        f"{datetime.date.today()}, {hardware()}, torch {torch.__version__}; SD1.5, {dtype}, file of {size:.0f} MiB, computed in fp32"
    )
    runs: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
    for _ in range(rounds):
        for loader in LOADERS:
            command = [sys.executable, __file__, "--measure", loader, str(path)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[loader].append(json.loads(output.splitlines()[-1]))
    best = {loader: {key: min(run[key] for run in runs[loader]) for key in ("seconds", "peak")} for loader in LOADERS}
    for loader in LOADERS:
        print(f"  {loader:5}  {best[loader]['seconds']:6.2f} s   peak {best[loader]['peak']:7.0f} MiB over the start")
    ratio = {key: best["ours"][key] / best["stock"][key] for key in ("seconds", "peak")}
    print(f"  ours / stock: time {ratio['seconds']:.2f}, peak memory {ratio['peak']:.2f}")
    start = time.perf_counter()
    open_control(path)
    print(f"  detection alone: {1000 * (time.perf_counter() - start):.1f} ms")


def measure(loader: str, file: str) -> dict[str, float]:
    import comfy.controlnet

    before = status("VmRSS")
    start = time.perf_counter()
    kept = load_checkpoint(Path(file)) if loader == "ours" else comfy.controlnet.load_controlnet(file)
    seconds = time.perf_counter() - start
    assert kept is not None
    return {"seconds": seconds, "peak": (status("VmHWM") - before) / 1024}


def status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    main()
