"""The same held-out scenes, drawn again and again while a control learns, so that progress can be seen and measured."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..evaluation.colour import block_colour_error
from ..evaluation.edges import edge_score
from ..preprocessors.canny import canny
from .autoencoder import Autoencoder
from .diffusion import sample
from .pairs import make_pairs, pictures
from .scenes import sample_scenes
from .sheets import save_sheet
from .words import Words, token_batch

log = logging.getLogger("demo.watch")

GUIDANCE = 4.0
SEED = 2  # training draws from 1


class Watch:
    """`count` scenes with their hints and their noise; sheets and tables go to `runs`."""

    def __init__(
        self, count: int, autoencoder: Autoencoder, unet: nn.Module, words: Words, runs: Path, device: torch.device
    ) -> None:
        self.autoencoder, self.unet, self.words, self.runs, self.device = autoencoder, unet, words, runs, device
        scenes = sample_scenes(count, SEED)
        self.truth = pictures(scenes, device).float().movedim(1, -1) / 255
        self.pairs = make_pairs(count, SEED, autoencoder, device)
        self.noise = torch.randn(self.pairs.latents.shape, generator=torch.Generator().manual_seed(SEED)).to(device)
        rows = torch.arange(count, device=device)
        self.hints = {"edges": self.pairs.edge_hints(rows), "colour": self.pairs.colour_hints(rows)}

    def draw(self, controls: Mapping[str, nn.Module]) -> Tensor:
        """Pictures (N, 128, 128, 3) of the watched captions under the controls, both branches controlled."""
        from ..training.forward import controlled  # needs the host, see `use_cpu_without_cuda`

        hint = torch.cat([self.hints[name] for name in controls], dim=1) if controls else self.hints["edges"]
        together = _Together([*controls.values()])
        return self.draw_with(
            lambda x, times, context, hint: controlled(self.unet, together, x, hint, times, context), hint
        )

    @torch.no_grad()
    def draw_with(
        self, velocity: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], hint: Tensor, steps: int = 20
    ) -> Tensor:
        """The same of `velocity(x, times, context, hint)`; `hint` (N, C, 128, 128)."""
        tokens = torch.cat([self.pairs.words, token_batch([""] * len(hint)).to(self.device)])
        context, hints = self.words(tokens), hint.repeat(2, 1, 1, 1)

        def guided(x: Tensor, times: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                both = velocity(x.repeat(2, 1, 1, 1), times.float().repeat(2), context, hints)
            cond, uncond = both.float().chunk(2)
            return uncond + GUIDANCE * (cond - uncond)

        return self.autoencoder.decode(sample(guided, self.noise, steps)).clamp(0, 1).movedim(1, -1).float()

    def scores(self, drawn: Tensor) -> tuple[float, float]:
        """Mean edge F1 at 2 pixels and mean colour error per block."""
        found = canny(drawn.cpu(), low=100, high=200)[..., 0].to(self.device)
        f1 = edge_score(found, self.hints["edges"][:, 0]).f1.mean()
        return float(f1), float(block_colour_error(drawn, self.truth).mean())

    def plain(self) -> None:
        drawn = self.draw({})
        redrawn = self.autoencoder.decode(self.pairs.latents.float()).clamp(0, 1).movedim(1, -1)
        log.info("no control: F1 %.3f, colour error %.3f", *self.scores(drawn))
        log.info("redrawn by the autoencoder: F1 %.3f, colour error %.4f", *self.scores(redrawn))
        save_sheet(self.runs / "sheets" / "plain.jpg", [("drawn from captions alone", drawn[:48])], across=8)

    def control(self, name: str) -> Callable[[int, nn.Module], None]:
        """For `train`'s on_validate."""

        def watch(step: int, control: nn.Module) -> None:
            drawn = self.draw({name: control})
            f1, colour = self.scores(drawn)
            log.info("%s at step %d: F1 %.3f, colour error %.4f", name, step, f1, colour)
            with (self.runs / f"watch_{name}.csv").open("a", newline="") as file:
                csv.writer(file).writerow([step, f"{f1:.4f}", f"{colour:.4f}"])
            save_sheet(
                self.runs / "steps" / f"{name}_{step:06d}.png", [(f"step {step}, F1 {f1:.2f}", drawn[:8])], across=8
            )

        return watch

    def both(self, edges: nn.Module, colour: nn.Module) -> None:
        columns = [("scene", self.truth[:12]), ("edges", self.hints["edges"][:12].movedim(1, -1))]
        chosen: dict[str, dict[str, nn.Module]] = {
            "no control": {}, "edge control": {"edges": edges}, "colour control": {"colour": colour},
            "both": {"edges": edges, "colour": colour},
        }  # fmt: skip
        for title, controls in chosen.items():
            drawn = self.draw(controls)
            log.info("%s: F1 %.3f, colour error %.4f", title, *self.scores(drawn))
            columns.append((title, drawn[:12]))
        columns.insert(2, ("colours", self.hints["colour"][:12].movedim(1, -1)))
        save_sheet(self.runs / "sheets" / "controls.jpg", columns)


class _Together(nn.Module):
    """Several controls as one: each reads its three channels of the hint, their residuals are added up (the paper, 3.4)."""

    def __init__(self, controls: list[nn.Module]) -> None:
        super().__init__()
        self.controls = nn.ModuleList(controls)

    def forward(self, x: Tensor, hint: Tensor, *others: Any) -> dict[str, list[Tensor]]:
        own = hint.split(3, dim=1)[: len(self.controls)]
        residuals: dict[str, list[Tensor]] = {}
        for control, its_hint in zip(self.controls, own, strict=True):
            for place, values in control(x, its_hint, *others).items():
                before = residuals.get(place, [0] * len(values))
                residuals[place] = [one + other for one, other in zip(before, values, strict=True)]
        return residuals
