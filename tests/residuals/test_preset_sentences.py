"""What is said about presets that cannot be meant, or have no written form."""

import json
import math

import pytest

from control_composer.residuals.layer_preset import FORMAT, KEYS, MARK, LayerPreset, Settings, parse_preset, preset_text
from control_composer.residuals.preset_error import PresetError
from control_composer.residuals.schedules import CurveSchedule, Schedule
from control_composer.residuals.weights import BlockWeights, Flat, Product


def test_ranges_without_anything_in_common_are_refused():
    with pytest.raises(PresetError) as error:
        Settings(1.0, 0.6, 1.0) * Settings(1.0, 0.0, 0.5)
    assert str(error.value) == (
        "The ranges 0.6 to 1 and 0 to 0.5 of the layer and its presets have nothing in common, but the layer acts where all of them do; set "
        "start_percent and end_percent to 0 and 1, or choose another preset."
    )


def read(**values):
    return parse_preset(json.dumps({MARK: FORMAT, "name": "n", **values}))


EXAMPLE = '{"control_composer_preset": 1, "name": "mine", "strength": 0.7}'
OBJECT = f"but an object was expected; paste a whole preset, such as {EXAMPLE}."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", f"The preset is empty, {OBJECT}"),
        ("[1]", f"The preset is [1], {OBJECT}"),
        ('{"name": 1,}', "The preset cannot be read as JSON (line 1, character 12: "),
        ("[" * 50_000, "The preset has lists in lists without end, " + OBJECT),
        ("x" * 100_001, "The preset is 100001 characters long, " + OBJECT),
        ("1" * 5000, "The preset has a number that is too long, " + OBJECT),
        (
            '{"nodes": []}',
            'The preset has no "control_composer_preset", by which a preset is known, but it was expected with the number 1; if this is a preset, '
            'write "control_composer_preset": 1 into it.',
        ),
        (
            '{"control_composer_preset": 2, "name": "n"}',
            "The preset is of format 2, but this version of Control Composer reads format 1; update Control Composer, or export the preset anew.",
        ),
        (
            '{"control_composer_preset": 1, "name": "n", "name": "m"}',
            'The preset has "name" twice, but each was expected once; remove one of them.',
        ),
    ],
)
def test_what_is_no_preset(text, sentence):
    with pytest.raises(PresetError) as error:
        parse_preset(text)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"strenght": 1},
            f'The preset has "strenght", but only {", ".join(KEYS)} are known; write "strength", or remove it.',
        ),
        (
            {"name": ""},
            'The preset has "" as "name", but words of at most 100 characters were expected; write, for example, "name": "mine".',
        ),
        (
            {"strength": 11},
            'The preset has 11 as "strength", but a number from 0 to 10 was expected; write one, such as 1.',
        ),
        (
            {"strength": True},
            'The preset has true as "strength", but a number from 0 to 10 was expected; write one, such as 1.',
        ),
        (
            {"strength": math.nan},
            'The preset has NaN as "strength", but a number from 0 to 10 was expected; write one, such as 1.',
        ),
        (
            {"end_percent": "all"},
            'The preset has "all" as "end_percent", but a number from 0 to 1 was expected; write one, such as 1.',
        ),
        (
            {"start_percent": 0.5, "end_percent": 0.4},
            "The preset has start_percent 0.5 and end_percent 0.4, but the range ends after its start; exchange the two numbers.",
        ),
        (
            {"uncond_strength": 10**400},
            'The preset has 1000000000000000000000000000000000000000 as "uncond_strength", but a number from 0 to 1',
        ),
        ({"base": "SDLX"}, 'The preset has "SDLX" as "base", but it is one of any, SD1.5, SD2.1, SDXL; write "SDXL".'),
        ({"condition": ["canny"]}, 'The preset has ["canny"] as "condition", but it is one of any, canny, '),
        (
            {"weights": {"soft": 0.825, "base": 1}},
            '"weights" of the preset, beside "soft", has "base", but only soft, ladder are known; write "',
        ),
        (
            {"weights": {"soft": "x"}},
            'The preset has "x" as the base of "soft", but a finite number was expected; write one, such as 1.',
        ),
        (
            {"weights": {"soft": -1}},
            "The weights of the preset cannot be read: Soft Weights got the base -1.0, but powers of it are weights and it must be a number of at "
            "least 0; use 0.825.",
        ),
        (
            {"weights": {"resolution": "soft"}},
            'The preset has "soft" as the form of "resolution", but it is one of normalised, literal; write "',
        ),
        (
            {"weights": {"levels": 1}},
            'The preset has no list as "levels" of its weights, but at least one entry in [ ] was expected; write one, such as [1].',
        ),
        ({"weights": None}, "The weights of the preset cannot be read: values of Block Weights has "),
        (
            {"weights": {"outputs": 1}},
            'The weights of the preset cannot be read: values of Block Weights names "outputs", but ',
        ),
        (
            {"schedule": {"axis": "step"}},
            '"schedule" of the preset has none of keyframes, pictures, curve, product, but one of them was expected; write, for example, '
            '{"keyframes": "1@0, 0@1", "axis": "percent"}.',
        ),
        (
            {"schedule": "1@2"},
            'The schedule of the preset cannot be read: keyframes of Strength Keyframes has the position "2" in place 1 ',
        ),
        (
            {"schedule": {"keyframes": [1]}},
            'The preset has no text as "keyframes", but what is typed into the node was expected; put it into quotation marks.',
        ),
        (
            {"schedule": {"keyframes": "1", "axis": "time"}},
            'The preset has "time" as "axis", but it is one of percent, step; write "',
        ),
        (
            {"schedule": {"product": []}},
            'The preset has no list as "product" of its schedule, but at least one schedule in [ ] was expected; write one.',
        ),
        (
            {"schedule": {"curve": {"points": [[0, 1]]}}},
            "The preset has a drawn curve, but here nothing reads or writes curves; use keyframes, or a node of ComfyUI.",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_sentence(values, sentence):
    with pytest.raises(PresetError) as error:
        read(**values)
    found = str(error.value)
    assert found.startswith(sentence) and found.endswith(".") and "\n" not in found


class Odd(BlockWeights):
    def __call__(self, blocks):
        return (1.0,) * len(blocks)


class Later(Schedule):
    def __call__(self, moment):
        return 1.0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            Settings(weights=Product((Flat(2.0), Odd()))),
            "The weights are of a kind without a written form (Odd), but a preset holds those of Resolution, Soft, Level and Block Weights and "
            "Weight Preset; connect one of these.",
        ),
        (
            Settings(schedule=Later()),
            "The schedule is of a kind without a written form (Later), but a preset holds those of Strength Keyframes, Strength Curve and Image "
            "Strengths; connect one of these.",
        ),
        (
            Settings(schedule=CurveSchedule(abs)),
            "The preset has a drawn curve, but here nothing reads or writes curves; use keyframes, or a node of ComfyUI.",
        ),
        (
            Settings(strength=20.0),
            'The preset has 20 as "strength", but a number from 0 to 10 was expected; write one, such as 1.',
        ),
    ],
)
def test_what_has_no_written_form_is_refused(settings, sentence):
    with pytest.raises(PresetError) as error:
        preset_text(LayerPreset("n", settings))
    assert str(error.value) == sentence


def test_a_subclass_is_not_taken_for_what_it_descends_from():
    class Louder(Flat):
        pass

    with pytest.raises(PresetError):
        preset_text(LayerPreset("n", Settings(weights=Louder(2.0))))
