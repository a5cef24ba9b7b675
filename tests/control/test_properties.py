"""What holds for any layers, latents and batches: the algebra of composing, on a real network that is asked as the host's sampler asks."""

import pytest

pytest.importorskip("comfy")

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d

from control_composer.control import compose_controls, layer_of
from control_composer.residuals import Flat, ImageStrengths, ListedWeights, ListSchedule, ResolutionWeights, SoftWeights
from control_composer.tests import narrow

FEW = settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
SIZES = st.tuples(st.integers(8, 24), st.integers(8, 20))
BATCHES = st.integers(1, 5)
TOLERANCE = 1e-5


class World:
    """A model, and networks for it."""

    def __init__(self, kind):
        self.kind = kind
        self.model = narrow.make_model(kind)
        self.modules = [narrow.make_module(kind, seed) for seed in (1, 2)]
        self.controls = [narrow.make_ours(module, kind.upper()) for module in self.modules]

    def conds(self):
        return narrow.conditioning(self.kind, 10), narrow.conditioning(self.kind, 11)

    def compose(self, layers, strength=1.0, **changes):
        return compose_controls(*self.conds(), layers, strength, **changes)[0][0][1]["control"]

    def asked(self, batch, size, percent=0.4, seed=0):
        """Arguments of one call for a positive and a negative chunk."""
        generator = torch.Generator().manual_seed(seed)
        rows = 2 * batch
        cond = {
            "c_crossattn": torch.randn(
                rows, 7, narrow.CONFIGS[self.kind].unet_config["context_dim"], generator=generator
            )
        }
        if self.kind == "sdxl":
            cond["y"] = torch.randn(rows, 2816, generator=generator)
        sigma = torch.full((rows,), float(self.model.model.model_sampling.percent_to_sigma(percent)))
        return torch.randn(rows, 4, *size, generator=generator), sigma, cond, 2, {"cond_or_uncond": [1, 0]}

    def get(self, control, arguments):
        """Its residuals in one list with the middle last, or None."""
        control.pre_run(self.model.model, self.model.model.model_sampling.percent_to_sigma)
        with torch.inference_mode():
            found = control.get_control(*arguments)
        control.cleanup()
        return None if found is None else [*found["output"], *found["middle"]]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def world(request):
    return World(request.param)


@pytest.fixture(scope="module")
def sd1():
    return World("sd1")


def close(found, expected, scale=None):
    """Equal to rounding, of the largest number that took part in the sum."""
    for a, b, whole in zip(found, expected, scale or expected, strict=True):
        assert float((a - b).abs().max()) <= TOLERANCE * max(float(whole.abs().max()), float(b.abs().max()))


def hint(seed, pictures=1):
    return narrow.picture(pictures, 40, 48, seed=seed)


def mask(seed):
    return torch.rand(1, 40, 48, generator=torch.Generator().manual_seed(seed))


@st.composite
def layer_settings(draw, blocks=13):
    """Any settings of a layer, with the number of its network and its picture."""
    chosen = {
        "strength": draw(st.floats(-2, 2).filter(lambda s: abs(s) > 0.01)),
        "uncond_strength": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "weights": draw(
            st.sampled_from(
                [None, SoftWeights(), ResolutionWeights(), ListedWeights(tuple(0.1 + 0.1 * i for i in range(blocks)))]
            )
        ),
        "schedule": draw(st.sampled_from([None, ListSchedule((0.3, 0.9), between="linear"), ImageStrengths((0.4,))])),
        "mask": draw(st.sampled_from([None, mask(1), mask(2)])),
        "sizing": draw(st.sampled_from(["crop", "fit", "stretch"])),
    }
    return draw(st.integers(0, 1)), draw(st.integers(0, 2)), chosen


def made(world, drawn):
    network, picture, chosen = drawn
    return layer_of(world.controls[network], hint(picture), **chosen)


@FEW
@given(size=SIZES, batch=BATCHES, strength=st.floats(-3, 3), drawn=layer_settings())
def test_linear_in_the_strength_of_a_layer_and_of_the_whole(sd1, size, batch, strength, drawn):
    network, picture, chosen = drawn
    arguments = sd1.asked(batch, size)
    one = sd1.get(sd1.compose([made(sd1, (network, picture, {**chosen, "strength": 1.0}))]), arguments)
    scaled = made(sd1, (network, picture, {**chosen, "strength": strength}))
    for control in (
        sd1.compose([scaled]),
        sd1.compose([made(sd1, (network, picture, {**chosen, "strength": 1.0}))], strength),
    ):
        found = sd1.get(control, arguments)
        if strength == 0:
            assert found is None
        else:
            close(found, [block * strength for block in one])


@FEW
@given(size=SIZES, batch=BATCHES)
def test_settings_of_one_are_no_settings_to_the_last_bit(world, size, batch):
    arguments = world.asked(batch, size)
    flat = world.get(world.compose([layer_of(world.controls[0], hint(0))]), arguments)
    blocks = {"sd1": 13, "sdxl": 10}[world.kind]
    ones = layer_of(
        world.controls[0],
        hint(0),
        uncond_strength=1.0,
        weights=Flat(1.0) * ListedWeights((1.0,) * blocks),
        schedule=ListSchedule((1.0,)) * ImageStrengths((1.0,)),
        mask=torch.ones(1, 20, 24),
    )
    found = world.get(world.compose([ones], overlap="normalised"), arguments)
    assert len(flat) == blocks and all(torch.equal(a, b) for a, b in zip(found, flat, strict=True))
    layout = world.controls[0].network.blocks(*size)
    assert [tuple(x.shape) for x in flat] == [(2 * batch, b.channels, b.height, b.width) for b in layout]


