"""Composing in space: areas, masks and sizing, each as pictures and figures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..control import compose_controls, layer_of
from ..control.placing import SIZINGS, Placing, place_hint
from ..preprocessors.canny import canny
from ..residuals.masks import prepare_mask
from .experiments import HALF, Composition, captioned, pairs, stars, steer
from .panels import Row
from .scenes import SIZE
from .studio import CELL, Shot, Studio, Thing, colour_error, follows, left_of, scene


def areas(studio: Studio, count: int = 2) -> Composition:
    """Two prompts side by side under one hint for the whole canvas, through ours and through the stock nodes."""
    import nodes  # ComfyUI's

    sides = (
        Shot.of(scene("green", Thing("circle", "red", 60, 64, 36))),
        Shot.of(scene("blue", Thing("star", "yellow", 68, 64, 36))),
    )
    hint = torch.cat([side.edges for side in sides], dim=2)
    positive: list[Any] = []
    negative: list[Any] = []
    for number, side in enumerate(sides):
        for branch, prompt in zip((positive, negative), studio.words(side.caption), strict=True):
            branch += nodes.ConditioningSetArea().append(prompt, SIZE, SIZE, number * SIZE, 0, 1.0)[0]
    ways = {
        "no control": (positive, negative),
        "ours": compose_controls(positive, negative, [layer_of(studio.edges, hint)]),
        "stock": studio.stock((positive, negative), hint),
    }
    drawn = {way: studio.draw(found, count, size=(SIZE, 2 * SIZE)) for way, found in ways.items()}
    beside_seam = (
        left_of(SIZE - 6, 2 * SIZE) + 1 - left_of(SIZE + 6, 2 * SIZE)
    )  # where one ground meets the other is no edge of the hint
    scores = {way: float(follows(pictures, hint, beside_seam).mean()) for way, pictures in drawn.items()}
    words = {
        "no control": "No control",
        "ours": "Ours: each area reads its part of the hint",
        "stock": "Stock: each area reads the middle of the whole hint",
    }
    rows = [
        Row(f'Left "{sides[0].caption}", right "{sides[1].caption}"', [("one hint over the whole canvas", hint[0])])
    ]
    rows += [
        Row(f"{words[way]}, edge F1 {scores[way]:.2f}", captioned([f"seed {n + 1}" for n in range(count)], pictures))
        for way, pictures in drawn.items()
    ]
    return Composition(rows, scores)


def masks(studio: Studio, count: int = 2) -> Composition:
    """The edge control on the left half only; two controls with complementary masks; overlapping masks."""
    shot = Shot.of(scene("green", Thing("star", "yellow", 34, 44, 24), Thing("cross", "red", 94, 84, 24)))
    inner = 10  # pixels at the border of the mask that are not counted
    left, right = left_of(HALF - inner), 1 - left_of(HALF + inner)
    mask = left_of(HALF)[None]

    def drawn_with(*layers: Any, prompt: str = shot.caption, overlap: Any = "sum") -> Tensor:
        return studio.draw(compose_controls(*studio.words(prompt), layers, overlap=overlap), count)

    plain = studio.draw(studio.words(shot.caption), count)
    whole = drawn_with(layer_of(studio.edges, shot.edges))
    masked = drawn_with(layer_of(studio.edges, shot.edges, mask=mask))
    figures = {}
    for name, pictures in (("no control", plain), ("no mask", whole), ("left half", masked)):
        figures[f"{name}, left"] = float(follows(pictures, shot.edges, left).mean())
        figures[f"{name}, right"] = float(follows(pictures, shot.edges, right).mean())

    def halves(name: str) -> str:
        return f"F1 left {figures[f'{name}, left']:.2f}, right {figures[f'{name}, right']:.2f}"

    rows = [
        Row(
            f"The edge control on the left half. No mask: {halves('no mask')}. With the mask: {halves('left half')}",
            [
                ("hint", shot.edges[0]),
                ("mask", mask[0]),
                *pairs("no control", plain),
                *pairs("no mask", whole),
                *pairs("mask", masked),
            ],
        )
    ]
    edges_left = layer_of(studio.edges, shot.edges, mask=mask, feather_mask=24)
    colours_right = layer_of(studio.colour, shot.colours, mask=mask, feather_mask=24, invert_mask=True)
    alone, both = drawn_with(edges_left, prompt=""), drawn_with(edges_left, colours_right, prompt="")
    figures["complementary, edges left"] = float(follows(both, shot.edges, left).mean())
    for name, pictures in (("edges alone", alone), ("complementary", both)):
        on_the_right = slice(HALF + inner, SIZE)
        figures[f"{name}, colour error right"] = colour_error(
            pictures[:, :, on_the_right], shot.pictures[:, :, on_the_right]
        )
    rows.append(
        Row(
            "Edges on the left, colours on the right: one mask, inverted in the second layer, feathered by 24. No prompt. Colour error on "
            f"the right: {figures['complementary, colour error right']:.2f}, edges alone {figures['edges alone, colour error right']:.2f}",
            [
                ("edges", shot.edges[0]),
                ("mask, feathered", prepare_mask(mask, feather=24)[0]),
                ("colours", shot.colours[0]),
                ("mask, inverted", prepare_mask(mask, invert=True, feather=24)[0]),
                *pairs("edges alone", alone),
                *pairs("both", both),
            ],
        )
    )

    wide = (left_of(96)[None], 1 - left_of(32)[None])
    cells = [("mask 1", wide[0][0]), ("mask 2", wide[1][0]), ("one layer, no mask", whole[0])]
    for overlap in ("sum", "normalised"):
        pictures = drawn_with(*(layer_of(studio.edges, shot.edges, mask=one) for one in wide), overlap=overlap)
        away = (pictures - whole).abs()
        figures[f"{overlap}, away from one layer"] = float(away.mean())
        cells += [(overlap, pictures[0]), ("difference, 8 times", 8 * away[0])]
    rows.append(
        Row(
            "The same layer twice, masks overlapping in the middle; and the difference from one layer without mask",
            cells,
        )
    )
    return Composition(rows, figures)


def sizing(studio: Studio) -> Composition:
    """A hint of 192 by 96 pixels on a square canvas."""
    shot = stars((HALF, HALF, 34))
    wide = torch.nn.functional.pad(shot.pictures.movedim(-1, 1), (40, SIZE - 40, 0, 0), mode="replicate")
    small = torch.nn.functional.interpolate(wide, size=(96, 192), mode="area").movedim(1, -1)
    hint = canny(small, low=100, high=200)
    cells = SIZE // CELL
    read = torch.cat([place_hint(hint.movedim(-1, 1), cells, cells, Placing(one)).movedim(1, -1) for one in SIZINGS])
    drawn = torch.cat([studio.draw(steer(studio, shot.caption, hint, sizing=one), 1) for one in SIZINGS])
    scores = torch.stack([follows(drawn, one[None]) for one in read])  # the hint as read, the picture
    figures = {f"{one}, as read": float(scores[n, n]) for n, one in enumerate(SIZINGS)}
    figures["as read otherwise"] = float(scores[~torch.eye(3).bool()].mean())
    rows = [
        Row("A hint of 192 by 96 pixels for a square picture", [("hint", hint[0])]),
        Row("As the network reads it", captioned(SIZINGS, read)),
        Row("Pictures", captioned([f"{one}: F1 {scores[n, n]:.2f}" for n, one in enumerate(SIZINGS)], drawn)),
    ]
    return Composition(rows, figures)
