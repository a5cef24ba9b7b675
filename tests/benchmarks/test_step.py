"""A narrow run of benchmarks/step.py: it finishes, compares like with like, and its memory is the same at every run."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("comfy")

from control_composer.benchmarks import step, step_run, step_table, timeline  # noqa: E402
from control_composer.benchmarks.goals import answers, show_goals  # noqa: E402
from control_composer.benchmarks.heads import watched  # noqa: E402
from control_composer.benchmarks.launches import Counting, Launches, launches_in, mean_of  # noqa: E402
from control_composer.benchmarks.memory import on_cpu  # noqa: E402
from control_composer.benchmarks.runs import measure  # noqa: E402
from control_composer.benchmarks.variants import VARIANTS, Scene  # noqa: E402
from control_composer.benchmarks.widths import WIDTHS, Networks  # noqa: E402

NAMES = [
    *("stock-1", "stock-3", "stock-cond-only", "ours-1", "ours-3", "ours-3-networks", "stock-3-networks"),
    *("ours-cond-only", "ours-outside", "acn-1", "ours-1-beside"),
]
DROPPED = {"acn-1", "ours-1-beside"}


@pytest.fixture(scope="module", autouse=True)
def few_to_collect():
    """Each timed step looks for garbage before, among all that torch and diffusers have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


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
    assert set(rows) == {"none", *NAMES} - DROPPED
    assert report["skipped"] == [
        "Advanced-ControlNet is left out: give its folder with --advanced-controlnet.",
        "ours-1-beside: not run without a CUDA device.",
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
    assert rows["ours-3-networks"]["differs"] < 1e-5


def test_where_networks_ran_is_told(rows):
    if torch.cuda.is_available():
        pytest.skip("the lane of a GPU is another one")
    assert rows["none"]["lanes"] == rows["stock-1"]["lanes"] == {}
    for name in ("ours-1", "ours-3-networks"):
        assert list(rows[name]["lanes"]) == ["before the model, layer 1 has beside_model off"]
    one, three = (sum(rows[name]["lanes"].values()) for name in ("ours-1", "ours-3-networks"))
    assert three == 3 * one >= 3 * (2 + len(rows["ours-1"]["seconds"]))  # two steps before those that count


def test_networks_of_their_own_are_other_networks(model):
    scene = Scene(model, 64)
    for name, networks in (("ours-3", 1), ("ours-3-networks", 3)):
        (variant,) = [one for one in VARIANTS if one.name == name]
        layers = variant.attach(scene)[0][0][1]["control"].layers
        assert len(layers) == 3 and len({id(layer.source.module) for layer in layers}) == networks == variant.networks


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
    step_table.show(report)
    table = capsys.readouterr().out
    assert "64 px" in table and "narrow, float32, 2 rounds" in table
    assert all(table.count(f"\n{name} ") == 2 for name in ("none", "stock-1"))
    assert table.count("\nours-3 ") == 3 and "× before the model, layer 1 has beside_model off" in table


def test_unknown_variant_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(SystemExit) as refused:
        measured(tmp_path, "--variants", "ours-5")
    assert str(refused.value).startswith("--variants has 'ours-5', but one of none, stock-1, ")
    assert str(refused.value).endswith("was expected; write the name as it is there.")


def test_folder_that_is_no_pack_is_told(tmp_path):
    found, skipped = step_run.peer_nodes(tmp_path)
    assert found == {}
    assert skipped == [
        f"Advanced-ControlNet is left out: --advanced-controlnet {tmp_path} has no __init__.py, but the folder of ComfyUI-Advanced-ControlNet "
        "was expected; clone github.com/Kosinkadink/ComfyUI-Advanced-ControlNet and give its folder."
    ]


@pytest.fixture(scope="module")
def model() -> Networks:
    with torch.inference_mode():
        return Networks(WIDTHS["narrow"], torch.float32)


def counted(networks: Networks, *names: str, rounds: int = 2, batch: int = 1) -> dict[str, Any]:
    """Steps whose "seconds" are the operators that were dispatched: the same at every run."""
    chosen = {variant.name: variant for variant in VARIANTS if variant.name in ("none", *names)}
    scene = Scene(networks, 64)
    with torch.inference_mode(), Counting() as work:
        conditionings = {name: variant.attach(scene) for name, variant in chosen.items()}
        return measure(
            networks.model,
            conditionings,
            64,
            rounds,
            clock=lambda: float(work.count),
            batch=batch,
            periods={name: variant.period for name, variant in chosen.items()},
        )


@pytest.fixture(scope="module")
def work(model) -> dict[str, Any]:
    return counted(model, "stock-1", "stock-3", "ours-1", "ours-3", "ours-every-2", rounds=3)


def test_launches_are_those_of_a_step(work):
    """Three layers of one network are one pass of more rows with us."""
    launches = {name: one.launches.launched for name, one in work.items()}
    for name in ("none", "stock-1", "stock-3", "ours-1", "ours-3"):
        assert {*work[name].seconds} == {launches[name]}, name
    assert launches["ours-every-2"] == sum({*work["ours-every-2"].seconds}) / 2
    added = {name: count - launches["none"] for name, count in launches.items()}
    assert 2.5 < added["stock-3"] / added["stock-1"] < 3.5
    assert added["ours-1"] < added["ours-3"] < 1.5 * added["ours-1"]
    assert 0.5 < added["ours-every-2"] / added["ours-1"] < 0.75
    assert all(one.launches.kernels is None for one in work.values())


def test_first_step_embeds_the_hint_and_the_second_does_not(work):
    more = {}
    for name in ("none", "ours-1", "ours-3"):
        first, second = work[name].warm_up
        assert second == work[name].seconds[0], name
        more[name] = first - second
    assert more["none"] == 0 and more["ours-1"] > 10 and more["ours-3"] > 2 * more["ours-1"]


def test_time_within_get_control_is_the_step_less_the_model(work):
    """The model adds 13 residuals in place itself."""
    assert set(work["none"].control_seconds) == {0.0}
    for name in ("stock-1", "ours-1", "ours-3"):
        model = [whole - bare for whole, bare in zip(work[name].seconds, work["none"].seconds, strict=True)]
        assert work[name].control_seconds == [operators - 13 for operators in model], name
    held, evaluated = sorted({*work["ours-every-2"].control_seconds})
    assert evaluated > 3 * held


def test_reuse_evaluates_every_second_step_and_the_last(work):
    seconds = work["ours-every-2"].seconds
    assert [value > min(seconds) for value in seconds] == [True, False, True]


def test_a_control_is_watched_no_longer_than_it_is_asked():
    class Head:
        def get_control(self) -> None:
            ticks.append(len(ticks))
            raise ValueError

    ticks = [0]
    head = Head()
    with watched(
        [[[None, {"control": head}]], [[None, {"control": head}], [None, {}]]], lambda: float(len(ticks))
    ) as time:
        with pytest.raises(ValueError):
            head.get_control()
        assert time.seconds == 1.0
    assert not vars(head)


def event(cat: str, correlation: int | None = None, **more: Any) -> dict[str, Any]:
    given = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": cat, "name": "", "pid": 0, "tid": 1, "ts": 0.0, "dur": 1.0, "args": given} | more


def test_a_graph_is_one_launch_of_many_kernels():
    done = [
        event("kernel", 5),
        event("kernel", 5),
        event("kernel", 6),
        event("gpu_memcpy", 7),
        event("cuda_runtime", 5),
    ]
    assert launches_in(done) == Launches(3, 3)
    assert launches_in([event("cuda_runtime", 5)]) is None
    assert mean_of([Launches(2, 4), Launches(4, 4)]) == Launches(3, 4)
    assert mean_of([Launches(2, 4), None]) is None
    assert mean_of([Launches(2, None), Launches(4, None)]) == Launches(3, None)


def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 9e9)
    with pytest.raises(SystemExit) as refused:
        step_run.weights_of(WIDTHS["sdxl"], torch.float32, 1, torch.device("cpu"))
    assert str(refused.value) == (
        "The weights take 15.3 GB in float32 and 9.0 GB are free on cpu, but at least 17.6 GB were expected; "
        "use --dtype bfloat16, fewer networks, --width sd15, or a larger machine."
    )


