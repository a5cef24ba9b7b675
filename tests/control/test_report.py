"""Reports: what an artist reads, and what a program reads."""

import json

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control.record import LayerInfo, LayerStep, Record, Stopwatch
from control_composer.control.report import brief, duration, listed, report_json, report_text, size

CANNY = LayerInfo(
    1,
    "canny.safetensors",
    "SD1",
    0.8,
    0.0,
    0.4,
    weights="Soft Weights",
    pictures=3,
    hint_height=512,
    hint_width=768,
    weights_bytes=722_000_000,
)
DEPTH = LayerInfo(2, "depth.safetensors", "SD1")
OFF = LayerInfo(3, "pose.safetensors", "SD1", enabled=False)


def timed(seconds):
    """A stopwatch that was read: no clock, no device."""
    watch = Stopwatch(torch.device("cpu"))
    watch._seconds = seconds
    return watch


def ran(call, fraction, layer=1, **changes):
    given = {
        "gain": 0.8,
        "blocks": (("output 0", 0.2), ("output 1", 0.4), ("middle", 0.8)),
        "rows_run": 4,
        "rows": 4,
        "pictures": (0, 1, 0, 1),
        "hint_size": (512, 512),
        "latent_size": (64, 64),
        "stopwatch": timed(0.01 * (call + 1)),
        "residual_bytes": 26_000_000,
    } | changes
    return LayerStep(call, layer, 14.6 * (1 - fraction), fraction, fraction, True, **given)


def skipped(call, fraction, reason, layer=1):
    return LayerStep(call, layer, 14.6 * (1 - fraction), fraction, fraction, False, reason)


def run_of_twenty(layers=(CANNY,), **changes):
    record = Record(layers, "SD15", 20, embedding_bytes={1: 2_600_000}, **changes)
    for call in range(20):
        fraction = call / 20
        record.next_call()
        record.steps.append(ran(call, fraction) if fraction < 0.4 else skipped(call, fraction, "outside 0–0.4"))
    return record


def test_a_report_reads_like_this():
    assert report_text(run_of_twenty()) == (
        "1 layer, SD15 model, 20 steps, 20 calls of the model\n\n"
        "1. canny.safetensors (SD1), strength 0.8: ran at steps 1–8 of 20, percent 0.00–0.35.\n"
        "   Did not run at steps 9–20 of 20: outside 0–0.4.\n"
        "   range: 0–0.4; weights: Soft Weights\n"
        "   45 ms per evaluation, 360 ms in all; weights 722 MB; hint embedding 2.6 MB; residuals 26 MB\n"
        "   Multipliers: output 0–1: 0.2 0.4; middle: 0.8\n"
        "   Hint 1 → latents 1, 3; hint 2 → latents 2, 4; not used: hint 3\n"
        "   Hint 768×512 pixels, read at 512×512 for latent 64×64"
    )


def test_layers_that_never_ran_say_why():
    record = run_of_twenty((CANNY, DEPTH, OFF))
    for call in range(20):
        record.steps.append(skipped(call, call / 20, "mask is empty" if call < 10 else "schedule is 0 here", 2))
    text = report_text(record)
    assert (
        "2. depth.safetensors (SD1), strength 1: never ran.\n"
        "   Did not run at steps 1–10 of 20: mask is empty.\n"
        "   Did not run at steps 11–20 of 20: schedule is 0 here."
    ) in text
    assert text.endswith("3. pose.safetensors (SD1), strength 1: never ran: off.")
    assert "2. depth.safetensors (SD1), strength 1: never ran: the sampler did not ask for it." in report_text(
        run_of_twenty((CANNY, DEPTH))
    )


def test_second_order_samplers_are_counted_by_step():
    record = Record((CANNY,), "", 4, steps=[ran(c, f) for c, f in enumerate([0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75])])
    assert "ran at steps 1–4 of 4, percent 0.00–0.75, 7 evaluations." in report_text(record)
    assert report_text(record).startswith("1 layer, 4 steps, 7 calls")


