"""What a second start of a training may change."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("comfy")
from control_composer.training.errors import TrainingError
from control_composer.training.record import Record
from control_composer.training.settings import Settings

SETTINGS = Settings(steps=100, batch=4)
IDENTITY = {"base": "b1", "data set": "d1", "batch": 4}


@pytest.fixture
def begun(tmp_path):
    """A training of 100 steps that was stopped after 40, or after as many as told."""

    def begin(step=40, settings=SETTINGS):
        folder = tmp_path / "edges"
        folder.mkdir(exist_ok=True)
        (folder / "training.pt").touch()
        record = Record.open(folder, IDENTITY, settings)
        record.step, record.seconds = step, 60.0
        record.save()
        return folder

    return begin


def test_a_new_one_begins_and_a_stopped_one_goes_on(begun, tmp_path):
    new = Record.open(tmp_path / "none", IDENTITY, SETTINGS)
    assert new.step == 0 and not new.finished
    again = Record.open(begun(), IDENTITY, SETTINGS)
    assert (again.step, again.seconds, again.changes, again.finished) == (40, 60.0, [], False)
    assert Record.open(begun(100), IDENTITY, SETTINGS).finished
    assert not Record.open(begun(100), IDENTITY, replace(SETTINGS, steps=101)).finished


def test_what_may_change_on_the_way_is_noted(begun):
    slower = replace(SETTINGS, rate=1e-6, save_every=7, precision="bf16")
    folder = begun()
    for _ in range(2):
        record = Record.open(folder, IDENTITY, slower)
        assert record.changes == ["rate: 1e-05 until step 40, then 1e-06"]
        record.save()
    record.step = 100
    record.save()
    assert Record.open(folder, IDENTITY, replace(slower, min_snr=5.0, steps=200)).changes[1:] == [
        "min_snr: None until step 100, then 5.0"
    ]


@pytest.mark.parametrize(
    ("identity", "settings", "step", "text"),
    [
        (
            {"batch": 8},
            SETTINGS,
            40,
            "was begun with batch 4, but 8 was asked for, and a training cannot change it on the way; "
            "choose another name to begin anew, or take back the change to continue.",
        ),
        (
            {"data set": "d2"},
            SETTINGS,
            40,
            "was begun with another data set, but the same was expected, since a training cannot change it on the way; "
            "choose another name to begin anew, or take back the change to continue.",
        ),
        (
            {},
            replace(SETTINGS, steps=30),
            40,
            "has done 40 steps, but only 30 were asked for; set steps to 40 or more, or choose another name to begin anew.",
        ),
        (
            {},
            replace(SETTINGS, rate=2e-5),
            100,
            "has done all of its 100 steps with rate 1e-05, but 2e-05 was asked for; raise steps to train on so, choose another name "
            "to begin anew, or take back the change to get what it has learned.",
        ),
    ],
)
def test_what_cannot_be_continued_is_told(begun, identity, settings, step, text):
    folder = begun(step)
    with pytest.raises(TrainingError) as caught:
        Record.open(folder, IDENTITY | identity, settings)
    assert str(caught.value) == f"The training 'edges' {text}"


def test_without_a_state_it_is_new(begun):
    folder = begun()
    (folder / "training.pt").unlink()
    record = Record.open(folder, IDENTITY | {"batch": 8}, SETTINGS)
    assert record.step == 0 and record.identity["batch"] == 8


def test_a_spoilt_record_is_told(begun):
    folder = begun()
    for content in ("{", json.dumps({"step": 3}), "[]"):
        (folder / "run.json").write_text(content)
        with pytest.raises(TrainingError, match=r"run.json' cannot be read \(.*choose another name to begin anew"):
            Record.open(folder, IDENTITY, SETTINGS)


def test_scores_made_in_another_way_are_laid_aside(begun):
    folder = begun()
    table = folder / "validation.csv"
    for now, names in (({"n": 4}, ["validation.csv"]), ({"n": 4}, ["validation.csv"]), ({"n": 5}, [])):
        record = Record.open(folder, IDENTITY, SETTINGS)
        table.touch()
        record.with_validation(now)
        record.save()
        assert [path.name for path in folder.glob("validation.csv")] == names
    assert (folder / "validation_until_step_40.csv").is_file()
