"""Composing over batches, frames, steps and blocks: pictures to look at, and the figures that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..control import compose_controls, layer_of
from ..control.heatmap import heatmap
from ..control.overlay import overlay
from ..control.record import Record
from ..control.report import report_text
from ..residuals.batches import BatchPolicy, picture_of
from ..residuals.schedule_text import parse_schedule, parse_strengths
from ..residuals.weights import BlockWeights, Flat, ResolutionWeights, SoftWeights
from .panels import Row
from .scenes import SIZE
from .studio import Conditionings, Shot, Studio, Thing, follows, left_of, scene

HALF = SIZE // 2


@dataclass(frozen=True)
class Composition:
    """One subject: what is shown, and its figures by name."""

    rows: Sequence[Row]
    figures: dict[str, float]
    text: str = ""


def steer(studio: Studio, prompt: str, hint: Tensor, **settings: Any) -> Conditionings:
    """The edge control alone, through Control Layer and Compose Controls."""
    return compose_controls(*studio.words(prompt), [layer_of(studio.edges, hint, **settings)])


def captioned(words: Sequence[str], pictures: Tensor) -> list[tuple[str, Tensor]]:
    return list(zip(words, pictures, strict=True))


def stars(*places: tuple[float, float, float]) -> Shot:
    """A yellow star on blue, at each of the places (x, y, radius)."""
    return Shot.of(*(scene("blue", Thing("star", "yellow", *place)) for place in places))


def batches(studio: Studio) -> Composition:
    """Four hints for four pictures; two hints for four under each policy; one hint at rising strength."""
    shot = stars((40, 44, 28), (88, 44, 28), (88, 84, 28), (40, 84, 28))
    own = studio.draw(steer(studio, shot.caption, shot.edges), 4)
    scores = torch.stack([follows(own, hint[None]) for hint in shot.edges])
    rows = [
        Row("Four hints, batch of four", captioned([f"hint {n}" for n in range(1, 5)], shot.edges)),
        Row(
            "Each picture follows its own hint",
            captioned([f"picture {n + 1}: edge F1 {scores[n, n]:.2f}" for n in range(4)], own),
        ),
    ]
    figures = {"own hint": float(scores.diag().mean()), "hint of another": float(scores[~torch.eye(4).bool()].mean())}

    pair = shot.edges[:2]
    policies: tuple[BatchPolicy, ...] = ("cycle", "repeat", "hold last")
    for policy in policies:
        drawn = studio.draw(steer(studio, shot.caption, pair, batch=policy), 4)
        which = [picture_of(n, 2, 4, policy) for n in range(4)]
        found = [int(follows(picture.expand(2, -1, -1, -1), pair).argmax()) for picture in drawn]
        figures[policy] = sum(a == b for a, b in zip(which, found, strict=True)) / 4
        rows.append(Row(f"Hints 1 and 2, batch of four: {policy}", captioned([f"hint {n + 1}" for n in which], drawn)))

    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    schedule = parse_strengths(", ".join(map(str, strengths)))
    drawn = studio.draw(steer(studio, shot.caption, shot.edges[:1], schedule=schedule), len(strengths), one_noise=True)
    rising = follows(drawn, shot.edges[:1])
    figures |= {f"strength {strength:g}": float(score) for strength, score in zip(strengths, rising, strict=True)}
    words = [f"strength {strength:g}: F1 {score:.2f}" for strength, score in zip(strengths, rising, strict=True)]
    rows.append(Row("Hint 1 for all, Image Strengths 0, 0.25, 0.5, 0.75, 1; one noise", captioned(words, drawn)))
    return Composition(rows, figures)


def pairs(name: str, pictures: Tensor) -> list[tuple[str, Tensor]]:
    return captioned([f"{name}, {n}" if len(pictures) > 1 else name for n in range(1, len(pictures) + 1)], pictures)


def windows(studio: Studio, frames: int = 8, length: int = 4, overlap: int = 1) -> Composition:
    """A batch of frames in which a shape moves, sampled through the host's context windows."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    shot = stars(*((30 + 68 * n / (frames - 1), 64, 24) for n in range(frames)))
    model = ContextWindowsManualNode.execute(
        studio.world.model,
        context_length=length,
        context_overlap=overlap,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        dim=0,
        freenoise=False,
    )[0]
    ours, words = steer(studio, shot.caption, shot.edges), studio.words(shot.caption)
    drawn = {
        "ours": studio.draw(ours, frames, model=model, one_noise=True),
        "stock": studio.draw(studio.stock(words, shot.edges), frames, model=model, one_noise=True),
    }
    scores = {way: follows(pictures, shot.edges) for way, pictures in drawn.items()}
    beside = follows(drawn["ours"], shot.edges.roll(1, dims=0))
    figures = {f"{way}, own frame": float(found.mean()) for way, found in scores.items()}
    figures |= {f"{way}, after the first window": float(found[length:].mean()) for way, found in scores.items()}
    figures["ours, another frame"] = float(beside.mean())
    whole = studio.draw(ours, frames, one_noise=True)
    figures["ours, away from no windows"] = float((drawn["ours"] - whole).abs().mean())
    names = {"ours": "Ours: each frame keeps its hint", "stock": "Stock: every window begins with hint 1 again"}
    rows = [Row(f"{frames} frames, a hint each", captioned([f"hint {n + 1}" for n in range(frames)], shot.edges))]
    rows += [
        Row(
            f"{names[way]}; windows of {length}, overlapping by {overlap}",
            captioned([f"frame {n + 1}: F1 {score:.2f}" for n, score in enumerate(scores[way])], pictures),
        )
        for way, pictures in drawn.items()
    ]
    return Composition(rows, figures)