def test_multipliers_are_listed_once_for_each_run_of_steps_in_which_they_are_the_same():
    steps = [ran(c, c / 4, blocks=(("output 0", gain), ("middle", gain))) for c, gain in enumerate([1, 1, 0.5, 0.25])]
    text = report_text(Record((CANNY,), "", 4, steps=steps))
    assert "Multipliers at steps 1, 2: 1 in all 2 blocks" in text
    assert "Multipliers at step 3: 0.5 in all 2 blocks" in text
    many = [ran(c, c / 30, blocks=(("output 0", 1 / (c + 1)), ("middle", 1.0))) for c in range(30)]
    text = report_text(Record((CANNY,), "", 30, steps=many))
    assert text.count("Multipliers at") == 6 and "… and 24 more" in text
    assert "at step 1: output 0: 1; middle" not in text and "1 in all 2 blocks" in text
    assert "at step 30: output 0: 0.0333; middle: 1" in text


@pytest.mark.parametrize(
    ("pictures", "frames", "line"),
    [
        ((0, 0, 0), None, "Hint 1 → all 3 latents"),
        ((0, 1, 2), None, "Each hint → the latent of its number, 1–3"),
        ((0, 0, 0, 1, 2), None, "Hint 1 → latents 1–3; hint 2 → latent 4; hint 3 → latent 5"),
        ((4, 5), (4, 5), "Each hint → the frame of its number, 5, 6"),
        ((0, 0), (4, 5), "Hint 1 → all 2 frames"),
    ],
)
def test_the_mapping_of_hints_to_latents(pictures, frames, line):
    record = Record((CANNY,), "", 1, steps=[ran(0, 0, pictures=pictures, frames=frames)])
    assert f"   {line}" in report_text(record).splitlines()


def test_a_single_latent_needs_no_mapping():
    assert "→" not in report_text(Record((CANNY,), "", 1, steps=[ran(0, 0, pictures=(0,))]))


def test_windows_of_frames_join_to_one_mapping():
    steps = [ran(c, 0, pictures=(f, f + 1), frames=(f, f + 1)) for c, f in enumerate((0, 1, 2))]
    assert "Each hint → the frame of its number, 1–4" in report_text(Record((CANNY,), "", 1, steps=steps))


def test_rows_sharing_strengths_and_areas():
    steps = [
        ran(0, 0, rows_run=2, picture_factors=(1.0, 0.5), area=(32, 48, 8, 16)),
        ran(0, 0, layer=2, shares=1, stopwatch=None),
    ]
    first, second = report_text(Record((CANNY, DEPTH), "", 1, steps=steps)).split("\n\n")[1:]
    assert "2 of 4 rows evaluated" in first
    assert "Factor of each latent at step 1: 1 0.5" in first
    assert "read at 512×512 for latent 64×64 for area 48×32 at 16, 8" in first
    assert "evaluated together with layer 1, where the time is counted" in second
    assert "per evaluation" not in second


def test_one_call_in_two_passes_is_one_evaluation_of_all_its_rows():
    both = timed(0.02)
    steps = [ran(0, 0, rows_run=2, stopwatch=both), ran(0, 0, rows_run=2, stopwatch=both)]
    text = report_text(Record((CANNY,), "", 1, steps=steps))
    assert "rows evaluated" not in text and "evaluations" not in text
    assert "20 ms per evaluation, 20 ms in all" in text
    (layer,) = json.loads(report_json(Record((CANNY,), "", 1, steps=steps)))["layers"]
    assert (layer["evaluations"], layer["total_seconds"]) == (1, 0.02)


def test_a_pass_shared_at_some_steps_says_at_which():
    steps = [ran(0, 0, shares=2, stopwatch=None), ran(1, 0.5)]
    text = report_text(Record((CANNY,), "", 2, steps=steps))
    assert "20 ms in all; at step 1 evaluated together with layer 2, where the time is counted" in text


