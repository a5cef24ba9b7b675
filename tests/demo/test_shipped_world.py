"""The shipped demo world holds what docs/demo.md says, on a few scenes of its own: the controls work, through the host's sampler."""

import pytest
import torch

pytest.importorskip("comfy")

from control_composer.control import Control
from control_composer.demo.measure import Bench, Score, measure
from control_composer.demo.world import CONTROLS, WEIGHTS, load_world
from control_composer.nodes.load import load_source

SCENES = 20


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    torch.manual_seed(0)
    edges, colour = (
        Control.unbound(load_source(CONTROLS / f"control_composer_demo_{name}.safetensors", None, "auto")[0])
        for name in ("edges", "colour")
    )
    return measure(Bench(load_world(), SCENES), edges, colour)[0]


def test_the_edge_control_makes_edges_match(scores: dict[str, Score]) -> None:
    controlled, plain = scores["edge control"].f1, scores["no control"].f1
    assert controlled >= 3 * plain
    assert controlled >= 0.75 * scores["the scene, redrawn by the autoencoder"].f1


def test_the_colour_control_halves_the_colour_error(scores: dict[str, Score]) -> None:
    assert scores["colour control"].colour <= 0.5 * scores["no control"].colour


def test_both_together_hold_both(scores: dict[str, Score]) -> None:
    both, plain = scores["both controls"], scores["no control"]
    assert both.f1 >= 3 * plain.f1
    assert both.colour <= 0.5 * plain.colour


def test_all_files_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) <= 17_000_000
