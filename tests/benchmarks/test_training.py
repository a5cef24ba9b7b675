"""A narrow run of benchmarks/training.py, and the process that it compares with."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("comfy")

from control_composer.benchmarks import training  # noqa: E402
from control_composer.benchmarks.widths import WIDTHS  # noqa: E402

NARROW = ["--width", "narrow", "--pixels", "64", "--batch", "1", "--rounds", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    before, file = torch.get_num_threads(), tmp_path_factory.mktemp("training") / "training.json"
    try:
        training.main([*NARROW, "--json", str(file)])
    finally:
        torch.set_num_threads(before)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_control_and_the_whole_unet_are_trained_and_their_memory_is_what_it_must_be(report):
    control, alone = report["trainings"]
    assert (control["name"], alone["name"]) == ("control", "unet alone")
    unet, encoder = WIDTHS["narrow"].parameter_counts()
    assert (control["trained"], alone["trained"]) == (encoder, unet)
    for one, held in ((control, unet + encoder), (alone, unet)):
        memory = one["memory"]
        # Weights with the rows of the data, then two moments for each that is trained, then a gradient for each at least.
        assert 4 * held < memory["before"] < 4 * held + 10 * training.MEBI
        assert memory["moments"] == pytest.approx(8 * one["trained"], rel=0.01)
        assert memory["step"] > 4 * one["trained"]
        assert memory["all"] == memory["before"] + memory["moments"] + memory["step"]
        assert len(one["seconds"]) == 1 and one["seconds"][0] > 0


def test_the_table_tells_ratios(report, capsys):
    report = report | {"reference": [{"seconds": 3.0, "encoding": 1.0}] * 2}
    for one, seconds in zip(report["trainings"], ([1.0, 2.0], [2.0, 2.0]), strict=True):
        one["seconds"] = seconds
    training.show(report)
    lines = {line[:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["control"][:5] == ["1.500", "0.750", "[0.50", "to", "1.00]"]
    assert lines["ours"][0] == f"{1 / 1.5:.3f}"
    assert lines["the script"][1] == "2.250" and lines["the script without encoding"][1] == "1.500"


def test_wrong_options_are_told(capsys, tmp_path):
    for wrong, words in (
        (["--pixels", "100"], "--pixels is 100, but a multiple of 64 was expected; give for example 512."),
        (["--rounds", "0"], "--rounds is 0, but at least 1 was expected; give a number of timed steps."),
        (["--script", str(tmp_path / "none")], "none is no file; give diffusers' examples/controlnet/train_controlnet"),
    ):
        with pytest.raises(SystemExit):
            training.parsed(wrong)
        assert words in capsys.readouterr().err


def test_another_script_stands_between_its_steps_until_it_ends(tmp_path, monkeypatch):
    from control_composer.benchmarks import training_script
    from control_composer.benchmarks.training_runs import Scene
    from control_composer.training.settings import Settings

    script, steps = tmp_path / "script.py", tmp_path / "steps"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom tqdm.auto import tqdm\n"
        "at = sys.argv.index('--cache_dir') + 1\n"
        "bar = tqdm(range(9), desc='Steps')\n"
        "for step in '12':\n    time.sleep(0.25)\n    Path(sys.argv[at]).with_name('steps').write_text(step)\n    bar.update(1)\n"
    )
    # What writes random weights needs diffusers, and this script none.
    models = Namespace(write_models=lambda *_: None, write_pictures=lambda *_: None)
    monkeypatch.setitem(sys.modules, "control_composer.benchmarks.training_models", models)
    options = Namespace(width="demo", pixels=64, precision="fp32", device="cpu", clock="wall", threads=1, script=script)
    scene = Scene("demo", 64, Settings(steps=1, batch=2), torch.device("cpu"))
    with training_script.Script(options, scene, tmp_path) as process:
        for number in "12":
            told = process.step()
            assert told["seconds"] >= 0.25 and told["encoding"] == 0
            assert steps.read_text() == number
        with pytest.raises(
            SystemExit, match=r"script\.py ended with code 0 before its next step, but steps without end"
        ):
            process.step()
        # Nobody reads any longer.
        with pytest.raises(SystemExit, match="ended with code 0"):
            process.step()
