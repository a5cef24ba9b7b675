"""The remark on hints that are probably inverted: for drawings on a light ground, and for nothing else that controls read."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("comfy")

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from control_composer.control import Layer, compose_controls, layer_of
from control_composer.control.hint_note import INVERTED, hint_note
from control_composer.control.recording import note_on
from control_composer.control.report import report_json, report_text
from control_composer.tests import narrow


def drawing(line: int = 2) -> Tensor:
    """White lines on black, (1, 3, 128, 128)."""
    picture = torch.zeros(1, 3, 128, 128)
    for start in range(10, 120, 30):
        picture[..., start : start + line, 8:120] = 1.0
        picture[..., 8:120, start : start + line] = 1.0
    return picture


def soft(picture: Tensor) -> Tensor:
    """With the grey edges of a resized drawing."""
    return avg_pool2d(picture, 2)


@pytest.mark.parametrize("hint", [drawing(), drawing(4), soft(drawing(4)), drawing().repeat(9, 1, 1, 1)])
def test_drawings(hint: Tensor) -> None:
    assert hint_note(hint) == ""
    assert hint_note(1 - hint) == INVERTED
    assert hint_note(1 - hint[:, :1]) == INVERTED


@pytest.mark.parametrize(
    "hint",
    [
        torch.ones(1, 3, 64, 64),  # white all over
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0, 1, 64).expand(1, 3, 64, 64),  # a depth map
        0.6 + 0.4 * torch.linspace(0, 1, 64).expand(1, 3, 64, 64),  # and a light one
        (torch.arange(64).view(-1, 1) // 8 % 2 == torch.arange(64) // 8 % 2).float().expand(1, 3, 64, 64),  # a code
        torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64),  # a label
        1 - torch.cat([drawing(), drawing()[:, :1]], dim=1),  # four channels mean something else
    ],
)
def test_everything_else(hint: Tensor) -> None:
    assert hint_note(hint) == ""


def test_it_is_in_the_report() -> None:
    control = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    conds = narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2)
    layers = [layer_of(control, hint.movedim(1, -1)) for hint in (drawing(), 1 - drawing())]
    composed = compose_controls(*conds, layers)
    narrow.sample(narrow.make_model("sd1"), *composed, (1, 8, 8), steps=1)
    record = composed[0][0][1]["control"].record
    first, second = report_text(record).split("\n\n")[1:]
    assert INVERTED not in first and INVERTED in second
    assert [layer["note"] for layer in json.loads(report_json(record))["layers"]] == ["", INVERTED]


def test_a_layer_that_does_nothing_has_none() -> None:
    network = narrow.make_ours(narrow.make_module("sd1"), "SD1").network
    assert note_on(Layer(network, 1 - drawing())) == INVERTED
    assert note_on(Layer(network, 1 - drawing(), strength=0.0)) == ""
