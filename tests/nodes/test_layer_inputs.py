"""How often a layer's network runs and where: from the inputs of the two nodes to the layer, and what they are without them."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

from control_composer.control import ControlError, compose_controls
from control_composer.control.layer import Layer
from control_composer.control.reuse import Reuse
from control_composer.control.solo import soloed
from control_composer.nodes.apply import ControlComposerLayer
from control_composer.nodes.union import ControlComposerUnionHint, ControlComposerUnionLayer
from control_composer.tests import narrow
from control_composer.tests.control.cases import union

Make = Callable[..., Layer]
IMAGE = narrow.picture(1, 64, 64)
GIVEN = (1.0, 0.0, 1.0, 1.0)
"""strength, start_percent, end_percent, uncond_strength"""


@pytest.fixture(scope="module", params=[ControlComposerLayer, ControlComposerUnionLayer])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A layer of either node with these of its optional inputs; the union's reads two pictures."""
    if request.param is ControlComposerLayer:
        control = narrow.make_ours(narrow.make_module("sd1"), "SD1")
        return lambda **inputs: ControlComposerLayer.execute(control, IMAGE, *GIVEN, **inputs).args[0]  # type: ignore[no-any-return]
    promax = union(tmp_path_factory.mktemp("union")).ours
    hints: dict[str, Any] = {
        f"hint{number}": ControlComposerUnionHint.execute(IMAGE, name, 1.0).args[0]
        for number, name in enumerate(("depth", "openpose"))
    }
    return lambda **inputs: ControlComposerUnionLayer.execute(promax, hints, *GIVEN, **inputs).args[0]  # type: ignore[no-any-return]


def test_without_them_every_step_is_evaluated_and_auto_chooses_where(make: Make) -> None:
    """A workflow of before they came."""
    assert (make().reuse, make().beside) == (Reuse(), "auto")


@pytest.mark.parametrize(
    ("inputs", "reuse"),
    [
        ({"every": 3}, Reuse(3)),
        ({"sigma_ratio": 1.5}, Reuse(ratio=1.5)),
        ({"every": 2, "sigma_ratio": 2.0, "extrapolate": True}, Reuse(2, 2.0, True)),
    ],
)
def test_how_often_it_runs(make: Make, inputs: dict[str, Any], reuse: Reuse) -> None:
    assert make(**inputs).reuse == reuse


@pytest.mark.parametrize("choice", ["auto", "on", "off"])
def test_where_it_runs(make: Make, choice: str) -> None:
    assert make(beside_model=choice).beside == choice


def test_it_stays_what_it_is_in_a_composition(make: Make) -> None:
    start = narrow.conditioning("sd1", 1)
    layers = soloed({1: make(beside_model="off", every=2), 2: make()}, [2])
    positive, _ = compose_controls(start, start, list(layers.values()), 0.5)
    assert [(one.beside, one.reuse) for one in positive[0][1]["control"].layers] == [
        ("off", Reuse(2)),
        ("auto", Reuse()),
    ]


def test_what_cannot_be_meant_is_refused(make: Make) -> None:
    with pytest.raises(ControlError, match="every is 0, but a number of steps from 1 was expected"):
        make(every=0)
