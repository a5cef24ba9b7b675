"""What a control learns of areas, through the host's real nodes and sampler."""

import dataclasses

import pytest

pytest.importorskip("comfy")

import comfy.hooks
import comfy.sampler_helpers
import torch
from comfy.controlnet import ControlBase

from control_composer.control.areas import KEY, AreaAware, Call, areas_of, canvas_of, resolve, unwatched, watch, watched
from control_composer.control.errors import ControlError
from control_composer.tests import narrow

SIZE = (2, 12, 20)  # batch, height and width in cells


@dataclasses.dataclass
class Seen:
    """What one call told a control."""

    kinds: list
    canvas: tuple
    areas: tuple
    part: torch.Tensor


class SpyControl(AreaAware):
    """A control that adds nothing and writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def pre_run(self, model, percent_to_timestep_function):
        pass

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        height, width = x_noisy.shape[-2:]
        areas = areas_of(transformer_options, batched_number, height, width)
        kinds = transformer_options["cond_or_uncond"]
        self.seen.append(Seen(list(kinds), canvas_of(transformer_options), areas, x_noisy.clone()))
        return None


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


def attach(control, *conditionings):
    return tuple([[entry[0], {**entry[1], "control": control}] for entry in cond] for cond in conditionings)


def run(model, positive, negative, control, size=SIZE, **changes):
    """Distinct (kind, area) pairs that the calls of a run told, after checking that each area is where the chunk came from."""
    narrow.sample(model, positive, negative, size, steps=1, **changes)
    found = set()
    for seen in control.seen:
        assert seen.canvas == size[1:]
        for kind, area, part in zip(seen.kinds, seen.areas, seen.part.chunk(len(seen.kinds)), strict=True):
            assert area is None or area[:2] == part.shape[-2:]
            found.add((kind, area))
    return found


def host():
    import nodes  # ComfyUI's

    return nodes


def entry(seed):
    return narrow.conditioning("sd1", seed)


def area_of_pixels(cond):
    return host().ConditioningSetArea().append(cond, 96, 64, 40, 16, 1.0)[0]  # width, height, x, y


def area_of_shares(cond):
    return host().ConditioningSetAreaPercentage().append(cond, 0.5, 0.75, 0.5, 0.25, 1.0)[0]


def area_of_mask(cond):
    mask = torch.zeros(1, 96, 160)
    mask[:, 16:88, 64:160] = 1
    return host().ConditioningSetMask().append(cond, mask, "mask bounds", 1.0)[0]


def area_over_the_edge(cond):
    return host().ConditioningSetArea().append(cond, 960, 640, 40, 16, 1.0)[0]


AREAS = {
    "pixels": (area_of_pixels, (8, 12, 2, 5)),
    "shares": (area_of_shares, (9, 10, 3, 10)),
    "mask bounds": (area_of_mask, None),  # the host's own, below: it resizes the mask with blended edges
    "over the edge": (area_over_the_edge, (10, 15, 2, 5)),
}


def test_without_areas_the_whole_canvas(model):
    control = SpyControl()
    assert run(model, *attach(control, entry(1), entry(2)), control) == {(0, None), (1, None)}


@pytest.mark.parametrize("before", [True, False], ids=["area first", "control first"])
@pytest.mark.parametrize("name", AREAS)
def test_an_area_reaches_the_control_wherever_it_is_set(model, name, before):
    set_area, expected = AREAS[name]
    control = SpyControl()
    if before:
        positive, negative = attach(control, set_area(entry(1)), entry(2))
    else:
        positive, negative = attach(control, entry(1), entry(2))
        positive = set_area(positive)
    found = run(model, positive, negative, control)
    areas = {area for kind, area in found if kind == 0}
    if expected is None:
        expected = areas.copy().pop()
        y, x = expected[2:]
        assert (y, x) in {(1, 7), (2, 8)} and (expected[0] + y, expected[1] + x) in {(11, 20), (12, 20)}
    assert areas == {expected}
    assert {area for kind, area in found if kind == 1} == {
        None,
        expected,
    }  # the host gives the negative the same area too


def test_a_mask_without_bounds_is_no_area(model):
    control = SpyControl()
    positive, negative = attach(control, entry(1), entry(2))
    mask = torch.zeros(1, 96, 160)
    mask[:, :48] = 1
    (positive,) = host().ConditioningSetMask().append(positive, mask, "default", 1.0)
    assert run(model, positive, negative, control) == {(0, None), (1, None)}


def test_areas_of_one_size_come_in_one_batch_each_with_its_place(model):
    control = SpyControl()
    left = host().ConditioningSetArea().append(entry(1), 80, 96, 0, 0, 1.0)[0]
    right = host().ConditioningSetArea().append(entry(3), 80, 96, 80, 0, 1.0)[0]
    found = run(model, *attach(control, left + right, entry(2)), control)
    expected = {(12, 10, 0, 0), (12, 10, 0, 10)}
    assert found == {(kind, area) for kind in (0, 1) for area in expected} | {(1, None)}
    batched = [seen for seen in control.seen if len(seen.areas) == 4]
    assert len(batched) == 1
    noise = next(seen for seen in control.seen if seen.areas == (None,)).part
    for (h, w, y, x), part in zip(batched[0].areas, batched[0].part.chunk(4), strict=True):
        assert torch.equal(part, noise[..., y : y + h, x : x + w])  # so the order is the chunks' own


def test_only_the_positive_has_the_control(model):
    control = SpyControl()
    found = run(model, attach(control, area_of_pixels(entry(1)))[0], entry(2), control)
    assert (0, (8, 12, 2, 5)) in found and {area for _, area in found} == {(8, 12, 2, 5)}


def test_a_control_of_the_host_after_it_and_its_copies_pass_it_on(model):
    control = SpyControl()
    last = ControlBase()
    last.pre_run = lambda *_: None
    last.set_previous_controlnet(control)
    last.get_control = control.get_control
    assert (0, (8, 12, 2, 5)) in run(model, *attach(last, area_of_pixels(entry(1)), entry(2)), control)


@pytest.mark.parametrize("sampler", ["heun", "euler_ancestral", "dpmpp_2m"])
def test_any_sampler_and_size(model, sampler):
    control = SpyControl()
    size = (1, 9, 31)
    found = run(
        model,
        *attach(control, area_of_shares(entry(1)), entry(2)),
        control,
        size,
        sampler_name=sampler,
        scheduler="karras",
    )
    assert (0, (7, 15, 2, 16)) in found  # the host rounds 15.5 up and cuts at the edge


def test_the_picture_and_the_weights_are_not_touched_by_watching(model):
    """No hook that acts on weights: the host neither loads the model anew nor splits the batch."""
    control = SpyControl()
    conds = attach(control, entry(1), entry(2))
    assert not any(comfy.sampler_helpers.cond_has_hooks(cond) for cond in conds)
    assert torch.equal(
        narrow.sample(model, *conds, SIZE, steps=2), narrow.sample(model, entry(1), entry(2), SIZE, steps=2)
    )
    assert [len(seen.kinds) for seen in control.seen] == [2, 2]


def test_hooks_of_others_are_kept_and_watching_is_added_once():
    other = comfy.hooks.HookGroup()
    other.add(comfy.hooks.WeightHook())
    control = SpyControl()
    assert control.get_extra_hooks() == [] and len(control.extra_hooks) == 1
    control.extra_hooks = other
    assert control.get_extra_hooks() == [other]
    assert [hook is other.hooks[0] for hook in control.extra_hooks.hooks] == [True, False]
    copy = SpyControl()
    control.copy_to(copy)
    assert [len(group) for group in copy.get_extra_hooks()] == [1] and len(copy.extra_hooks) == 2
    both = comfy.hooks.HookGroup.combine_all_hooks([control.extra_hooks, copy.extra_hooks])
    assert len(both) == 2 and len(unwatched(both)) == 1
    copy.set_previous_controlnet(control)
    assert [len(group) for group in copy.get_extra_hooks()] == [1, 1]
    assert unwatched(watched(None)) is None and unwatched(None) is None and unwatched(other) is other
    assert len(other) == 1


def test_watching_changes_nothing_that_it_was_given():
    options = {"transformer_options": {"patches": {}}, "other": 1}
    kept = {**options, "transformer_options": {**options["transformer_options"]}}
    conds = [[{"uuid": "a", "area": (4, 4, 0, 0)}], None, [{"uuid": "a", "area": (4, 4, 0, 0)}, {"uuid": "b"}]]
    got = watch(lambda *arguments: arguments, "model", conds, torch.zeros(1, 4, 8, 12), "t", options)
    assert options == kept
    assert got[1] is conds and got[4]["other"] == 1
    call = got[4]["transformer_options"][KEY]
    assert (call.size, call.areas, call.retained) == ((8, 12), {"a": [(4, 4, 0, 0)] * 2, "b": [None]}, ())


@pytest.mark.parametrize(
    ("size", "area"),
    [
        *(((8, 12), area) for area in (None, (4, 6, 2, 3), (99, 99, 1, 2), [8, 12, 0, 0])),
        *(((3, 8, 12), area) for area in (None, (4, 6, 2, 3), (99, 99, 1, 2), (2, 4, 6, 1, 2, 3))),
    ],
)
def test_areas_are_cut_as_the_host_cuts_them(size, area):
    from comfy.samplers import get_area_and_mult

    x = torch.arange(float(torch.tensor(size).prod())).view(1, 1, *size)
    cond = {"model_conds": {}, "uuid": "a"} | ({} if area is None else {"area": area})
    part = get_area_and_mult(cond, x, torch.zeros(1)).input_x
    h, w, y, x0 = resolve(area, size)
    assert part.shape[-2:] == (h, w)
    assert part[0, 0].flatten()[0] % (size[-2] * size[-1]) == y * size[-1] + x0


def test_outside_of_the_hosts_sampler_all_of_the_canvas_is_meant():
    assert areas_of({}, 2, 8, 12) == (None, None) and canvas_of({}) is None
    flat = {KEY: Call((96,), {}), "uuids": ["a"]}
    assert areas_of(flat, 1, 1, 96) == (None,) and canvas_of(flat) is None


@pytest.mark.parametrize(
    ("areas", "uuids", "found"),
    [
        ({"a": [None]}, ["a"], "no area"),
        ({"a": [(4, 4, 0, 0)]}, ["b"], "no area"),
        ({"a": [(4, 6, 0, 0)]}, ["a", "a"], "no area"),
        ({"a": [(4, 6, 0, 0), (4, 6, 2, 0)]}, ["a"], "several areas"),
    ],
)
def test_a_latent_that_is_no_area_is_refused(areas, uuids, found):
    with pytest.raises(ControlError) as refused:
        areas_of({KEY: Call((8, 12), areas), "uuids": uuids}, 1, 4, 6)
    assert str(refused.value) == (
        f"The latent of this call is 6×4 cells, but {found} of its conditioning on the canvas of 12×8 could be meant and one was expected, "
        "so the hint cannot be cut to it; remove the node that cuts the latent into tiles, or sample without this control."
    )


def test_one_conditioning_with_areas_of_two_sizes_is_told_apart():
    call = Call((8, 12), {"a": [(4, 6, 0, 0), (2, 6, 2, 0), None]})
    options = {KEY: call, "uuids": ["a"]}
    assert [areas_of(options, 1, *size)[0] for size in ((4, 6), (2, 6), (8, 12))] == [(4, 6, 0, 0), (2, 6, 2, 0), None]