def test_parameter_counts_are_those_of_the_real_models():
    """SD1.5: 859.5 M and 361.3 M; SDXL: 2567.5 M and 1251.0 M."""
    assert WIDTHS["sd15"].parameter_counts() == (859_520_964, 361_279_120)
    assert [round(count / 1e5) for count in WIDTHS["sdxl"].parameter_counts()] == [25675, 12510]


# -- which variants run ----------------------------------------------------------------------------------------------------------------------


def test_presets_name_variants_that_there_are():
    for name in step.PRESETS:
        options = step.parsed(["--preset", name])
        variants, pipes, left_out = step_run.chosen(options.variants, True, options.device == "cuda", options.diffusers)
        assert left_out == []
        assert len(variants) + len(pipes) >= len(options.variants) and options.rounds >= 20 and options.goals
    assert step.parsed(["--rounds", "3", "--preset", "gpu-sdxl"]).rounds == 3


def test_what_a_gpu_adds_runs_unasked_there_and_is_told_elsewhere():
    usual = {one.name for one in step_run.chosen(None, False)[0]}
    on_gpu = {one.name for one in step_run.chosen(None, False, on_gpu=True)[0]}
    assert on_gpu - usual == {f"{name}-beside" for name in usual if name.startswith("ours")} - {
        f"ours-{name}-beside" for name in ("soft", "masked", "zero", "outside")
    }
    assert "ours-3-beside" in on_gpu and "ours-4-beside" not in on_gpu
    assert "Variants beside the model are left out: they need a CUDA device." in step_run.chosen(None, False)[2]


