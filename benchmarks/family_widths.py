"""Residuals of our loader against diffusers' T2IAdapter and ControlNetUnionModel at their real widths, on random weights.

    python host.py python benchmarks/family_widths.py [adapter "adapter XL" "light adapter" union ...] [--folder WHERE_5_GB_FIT]

Needs diffusers, which the test environment has. One network is in memory at a time: 0.3 GB for adapters, 5 GB for the union, and as much on disk.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import comfy.cli_args
import diffusers
import safetensors.torch
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

from control_composer.benchmarks.residual_widths import SDXL, TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.checkpoints import load_checkpoint  # noqa: E402
from control_composer.control import EncoderNetwork  # noqa: E402
from control_composer.control.union import UnionHint  # noqa: E402

ADAPTERS: dict[str, dict[str, Any]] = {
    "adapter": {},
    "adapter XL": {"adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "light adapter": {"adapter_type": "light_adapter", "channels": [320, 640, 1280], "num_res_blocks": 4},
}

GROUPS: list[dict[int, float]] = [
    *({number: 1.0} for number in range(8)),
    {0: 0.7, 6: 1.4},
    {1: 0.5, 3: 1.0, 7: 1.2},
]
"""For a union network: the types of each pass and the strengths of their hints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*ADAPTERS, "union", []], default=[])
    parser.add_argument("--folder", type=Path, help="where the weights are written for the time of the run")
    options = parser.parse_args()
    print(
        f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, diffusers {diffusers.__version__}, fp32"
    )
    passed = True
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, torch.no_grad():
        for kind in options.kinds or ADAPTERS:
            path = Path(folder) / "network.safetensors"
            pairs = union(path) if kind == "union" else adapter(path, ADAPTERS[kind])
            worst = max(relative(ours, theirs) for ours, theirs in pairs)
            print(f"{kind}: largest {worst:.2e} (allowed {TOLERANCE})", flush=True)
            passed = passed and worst < TOLERANCE
    if not passed:
        raise SystemExit(f"an error is above {TOLERANCE}")


def fill(net: Any, generator: torch.Generator) -> None:
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(0.1 * noise if parameter.ndim == 1 else noise / parameter[0].numel() ** 0.5)


def adapter(path: Path, config: dict[str, Any]) -> Iterable[tuple[Tensor, Tensor]]:
    """Ours and diffusers' features, finest first."""
    generator = torch.Generator().manual_seed(0)
    net = diffusers.T2IAdapter(**config)
    fill(net, generator)
    safetensors.torch.save_file(net.state_dict(), path)
    hint = torch.rand(1, 3, 256, 256, generator=generator)
    lists = load_checkpoint(path).built.module(hint)
    ours = [x for place in ("input", "middle") for x in reversed(lists.get(place, [])) if x is not None]
    return zip(ours, net(hint), strict=True)


def union(path: Path) -> Iterable[tuple[Tensor, Tensor]]:
    """Ours and diffusers' residuals for one type after another, and for several in one pass."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # weights are made once, by `fill`
        net = diffusers.ControlNetUnionModel(
            **SDXL, conditioning_embedding_out_channels=(16, 32, 96, 256), num_control_type=8
        )
    net.to_empty(device="cpu")
    fill(net, generator)
    safetensors.torch.save_file(net.state_dict(), path)
    hints, x = torch.rand(8, 1, 3, 64, 64, generator=generator), torch.randn(1, 4, 8, 8, generator=generator)
    time, context = torch.tensor([501.0]), torch.randn(1, 77, 2048, generator=generator)
    text, sizes = torch.randn(1, 1280, generator=generator), torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    added = {"text_embeds": text, "time_ids": sizes}
    y = torch.cat([text, net.add_time_proj(sizes.flatten()).reshape(1, -1)], dim=1)

    expected = []
    for group in GROUPS:
        chosen = torch.zeros(1, 8)
        chosen[0, list(group)] = 1.0
        down, middle = net(
            x,
            time,
            context,
            [hints[number] for number in group],
            chosen,
            list(group),
            list(group.values()),
            added_cond_kwargs=added,
            return_dict=False,
        )
        expected.append([*down, middle])
    del net
    network = EncoderNetwork.from_module(load_checkpoint(path).built.module, name="union", base="SDXL")
    for group, residuals in zip(GROUPS, expected, strict=True):
        read = [UnionHint(hints[number], number, strength) for number, strength in group.items()]
        parts = [hint.read_by(network).embed_hint(hint.hint_bchw) for hint in read]
        embedding = torch.stack(parts).sum(dim=0)
        found = network.residuals(x, embedding, time, context, y, [tuple(group)])
        ours = [residual for residual in (*found.output, *found.middle) if residual is not None]
        pairs = list(zip(ours, residuals, strict=True))
        print(f"  {', '.join(map(str, read))}: {max(relative(*pair) for pair in pairs):.2e}", flush=True)
        yield from pairs


if __name__ == "__main__":
    main()
