"""SparseCtrl against AnimateDiff's own class, or diffusers', at the published width, on random weights.

    python host.py python benchmarks/sparsectrl_published.py [--kind scribble] [--frames 4] [--folder WHERE_2_GB_FIT]
    python host.py python benchmarks/sparsectrl_published.py --original OUT.pt

Without OUT.pt, which sparsectrl_original.py writes, the reference is diffusers' SparseControlNetModel, which the test environment has, with its
motion modules' norms applied to each frame by itself, as in AnimateDiff. Needs 5 GB of memory.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.cli_args
import safetensors.torch
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.model_patcher  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.sparsectrl_original import KINDS, fill, inputs  # noqa: E402
from control_composer.benchmarks.surroundings import hardware  # noqa: E402
from control_composer.checkpoints import load_checkpoint  # noqa: E402
from control_composer.control import SparseControl  # noqa: E402


class EachFrame(torch.nn.Module):
    """A norm over (b, c, f, h, w) that normalises each frame by itself."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x.transpose(1, 2).flatten(0, 1))
        found: Tensor = rows.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        return found


def rows(values: Tensor) -> Tensor:
    """(chunks, channels, frames, h, w) -> (chunks · frames, channels, h, w)."""
    return values.transpose(1, 2).flatten(0, 1)


def ours(path: Path, given: Mapping[str, Tensor]) -> list[Tensor]:
    built = load_checkpoint(path).built
    patcher = comfy.model_patcher.CoreModelPatcher(built.module, built.load_device, built.offload_device)
    control = SparseControl(patcher, path.name, "SD1")
    frames = given["hint"].shape[2]
    hint = built.module.input_hint_block(rows(torch.cat([given["hint"], given["mask"]], dim=1)), None, None)
    found = control.residuals(
        hint,
        given["timestep"].repeat_interleave(frames),
        given["text"].repeat_interleave(frames, dim=0),
        frames,
    )
    return [*found["output"], *found["middle"]]


def from_diffusers(kind: str, frames: int, path: Path) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Inputs and diffusers' residuals; its weights are written to `path`."""
    import diffusers

    print(f"reference: diffusers {diffusers.__version__}, SparseControlNetModel, norms by frame")
    generator = torch.Generator().manual_seed(0)
    net: Any = diffusers.SparseControlNetModel(**KINDS[kind]).eval()
    fill(net, generator)
    safetensors.torch.save_file(net.state_dict(), path)
    for block in net.down_blocks:
        for module in block.motion_modules:
            module.norm = EachFrame(module.norm)
    given = inputs(kind, frames, 768, generator)
    down, middle = net(
        torch.zeros(len(given["text"]), 4, frames, 32, 32),
        given["timestep"],
        encoder_hidden_states=given["text"].repeat_interleave(frames, dim=0),
        controlnet_cond=given["hint"],
        conditioning_mask=given["mask"],
        return_dict=False,
    )
    return given, [*down, middle]


def from_original(out: Path, path: Path) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The same as AnimateDiff's class gave them."""
    print("reference: AnimateDiff's SparseControlNetModel")
    saved = torch.load(out, weights_only=True, mmap=True)
    weights = {name: tensor.clone() for name, tensor in saved["controlnet"].items()}
    safetensors.torch.save_file(weights, path, {"num_heads": "8"})
    return saved["inputs"], [rows(residual) for residual in saved["residuals"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, help="what sparsectrl_original.py wrote")
    parser.add_argument("--kind", choices=KINDS, default="RGB")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where the weights are written for the time of the run")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {hardware()}, torch {torch.__version__}, fp32")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, torch.no_grad():
        path = Path(folder) / "sparse.safetensors"
        given, theirs = (
            from_original(options.original, path)
            if options.original
            else from_diffusers(options.kind, options.frames, path)
        )
        found = ours(path, given)
    assert len(found) == len(theirs)
    worst = max(relative(x, y) for x, y in zip(found, theirs, strict=True))
    print(
        f"{len(theirs)} residuals of {theirs[0].shape[1]} to {theirs[-1].shape[1]} channels, {len(theirs[0])} rows: largest {worst:.2e}"
    )
    print(f"(allowed {TOLERANCE})")
    if worst >= TOLERANCE:
        raise SystemExit(f"an error is above {TOLERANCE}")


if __name__ == "__main__":
    main()
