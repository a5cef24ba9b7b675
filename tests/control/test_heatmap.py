"""The heatmap's cells, scale and panels; the picture is read back pixel by pixel."""

import math
from itertools import pairwise

import pytest

pytest.importorskip("comfy")

import numpy as np
import torch

from control_composer.control.errors import ControlError
from control_composer.control.heatmap import BROKEN, NOTHING, UNKNOWN, Scale, heatmap, viridis
from control_composer.control.record import LayerInfo, LayerStep, Record

BLOCKS = ("output 0", "output 1", "middle")


def recorded(relative, layers=1, per_layer=False, blocks=BLOCKS):
    """A record in which block b adds relative[step][b] of a feature of norm 50; None: nothing ran."""
    names = tuple(LayerInfo(number, f"control {number}.safetensors") for number in range(1, layers + 1))
    record = Record(names, "SD15", len(relative), inspect=True)
    for values in relative:
        call = record.next_call()
        record.steps += [LayerStep(call, n.number, 1.0, 0.0, call / len(relative), values is not None) for n in names]
        for block, value in zip(blocks, values or (), strict=False):
            record.feature_norms[call, block] = torch.tensor([50.0, 50.0])
            for layer in (None, *(range(1, layers + 1) if per_layer else ())):
                record.residual_norms[call, layer, block] = torch.tensor([50.0 * value] * 2)
    return record


def pixels(record):
    picture = heatmap(record)
    assert picture.dtype == torch.float32 and picture.shape[0] == 1 and picture.shape[3] == 3
    assert picture.min() >= 0.0 and picture.max() <= 1.0
    return (picture[0].numpy() * 255).round().astype(int)


def rgb(code):
    return tuple(int(code[place : place + 2], 16) for place in (1, 3, 5))


def count(found, colour):
    return int((found == np.array(colour)).all(axis=-1).sum())


def test_each_cell_has_the_colour_of_its_number():
    relative = [[0.001, 0.01, 0.1], [0.002, 0.02, 0.2]]
    found = pixels(recorded(relative))
    scale = Scale(0.001, 0.2, True)
    # Cells of 56 × 26 with a line between, the first one right of the names; a corner of each, away from its number.
    for step, values in enumerate(relative):
        for row, value in enumerate(values):
            x, y = 24 + 84 + 56 * step + 3, 76 + 30 + 26 * row + 3
            assert tuple(found[y, x]) == scale.colour(value), (step, row)
    assert len({scale.colour(value) for values in relative for value in values}) == 6


def test_colours_go_from_dark_to_light_with_the_logarithm():
    scale = Scale(0.01, 1.0, True)
    assert scale.colour(0.01) == scale.colour(0.0001) == viridis()[0]
    assert scale.colour(1.0) == scale.colour(7.0) == viridis()[255]
    assert scale.colour(0.1) == viridis()[128]
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in viridis()]
    assert all(after > before - 0.5 for before, after in pairwise(light)) and light[-1] > 200 > 30 > light[0]