def test_variants_beside_the_model_say_so_to_their_layers_and_the_others_do_not(model):
    for variant in VARIANTS:
        if variant.name.startswith("ours") and variant.networks == 1:
            layers = variant.attach(Scene(model, 64))[0][0][1]["control"].layers
            assert {layer.beside for layer in layers} == {"on" if variant.of_gpu else "off"}, variant.name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--batch", "0"], "--batch is 0, but at least 1 was expected; give a number of pictures."),
        (["--rounds", "0"], "--rounds is 0, but at least 1 was expected; give a number of timed steps."),
        (["--timeline", "a.gif"], "--timeline is a.gif, but a name with .png or .jpg was expected; add one."),
    ],
)
def test_options_that_cannot_be_meant_are_refused(given, words, capsys):
    with pytest.raises(SystemExit):
        step.parsed(given)
    assert words in capsys.readouterr().err


# -- goals -----------------------------------------------------------------------------------------------------------------------------------


def answered(name: str, seconds: float, rounds: int = 20, differs: float = 0.0, peak: int = 100) -> dict[str, Any]:
    """A report of SD1.5 512, batch 1 on CUDA, whose step takes 1 without a control and 1.4 with a stock one."""

    def one(name: str, seconds: float, stock: str | None = None) -> dict[str, Any]:
        spread = {"median": seconds, "least": seconds, "most": seconds}
        return {
            "name": name,
            "seconds": [seconds] * rounds,
            "ratio": spread,
            "run": seconds,
            "added": stock and {"beside": stock, **spread},
            "memory": {"peak": peak if stock else 100},
            "differs": differs if stock else None,
        }

    rows = [one("none", 1.0), one("stock-1", 1.4), one(name, seconds, "stock-1")]
    place = {"width": "sd15", "device": "cuda", "dtype": "float16", "hardware": "a card", "rounds": rounds}
    return {**place, "sizes": [{"pixels": 512, "batch": 1, "variants": rows}]}


