"""The real KSampler through our control and through the stock nodes, with one and the same network."""

import pytest

pytest.importorskip("comfy")

from control_composer.control import apply_control
from control_composer.tests import narrow

TOLERANCE = 1e-5  # fp32; the embedding is computed for one picture and added to all rows, which rounds as the host's does in all cases seen


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def world(kind):
    module = narrow.make_module(kind)
    return narrow.make_model(kind), module, narrow.make_stock(module), narrow.make_ours(module, kind)


def conds(kind):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


@pytest.mark.parametrize(
    ("size", "pictures", "settings", "changes"),
    [
        ((1, 8, 8), (1, 64, 64), (1.0, 0.0, 1.0), {}),
        ((2, 9, 13), (1, 100, 60), (0.7, 0.1, 0.6), {"sampler_name": "dpmpp_2m"}),
        ((3, 8, 12), (3, 64, 96), (1.3, 0.0, 0.5), {"sampler_name": "heun"}),
        ((3, 8, 8), (2, 64, 64), (1.0, 0.3, 1.0), {"sampler_name": "dpmpp_2s_ancestral", "scheduler": "karras"}),
        ((5, 12, 8), (4, 96, 64), (1.0, 0.0, 1.0), {"cfg": 1.0}),
        ((1, 8, 8), (1, 64, 64), (1.0, 0.0, 1.0), {"denoise": 0.5}),
    ],
)
def test_latents_equal_the_stock_nodes(world, kind, size, pictures, settings, changes):
    model, _, stock, control = world
    image = narrow.picture(*pictures)
    plain = narrow.sample(model, *conds(kind), size, **changes)
    expected = narrow.sample(model, *narrow.stock_apply(*conds(kind), stock, image, *settings), size, **changes)
    found = narrow.sample(model, *apply_control(*conds(kind), control, image, *settings), size, **changes)
    assert narrow.relative(found, expected) <= TOLERANCE
    assert narrow.relative(plain, expected) > 1e-2
