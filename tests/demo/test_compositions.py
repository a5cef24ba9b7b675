"""The effects that docs/composing.md shows, measured on pictures of the shipped demo world in fewer steps.

The margins are wide on purpose: the world may be trained anew, the effects stay.
"""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("comfy")

from control_composer.control.norms import read_norms, strength_of
from control_composer.demo import experiments, experiments_in_space
from control_composer.demo.compositions import write_report
from control_composer.demo.panels import Row, page, save_page
from control_composer.demo.studio import Studio, Thing, follows, scene

STEPS = 8


@pytest.fixture(scope="module")
def studio():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Studio.open(STEPS)
    torch.set_num_threads(before)


def test_each_latent_of_a_batch_follows_its_own_hint_and_its_own_strength(studio):
    found = experiments.batches(studio).figures
    assert found["own hint"] > 0.5
    assert found["own hint"] > 3 * found["hint of another"]
    for policy in ("cycle", "repeat", "hold last"):
        assert found[policy] == 1, (
            policy
        )  # the share of pictures that follow the hint they should rather than the other
    weak, strong = (found[f"strength {a:g}"] + found[f"strength {b:g}"] for a, b in ((0, 0.25), (0.75, 1)))
    assert strong > 0.8
    assert strong > 1.5 * weak


def test_an_area_reads_its_part_of_the_hint(studio):
    found = experiments_in_space.areas(studio, count=1).figures
    assert found["ours"] > 0.4
    assert found["ours"] > 2 * found["stock"]
    assert found["ours"] > 1.5 * found["no control"]


def test_a_mask_keeps_a_control_to_its_place(studio):
    found = experiments_in_space.masks(studio, count=2).figures
    assert found["left half, left"] > 0.75 * found["no mask, left"]
    assert found["left half, right"] < 0.6 * found["no mask, right"]
    assert found["left half, left"] > 1.5 * found["left half, right"]

    assert found["complementary, edges left"] > 0.5
    assert found["complementary, colour error right"] < 0.75 * found["edges alone, colour error right"]

    # 1/2 + 1/2 of one layer in the overlap: what is left is rounding.
    assert found["normalised, away from one layer"] < 1e-3
    assert found["sum, away from one layer"] > 5 * found["normalised, away from one layer"]


def test_frames_keep_their_hints_in_context_windows(studio):
    found = experiments.windows(studio, frames=6, length=3).figures
    assert found["ours, own frame"] > 0.5
    assert found["ours, own frame"] > 1.5 * found["ours, another frame"]
    assert found["ours, after the first window"] > 2 * found["stock, after the first window"]
    # The demo's UNet does not look from frame to frame, so windows must change nothing.
    assert found["ours, away from no windows"] < 1e-3


def test_keyframes_let_a_control_act_for_a_part_of_the_steps(studio):
    found = experiments.schedules(studio, count=1).figures
    assert found["whole"] > 0.5
    assert found["early"] > 1.5 * found["no control"]
    for part in ("early", "late", "fading"):
        assert found["no control"] < found[part] < found["whole"] + 0.05, part


def test_weighted_blocks_obey_less_than_flat_ones(studio):
    found = experiments.weights(studio, count=1).figures
    assert found["flat"] > 0.5
    assert found["soft 0.95"] > 1.2 * found["no control"]
    for softer in ("soft 0.95", "soft 0.825", "resolution", "resolution, cond only"):
        assert found[softer] < found["flat"] + 0.05, softer


def test_a_hint_of_another_aspect_is_followed_as_it_was_sized(studio):
    found = experiments_in_space.sizing(studio).figures
    for one in ("crop", "fit", "stretch"):
        assert found[f"{one}, as read"] > 1.3 * found["as read otherwise"], one


def test_what_the_inspection_nodes_tell(studio):
    seen = experiments.inspection(studio)
    assert seen.composition.figures["left"] > 0.5

    edges, colours = seen.composition.text.split("\n\n")[1:]
    assert edges.startswith("1. control_composer_demo_edges.safetensors")
    assert f"ran at steps 1–{STEPS} of {STEPS}" in edges
    assert "mask: 1 mask of 128×128" in edges
    assert colours.startswith("2. control_composer_demo_colour.safetensors")
    assert "ran at steps 1–5 of 8" in colours
    assert "Did not run at steps 6–8 of 8: the schedule is 0 here." in colours

    numbers = seen.record.step_numbers()
    strengths = {
        step: strength_of([n for n in read_norms(seen.record) if n.layer == 2 and numbers[n.call] == step])[1]
        for step in (1, 5)
    }
    assert strengths[1] > 3 * strengths[5] > 0
    assert seen.heatmap.ndim == 3 and seen.heatmap.std() > 0.05


def test_a_scene_set_up_by_hand_says_and_shows_what_was_put_in():
    one = experiments.Shot.of(scene("green", Thing("circle", "red", 40, 60, 20), Thing("star", "blue", 100, 60, 20)))
    assert one.caption == "a red circle and a blue star on a green ground"
    assert one.pictures.shape == (1, 128, 128, 3)
    assert one.pictures[0, 60, 40].argmax() == 0 and one.pictures[0, 10, 10].argmax() == 1
    assert follows(one.pictures, one.edges).item() == 1
    assert follows(one.pictures, one.edges.roll(40, dims=1)).item() < 0.3


def test_a_page_has_its_rows_below_each_other(tmp_path):
    red, blue = torch.tensor([1.0, 0, 0]).expand(10, 20, 3), torch.tensor([0, 0, 1.0]).expand(10, 20, 3)
    rows = [Row("one", [("a", red), ("b", blue)]), Row("two", [("mask", torch.ones(10, 20))])]
    drawn = np.asarray(page(rows))
    reds, blues = ((drawn == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 0, 255)))
    assert reds.sum() == blues.sum() == 200
    assert reds.any(axis=0).argmax() < blues.any(axis=0).argmax()
    save_page(tmp_path / "folder" / "page.jpg", rows)
    with Image.open(tmp_path / "folder" / "page.jpg") as saved:
        assert saved.size == (drawn.shape[1], drawn.shape[0])


def test_the_report_goes_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- report begins -->\nold\n<!-- report ends -->\nafter\n", encoding="utf-8")
    for _ in range(2):
        write_report(page, r"1–2 \1")
        assert page.read_text(encoding="utf-8") == (
            "before\n<!-- report begins -->\n```\n1–2 \\1\n```\n<!-- report ends -->\nafter\n"
        )
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        write_report(page, "")
    assert str(refused.value) == (
        "page.md has 0 places for the report, but one was expected; put <!-- report begins --> and <!-- report ends --> where it belongs."
    )
