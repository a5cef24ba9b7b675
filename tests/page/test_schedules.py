"""What the page shows of schedules before a run, against what real runs of the host's sampler did."""

import math

import pytest

pytest.importorskip("comfy")

import comfy.samplers
import torch
from safetensors.torch import save_file

from control_composer.nodes.apply import ControlComposerApply
from control_composer.nodes.inspect import records_in
from control_composer.page.noise import noise_of, of_file, stable_diffusion
from control_composer.page.schedules import READERS, schedule
from control_composer.residuals.moments import Moment
from control_composer.residuals.schedules import Schedule
from control_composer.tests import narrow

CURVE = {"points": [[0.0, 0.2], [0.4, 1.0], [1.0, 0.0]], "interpolation": "monotone_cubic"}


def keyframes(text, axis="percent", between="hold"):
    return {
        "type": "ControlComposerStrengthKeyframes",
        "values": {"keyframes": text, "axis": axis, "between": between},
    }


def curve(axis="percent", scale=1.0, points=CURVE):
    return {"type": "ControlComposerStrengthCurve", "values": {"curve": points, "scale": scale, "axis": axis}}


def strengths(text, policy="hold last"):
    return {"type": "ControlComposerImageStrengths", "values": {"strengths": text, "policy": policy}}


def sampler(kind="KSampler", **values):
    return {
        "type": kind,
        "values": {"steps": 20, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0} | values,
    }


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


@pytest.fixture(scope="module")
def control():
    return narrow.make_ours(narrow.make_module("sd1"), "SD1")


def gains(model, control, own: Schedule, **changes):
    """The gain of each step in a real run, and the percents of its record."""
    positive, negative = narrow.conditioning("sd1", 1), narrow.conditioning("sd1", 2)
    out = ControlComposerApply.execute(
        positive, negative, control, narrow.picture(1, 64, 64), 1.0, 0.0, 1.0, schedule=own
    )
    positive, negative = out.result[:2]
    narrow.sample(model, positive, negative, (1, 8, 8), **changes)
    (record,) = records_in(positive, "test")
    firsts = {}
    for entry in record.steps:
        firsts.setdefault(record.step_numbers()[entry.call], entry)
    return [firsts[number] for number in sorted(firsts)]


RUNS = [
    ("KSampler", {"steps": 4, "scheduler": "normal"}, {}),
    ("KSampler", {"steps": 4, "scheduler": "karras"}, {}),
    ("KSampler", {"steps": 3, "scheduler": "simple", "denoise": 0.5}, {}),
    ("KSampler", {"steps": 3, "scheduler": "normal", "sampler_name": "dpm_2"}, {}),
    (
        "KSamplerAdvanced",
        {
            "steps": 6,
            "scheduler": "karras",
            "start_at_step": 2,
            "end_at_step": 5,
            "return_with_leftover_noise": "enable",
        },
        {"start_step": 2, "last_step": 5, "force_full_denoise": False},
    ),
    (
        "KSamplerAdvanced",
        {"steps": 4, "end_at_step": 3, "return_with_leftover_noise": "disable"},
        {"last_step": 3, "force_full_denoise": True},
    ),
]


@pytest.mark.parametrize(("kind", "settings", "cut"), RUNS)
def test_the_steps_shown_are_those_of_the_run(model, control, kind, settings, cut):
    chain = [keyframes("1@0, 0.3@0.5 ease, 0.9@1", "step"), curve(scale=0.8)]
    answer = schedule({"chain": chain, "sampler": sampler(kind, **settings), "model": []})
    own = (
        READERS[chain[0]["type"]](chain[0]["values"]).schedule * READERS[chain[1]["type"]](chain[1]["values"]).schedule
    )
    asked = {
        name: settings[name] for name in ("steps", "scheduler", "denoise", "sampler_name") if name in settings
    } | cut
    ran = gains(model, control, own, **asked)
    assert len(ran) == len(answer["steps"]) == answer["run"]["steps"]
    assert [row["strength"] for row in answer["steps"]] == pytest.approx([entry.gain for entry in ran], abs=1e-6)
    # A record's percents are read from a table for people, that is coarse at the very end.
    assert [row["percent"] for row in answer["steps"]] == pytest.approx([entry.percent for entry in ran], abs=1e-2)
    assert answer["run"]["noise"] == "assumed"


