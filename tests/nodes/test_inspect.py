"""The nodes of the section inspect, with records of their own and with one of the host's sampler."""

import json
from typing import Any

import pytest

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

import torch
from comfy_api.latest import ui

from control_composer.control import Control, ControlError
from control_composer.control.record import LayerInfo, LayerStep, Record
from control_composer.nodes.apply import ControlComposerApply
from control_composer.nodes.inspect import (
    NODES,
    ControlComposerHeatmap,
    ControlComposerHintOverlay,
    ControlComposerReport,
    one_batch,
    records_in,
)
from control_composer.tests import narrow

SAMPLES = {"samples": torch.zeros(1, 4, 8, 8)}


def conditioning(*controls: Any) -> list[list[Any]]:
    return [[torch.zeros(1, 7, 24), {} if control is None else {"control": control}] for control in controls]


def sampled(name: str = "canny.safetensors", norms: bool = True) -> Control:
    control = Control()
    record = Record((LayerInfo(1, name),), "SD15", 2, inspect=norms, calls=2)
    for call in range(2):
        record.steps.append(LayerStep(call, 1, 1.0, call / 2, call / 2, True))
        if norms:
            record.residual_norms[call, None, "middle"] = torch.tensor([1.0 + call])
            record.feature_norms[call, "middle"] = torch.tensor([10.0])
    control.record = record
    return control


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The preview's pictures instead of files in the host's folder."""
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(ui, "PreviewImage", lambda image, cls: shown.append(image) or {"images": []})
    return shown


def test_every_node_says_what_it_is() -> None:
    for node in NODES:
        schema = node.define_schema()
        assert schema.category == "Control Composer/inspect"
        assert schema.description and schema.search_aliases
        assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs])
    assert [node.define_schema().is_output_node for node in NODES] == [True, True, True]


def test_the_report_is_text_json_and_a_preview() -> None:
    output = ControlComposerReport.execute(conditioning(sampled()), SAMPLES)
    text, found = output.result
    assert "1. canny.safetensors, strength 1: ran at steps 1, 2 of 2" in text
    assert [entry["layers"][0]["name"] for entry in json.loads(found)] == ["canny.safetensors"]
    assert output.ui["text"] == (text,)
    (table,) = json.loads(json.dumps(output.ui["control_report"], allow_nan=False))
    assert table["head"] == "1 layer, SD15 model, 2 steps, 2 calls of the model"
    assert table["layers"] == [
        {
            "name": "1. canny.safetensors",
            "strength": "1",
            "ran": "1, 2",
            "why": "",
            "gains": [1.0, 1.0],
            "adds": "",
            "time": "",
        }
    ]


def test_several_controls_of_a_conditioning_are_all_reported_once() -> None:
    """Two regions with a control each, of which the second stands before a control of another pack."""
    first, second = sampled("one"), sampled("two")
    foreign = narrow.make_stock(narrow.make_module("sd1"))
    foreign.set_previous_controlnet(second)
    text, found = ControlComposerReport.execute(conditioning(first, foreign, first, None), SAMPLES).result
    assert len(json.loads(found)) == 2
    assert text.index("1. one") < text.index("1. two") and text.count("2 steps") == 2


def test_copies_on_other_devices_are_reported_and_idle_ones_left_out() -> None:
    control = sampled("here")
    control.multigpu_clones = {torch.device("cuda:1"): sampled("there"), torch.device("cuda:2"): Control()}
    assert [record.layers[0].name for record in records_in(conditioning(control), "Control Report")] == [
        "here",
        "there",
    ]


def test_the_heatmap_is_a_picture_and_its_preview(no_files: list[torch.Tensor]) -> None:
    (image,) = ControlComposerHeatmap.execute(conditioning(sampled()), SAMPLES).result
    assert image.shape[0] == 1 and image.shape[3] == 3 and image.std() > 0.01
    assert no_files[0] is image


def test_pictures_of_several_sizes_become_one_batch_on_white() -> None:
    batch = one_batch([torch.zeros(1, 4, 8, 3), torch.zeros(1, 6, 5, 3)])
    assert batch.shape == (2, 6, 8, 3)
    assert (
        batch[0, :4].max() == 0
        and batch[0, 4:].min() == 1
        and batch[1, :, :5].max() == 0
        and batch[1, :, 5:].min() == 1
    )


def test_the_overlay_passes_its_settings_and_shows_its_pictures(no_files: list[torch.Tensor]) -> None:
    image, hint = narrow.picture(2, 16, 16), narrow.picture(1, 8, 16)
    node = ControlComposerHintOverlay
    (plain,) = node.execute(image, hint).result
    assert plain.shape == (2, 16, 16, 3) and no_files[0] is plain
    for change in ({"mode": "blend"}, {"opacity": 0.1}, {"colour": "red"}, {"sizing": "fit"}):
        assert not torch.equal(node.execute(image, hint, **change).result[0], plain), change
    with pytest.raises(ControlError, match='with the policy "error"'):
        node.execute(narrow.picture(3, 16, 16), narrow.picture(2, 16, 16), batch="error")


@pytest.mark.parametrize(
    ("node", "name"), [(ControlComposerReport, "Control Report"), (ControlComposerHeatmap, "Residual Heatmap")]
)
def test_refusals(node: Any, name: str) -> None:
    def refused(positive: list[list[Any]]) -> str:
        with pytest.raises(ControlError) as refusal:
            node.execute(positive, SAMPLES)
        return str(refusal.value)

    advice = "connect the positive that comes from Apply Control or Compose Controls and goes into the sampler."
    assert refused(conditioning(None)) == (
        f"positive of {name} holds no control, but one of Control Composer was expected; {advice}"
    )
    foreign = narrow.make_stock(narrow.make_module("sd1"))
    assert refused(conditioning(foreign)) == (
        f"positive of {name} holds only controls of other nodes, but one of Control Composer was expected; {advice}"
    )
    assert refused(conditioning(Control())) == (
        f"positive of {name} holds a control that was never sampled, but a run to look at was expected; connect the very positive that "
        "goes into the sampler, and that sampler's LATENT to samples."
    )


def test_a_heatmap_without_norms_says_what_to_switch_on() -> None:
    with pytest.raises(ControlError, match="switch on inspect at Compose Controls and sample again"):
        ControlComposerHeatmap.execute(conditioning(sampled(norms=False)), SAMPLES)


def test_a_run_of_the_hosts_sampler_is_reported() -> None:
    """Apply, sample, report: twice, because the host caches and the record is that of the last run."""
    model, control = narrow.make_model("sd1"), narrow.make_ours(narrow.make_module("sd1"), "SD1")
    positive, negative = ControlComposerApply.execute(
        narrow.conditioning("sd1", 1),
        narrow.conditioning("sd1", 2),
        control,
        narrow.picture(1, 64, 64),
        0.8,
        0.0,
        0.5,
        0.0,
    ).result
    for steps in (2, 4):
        narrow.sample(model, positive, negative, (2, 8, 8), steps=steps)
        text, found = ControlComposerReport.execute(positive, SAMPLES).result
        (report,) = json.loads(found)
        (layer,) = report["layers"]
        assert report["calls"] == steps
        assert layer["name"] == "test.safetensors" and layer["mean_seconds"] > 0
        assert 0 < layer["evaluations"] < steps
        ran = [entry for entry in report["evaluations"] if entry["ran"]]
        assert all(entry["percent"] <= 0.5 + 1e-6 for entry in ran)
        assert all(set(entry["blocks"].values()) == {0.8} and len(entry["blocks"]) == 13 for entry in ran)
        assert all((entry["rows_run"], entry["rows"]) == (2, 4) for entry in ran)
        assert layer["skipped"][0]["evaluations"] == steps - layer["evaluations"]
        assert "outside" in layer["skipped"][0]["reason"] and "outside" in text
