"""Presets as JSON: read as written, multiplied with a layer's settings, listed in their page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals.block_values import ListedWeights, NamedWeights
from control_composer.residuals.layer_preset import (
    BASES,
    CONDITIONS,
    FORMAT,
    KEYS,
    MARK,
    LayerPreset,
    Settings,
    described,
    parse_preset,
    preset_text,
    under,
)
from control_composer.residuals.moments import Moment
from control_composer.residuals.preset_schedules import Curves
from control_composer.residuals.schedule_images import ImageStrengths, NamedStrengths
from control_composer.residuals.schedules import EASINGS, CurveSchedule, Keyframe, Keyframes, ListSchedule
from control_composer.residuals.schedules import Product as ScheduleProduct
from control_composer.residuals.shipped_presets import BY_NAME, SHIPPED
from control_composer.residuals.weights import Flat, LevelWeights, Product, ResolutionWeights, SoftWeights

DOCS = Path(__file__).resolve().parents[2] / "docs"

few = settings(max_examples=80, derandomize=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
lists = st.lists(numbers, min_size=1, max_size=5).map(tuple)
shares = st.floats(0, 1)
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=20
)

single_weights = st.one_of(
    st.builds(Flat, numbers),
    st.builds(ListedWeights, lists),
    st.dictionaries(st.sampled_from(["output 3", "output 0", "middle", "input 1"]), numbers).map(
        lambda found: NamedWeights(tuple(found.items()))
    ),
    lists.map(lambda values: NamedWeights((("output", values), ("middle", 0.5)))),
    st.builds(
        ResolutionWeights,
        st.sampled_from(["normalised", "literal"]),
        st.sampled_from(["actual", "nominal"]),
        st.floats(1, 1024),
    ),
    st.builds(SoftWeights, st.floats(0, 3), st.sampled_from(["power", "logspace"])),
    st.builds(LevelWeights, lists, numbers),
)
weights = st.one_of(
    single_weights, st.lists(single_weights, min_size=1, max_size=3).map(lambda parts: Product(tuple(parts)))
)


@st.composite
def keyframes(draw):
    places = sorted(draw(st.lists(shares, min_size=1, max_size=4)))
    easings = ["linear", *(draw(st.sampled_from(list(EASINGS))) for _ in places[1:])]
    return Keyframes(
        tuple(Keyframe(place, draw(numbers), easing) for place, easing in zip(places, easings, strict=True)),
        draw(st.sampled_from(["percent", "step"])),
    )


single_schedules = st.one_of(
    keyframes(),
    st.builds(ListSchedule, lists, st.sampled_from(["percent", "step"]), st.sampled_from(["hold", "linear"])),
    st.builds(ImageStrengths, lists, st.sampled_from(["cycle", "repeat", "hold last", "spread", "error"])),
    st.tuples(numbers, numbers).map(lambda two: NamedStrengths(((0, 3, two[0]), (5, 5, two[1])))),
)
schedules = st.one_of(
    st.none(),
    single_schedules,
    st.lists(single_schedules, min_size=1, max_size=3).map(lambda parts: ScheduleProduct(tuple(parts))),
)


@few
@given(
    weights,
    schedules,
    st.lists(shares, min_size=2, max_size=2).map(sorted),
    st.floats(0, 10),
    shares,
    words,
    st.sampled_from(BASES),
)
def test_what_is_written_is_read_bit_by_bit(weights, schedule, span, strength, balance, name, base):
    found = LayerPreset(name, Settings(strength, *span, balance, weights, schedule), "line art", base, name)
    assert parse_preset(preset_text(found)) == found


@pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.name)
def test_each_of_the_pack_has_a_source_and_survives_its_file(preset):
    assert preset.source and preset.condition in CONDITIONS and preset.base in BASES
    assert parse_preset(preset_text(preset)) == preset
    assert described(preset).splitlines()[-1] == f"source: {preset.source}"


def test_names_of_the_pack_are_told_apart_and_frozen():
    assert len(BY_NAME) == len(SHIPPED)
    assert (
        parse_preset(
            '{"control_composer_preset": 1, "name": "krita: scribble, SDXL", "condition": "scribble", "base": "SDXL", "strength": 0.7, '
            '"end_percent": 0.7, "source": "krita-ai-diffusion, presets/control.json, the middle one, its default, of the three stops of its slider"}'
        )
        == BY_NAME["krita: scribble, SDXL"]
    )
    assert BY_NAME["A1111: ControlNet is more important"].settings == Settings(uncond_strength=0.0)
    assert BY_NAME["A1111: My prompt is more important"].settings == Settings(weights=SoftWeights())
    assert BY_NAME["paper: CFG resolution weighting"].settings == Settings(
        uncond_strength=0.0, weights=ResolutionWeights()
    )
    assert BY_NAME["krita: line art, SDXL, loose"].settings == Settings(0.5, 0.0, 0.5)


def test_the_text_is_one_that_a_person_can_read():
    schedule = Keyframes((Keyframe(0, 1.0), Keyframe(0.7, 0.0, "hold")), "step")
    preset = LayerPreset(
        "mine", Settings(0.7, 0.0, 0.8, weights=SoftWeights(), schedule=schedule), "depth", "SDXL", "me"
    )
    assert preset_text(preset) == (
        '{\n  "control_composer_preset": 1,\n  "name": "mine",\n  "condition": "depth",\n  "base": "SDXL",\n  "strength": 0.7,\n'
        '  "start_percent": 0,\n  "end_percent": 0.8,\n  "uncond_strength": 1,\n  "weights": {"soft": 0.825},\n'
        '  "schedule": {"keyframes": "1@0, 0@0.7 hold", "axis": "step"},\n  "source": "me"\n}'
    )
    assert described(preset) == (
        "mine (for depth, SDXL)\nstrength 0.7, from 0 to 0.8, both branches\nweights: soft 0.825\n"
        "schedule: 1@0, 0@0.7 hold (step)\nsource: me"
    )


def test_what_is_left_out_is_neutral_and_texts_of_the_nodes_are_read():
    assert parse_preset(f'{{"{MARK}": 1, "name": "n"}}') == LayerPreset("n")
    assert read(weights="1, 0.5, 0").settings.weights == ListedWeights((1.0, 0.5, 0.0))
    assert read(weights='{"output": 0.5}').settings.weights == NamedWeights((("output", 0.5),))
    assert read(weights={"output": [1, 0], "middle": 0}).settings.weights == NamedWeights(
        (("output", (1.0, 0.0)), ("middle", 0.0))
    )
    assert read(schedule="1@0, 0@1").settings.schedule == Keyframes((Keyframe(0, 1), Keyframe(1, 0)))
    assert read(schedule={"pictures": "0-1: 0.5"}).settings.schedule == NamedStrengths(((0, 1, 0.5),))


def test_presets_multiply_and_ranges_meet():
    one = Settings(0.5, 0.1, 0.8, 0.5, SoftWeights(), Keyframes((Keyframe(0, 0.5),)))
    two = LayerPreset("two", Settings(0.8, 0.0, 0.7, 0.5, Flat(0.5), ListSchedule((2.0,))))
    found = under(one, [two, None])
    assert (found.strength, found.start_percent, found.end_percent, found.uncond_strength) == (0.4, 0.1, 0.7, 0.25)
    assert found.weights == Product((SoftWeights(), Flat(0.5)))
    assert found.schedule(Moment(0.5, 0.5)) == 1.0


def test_neutral_settings_leave_others_as_they_are():
    one = Settings(0.3, 0.2, 0.9, 0.7, LevelWeights((1.0, 0.5)), ListSchedule((1.0, 0.3)))
    assert Settings() * one == one == one * Settings() == under(one, [])


def read(**values):
    return parse_preset(json.dumps({MARK: FORMAT, "name": "n", **values}))


def test_curves_go_through_who_knows_them():
    def curve(value):
        return lambda place: value["points"][0][1] * place

    kept = {}

    def taken(value):
        found = curve(value)
        kept[id(found)] = (found, value)
        return found

    curves = Curves(taken, lambda found: kept[id(found)][1])
    written = CurveSchedule(taken({"points": [[0, 0.3]]}), 0.25, 2.0, "step")
    preset = LayerPreset("n", Settings(schedule=written))
    read_back = parse_preset(preset_text(preset, curves), curves)
    for place in (0, 0.2, 1):
        assert read_back.settings.schedule(Moment(0.5, place)) == written(Moment(0.5, place))
    assert replace(read_back.settings, schedule=None) == Settings()


def row(preset):
    settings = preset.settings
    more = [f"weights: {settings.weights}"] if settings.weights != Flat() else []
    more += [f"schedule: {settings.schedule}"] if settings.schedule is not None else []
    return (
        f"| {preset.name} | {settings.strength:g} | {settings.start_percent:g} to {settings.end_percent:g} | {settings.uncond_strength:g} | "
        f"{'; '.join(more)} | {preset.source} |"
    )


def test_the_page_about_presets_has_them_all_and_its_texts_are_presets():
    page = (DOCS / "presets.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith(("| krita: ", "| A1111: "))]
    missing = [preset.name for preset in SHIPPED if row(preset) not in page]
    assert missing == []
    example = page.split("```json\n")[1].split("```")[0]
    assert parse_preset(example) == BY_NAME["diffusers: depth from Marigold, SDXL"]
    file = DOCS / "presets" / "scribble_sdxl.json"
    assert parse_preset(file.read_text(encoding="utf-8")) == BY_NAME["krita: scribble, SDXL"]
    assert all(f"`{key}`" in page for key in KEYS)
    assert (
        f"| `condition` | {', '.join(CONDITIONS)} | any |" in page and f"| `base` | {', '.join(BASES)} | any |" in page
    )
