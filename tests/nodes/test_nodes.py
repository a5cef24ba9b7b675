"""The nodes of the sections apply and weight: thin."""

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

import torch

from control_composer.nodes.apply import ControlComposerApply
from control_composer.nodes.weight import (
    ControlComposerBlockWeights,
    ControlComposerLevelWeights,
    ControlComposerResolutionWeights,
    ControlComposerSoftWeights,
    ControlComposerWeightPreset,
)
from control_composer.residuals import (
    PRESETS,
    Flat,
    LevelWeights,
    ListedWeights,
    Product,
    ResolutionWeights,
    SoftWeights,
)
from control_composer.tests import narrow


def test_resolution_weights_multiply_when_connected_in_a_row():
    (first,) = ControlComposerResolutionWeights.execute("literal", "actual", 64.0).result
    (second,) = ControlComposerResolutionWeights.execute("normalised", "nominal", 64.0, first).result
    assert first == ResolutionWeights("literal", "actual", 64.0)
    assert second == Product((first, ResolutionWeights("normalised", "nominal", 64.0)))


@pytest.mark.parametrize(
    ("node", "values", "own"),
    [
        (ControlComposerSoftWeights, (0.7, "power"), SoftWeights(0.7)),
        (ControlComposerSoftWeights, (0.7, "logspace"), SoftWeights(0.7, "logspace")),
        (ControlComposerLevelWeights, (0.1, 0.2, 0.3, 0.4, 0.5), LevelWeights((0.1, 0.2, 0.3, 0.4), 0.5)),
        (ControlComposerBlockWeights, ("1, 0.5",), ListedWeights((1.0, 0.5))),
        (ControlComposerWeightPreset, ("My prompt is more important",), SoftWeights()),
    ],
)
def test_every_weights_node_multiplies_with_what_is_connected(node, values, own):
    assert node.execute(*values).result[0] == own
    assert node.execute(*values, Flat(2.0)).result[0] == Product((Flat(2.0), own))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_its_weights_and_its_balance(name):
    assert ControlComposerWeightPreset.execute(name).result == (PRESETS[name].weights, PRESETS[name].uncond_strength)


def test_apply_makes_a_layer_of_its_inputs():
    control = narrow.make_ours(narrow.make_module("sd1"), "SD1")
    image = narrow.picture(1, 64, 64)
    weights = ResolutionWeights()
    positive, negative = ControlComposerApply.execute(
        narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2), control, image, 0.8, 0.1, 0.9, 0.3, weights
    ).result
    applied = positive[0][1]["control"]
    assert applied is negative[0][1]["control"]
    (layer,) = applied.layers
    assert (layer.strength, layer.start_percent, layer.end_percent, layer.uncond_strength) == (0.8, 0.1, 0.9, 0.3)
    assert layer.weights is weights and layer.source is control.network
    assert torch.equal(layer.hint_bchw, image.movedim(-1, 1))