def test_the_scale_names_its_ends_and_what_lies_between():
    assert Scale(0.002, 0.5, True).ticks() == pytest.approx([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
    assert [Scale(0.002, 5, True).text(value) for value in (0.002, 0.05, 1.0, 5)] == ["0.2 %", "5 %", "100 %", "500 %"]
    assert [Scale(0.002, 5, False).text(value) for value in (0.002, 5)] == ["0.002", "5"]


def test_what_added_nothing_is_unknown_or_broken_has_a_colour_of_its_own():
    plain = [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]
    assert count(pixels(recorded(plain)), rgb(NOTHING)) == 0
    cell = 55 * 25
    assert count(pixels(recorded([plain[0], None])), rgb(NOTHING)) == pytest.approx(3 * cell, abs=3)
    assert count(pixels(recorded([plain[0], [0.1, 0.0, 0.3]])), rgb(NOTHING)) == pytest.approx(cell, abs=1)
    record = recorded(plain)
    del record.feature_norms[1, "middle"]
    assert count(pixels(record), rgb(UNKNOWN)) >= cell - 1
    record.residual_norms[0, None, "output 0"] = torch.tensor([math.inf, 1.0])
    assert count(pixels(record), rgb(BROKEN)) >= cell - 1


def test_a_panel_for_all_and_one_for_each_of_several_layers():
    values = [[0.1, 0.2, 0.3]] * 4
    together, apart = heatmap(recorded(values, 2)), heatmap(recorded(values, 2, per_layer=True))
    panel = 30 + 3 * 26 + 44
    assert apart.shape[1] - together.shape[1] == 2 * panel
    assert heatmap(recorded(values, 1, per_layer=True)).shape == heatmap(recorded(values, 1)).shape


def test_a_layer_has_the_rows_of_its_own_blocks():
    """What acts inside of the model has other places than residuals; 99.6 % is told as 100 %."""
    record = recorded([[0.996, 0.2]], 2, per_layer=True, blocks=("middle", "attention input 4"))
    del record.residual_norms[0, 1, "attention input 4"], record.residual_norms[0, 2, "middle"]
    # Panels of two rows, of one and of one.
    assert heatmap(record).shape[1] == 76 + 3 * (30 + 44) + 4 * 26 + 24
    assert [Scale(0.01, 1.0, True).text(value) for value in (0.996, 0.994, 1.2)] == ["100 %", "99 %", "120 %"]


def test_without_features_the_norms_themselves_are_shown():
    record = recorded([[0.1, 0.2, 0.3]])
    relative = pixels(record)
    record.feature_norms.clear()
    absolute = pixels(record)
    assert not np.array_equal(relative[:76], absolute[:76])  # the heading says so
    assert tuple(absolute[76 + 30 + 3, 24 + 84 + 3]) == Scale(2.0, 20.0, False).colour(5.0)


def test_blocks_come_in_the_order_in_which_the_model_passes_them():
    """A UNet's "input" 2 belongs to an earlier block than its "input" 0."""
    order = ("input 0", "input 2", "output 10", "output 9", "middle")
    record = recorded([[0.2, 0.1, 0.4, 0.3, 0.5]], blocks=order)
    found, scale = pixels(record), Scale(0.05, 0.5, True)
    shown = [tuple(found[76 + 30 + 26 * row + 3, 24 + 84 + 3]) for row in range(5)]
    assert shown == [scale.colour(value) for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
    record.feature_norms.clear()  # a transformer counts from the beginning
    found, scale = pixels(record), Scale(5.0, 50.0, False)
    assert tuple(found[76 + 30 + 3, 24 + 84 + 3]) == scale.colour(10.0)


@pytest.mark.parametrize(("steps", "blocks"), [(1, 1), (3, 60), (200, 13), (1000, 2)])
def test_any_number_of_steps_and_blocks_fits(steps, blocks):
    names = tuple(f"output {number}" for number in range(blocks))
    picture = heatmap(recorded([[0.1] * blocks] * steps, blocks=names))
    height, width = picture.shape[1:3]
    assert height >= 16 * blocks and width >= 4 * steps
    assert picture.std() > 0.01


def test_several_evaluations_of_a_step_are_one_cell():
    """Norms of 3 and 4 on features of 50 each: 5 of sqrt(2)·50."""
    record = recorded([[0.06], [0.08]], blocks=("middle",))
    record.steps = [LayerStep(call, 1, 1.0, 0.0, 0.0, True) for call in (0, 1)]
    record.sampler_steps = 1
    shown = tuple(pixels(record)[76 + 30 + 3, 24 + 84 + 3])
    assert shown == Scale(0.01, 0.1, True).colour(5 / (2**0.5 * 50))


def test_a_record_without_norms_says_what_to_switch_on():
    record = recorded([[0.1, 0.2, 0.3]])
    record.residual_norms.clear()
    with pytest.raises(ControlError) as refusal:
        heatmap(record)
    assert str(refusal.value) == (
        "The recorded sampling run of this control has no norms, because no layer ran in it, but a heatmap is drawn from them; "
        "look at Control Report for the reasons."
    )
    record.inspect = False
    with pytest.raises(ControlError) as refusal:
        heatmap(record)
    assert str(refusal.value) == (
        "The recorded sampling run of this control has no norms, but a heatmap is drawn from them; "
        "switch on inspect at Compose Controls and sample again."
    )
