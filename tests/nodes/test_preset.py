"""Presets on a layer: as if their numbers were typed by hand, read from Layer Preset, written by Save Preset, told to the page."""

import json

import pytest
import torch

pytest.importorskip("comfy_api.latest")
pytest.importorskip("comfy")

import folder_paths
from comfy_api.input import CurveInput

from control_composer.control import ControlError
from control_composer.nodes.apply import ControlComposerApply, ControlComposerLayer
from control_composer.nodes.preset import EXAMPLE, ControlComposerLayerPreset, ControlComposerSavePreset, settings_of
from control_composer.nodes.preset_inputs import CURVES
from control_composer.nodes.schedule import ControlComposerStrengthCurve
from control_composer.page.presets import layer_preset, presets, read_preset
from control_composer.residuals.block_values import ListedWeights
from control_composer.residuals.layer_preset import LayerPreset, Settings, parse_preset, preset_text
from control_composer.residuals.moments import Moment
from control_composer.residuals.preset_error import PresetError
from control_composer.residuals.schedules import Keyframe, Keyframes
from control_composer.residuals.shipped_presets import BY_NAME, SHIPPED
from control_composer.residuals.weights import Product, SoftWeights
from control_composer.tests.narrow import conditioning, make_model, make_module, make_ours, picture, sample

SIZE = (1, 32, 32)
OWN = LayerPreset(
    "own",
    Settings(0.8, 0.1, 0.9, 0.5, SoftWeights(0.7), Keyframes((Keyframe(0, 1.0), Keyframe(1, 0.4)), "step")),
    "canny",
    "SD1.5",
    "measured here",
)


@pytest.fixture(scope="module")
def model():
    return make_model("sd1")


@pytest.fixture(scope="module")
def control():
    return make_ours(make_module("sd1"), "SD1")


@pytest.fixture(scope="module")
def hint():
    return picture(1, 256, 256)


def layer(control, hint, *typed, weights=None, schedule=None, **presets):
    return ControlComposerLayer.execute(
        control, hint, *(typed or (1.0, 0.0, 1.0, 1.0)), weights=weights, schedule=schedule, **presets
    ).args[0]


def test_a_picture_with_a_preset_is_that_of_the_numbers_typed_by_hand(model, control, hint):
    positive, negative = conditioning("sd1", 1), conditioning("sd1", 2)

    def drawn(*typed, weights=None, schedule=None, **presets):
        given = typed or (1.0, 0.0, 1.0, 1.0)
        both = ControlComposerApply.execute(
            positive, negative, control, hint, *given, weights=weights, schedule=schedule, **presets
        ).args
        return sample(model, *both, SIZE, steps=3)

    plain = drawn()
    for preset, numbers in (
        ({"preset": "krita: scribble, SDXL"}, ((0.7, 0.0, 0.7, 1.0), None, None)),
        ({"own_preset": OWN}, ((0.8, 0.1, 0.9, 0.5), OWN.settings.weights, OWN.settings.schedule)),
    ):
        by_preset = drawn(**preset)
        assert torch.equal(by_preset, drawn(*numbers[0], weights=numbers[1], schedule=numbers[2]))
        assert not torch.equal(by_preset, plain)
    assert torch.equal(drawn(preset="none"), plain)


FOUR_BLOCKS = BY_NAME["A1111: My prompt is more important, T2I-Adapter"]


@pytest.mark.parametrize(
    "preset", [preset for preset in SHIPPED if preset != FOUR_BLOCKS], ids=lambda preset: preset.name
)
def test_at_its_defaults_a_layer_has_the_preset_as_it_is(control, hint, preset):
    assert settings_of(layer(control, hint, preset=preset.name)) == preset.settings