KEYFRAMES = {
    "whole": "1@0",
    "early": "1@0, 0@0.5 hold",
    "late": "0@0, 1@0.5 hold",
    "fading": "1@0, 0@0.8 ease",
}


def schedules(studio: Studio, count: int = 3) -> Composition:
    """Strength Keyframes: from the beginning only, to the end only."""
    shot = stars((76, 56, 32))
    drawn = {"no control": studio.draw(studio.words(shot.caption), count)}
    for name, text in KEYFRAMES.items():
        drawn[name] = studio.draw(steer(studio, shot.caption, shot.edges, schedule=parse_schedule(text, "step")), count)
    scores = {name: follows(pictures, shot.edges) for name, pictures in drawn.items()}
    return Composition(table(shot.edges[0], KEYFRAMES, drawn, scores), means(scores))


def means(scores: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(found.mean()) for name, found in scores.items()}


def table(hint: Tensor, settings: dict[str, str], drawn: dict[str, Tensor], scores: dict[str, Tensor]) -> list[Row]:
    """A row for each seed: the hint, and one picture for each way with its score and its setting."""
    return [
        Row(
            f"Seed {seed + 1}",
            [
                ("hint", hint),
                *(
                    (f"{name}\n{settings.get(name, '-')}\nedge F1 {scores[name][seed]:.2f}", pictures[seed])
                    for name, pictures in drawn.items()
                ),
            ],
        )
        for seed in range(len(next(iter(drawn.values()))))
    ]


def weights(studio: Studio, count: int = 3) -> Composition:
    """Block weights: the same everywhere, two soft ladders, the paper's 64/h; and two of them in the conditional branch only."""
    shot = stars((60, 70, 34))
    kinds: dict[str, tuple[str, BlockWeights, float]] = {
        "flat": ("1 in every block", Flat(), 1.0),
        "soft 0.95": ("0.95^(n-i)", SoftWeights(0.95), 1.0),
        "soft 0.825": ("0.825^(n-i)", SoftWeights(), 1.0),
        "resolution": ("64/h, normalised", ResolutionWeights(), 1.0),
        "resolution, cond only": ("uncond_strength 0", ResolutionWeights(), 0.0),
        "flat, cond only": ("uncond_strength 0", Flat(), 0.0),
    }
    drawn = {"no control": studio.draw(studio.words(shot.caption), count)}
    for name, (_, one, balance) in kinds.items():
        drawn[name] = studio.draw(steer(studio, shot.caption, shot.edges, weights=one, uncond_strength=balance), count)
    scores = {name: follows(pictures, shot.edges) for name, pictures in drawn.items()}
    formulas = {name: formula for name, (formula, _, _) in kinds.items()}
    return Composition(table(shot.edges[0], formulas, drawn, scores), means(scores))


@dataclass(frozen=True)
class Inspection:
    composition: Composition
    heatmap: Tensor
    record: Record


def inspection(studio: Studio) -> Inspection:
    """Two layers, one masked and one scheduled, looked at with the three inspection nodes."""
    shot = Shot.of(scene("purple", Thing("circle", "yellow", 40, 44, 26), Thing("square", "green", 90, 86, 24)))
    positive, negative = compose_controls(
        *studio.words(shot.caption),
        [
            layer_of(studio.edges, shot.edges, mask=left_of(HALF)[None], feather_mask=16),
            layer_of(studio.colour, shot.colours, schedule=parse_schedule("1@0, 0@0.6 ease", "step")),
        ],
        inspect=True,
    )
    drawn = studio.draw((positive, negative), 1)
    record: Record = positive[0][1]["control"].record
    rows = [
        Row(
            "Hint Overlay",
            [
                ("hint", shot.edges[0]),
                ("picture", drawn[0]),
                ("lines over", overlay(drawn, shot.edges)[0]),
                ("compare edges", overlay(drawn, shot.edges, mode="compare edges", opacity=1.0)[0]),
                ("blend, colour hint", overlay(drawn, shot.colours, mode="blend", colour="as it is", opacity=0.5)[0]),
            ],
        )
    ]
    figures = {
        "left": float(follows(drawn, shot.edges, left_of(HALF - 8)).mean()),
        "right": float(follows(drawn, shot.edges, 1 - left_of(HALF + 8)).mean()),
    }
    return Inspection(Composition(rows, figures, report_text(record)), heatmap(record)[0], record)
