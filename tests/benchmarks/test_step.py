"""A narrow run of benchmarks/step.py: it finishes, compares like with like, and its memory is the same at every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("comfy")

from control_composer.benchmarks import step  # noqa: E402
from control_composer.benchmarks.memory import on_cpu  # noqa: E402

NAMES = ["stock-1", "stock-3", "stock-cond-only", "ours-1", "ours-3", "ours-cond-only", "ours-outside", "acn-1"]


def measured(folder: Path, *more: str) -> dict[str, Any]:
    file = folder / "step.json"
    step.main(["--width", "narrow", "--sizes", "64", "--rounds", "2", "--threads", "1", "--json", str(file), *more])
    report: dict[str, Any] = json.loads(file.read_text())
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    before = torch.get_num_threads()
    try:
        return measured(tmp_path_factory.mktemp("step"), "--variants", *NAMES)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def rows(report: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in report["sizes"][0]["variants"]}


def test_uncontrolled_steps_are_there_unasked_and_a_missing_pack_is_told(report, rows):
    assert set(rows) == {"none", *NAMES} - {"acn-1"}
    assert report["skipped"] == [
        "Advanced-ControlNet is left out: give its folder with --advanced-controlnet.",
        "acn-1: not run without Advanced-ControlNet.",
    ]


def test_every_round_is_kept_and_compared(rows):
    for row in rows.values():
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
        assert row["ratio"]["least"] <= row["ratio"]["median"] <= row["ratio"]["most"]
    assert rows["none"]["ratio"] == {"median": 1.0, "least": 1.0, "most": 1.0}


def test_both_branches_are_one_batch_unless_only_one_has_a_control(rows):
    assert rows["none"]["batches"] == rows["ours-cond-only"]["batches"] == rows["stock-3"]["batches"] == [2]
    assert rows["stock-cond-only"]["batches"] == [1, 1]


def test_what_should_be_equal_is(rows):
    assert rows["ours-1"]["differs"] < 1e-5
    assert rows["ours-3"]["differs"] < 1e-5


def test_memory_counts_what_a_run_keeps(rows):
    """The stock nodes keep each hint at pixel size, ours its embedding, which is smaller: 3 × 64 × 64 and 32 × 8 × 8 numbers."""
    if torch.cuda.is_available():
        pytest.skip("a GPU's allocator rounds")
    kept = {name: row["memory"]["kept"] for name, row in rows.items()}
    embedding, hint = 32 * 8 * 8 * 4, 3 * 64 * 64 * 4
    assert kept["none"] == 0
    assert hint <= kept["stock-1"] < 2 * hint
    assert 3 * hint <= kept["stock-3"] < 4 * hint
    assert embedding <= kept["ours-1"] - kept["ours-outside"]
    assert 2 * embedding <= kept["ours-3"] - kept["ours-1"]
    assert all(row["memory"]["peak"] > row["memory"]["kept"] for row in rows.values())


def test_memory_of_a_call_is_its_peak_and_what_it_leaves():
    left = []

    def call() -> torch.Tensor:
        left.append(torch.ones(1000))
        passing = torch.ones(5000)
        return passing[:10] + 1

    result, memory = on_cpu(call)
    assert result.shape == (10,)
    assert memory.kept == 4000
    assert 4 * 6010 <= memory.peak < 4 * 6010 + 1000


def test_table_has_a_line_for_each_variant(report, capsys):
    step.show(report)
    table = capsys.readouterr().out
    assert "64 px" in table and "narrow, float32, 2 rounds" in table
    assert all(f"\n{name} " in table for name in ("none", "stock-1", "ours-3"))


def test_unknown_variant_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(SystemExit) as refused:
        measured(tmp_path, "--variants", "ours-4")
    assert str(refused.value).startswith("--variants has 'ours-4', but one of none, stock-1, ")
    assert str(refused.value).endswith("was expected; write the name as it is there.")


def test_folder_that_is_no_pack_is_told(tmp_path):
    found, skipped = step.peer_nodes(tmp_path)
    assert found == {}
    assert skipped == [
        f"Advanced-ControlNet is left out: --advanced-controlnet {tmp_path} has no __init__.py, but the folder of ComfyUI-Advanced-ControlNet "
        "was expected; clone github.com/Kosinkadink/ComfyUI-Advanced-ControlNet and give its folder."
    ]


def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch):
    import comfy.model_management

    from control_composer.benchmarks.widths import WIDTHS

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 9e9)
    with pytest.raises(SystemExit) as refused:
        step.weights_of(WIDTHS["sdxl"], torch.float32, 1, torch.device("cpu"))
    assert str(refused.value) == (
        "The weights take 15.3 GB in float32 and 9.0 GB are free on cpu, but at least 17.6 GB were expected; "
        "use --dtype bfloat16, fewer networks, --width sd15, or a larger machine."
    )


def test_parameter_counts_are_those_of_the_real_models():
    """SD1.5: 859.5 M and 361.3 M; SDXL: 2567.5 M and 1251.0 M."""
    from control_composer.benchmarks.widths import WIDTHS

    assert WIDTHS["sd15"].parameter_counts() == (859_520_964, 361_279_120)
    assert [round(count / 1e5) for count in WIDTHS["sdxl"].parameter_counts()] == [25675, 12510]
