"""The nodes of the section schedule: thin, and quick to tell a typo."""

import asyncio

import pytest

pytest.importorskip("comfy_api.latest")
pytest.importorskip("comfy")

from comfy_api.input import CurveInput

from control_composer.nodes.schedule import (
    NODES,
    ControlComposerImageStrengths,
    ControlComposerStrengthCurve,
    ControlComposerStrengthKeyframes,
)
from control_composer.residuals import (
    ImageStrengths,
    Keyframe,
    Keyframes,
    ListSchedule,
    Moment,
    NamedStrengths,
    ScheduleError,
)

LINE = {"points": [[0, 1], [0.5, 0.5], [1, 0]], "interpolation": "linear"}
OTHER = Keyframes((Keyframe(0, 2.0),))


def at(place):
    return Moment(place, place)


@pytest.mark.parametrize("raw", [LINE, CurveInput.from_raw(LINE), LINE["points"]])
def test_a_curve_from_the_widget_from_a_link_and_from_an_api_client(raw):
    schedule, description = ControlComposerStrengthCurve.execute(raw, 2.0).result
    assert [schedule(at(place)) for place in (0, 0.25, 0.5, 1)] == pytest.approx([2, 1.5, 1, 0])
    assert description.startswith("percent of the sampling: strength\n0 %: 2\n") and description.endswith("100 %: 0")


def test_the_curves_default_is_what_the_host_sends_and_reads():
    widget = ControlComposerStrengthCurve.INPUT_TYPES()["required"]["curve"][1]
    assert widget["socketless"] is False
    schedule, _ = ControlComposerStrengthCurve.execute(widget["default"], 1.0, "step").result
    assert [schedule(Moment(0.9, place)) for place in (0, 1)] == [1, 0] and schedule.axis == "step"


@pytest.mark.parametrize("raw", [None, {}, {"points": []}, {"points": [[0, float("nan")]]}, {"points": [[0]]}, "curve"])
def test_what_is_no_curve_is_refused(raw):
    with pytest.raises(ScheduleError) as error:
        ControlComposerStrengthCurve.execute(raw, 1.0)
    assert str(error.value) == (
        f"curve of Strength Curve is {raw}, but an object with points was expected; draw a curve in the node, or write "
        '{"points": [[0, 1], [1, 0]], "interpolation": "linear"}.'
    )


def test_keyframes_resolve_to_what_the_description_says():
    schedule, description = ControlComposerStrengthKeyframes.execute("0.2@0, 0.8@0.4 ease, 0@0.9").result
    assert schedule == Keyframes((Keyframe(0, 0.2), Keyframe(0.4, 0.8, "ease"), Keyframe(0.9, 0)))
    assert description.splitlines() == [
        "percent of the sampling: strength",
        *("0 %: 0.2", "10 %: 0.2938", "20 %: 0.5", "30 %: 0.7063", "40 %: 0.8", "50 %: 0.64", "60 %: 0.48"),
        *("70 %: 0.32", "80 %: 0.16", "90 %: 0", "100 %: 0"),
    ]


def test_on_the_step_axis_the_description_counts_steps():
    schedule, description = ControlComposerStrengthKeyframes.execute("1, 0", "step", "hold").result
    assert schedule == ListSchedule((1, 0), "step", "hold")
    lines = description.splitlines()
    assert lines[0] == "step, in a run of 20 steps: strength" and len(lines) == 21
    assert lines[10:12] == ["9: 1", "10: 0"]


def test_strengths_of_pictures():
    assert ControlComposerImageStrengths.execute("1, 0", "spread").result == (
        ImageStrengths((1, 0), "spread"),
        "in a batch of 4 pictures: 1, 0.6667, 0.3333, 0",
    )
    assert ControlComposerImageStrengths.execute("0-3: 0.5").result == (
        NamedStrengths(((0, 3, 0.5),)),
        "pictures 0 to 3: 0.5\nall others: 1",
    )


@pytest.mark.parametrize("policy", ["cycle", "repeat", "hold last", "spread"])
def test_the_policies_do_what_their_tooltip_shows(policy):
    inputs = {item.id: item for item in ControlComposerImageStrengths.define_schema().inputs}
    shown = ", ".join(f"{value:.3g}" for value in ImageStrengths((1, 0), policy).pictures(4))
    (sentence,) = (part for part in inputs["policy"].tooltip.split(". ") if part.startswith(policy))
    assert sentence.endswith(f": {shown}")


@pytest.mark.parametrize(
    ("node", "values"),
    [
        (ControlComposerStrengthCurve, (LINE, 1.0, "percent")),
        (ControlComposerStrengthKeyframes, ("1@0, 0@1", "percent", "hold")),
        (ControlComposerImageStrengths, ("0.5", "hold last")),
    ],
)
def test_every_schedule_node_multiplies_with_what_is_connected(node, values):
    own, connected = node.execute(*values).result[0], node.execute(*values, OTHER).result[0]
    assert connected(at(0.25)) == 2 * own(at(0.25)) and connected.pictures(3) == own.pictures(3)


def test_a_typo_is_told_before_the_run_and_a_linked_text_is_not_read_yet():
    told = ControlComposerStrengthKeyframes.validate_inputs(keyframes="0.2@0, 0.8@0.4 eaze")
    assert told == (
        'keyframes of Strength Keyframes has the easing "eaze" in place 2 (character 8), but linear, ease, ease-in, ease-out, hold are known; '
        'write "ease".'
    )
    assert "has nothing in place 2" in ControlComposerImageStrengths.validate_inputs(strengths="1,, 0")
    for node, name in ((ControlComposerStrengthKeyframes, "keyframes"), (ControlComposerImageStrengths, "strengths")):
        inputs = {item.id: item for item in node.define_schema().inputs}
        for text in (None, inputs[name].default):
            assert node.validate_inputs(**{name: text}) is True


def test_the_hosts_own_check_of_a_prompt_tells_the_typo(monkeypatch):
    import execution

    import nodes

    def check(text):
        prompt = {
            "1": {"class_type": "ControlComposerStrengthKeyframes", "inputs": {"keyframes": text, "axis": "percent", "between": "hold"}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
        }  # fmt: skip
        return asyncio.run(execution.validate_prompt("prompt", prompt, None))

    from comfy_extras.nodes_preview_any import PreviewAny

    for node in NODES:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "PreviewAny", PreviewAny)
    assert check("1@0, 0@1")[0] is True
    valid, _, _, errors = check("1@0, 0@1.5")
    assert valid is False
    assert errors["1"]["errors"][0]["details"] == (
        'keyframes - keyframes of Strength Keyframes has the position "1.5" in place 2 (character 6), but positions run from 0, the beginning '
        "of the sampling, to 1, its end; write 1, or another number between 0 and 1."
    )


def test_everything_is_documented_in_the_menu():
    for node in NODES:
        schema = node.GET_SCHEMA()
        assert schema.category == "Control Composer/schedule" and schema.description and schema.search_aliases
        assert all(item.tooltip for item in [*schema.inputs, *schema.outputs])
        assert schema.outputs[0].get_io_type() == "STRENGTH_SCHEDULE"