def test_goals_are_reached_by_the_number_alone(capsys):
    def reached(*given: Any, **more: Any) -> dict[str, bool | None]:
        return {
            f"{one.words} {one.goal}": one.reached
            for one in answers(answered(*given, **more))
            if one.found != "not measured here"
        }

    goal = "SD1.5 512, batch 1, one layer, exact ≤ 1.05"
    place = "sd15 512, batch 1, cuda float16: ours-1-beside"
    assert reached("ours-1-beside", 1.05) == {
        goal: True,
        f"{place} predicts what the stock predicts": True,
        f"{place} peak ≤ 1.10 of the stock's": True,
    }
    assert reached("ours-1-beside", 1.06)[goal] is False
    assert reached("ours-1-beside", 1.0, rounds=19)[goal] is None
    assert reached("ours-1-beside", 1.0, differs=1e-7)[f"{place} predicts what the stock predicts"] is False
    assert reached("ours-1-beside", 1.0, peak=111)[f"{place} peak ≤ 1.10 of the stock's"] is False
    show_goals(answered("ours-1", 1.3))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("NOT REACHED") and "ours-1 1.300" in line and "stock-1 1.400" in line for line in lines)
    assert any(line.startswith("open") and "SDXL 1024" in line and "not measured here" in line for line in lines)


def test_no_worse_than_stock_is_asked_of_the_steps_of_the_same_round():
    for seconds, reached in ((1.41, True), (1.5, False)):
        report = answered("ours-1", seconds)
        report["sizes"][0]["batch"] = 16
        (found,) = [one for one in answers(report) if one.goal == "no worse than stock" and "ours-1 " in one.found]
        assert found.reached is reached


# -- diffusers, and the picture --------------------------------------------------------------------------------------------------------------


