"""The study measures what has no row yet, goes on after a stop, and writes its page; with stand-ins for what is trained."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

pytest.importorskip("comfy")

from control_composer.demo.diffusion import alphas_cumprod
from control_composer.demo.study import measure as module
from control_composer.demo.study.base import Base
from control_composer.demo.study.claims import Figures
from control_composer.demo.study.drawing import Remembering, draw, finished, quick_velocity
from control_composer.demo.study.guiding import CONDITIONS, WAYS, Guide, control_from
from control_composer.demo.study.heldout import HeldOut
from control_composer.demo.study.learn import runs as all_runs
from control_composer.demo.study.learn import velocity_of
from control_composer.demo.study.measure import REDRAWN, SCENES, Measuring, keep, kept, plan
from control_composer.demo.study.recogniser import Recogniser
from control_composer.demo.study.report import write_report
from control_composer.demo.study.rows import Rows
from control_composer.demo.study.systems import SYSTEMS, Run
from control_composer.demo.world import CONTROLS

STEPS = 2
EDGES = CONTROLS / "control_composer_demo_edges.safetensors"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base():
    return Base.load()


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    torch.manual_seed(0)
    return HeldOut(4, Recogniser().eval().requires_grad_(False), tmp_path_factory.mktemp("held_out"), real=8)


def knowing(latents):
    """A velocity that knows what will come out: v of (x_t, x_0), for as many branches as are asked for."""
    alphas = alphas_cumprod()

    def predict(x, times, context, hint):
        alpha = alphas[times.long()][:, None, None, None]
        truth = latents.repeat(len(x) // len(latents), 1, 1, 1)
        eps = (x - alpha.sqrt() * truth) / (1 - alpha).sqrt()
        return alpha.sqrt() * eps - (1 - alpha).sqrt() * truth

    return predict


def test_drawing_ends_where_the_velocity_leads(base, held_out):
    with torch.no_grad():
        latents = base.autoencoder.encode(held_out.truth.movedim(-1, 1))
        wanted = base.autoencoder.decode(latents).clamp(0, 1).movedim(1, -1)
    drawn = draw(knowing(latents), base, held_out.noise(0), held_out.edges, held_out.prompts["perfect"], steps=STEPS)
    torch.testing.assert_close(drawn, wanted, rtol=0, atol=2e-3)


def test_branches_get_what_they_should(base, held_out):
    """Empty prompts need one branch; others are guided away from the empty one, four times as far."""
    calls = []

    def predict(x, times, context, hint):
        calls.append((x, times, context, hint))
        return context.mean(dim=(1, 2))[:, None, None, None].expand_as(x)

    noise, edges = held_out.noise(1)[:2], held_out.edges[:2]
    draw(predict, base, noise, edges, ["", ""], steps=STEPS)
    assert len(calls) == STEPS and all(len(x) == len(hint) == 2 for x, _, _, hint in calls)
    empty = calls[0][2].mean(dim=(1, 2))
    assert calls[0][1].dtype == torch.float32 and calls[0][1].tolist() == [999.0, 999.0]

    calls.clear()
    draw(predict, base, noise, edges, ["a red circle", "a star"], steps=STEPS)
    x, times, context, hint = calls[0]
    assert len(x) == len(times) == len(context) == 4
    torch.testing.assert_close(hint, edges.movedim(-1, 1).repeat(2, 1, 1, 1))
    said = context.mean(dim=(1, 2))
    torch.testing.assert_close(said[2:], empty)
    v = (empty + 4 * (said[:2] - empty))[:, None, None, None]
    alpha, after = alphas_cumprod()[999], alphas_cumprod()[0]
    wanted = after.sqrt() * (alpha.sqrt() * noise - (1 - alpha).sqrt() * v) + (1 - after).sqrt() * (
        alpha.sqrt() * v + (1 - alpha).sqrt() * noise
    )
    torch.testing.assert_close(calls[1][0][:2], wanted)


def test_a_hint_network_is_asked_once_for_the_same_hint():
    asked = []

    class Asked(torch.nn.Module):
        def forward(self, hint):
            asked.append(hint)
            return hint + 1

    remembering = Remembering([Asked(), torch.nn.ReLU()])
    one, other = torch.tensor([-3.0, 2.0]), torch.ones(2)
    assert all(remembering(one).tolist() == [0, 3] for _ in range(3))
    assert remembering(other).tolist() == [2, 2] and remembering(one).tolist() == [0, 3]
    assert len(asked) == 3


def test_a_run_is_finished_once_its_weights_are_there(tmp_path, base, held_out):
    import safetensors.torch

    run = Run("ControlNet", 0)
    assert finished(Run("no control", 0), tmp_path) and not finished(run, tmp_path)
    (tmp_path / run.name).mkdir()
    weights = {name: value.float() for name, value in safetensors.torch.load_file(EDGES).items()}
    safetensors.torch.save_file(weights, tmp_path / run.name / "weights.safetensors")
    assert finished(run, tmp_path)

    def drawn(run):
        return draw(
            quick_velocity(run, tmp_path, base.unet), base, held_out.noise(0)[:2], held_out.edges[:2],
            held_out.prompts["perfect"][:2], steps=5,
        )  # fmt: skip

    noise, hints = held_out.noise(0)[:2], held_out.edges[:2].movedim(-1, 1)
    times, context = torch.full((2,), 500.0), torch.randn(2, 24, 64)
    quick, plain = (made(run, tmp_path, base.unet) for made in (quick_velocity, velocity_of))
    for _ in range(2):
        wanted = plain(noise, times, context, hints)
        torch.testing.assert_close(quick(noise, times, context, hints), wanted, rtol=0, atol=1e-6)
    few = held_out.first(2)
    obeyed, free = (few.measures(drawn(one))["edge F1"] for one in (run, Run("no control", 0)))
    assert obeyed > 2 * free


def test_measures_of_the_scenes_themselves(base, held_out):
    own, other = held_out.measures(held_out.truth), held_out.measures(held_out.truth.roll(1, dims=0))
    assert own["edge F1"] == 1 and own["colour error"] == pytest.approx(0, abs=1e-6)
    assert other["edge F1"] < 0.5 and other["colour error"] > 0.05
    assert own["FID"] == pytest.approx(other["FID"], rel=1e-3)  # the same set
    assert own["contrast"] == pytest.approx(float(held_out.truth.flatten(1).std(dim=1).mean()))
    first = held_out.first(2)
    assert (
        first.measures(held_out.truth[:2])["edge F1"] == 1
        and first.prompts["perfect"] == held_out.prompts["perfect"][:2]
    )
    assert "prompted caption" in held_out.measures(held_out.truth, held_out.prompts["conflicting"])


def test_ways_to_guide_differ_as_they_should(held_out):
    guide, control = Guide(STEPS), control_from(EDGES)
    noise, none = held_out.noise(0)[:1], [""]

    def drawn(way, prompts=none):
        return guide.draw([(control, held_out.edges[:1])], noise, prompts, WAYS[way])

    both = drawn("both branches")
    torch.testing.assert_close(both, drawn("both branches, CFG 1"), rtol=0, atol=1e-3)  # nothing to guide
    alone = drawn("conditional only")
    assert (alone - both).abs().mean() > 0.01
    assert (drawn("64/h, largest 1") - alone).abs().mean() > 0.01
    blocks = control.source.blocks(16, 16)
    weighed = {name: way.weights(blocks) for name, way in WAYS.items()}
    assert set(weighed["64/h"]) == {1, 2, 4, 8} and set(weighed["64/h, own sizes"]) == {4, 8, 16, 32}
    assert sum(weighed["64/h, mean 1"]) / len(blocks) == pytest.approx(1)
    assert max(weighed["64/h, largest 1"]) == weighed["guess ladder"][-1] == 1


class FakeGuide:
    def __init__(self, steps):
        self.colour = "colour"

    def draw(self, controls, noise, prompts, way, batch=24):
        return torch.full((len(noise), 128, 128, 3), 0.3 + 0.1 * len(controls))


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(module, "control_file", lambda run, folder, unet: run.name)
    monkeypatch.setattr(module, "control_from", lambda path: path)
    seen = []

    def velocity(run, folder, unet):
        seen.append(run)
        return lambda x, times, context, hint: torch.zeros_like(x) + 0.1 * run.seed

    return {"guided": 2, "steps": STEPS, "velocity": velocity, "guide": FakeGuide}, seen


def test_every_cell_gets_its_row_once_and_the_page_is_written(tmp_path, held_out, base, stand_ins):
    settings, seen = stand_ins
    runs = [run for run in all_runs(range(2)) if run.system in ("ControlNet", "no control")]
    untrained = next(run for run in runs if run.seed == 1 and run.system == "ControlNet")
    measuring = Measuring(tmp_path, held_out, base, **settings)

    class Stopped(Exception):
        pass

    add = measuring.rows.add

    def stop(cell, measures):
        if len(list(measuring.rows)) == 9:
            raise Stopped
        add(cell, measures)

    measuring.rows.add = stop
    with pytest.raises(Stopped):
        measuring.run(runs, ready=lambda run, folder: run != untrained)
    assert len(list(Rows(tmp_path))) == 9

    again = Measuring(tmp_path, held_out, base, **settings)
    before = len(seen)
    assert again.run(runs, ready=lambda run, folder: run != untrained) == [untrained]
    wanted = [cell for cell, run in plan(runs, 4, 2, STEPS) if run != untrained]
    assert sorted(cell.key for cell in Rows(tmp_path)) == sorted(cell.key for cell in wanted)
    assert len(wanted) == 2 * 3 + 2 * 4 + 4 + 4 * 2 + 2 * (len(WAYS) + len(CONDITIONS))
    assert untrained not in seen and len(seen) - before <= len(runs)
    settled = len(seen)
    again.run(runs, ready=lambda run, folder: run != untrained)
    assert len(seen) == settled  # nothing was drawn again
    figures = Figures(again.rows, 4, 2)
    assert figures.reference("edge F1", SCENES) == 1 and figures.reference("edge F1", REDRAWN, guided=True) > 0.9

    for seed in range(2):
        own = tmp_path / Run("ControlNet", seed).name
        own.mkdir(exist_ok=True)
        (own / "watch.csv").write_text("0,0.1,0.2\n20,0.5,0.1\n40,0.6,0.1\n")
    docs = tmp_path / "docs"
    judged = write_report(runs, again, docs)
    page = (docs / "study.md").read_text()
    for claim in judged:
        assert claim.paper in page and f"**{claim.verdict}**" in page
    for name in ("scene_1", "guidance_none", "guidance_perfect", "amounts"):
        assert f"(study/{name}.jpg)" in page
        with Image.open(docs / "study" / f"{name}.jpg") as sheet:
            assert sheet.width > 300
    for heading in (
        "## What agrees",
        "## Guidance",
        "## One condition and two",
        "## Measures",
        "## The paper's tables",
    ):
        assert heading in page
    assert "| ControlNet | 15.27 | 0.26 | 6.31 |" in page and "None" not in page
    assert all(system in page for system in SYSTEMS)
    assert (docs / "study" / "measures.jsonl").read_text() == again.rows.path.read_text()
    assert sum(path.stat().st_size for path in (docs / "study").iterdir()) < 1_500_000


def test_pictures_can_be_drawn_before_there_is_a_recogniser(tmp_path, held_out, base, stand_ins):
    settings, seen = stand_ins
    settings["guided"] = 2
    runs = [Run("no control", 0)]
    blind = HeldOut(2, None, tmp_path)
    assert Measuring(tmp_path, blind, base, **settings).draw(runs) == []
    drawn = len(seen)
    assert drawn == 1 and not (tmp_path / "measures.jsonl").exists()
    later = Measuring(tmp_path, held_out.first(2), base, **settings)
    later.run(runs)
    assert len(seen) == drawn and len(list(later.rows)) == 3 + 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()}
    assert len(before) == 7
    later.draw(runs)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()} == before


def test_a_page_without_any_row_is_written_too(tmp_path, held_out, base, stand_ins):
    settings, _ = stand_ins
    measuring = Measuring(tmp_path, held_out, base, **settings)
    assert write_report(all_runs(range(1)), measuring, tmp_path / "docs") == []
    assert "| ControlNet | – | – | – | – |" in (tmp_path / "docs" / "study.md").read_text()


def test_pictures_are_kept(tmp_path):
    pictures = (torch.rand(3, 16, 16, 3) * 255).round() / 255
    keep(tmp_path / "a" / "b.png", pictures)
    torch.testing.assert_close(torch.stack(kept(tmp_path / "a" / "b.png")), pictures)


def test_architectures_come_first_seed_by_seed():
    order = [cell for cell, run in plan(all_runs(range(2)), 8, 4, 20) if run is not None]
    first = order[: len(SYSTEMS) * 4]
    assert {cell.seed for cell in first} == {0} and {cell.pictures for cell in first} == {10_000}
    assert [cell.system for cell in first[::4]] == list(SYSTEMS)
    ways = [place for place, cell in enumerate(order) if cell.way]
    assert min(ways) > max(place for place, cell in enumerate(order) if not cell.way)
    assert len(set(order)) == len(order)
    assert replace(first[0], prompt="x").key != first[0].key