def test_norms_tell_how_much_was_added():
    record = run_of_twenty()
    for block, norm in (("output 0", 1.0), ("middle", 2.0)):
        record.residual_norms[0, 1, block] = torch.tensor([norm, norm])
        record.feature_norms[0, block] = torch.tensor([20.0, 20.0])
    assert "Adds 7.91 % of the features' norm, most at middle (10 %)" in report_text(record)
    record.residual_norms[0, 1, "middle"] = torch.tensor([1.0, float("nan")])
    assert "Its residuals are NaN or infinite" in report_text(record)


def test_json_holds_everything_and_only_finite_numbers():
    record = run_of_twenty((CANNY, OFF))
    record.residual_norms[0, None, "middle"] = torch.tensor([3.0, 0.0])
    record.feature_norms[0, "middle"] = torch.tensor([30.0, 5.0])
    record.residual_norms[1, 1, "middle"] = torch.tensor([float("inf")])
    record.steps.append(ran(20, 0.95, stopwatch=Stopwatch(torch.device("cpu"))))

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(report_json(record), parse_constant=refuse)
    assert (found["format"], found["version"], found["model"]) == ("control-composer-report", 1, "SD15")
    assert (found["sampler_steps"], found["steps"], found["calls"]) == (20, 20, 21)
    canny, off = found["layers"]
    assert canny["ran_steps"] == [1, 2, 3, 4, 5, 6, 7, 8, 20]
    assert canny["skipped"] == [{"reason": "outside 0–0.4", "steps": list(range(9, 21)), "evaluations": 12}]
    assert canny["hint"] == {"pictures": 3, "height": 512, "width": 768}
    assert (canny["evaluations"], canny["embedding_bytes"], canny["settings"]["weights"]) == (
        9,
        2_600_000,
        "Soft Weights",
    )
    assert canny["mean_seconds"] is None  # one of the times is not known
    assert (off["enabled"], off["ran_steps"], off["mean_seconds"]) == (False, [], None)
    first, ninth = found["evaluations"][0], found["evaluations"][8]
    assert first == {
        "call": 0,
        "layer": 1,
        "step": 1,
        "sigma": 14.6,
        "percent": 0.0,
        "step_fraction": 0.0,
        "ran": True,
        "reason": "",
        "gain": 0.8,
        "blocks": {"output 0": 0.2, "output 1": 0.4, "middle": 0.8},
        "uncond_factor": 1.0,
        "picture_factors": [],
        "rows_run": 4,
        "rows": 4,
        "pictures": [0, 1, 0, 1],
        "area": None,
        "frames": None,
        "hint_size": [512, 512],
        "latent_size": [64, 64],
        "seconds": 0.01,
        "held_from": None,
        "residual_bytes": 26_000_000,
        "shares": None,
        "beside": False,
        "lane": "",
        "waited_early": False,
    }
    assert (ninth["ran"], ninth["reason"], ninth["step"]) == (False, "outside 0–0.4", 9)
    assert found["norms"] == [
        {"call": 0, "layer": None, "block": "middle", "residual": [3.0, 0.0], "feature": [30.0, 5.0], "relative": 0.1},
        {"call": 1, "layer": 1, "block": "middle", "residual": [None], "feature": None, "relative": None},
    ]


def test_json_of_a_run_without_gaps_has_its_times():
    (layer,) = json.loads(report_json(run_of_twenty()))["layers"]
    assert layer["mean_seconds"] == pytest.approx(0.045)
    assert layer["total_seconds"] == pytest.approx(0.36)


def test_an_empty_record_is_reported_too():
    assert report_text(Record((CANNY,))).startswith("1 layer, 0 steps, 0 calls of the model\n\n1. canny")
    assert json.loads(report_json(Record()))["layers"] == []


def test_numbers_in_words():
    assert listed([3, 1, 2, 7, 9, 10, 2]) == "1–3, 7, 9, 10"
    assert [brief(value) for value in (0.8, 0.12345, 1.0, 12345.6, 0.0)] == ["0.8", "0.123", "1", "12346", "0"]
    assert [size(value) for value in (999, 1000, 2_600_000, 1_440_000_000)] == [
        "999 bytes",
        "1 kB",
        "2.6 MB",
        "1.44 GB",
    ]
    assert [duration(value) for value in (0.0123, 1.5)] == ["12.3 ms", "1.5 s"]