def test_all_that_is_given_multiplies(control, hint):
    found = settings_of(
        layer(control, hint, 0.5, 0.2, 1.0, 1.0, weights=SoftWeights(), preset="krita: scribble, SDXL", own_preset=OWN)
    )
    assert found.strength == pytest.approx(0.5 * 0.7 * 0.8) and (found.start_percent, found.end_percent) == (0.2, 0.7)
    assert found.uncond_strength == 0.5 and found.weights == Product((SoftWeights(), SoftWeights(0.7)))
    assert found.schedule == OWN.settings.schedule


def test_a_preset_for_another_number_of_blocks_is_refused(control, hint):
    assert FOUR_BLOCKS.settings.weights == ListedWeights((0.25, 0.62, 0.825, 1.0))
    with pytest.raises(ControlError, match="Block Weights has 4 numbers, but this control has 13 blocks"):
        layer(control, hint, preset=FOUR_BLOCKS.name)


def test_what_a_layer_cannot_do_with_a_preset_is_told(control, hint):
    with pytest.raises(PresetError) as error:
        layer(control, hint, preset="krita: scribbel, SDXL")
    assert str(error.value) == (
        'preset is "krita: scribbel, SDXL", but this version of Control Composer has none of this name; choose another, such as '
        '"krita: scribble, SDXL".'
    )
    with pytest.raises(PresetError, match="have nothing in common"):
        layer(control, hint, 1.0, 0.9, 1.0, 1.0, preset="krita: canny")


def test_layer_preset_reads_its_text_and_tells_a_typo_before_a_run():
    assert ControlComposerLayerPreset.define_schema().inputs[0].default == preset_text(EXAMPLE)
    found, description = ControlComposerLayerPreset.execute(preset_text(OWN)).args
    assert found == OWN and description.startswith("own (for canny, SD1.5)\nstrength 0.8, from 0.1 to 0.9, 0.5 of it ")
    assert ControlComposerLayerPreset.validate_inputs(preset_text(OWN)) is True
    assert ControlComposerLayerPreset.validate_inputs(None) is True
    assert ControlComposerLayerPreset.validate_inputs('{"control_composer_preset": 1, "nam": "x"}').startswith(
        'The preset has "nam", but only control_composer_preset, name, '
    )


def test_a_drawn_curve_travels():
    raw = {"points": [[0, 1], [0.3, 0.2], [1, 0.7]], "interpolation": "monotone_cubic"}
    for given in (raw, raw | {"interpolation": "linear"}, CurveInput.from_raw(raw)):
        schedule = ControlComposerStrengthCurve.execute(given, 1.5, "step").args[0]
        text = preset_text(LayerPreset("curve", Settings(schedule=schedule)), CURVES)
        read = parse_preset(text, CURVES).settings.schedule
        places = [Moment(0.0, number / 40) for number in range(41)]
        assert [read(place) for place in places] == [schedule(place) for place in places]
    with pytest.raises(PresetError) as error:
        preset_text(LayerPreset("curve", Settings(schedule=type(schedule)(lambda place: place))), CURVES)
    assert str(error.value).startswith(
        "The curve of the schedule is of a kind without a written form (function), but a "
    )
    with pytest.raises(
        PresetError, match='The preset has "cubic" as the interpolation of its curve, but it is one of linear, '
    ):
        parse_preset(text.replace("monotone_cubic", "cubic"), CURVES)
    with pytest.raises(PresetError, match="The schedule of the preset cannot be read: curve of Strength Curve is "):
        parse_preset(text.replace("[[0.0, 1.0], [0.3, 0.2], [1.0, 0.7]]", "[]"), CURVES)


