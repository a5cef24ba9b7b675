"""The nodes of the sections apply and weight: thin."""

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

import torch

from control_composer.nodes.apply import ControlComposerApply
from control_composer.nodes.weight import ControlComposerResolutionWeights
from control_composer.residuals import Product, ResolutionWeights
from control_composer.tests import narrow


def test_resolution_weights_multiply_when_connected_in_a_row():
    (first,) = ControlComposerResolutionWeights.execute("literal", "actual", 64.0).result
    (second,) = ControlComposerResolutionWeights.execute("normalised", "nominal", 64.0, first).result
    assert first == ResolutionWeights("literal", "actual", 64.0)
    assert second == Product((first, ResolutionWeights("normalised", "nominal", 64.0)))


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