def test_sigmas_of_basic_scheduler_are_those_of_the_host():
    from comfy_extras.nodes_custom_sampler import BasicScheduler

    patcher = narrow.make_model("sd1")
    (sigmas,) = BasicScheduler.execute(patcher, "exponential", 7, 0.6).result
    source = {"type": "BasicScheduler", "values": {"scheduler": "exponential", "steps": 7, "denoise": 0.6}}
    custom = {"type": "SamplerCustom", "values": {"cfg": 8.0}}
    answer = schedule({"chain": [curve()], "sampler": custom, "sigmas": source, "model": []})
    to_sigma = patcher.model.model_sampling.percent_to_sigma
    assert [float(to_sigma(row["percent"])) for row in answer["steps"]] == pytest.approx(sigmas[:-1].tolist(), rel=2e-3)
    assert answer["run"] == {
        "sampler": "SamplerCustom",
        "steps": 7,
        "scheduler": "exponential",
        "noise": "assumed",
        "file": "",
    }


def test_without_a_noise_schedule_steps_are_told_on_the_step_axis_and_nothing_on_the_percent_axis():
    patched = [{"type": "ModelSamplingDiscrete", "values": {}}, {"type": "CheckpointLoaderSimple", "values": {}}]
    question = {"sampler": sampler(steps=4), "model": patched}
    told = schedule({"chain": [keyframes("1, 0.5, 0.25, 0", "step")], **question})
    assert [row["own"] for row in told["steps"]] == [1, 0.5, 0.25, 0]
    assert [row["percent"] for row in told["steps"]] == [None] * 4
    assert told["run"]["noise"] == ""
    untold = schedule({"chain": [keyframes("1@0, 0@1", "percent")], **question})
    assert untold["steps"] == [] and len(untold["line"]) > 100
    mixed = schedule({"chain": [keyframes("1@0, 0@1"), keyframes("1, 0", "step")], **question})
    assert [row["own"] for row in mixed["steps"]] == [1, 1, 0, 0]
    assert [row["strength"] for row in mixed["steps"]] == [None] * 4


@pytest.mark.parametrize("source", ["KarrasScheduler", "AlignYourStepsScheduler"])
def test_of_another_source_of_sigmas_the_count_is_known(source):
    custom = {"type": "SamplerCustom", "values": {"cfg": 8.0}}
    question = {"sampler": custom, "sigmas": {"type": source, "values": {"steps": 5}}, "model": []}
    assert [row["own"] for row in schedule({"chain": [keyframes("1@0, 0@1", "step")], **question})["steps"]] == (
        pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    )
    assert schedule({"chain": [keyframes("1@0, 0@1")], **question})["steps"] == []


def test_the_noise_of_a_checkpoint_is_read_from_names_and_shapes(tmp_path, monkeypatch):
    """An SDXL file that says of itself that it was trained by v-prediction on a schedule that ends in pure noise."""
    state = {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        "input_blocks.4.1.proj_in.weight": (640, 640),
        "input_blocks.4.1.transformer_blocks.1.norm1.weight": (640,),
        "input_blocks.7.1.transformer_blocks.9.norm1.weight": (1280,),
        "input_blocks.7.1.proj_in.weight": (1280, 1280),
        "label_emb.0.0.weight": (1280, 2816),
        "time_embed.0.weight": (1280, 320),
    }
    import comfy.supported_models

    names = {f"model.diffusion_model.{name}": torch.zeros(shape, dtype=torch.half) for name, shape in state.items()}
    monkeypatch.setattr(
        "comfy.model_detection.model_config_from_unet",
        lambda found, prefix: (
            comfy.supported_models.SDXL({"in_channels": 4}) if prefix == "model.diffusion_model." else None
        ),
    )
    plain, zero = tmp_path / "plain.safetensors", tmp_path / "zero.safetensors"
    save_file(names, plain)
    save_file(names | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}, zero)
    assert torch.equal(of_file(str(plain), 0).sigmas, stable_diffusion().sigmas)
    assert float(of_file(str(zero), 0).sigma_max) > 100 * float(stable_diffusion().sigma_max)
    monkeypatch.setattr(
        "folder_paths.get_full_path", lambda folder, name: str(zero) if name == "zero.safetensors" else None
    )
    loader = {"type": "CheckpointLoaderSimple", "values": {"ckpt_name": "zero.safetensors"}}
    found = noise_of([{"type": "LoraLoader", "values": {}}, loader])
    assert found is not None and found.source == "zero.safetensors"
    answer = schedule({"chain": [curve()], "sampler": sampler(), "model": [loader]})
    assert (answer["run"]["noise"], answer["run"]["file"]) == ("file", "zero.safetensors")