def saved(**changes):
    typed = {
        "name": "mine",
        "condition": "canny",
        "base": "SDXL",
        "strength": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    return ControlComposerSavePreset.execute(**(typed | {"uncond_strength": 1.0} | changes)).args


def test_save_preset_takes_what_is_typed_connected_and_in_a_layer(control, hint):
    preset, text = saved(strength=0.5, source=" me ", weights=SoftWeights(), end_percent=0.8)
    assert preset == LayerPreset("mine", Settings(0.5, 0.0, 0.8, weights=SoftWeights()), "canny", "SDXL", "me")
    assert parse_preset(text) == preset
    assert saved(layer=layer(control, hint, own_preset=OWN))[0].settings == OWN.settings


def test_save_preset_writes_a_file_once(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    _, text = saved(filename="presets/mine")
    file = tmp_path / "presets" / "mine.json"
    assert file.read_text(encoding="utf-8") == text
    saved(filename="presets/mine.json")  # the same again
    with pytest.raises(PresetError) as error:
        saved(filename="presets/mine", strength=0.3)
    assert str(error.value) == (
        f"The file '{file}' is there already and holds something else, but a new name was expected, since overwrite of Save Preset is off; choose "
        "another filename, or turn overwrite on."
    )
    saved(filename="presets/mine", strength=0.3, overwrite=True)
    assert parse_preset(file.read_text(encoding="utf-8")).settings.strength == 0.3
    for name in ("../mine", "/mine", "a//b", "a:b", "x/.."):
        with pytest.raises(
            PresetError, match=r"^filename of Save Preset is .* was expected; choose another, as presets/mine\.$"
        ):
            saved(filename=name)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["mine.json"]


GRAPH = {
    "1": {"class_type": "ControlComposerSoftWeights", "inputs": {"base": 0.5, "ladder": "power"}},
    "2": {
        "class_type": "ControlComposerWeightPreset",
        "inputs": {"preset": "ControlNet is more important", "weights": ["1", 0]},
    },
    "3": {
        "class_type": "ControlComposerStrengthCurve",
        "inputs": {"curve": {"__value__": [[0, 1], [1, 0.5]]}, "scale": 1.0, "axis": "step"},
    },
    "4": {"class_type": "ControlComposerLayerPreset", "inputs": {"preset": preset_text(OWN)}},
    "5": {
        "class_type": "ControlComposerLayer",
        "inputs": {
            "control_net": ["9", 0],
            "image": ["8", 0],
            "strength": 0.5,
            "uncond_strength": ["2", 1],
            "weights": ["2", 0],
            "schedule": ["3", 0],
            "preset": "krita: canny",
            "own_preset": ["4", 0],
        },
    },
    "6": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.4}},
}


def test_the_page_exports_what_a_run_would_have(control, hint):
    answer = layer_preset({"prompt": GRAPH, "node": "5", "name": "Canny: mine/2"})
    assert answer["file"] == "Canny_mine_2.json"
    found = parse_preset(answer["text"], CURVES)
    schedule = ControlComposerStrengthCurve.execute([[0, 1], [1, 0.5]], 1.0, "step").args[0]
    run = settings_of(
        layer(
            control,
            hint,
            0.5,
            0.0,
            1.0,
            0.0,
            weights=SoftWeights(0.5),
            schedule=schedule,
            preset="krita: canny",
            own_preset=OWN,
        )
    )
    assert (found.name, found.condition, found.base) == ("Canny: mine/2", "canny", "SD1.5")
    assert found.source == f"krita: canny: {BY_NAME['krita: canny'].source}; own: measured here"
    for name in ("strength", "start_percent", "end_percent", "uncond_strength"):
        assert getattr(found.settings, name) == getattr(run, name)
    blocks = control.source.blocks(32, 32)
    assert found.settings.weights(blocks) == run.weights(blocks)
    assert [found.settings.schedule(Moment(0, at / 9)) for at in range(10)] == [
        run.schedule(Moment(0, at / 9)) for at in range(10)
    ]