Drawn = tuple[dict[str, Any], Path, tuple[Any, Any]]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A report with pipelines of diffusers, the picture of its last variant, and the lanes and marks that are drawn there."""
    pytest.importorskip("diffusers")
    gc.freeze()
    before, folder, drawn = torch.get_num_threads(), tmp_path_factory.mktemp("others"), []
    names = ["--variants", "stock-1", "ours-1", "diffusers-1", "diffusers-2-networks", "diffusers-cond-only"]
    file, lanes_of = folder / "steps.png", timeline.lanes_of

    def kept(events: Any) -> Any:
        drawn.append(lanes_of(events))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "lanes_of", kept)
        try:
            report = measured(folder, "--diffusers", "--batch", "2", "--rounds", "1", *names, "--timeline", str(file))
        finally:
            torch.set_num_threads(before)
    return report, file, drawn[0]


def test_batch_is_rows_of_the_model(others, report):
    (two,), (one,) = others[0]["sizes"], report["sizes"]
    assert (one["batch"], two["batch"]) == (1, 2)
    rows = {row["name"]: row for row in two["variants"]}
    assert all(row["batches"] == [4] for row in two["variants"] + two["diffusers"])
    assert rows["ours-1"]["differs"] < 1e-5
    assert rows["none"]["memory"]["peak"] > 1.3 * one["variants"][0]["memory"]["peak"]


def test_pipelines_of_diffusers_are_measured_over_their_own_step(others):
    (size,) = others[0]["sizes"]
    rows = {row["name"]: row for row in size["diffusers"]}
    assert list(rows) == ["diffusers-none", "diffusers-1", "diffusers-2-networks", "diffusers-cond-only"]
    assert all(row["over"] == "diffusers-none" for row in rows.values())
    assert rows["diffusers-none"]["run"] == 1.0 and all(row["first_seconds"] > 0 for row in rows.values())
    assert all(len(row["seconds"]) == 1 and row["seconds"][0] > 0 for row in rows.values())
    bare = rows["diffusers-none"]["seconds"][0]
    assert all(row["run"] == row["seconds"][0] / bare for row in rows.values())
    none, one, two = (rows[f"diffusers-{name}"]["launches"] for name in ("none", "1", "2-networks"))
    assert one - none > 100 and 1.8 < (two - none) / (one - none) < 2.2
    assert rows["diffusers-1"]["memory"]["peak"] > rows["diffusers-none"]["memory"]["peak"]


def test_diffusers_has_the_same_networks():
    pytest.importorskip("diffusers")
    from control_composer.benchmarks.diffusers_step import meta_control, meta_unet

    for width in ("narrow", "sd15", "sdxl"):
        unet = meta_unet(width)
        counts = tuple(sum(one.numel() for one in part.parameters()) for part in (unet, meta_control(unet)))
        assert counts == WIDTHS[width].parameter_counts(), width


def test_a_pack_that_is_missing_is_told(monkeypatch):
    import sys

    from control_composer.benchmarks.diffusers_step import diffusers_version

    monkeypatch.setitem(sys.modules, "diffusers", None)
    version, (sentence,) = diffusers_version()
    assert version == "" and sentence.startswith("diffusers is left out: it cannot be imported (")
    assert step_run.chosen(["diffusers-1"], False)[2] == ["diffusers-1: not run without diffusers."]


def test_the_picture_shows_each_part_in_its_colour(others):
    picture = cv2.cvtColor(cv2.imread(str(others[1])), cv2.COLOR_BGR2RGB)[timeline.TOP :]
    for part in (timeline.CONTROL, timeline.ENCODER, timeline.REST):
        near = abs(picture.astype(int) - timeline.COLOURS[part]).max(axis=-1) < 40
        assert near.sum() > 2000, part


def test_each_operator_belongs_to_the_part_that_called_it(others):
    (lane,), marks = others[2]
    assert lane.name == "host thread 1" and marks[0] == 0.0 and len(marks) == 2
    parts = [block.part for block in lane.blocks]
    order = [part for part, before in zip(parts, [None, *parts], strict=False) if part != before]
    assert [part for part in order if part != timeline.OTHER] == 2 * [timeline.CONTROL, timeline.ENCODER, timeline.REST]
    assert all(parts.count(part) > 100 for part in (timeline.CONTROL, timeline.ENCODER, timeline.REST))


def test_the_model_is_left_as_it_was():
    class Block(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            assert len(self._forward_hooks) == 1
            raise ValueError

    class Unet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.middle_block = torch.nn.ModuleList([Block()])

        def forward(self, x: Any) -> Any:
            return self.middle_block[-1](x)

    unet = Unet()
    with pytest.raises(ValueError), timeline.ranges(unet):
        unet(1)
    assert not any(
        vars(module)[hooks] for module in unet.modules() for hooks in ("_forward_hooks", "_forward_pre_hooks")
    )


def test_what_a_gpu_does_belongs_to_whoever_launched_it():
    def note(name: str, start: float, end: float) -> dict[str, Any]:
        return event("user_annotation", name=name, ts=start, dur=end - start)

    lanes, marks = timeline.lanes_of(
        [
            *(
                note(timeline.STEP, 1000, 9000),
                note(timeline.CONTROL, 1000, 2000),
                note(timeline.ENCODER, 2000, 5000),
                note(timeline.REST, 5000, 8000),
            ),
            event("cpu_op", name="aten::linear", ts=2100, dur=50),
            event("cpu_op", name="aten::addmm", ts=2110, dur=30),
            event("cuda_runtime", 2, name="cudaLaunchKernel", ts=2120, dur=5),
            event("cuda_runtime", 1, name="cudaGraphLaunch", ts=1500, dur=20),
            event("cuda_runtime", 9, name="cudaDeviceSynchronize", ts=7000, dur=500),
            event("kernel", 1, tid=20, ts=2500, dur=100),
            event("kernel", 1, tid=20, ts=2700, dur=100),
            event("kernel", 2, tid=7, ts=2600, dur=100),
            event("gpu_memcpy", 77, tid=7, ts=8000, dur=100),
            event("gpu_user_annotation", tid=7, ts=0, dur=9000),
        ]
    )
    assert marks == [0.0]
    assert [lane.name for lane in lanes] == ["host thread 1", "GPU 0, stream 7", "GPU 0, stream 20"]
    host, main, side = ([(block.start, block.part) for block in lane.blocks] for lane in lanes)
    assert host == [(0.5, timeline.CONTROL), (1.1, timeline.ENCODER), (6.0, timeline.WAITING)]
    assert side == [(1.5, timeline.CONTROL), (1.7, timeline.CONTROL)]
    assert main == [(1.6, timeline.ENCODER), (7.0, timeline.OTHER)]


def test_a_column_has_as_much_colour_as_it_was_busy():
    columns = np.zeros(4)
    timeline.cover(columns, 0.25, 0.5)
    timeline.cover(columns, 0.5, 2.5)
    timeline.cover(columns, 3.75, 9.0)
    assert columns.tolist() == [0.75, 1.0, 0.5, 0.25]
    assert timeline.ticks(47.0) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