def test_a_file_that_is_no_model_falls_back_to_what_is_assumed(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    assert of_file(str(broken), 0) is None
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert of_file(str(tmp_path / "other.safetensors"), 0) is None


def test_the_line_goes_through_the_marks_and_shows_both_sides_of_a_jump():
    answer = schedule({"chain": [keyframes("1@0, 0.25@50% hold, 0@0.8")], "sampler": None})
    assert answer["marks"] == ((0, 1), (0.5, 0.25), (0.8, 0))
    line = dict(answer["line"])
    assert line[0.5] == 0.25 and line[0.499] == 1 and line[0.8] == 0 and line[1.0] == 0
    assert line[0.65] == pytest.approx(0.125)
    assert answer["steps"] == [] and answer["run"] is None and answer["product"] == []


def test_a_row_multiplies_on_one_axis():
    answer = schedule({"chain": [keyframes("0.5@0"), keyframes("1@0, 0@1")], "sampler": None})
    assert dict(answer["product"])[0.5] == pytest.approx(0.25)
    broken = schedule({"chain": [keyframes("0.5@0 eese"), keyframes("1@0, 0@1")], "sampler": sampler()})
    assert broken["broken"] and broken["product"] == [] and broken["steps"][0] | {"percent": 0} == {
        "step": 1, "place": 0.0, "percent": 0, "own": 1.0, "strength": None,
    }  # fmt: skip
    unknown = schedule({"chain": [None, keyframes("1@0")], "sampler": None})
    assert unknown["broken"]


def test_factors_of_pictures():
    known = schedule({"chain": [strengths("1, 0.5")], "sampler": None, "pictures": 4})
    assert (known["pictures"], known["batch"]) == ((1, 0.5, 0.5, 0.5), 4)
    shown = schedule({"chain": [strengths("1, 0", "cycle")], "sampler": None})
    assert shown["pictures"] == (1, 0, 1, 0) and "batch" not in shown
    refused = schedule({"chain": [strengths("1, 0.5, 0.2")], "sampler": None, "pictures": 2})
    assert refused["pictures"][:3] == (1, 0.5, 0.2)
    assert refused["refused"] == (
        "Image Strengths has 3 numbers, but the batch has 2 pictures; write at most 2, or make the batch 3 long."
    )
    huge = schedule({"chain": [strengths("0-999999999: 0.5")], "sampler": None})
    assert huge["pictures"] == ()


def test_what_cannot_be_read_is_told_in_the_nodes_own_words():
    with pytest.raises(
        ValueError,
        match=r'^keyframes of Strength Keyframes has the easing "eese" in place 2 \(character 6\), but linear, ease',
    ):
        schedule({"chain": [keyframes("1@0, 0@1 eese")], "sampler": None})
    with pytest.raises(ValueError, match=r"^curve of Strength Curve is None, but an object with points was expected"):
        schedule({"chain": [curve(points=None)], "sampler": None})
    with pytest.raises(ValueError, match=r"^axis is 'time', but one of percent, step was expected; choose it again\.$"):
        schedule({"chain": [keyframes("1", "time")], "sampler": None})


@pytest.mark.parametrize("chain", [None, [], [1], [None], [{"type": "KSampler", "values": {}}]])
def test_what_is_no_question_is_refused(chain):
    with pytest.raises(
        ValueError, match=r"^chain of the question about schedules (is not made of nodes|does not end with)"
    ):
        schedule({"chain": chain})


def test_a_sampler_that_does_nothing_has_no_steps():
    for settings in ({"denoise": 0.0}, {"steps": 0}, {"steps": None}):
        assert schedule({"chain": [curve("step")], "sampler": sampler(**settings), "model": []})["run"] is None
    skipped = sampler("KSamplerAdvanced", start_at_step=20)
    assert schedule({"chain": [curve("step")], "sampler": skipped, "model": []})["run"] is None


def test_every_scheduler_of_the_host_gives_steps():
    for name in comfy.samplers.KSampler.SCHEDULERS:
        rows = schedule({"chain": [curve()], "sampler": sampler(scheduler=name), "model": []})["steps"]
        assert rows and all(math.isfinite(row["strength"]) for row in rows), name
        percents = [row["percent"] for row in rows]
        assert percents == sorted(percents) and percents[0] < 0.05, name


def test_moments_are_asked_as_the_schedule_says():
    answer = schedule({"chain": [curve("step")], "sampler": sampler(steps=4), "model": []})
    read = READERS["ControlComposerStrengthCurve"](curve("step")["values"])
    assert [row["own"] for row in answer["steps"]] == [
        read.schedule(Moment(0, place)) for place in (0, 0.25, 0.5, 0.75)
    ]