def test_what_only_a_run_can_tell_is_not_exported():
    with pytest.raises(PresetError) as error:
        layer_preset(
            {
                "prompt": GRAPH | {"5": {**GRAPH["5"], "inputs": {**GRAPH["5"]["inputs"], "strength": ["6", 0]}}},
                "node": "5",
            }
        )
    assert str(error.value) == (
        "strength of Control Layer comes from PrimitiveFloat, whose output is known only when it has run, but an export takes what is written in "
        "the graph; type it into the node, or let Save Preset write the preset in a run."
    )
    looped = GRAPH | {"1": {"class_type": "ControlComposerSoftWeights", "inputs": {"weights": ["1", 0]}}}
    with pytest.raises(
        PresetError, match="comes from ControlComposerSoftWeights, whose output is known only when it has run"
    ):
        layer_preset({"prompt": looped, "node": "5"})
    broken = GRAPH | {"2": {"class_type": "ControlComposerWeightPreset", "inputs": {"preset": "?"}}}
    with pytest.raises(
        PresetError, match="comes from ControlComposerWeightPreset, which cannot do with what is written in it"
    ):
        layer_preset({"prompt": broken, "node": "5"})
    for question in ({}, {"prompt": GRAPH, "node": "7"}, {"prompt": GRAPH, "node": "1"}, {"prompt": [], "node": "5"}):
        with pytest.raises(
            PresetError, match="The settings of this node cannot be exported, since it is switched off or no layer"
        ):
            layer_preset(question)


def changed(node, **inputs):
    return GRAPH | {node: {**GRAPH[node], "inputs": {**GRAPH[node]["inputs"], **inputs}}}


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (
            GRAPH | {"5": {**GRAPH["5"], "inputs": []}},
            "The inputs of Control Layer (5) are no object of names and values, ",
        ),
        (
            GRAPH | {"1": {**GRAPH["1"], "inputs": 3}},
            "The inputs of Soft Weights (1) are no object of names and values, ",
        ),
        (
            changed("5", preset=["krita: canny"]),
            "preset of Control Layer is ['krita: canny'], but the text of one of its choices was expected; set it in the graph.",
        ),
        (
            changed("5", preset=None),
            "preset of Control Layer is None, but the text of one of its choices was expected; ",
        ),
        (changed("5", preset=3), "preset of Control Layer is 3, but the text of one of its choices was expected; "),
        (
            changed("5", own_preset={"name": 1}),
            "own_preset of Control Layer is {'name': 1}, but a link from Layer Preset ",
        ),
        (
            changed("5", weights="0.5"),
            "weights of Control Layer is 0.5, but a link from a node of block weights was expected; ",
        ),
        (
            changed("5", weights=["3", 0]),
            "weights of Control Layer is curve from 0 to 1 (step), but a link from a node of block weights was expected; ",
        ),
        (
            changed("5", schedule=0.5),
            "schedule of Control Layer is 0.5, but a link from a node of schedules was expected; ",
        ),
        (changed("5", strength="x"), 'The preset has "x" as strength of the layer, but a finite number was expected; '),
        (
            changed("1", weights=2),
            "weights of Soft Weights is 2, but a link from a node of block weights was expected; ",
        ),
        (
            changed("1", base="x"),
            "weights of Weight Preset comes from ControlComposerSoftWeights, which cannot do with what ",
        ),
        (changed("4", preset=4), "preset of Layer Preset is 4, but a text was expected; "),
        (changed("3", curve=3), "curve of Strength Curve is 3, but "),
    ],
)
def test_a_question_that_no_page_asks_is_refused_in_a_sentence(prompt, sentence):
    with pytest.raises(ValueError) as error:
        layer_preset({"prompt": prompt, "node": "5"})
    assert str(error.value).startswith(sentence)


def test_the_page_reads_presets_and_lists_those_of_the_pack():
    answer = read_preset({"text": json.dumps({"control_composer_preset": 1, "name": "é ü", "strength": 0.5})})
    assert answer["name"] == "é ü" and answer["words"].startswith("é ü (for any control)\nstrength 0.5, from 0 to 1")
    assert parse_preset(answer["text"]).settings == Settings(0.5)
    with pytest.raises(PresetError, match="The preset is empty"):
        read_preset({})
    found = presets({})["presets"]
    assert list(found) == list(BY_NAME)
    assert parse_preset(found["krita: hands"]["text"]) == BY_NAME["krita: hands"]
