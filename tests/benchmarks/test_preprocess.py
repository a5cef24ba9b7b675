"""A tiny run of benchmarks/preprocess.py: it finishes, everyone makes the same hints, and long batches take no more memory than short ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("comfy")
pytest.importorskip("cv2")

from control_composer.benchmarks import preprocess  # noqa: E402
from control_composer.benchmarks.recipes import RECIPES  # noqa: E402


def measured(folder: Path, *more: str) -> dict[str, Any]:
    file = folder / "preprocess.json"
    preprocess.main(["--quick", "--json", str(file), *more])
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_every_recipe_in_every_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(tmp_path, "--sizes", "32")
    assert [(row["name"], row["frames"]) for row in report["rows"]] == [
        (name, count) for count in (1, 3) for name in RECIPES
    ]
    for row in report["rows"]:
        assert set(row["seconds"]) == {"ours", "loop", "alone"} and set(row["ratios"]) == {"loop", "alone"}
        assert all(len(taken) == 2 and min(taken) > 0 for taken in row["seconds"].values())
        for name, ratio in row["ratios"].items():
            pairs = zip(row["seconds"][name], row["seconds"]["ours"], strict=True)
            assert ratio["least"] <= ratio["median"] <= ratio["most"]
            assert ratio["most"] == pytest.approx(max(theirs / mine for theirs, mine in pairs))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(", 2 rounds, wall time") and len(lines) == 1 + len(report["rows"])
    assert lines[1].startswith("Canny                 1 ×   32 px ") and " loop " in lines[1] and " alone " in lines[1]


@pytest.mark.parametrize("name", RECIPES)
def test_everyone_makes_the_same_hints(name: str) -> None:
    """But for the loop's conversion to 8 bits, which cuts off what we round: 1 / 255 of the picture."""
    image = torch.round(preprocess.pictures(2, 48) * 255) / 255
    exact = (image * 255 + 0.01) / 255  # what cutting off leaves as it is
    calls = preprocess.contenders(name, exact, None)
    ours, loop = calls["ours"](), calls["loop"]()
    assert ours.shape == loop.shape == image.shape
    assert float((ours - loop).abs().max()) < 2e-4
    assert len(calls["alone"]()) == 2


def test_a_network_beside_its_peer(tmp_path: Path) -> None:
    pytest.importorskip("controlnet_aux")
    report = measured(tmp_path, "--networks", "--only", "TEED")
    assert report["skipped"] == [] and [row["frames"] for row in report["rows"]] == [1, 3]
    assert all(set(row["ratios"]) == {"singles", "peer"} for row in report["rows"])


def test_memory_does_not_grow_with_the_batch(tmp_path: Path) -> None:
    report = measured(tmp_path, "--memory", "--only", "Blur", "Canny", "--frames", "16", "160", "--sizes", "128")
    rows = [(row["name"], row["frames"]) for row in report["rows"]]
    assert rows == [("Canny", 16), ("Blur", 16), ("Canny", 160), ("Blur", 160)]
    for row in report["rows"]:
        assert row["output"] == row["frames"] * 128 * 128 * 3 * 4
        # Of 160 frames one copy alone would be 31 MB.
        assert row["bytes"] < 24e6


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        measured(tmp_path, "--only", "HED")
    assert str(refused.value).startswith("--only has 'HED', but one of Canny, PyramidCanny, ")
    assert str(refused.value).endswith("was expected; write the id as it is there, or add --networks.")
    with pytest.raises(SystemExit):
        measured(tmp_path, "--frames", "0")