@FEW
@given(size=SIZES, drawn=layer_settings())
def test_nothing_at_zero(sd1, size, drawn):
    network, picture, chosen = drawn
    arguments = sd1.asked(1, size)
    for zero in (
        {"strength": 0.0},
        {"weights": Flat(0.0)},
        {"schedule": ListSchedule((0.0,))},
        {"schedule": ImageStrengths((0.0,))},
        {"mask": torch.zeros(1, 40, 48)},
        {"enabled": False},
        {"start_percent": 0.5},
    ):
        assert sd1.get(sd1.compose([made(sd1, (network, picture, {**chosen, **zero}))]), arguments) is None


@FEW
@given(size=SIZES, batch=BATCHES, drawn=st.lists(layer_settings(), min_size=1, max_size=5), cut=st.integers(0, 5))
def test_any_number_of_layers_is_the_sum_of_each_however_they_are_put_together(sd1, size, batch, drawn, cut):
    arguments = sd1.asked(batch, size)
    kept = [value.clone() for value in (arguments[0], arguments[1], arguments[2]["c_crossattn"])]
    layers = [made(sd1, each) for each in drawn]
    inputs = [(layer.hint_bchw.clone(), None if layer.mask is None else layer.mask.clone()) for layer in layers]
    singles = [sd1.get(sd1.compose([layer]), arguments) for layer in layers]
    expected = [sum(parts) for parts in zip(*singles, strict=True)]
    scale = [sum(part.abs() for part in parts) for parts in zip(*singles, strict=True)]
    found = sd1.get(sd1.compose(layers), arguments)
    close(found, expected, scale)
    close(sd1.get(sd1.compose(layers[::-1]), arguments), expected, scale)
    if 0 < cut < len(layers):  # two nodes in a row are one node
        positive, _ = compose_controls(*compose_controls(*sd1.conds(), layers[:cut]), layers[cut:])
        chained = sd1.get(positive[0][1]["control"], arguments)
        assert all(torch.equal(a, b) for a, b in zip(chained, found, strict=True))
    for value, before in zip((arguments[0], arguments[1], arguments[2]["c_crossattn"]), kept, strict=True):
        assert torch.equal(value, before)
    for layer, (picture, area) in zip(layers, inputs, strict=True):
        assert torch.equal(layer.hint_bchw, picture) and (area is None or torch.equal(layer.mask, area))


@FEW
@given(size=SIZES, batch=BATCHES, pictures=st.integers(1, 5), policy=st.sampled_from(["cycle", "repeat", "hold last"]))
def test_each_latent_of_a_batch_gets_what_it_would_get_alone(sd1, size, batch, pictures, policy):
    pictures = min(pictures, batch)
    image = hint(3, pictures)
    x, sigma, cond, chunks, options = sd1.asked(batch, size)
    found = sd1.get(sd1.compose([layer_of(sd1.controls[0], image, batch=policy)]), (x, sigma, cond, chunks, options))
    chosen = {
        "cycle": lambda n: n % pictures,
        "repeat": lambda n: n * pictures // batch,
        "hold last": lambda n: min(n, pictures - 1),
    }[policy]
    for latent in {0, batch - 1}:
        rows = [latent, batch + latent]
        part = (x[rows], sigma[rows], {name: value[rows] for name, value in cond.items()}, chunks, options)
        picture = chosen(latent)
        alone = sd1.get(sd1.compose([layer_of(sd1.controls[0], image[picture : picture + 1])]), part)
        close([block[rows] for block in found], alone)


def test_a_large_latent():
    """SDXL, which has no attention at the finest level: there it would take a minute."""
    world = World("sdxl")
    x, sigma, cond, _, _ = world.asked(1, (160, 96))
    arguments = x[:1], sigma[:1], {name: value[:1] for name, value in cond.items()}, 1, {"cond_or_uncond": [0]}
    area = torch.rand(1, 160, 96, generator=torch.Generator().manual_seed(5))
    image = narrow.picture(1, 160, 96)
    layers = [layer_of(world.controls[0], image), layer_of(world.controls[0], image, 0.5, mask=area)]
    whole = world.get(world.compose(layers[:1]), arguments)
    found = world.get(world.compose(layers), arguments)
    assert found[0].shape == (1, 32, 160, 96) and found[-1].shape == (1, 128, 40, 24)
    for block, flat in zip(found, whole, strict=True):
        close([block], [flat * (1 + 0.5 * adaptive_avg_pool2d(area.unsqueeze(1), tuple(flat.shape[-2:])))])


def test_calls_do_not_depend_on_those_before_them(sd1):
    """Second-order and restarting samplers ask back and forth: the same call gives the same bits."""
    control = sd1.compose(
        [layer_of(sd1.controls[0], hint(0), schedule=ListSchedule((0.2, 1.0), between="linear"), mask=mask(1))]
    )
    control.pre_run(sd1.model.model, sd1.model.model.model_sampling.percent_to_sigma)
    with torch.inference_mode():
        runs = [control.get_control(*sd1.asked(2, (8, 9), percent)) for percent in (0.1, 0.7, 0.1, 0.4, 0.7)]
    control.cleanup()
    for first, again in ((0, 2), (1, 4)):
        assert all(torch.equal(a, b) for a, b in zip(runs[first]["output"], runs[again]["output"], strict=True))
    ratio = runs[1]["middle"][0].abs().mean() / runs[0]["middle"][0].abs().mean()
    assert ratio > 1.5
