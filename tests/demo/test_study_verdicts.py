"""The study's rows survive a stop, and its verdicts follow the figures, whichever way these come out."""

import math

import pytest

pytest.importorskip("comfy")

from control_composer.demo.study.claims import Figures, claims
from control_composer.demo.study.guiding import CONDITIONS, WAYS
from control_composer.demo.study.learn import PICTURES
from control_composer.demo.study.measure import REFERENCES
from control_composer.demo.study.prompts import SETTINGS
from control_composer.demo.study.rows import Cell, Rows
from control_composer.demo.study.systems import SYSTEMS
from control_composer.demo.study.tables import (
    amounts,
    architectures,
    conditions,
    conflict,
    guidance,
    references,
    table,
    verdicts,
)
from control_composer.demo.study.verdicts import Difference, Spread, alike, no_lower, ordered, together

MEASURES = ("edge F1", "colour error", "caption", "shapes", "contrast", "FID")


def test_rows_are_there_again_and_a_torn_line_is_dropped(tmp_path):
    rows = Rows(tmp_path)
    one, other = Cell("ControlNet", "none", 0, 100), Cell("ControlNet", "none", 1, 100, way="64/h")
    rows.add(one, {"FID": 1.23456789})
    rows.add(other, {"FID": 2.0})
    with rows.path.open("a") as file:
        file.write('{"cell": {"sys')
    again = Rows(tmp_path)
    assert list(again) == [one, other] and again[one] == {"FID": 1.234568}
    again.add(Cell("no control"), {"FID": 3.0})
    assert len(Rows(tmp_path).path.read_text().splitlines()) == 3
    assert Rows(tmp_path).by_seed("FID", system="ControlNet", pictures=100) == {0: 1.234568, 1: 2.0}
    assert one.key == "controlnet_100_0_none_48_20" and other.key == "controlnet_100_1_none_64-h_48_20"


def test_two_rows_of_one_seed_are_refused(tmp_path):
    rows = Rows(tmp_path)
    rows.add(Cell("lite", scenes=4), {"FID": 1.0})
    rows.add(Cell("lite", scenes=8), {"FID": 2.0})
    with pytest.raises(ValueError) as refused:
        rows.by_seed("FID", system="lite")
    assert str(refused.value) == (
        "measures.jsonl: found several rows of seed 0 with {'system': 'lite'}, but one was expected; "
        "measure with one number of scenes and steps in one folder."
    )
    assert rows.by_seed("FID", system="lite", scenes=8) == {0: 2.0}


def test_a_difference_has_the_margin_of_a_paired_t_interval():
    # Differences 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1; 4.303 * 0.1 / sqrt(3).
    found = Difference.between({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.5, 2: 0.6, 3: 9.0})
    assert found.mean == pytest.approx(0.2) and found.margin == pytest.approx(0.24844, abs=1e-4)
    assert found.sign == 0 and ordered(found) == "not decided"
    assert found.told() == "+0.200 (± 0.248)"
    assert ordered(Difference(0.2, 0.1)) == "agrees" and ordered(Difference(-0.2, 0.1)) == "disagrees"
    single = Difference.between({0: 2.0}, {0: 1.0})
    assert ordered(single) == "not decided" and single.told() == "+1.000 (one seed)"
    with pytest.raises(
        ValueError, match=r"^seeds \[0\] and \[1\] have none in common, but one at least was expected; measure both\.$"
    ):
        Difference.between({0: 1.0}, {1: 1.0})


def test_what_is_alike_and_what_is_no_lower():
    assert alike(Difference(-0.02, 0.02), 0.05) == "agrees"
    assert alike(Difference(-0.02, 0.04), 0.05) == "not decided"
    assert alike(Difference(0.2, 0.1), 0.05) == "disagrees"
    assert alike(Difference(0.0, math.inf), 0.05) == "not decided"
    assert no_lower(Difference(0.3, 0.1), 0.05) == "agrees"
    assert no_lower(Difference(-0.04, 0.02), 0.05) == "not decided"
    assert no_lower(Difference(-0.2, 0.1), 0.05) == "disagrees"
    assert together("agrees", "not decided", "disagrees") == "disagrees"
    assert together("agrees", "not decided") == "not decided"
    assert together("agrees", "agrees") == "agrees"


def test_a_spread_is_told():
    assert Spread.of({0: 1.0, 1: 2.0, 2: 3.0}).told(2) == "2.00 ± 1.00"
    assert Spread.of({0: 1.0}).told() == "1.000"


def as_the_paper_says(rows, seeds=3, worse=frozenset()):
    """Rows in which each system is as good as the paper says, with a little noise by seed; those named in `worse` are bad at everything."""
    for scenes in (8, 4):
        for name in REFERENCES:
            rows.add(Cell(name, scenes=scenes, steps=0), dict.fromkeys(MEASURES, 0.25) | {"edge F1": 1.0})
    good = {"ControlNet": 0.9, "concatenation": 0.9, "Gaussian start": 0.62, "ControlNet-lite": 0.6, "no control": 0.1}
    for seed in range(seeds):
        wobble = 0.002 * seed
        for system in SYSTEMS:
            for setting in SETTINGS:
                f1 = good[system] - wobble
                if system == "ControlNet-lite" and setting in ("none", "insufficient"):
                    f1 = 0.2 - wobble
                if system in worse:
                    f1 = 0.12 + wobble
                fid = {"ControlNet": 15, "concatenation": 15, "no control": 6}.get(system, 18) + wobble
                told = {"edge F1": f1, "FID": fid * (4 if system in worse else 1), "caption": 0.8, "shapes": 0.8}
                rows.add(Cell(system, setting, seed, PICTURES[-1], scenes=8), told)
        for count, f1 in zip(PICTURES, (0.5, 0.7), strict=False):
            for setting in ("none", "perfect"):
                rows.add(Cell("ControlNet", setting, seed, count, scenes=8), {"edge F1": f1 + wobble})
        for way in (*WAYS, *CONDITIONS):
            told = {"edge F1": 0.8, "colour error": 0.05, "contrast": 0.2 + wobble, "FID": 20.0 + wobble}
            if way == "conditional only":
                told |= {"contrast": 0.4 + wobble}
            if way.startswith("64/h"):
                told |= {"FID": 10.0}
            for setting in ("none", "perfect"):
                rows.add(Cell("ControlNet", setting, seed, PICTURES[-1], way, 4), told)
    return rows


def curves(jump):
    steps = list(range(0, 400, 20))
    scores = [(0.9 if step >= 200 else 0.2) if jump else 0.2 + step / 600 for step in steps]
    return {"ControlNet": {seed: (steps, scores) for seed in range(3)}}


def test_rows_that_are_as_the_paper_says_agree_in_every_claim(tmp_path):
    judged = claims(Figures(as_the_paper_says(Rows(tmp_path)), 8, 4), curves(True))
    assert len(judged) == 17
    assert {claim.paper: claim.verdict for claim in judged if claim.verdict != "agrees"} == {}


def test_rows_that_are_not_disagree(tmp_path):
    rows = as_the_paper_says(Rows(tmp_path), worse={"ControlNet"})
    found = {claim.paper.split(":")[0]: claim.verdict for claim in claims(Figures(rows, 8, 4), curves(False))}
    for claim in (
        "ControlNet succeeds under all four prompt settings (4.2)",
        "ControlNet follows its condition better than ControlNet-lite",
        "Its pictures are nearer to real ones than ControlNet-lite's",
        "With Gaussian in place of zero convolutions it drops to about ControlNet-lite (4.2)",
        "It grows with more data (4.5)",
        "It learns to obey suddenly, before 10 000 steps; the figure shows step 6133 (3.3)",
    ):
        assert found[claim] == "disagrees", claim
    assert found["ControlNet-lite fails without a prompt and with an insufficient one (4.2)"] == "agrees"


def test_a_drop_to_somewhere_else_is_not_what_the_paper_says(tmp_path):
    rows = as_the_paper_says(Rows(tmp_path), worse={"ControlNet-lite"})
    found = {claim.paper: claim.verdict for claim in claims(Figures(rows, 8, 4), {})}
    assert found["With Gaussian in place of zero convolutions it drops to about ControlNet-lite (4.2)"] == "disagrees"


def test_few_looks_do_not_tell_that_a_rise_was_not_sudden(tmp_path):
    looks = {"ControlNet": {0: ([0, 50, 100, 150, 200, 300], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])}}
    (judged,) = claims(Figures(Rows(tmp_path), 8, 4), looks)
    assert judged.verdict == "not decided" and "looked at 6 times" in judged.figures


def test_one_seed_decides_no_order(tmp_path):
    judged = claims(Figures(as_the_paper_says(Rows(tmp_path), seeds=1), 8, 4), {})
    found = {claim.paper.split(":")[0]: claim.verdict for claim in judged}
    assert found["ControlNet follows its condition better than ControlNet-lite"] == "not decided"
    assert found["A control costs nothing in how well the text is met"] == "not decided"


def test_claims_without_rows_are_left_out(tmp_path):
    assert claims(Figures(Rows(tmp_path), 8, 4), {}) == []


def test_tables_hold_the_figures_and_a_dash_where_there_is_none(tmp_path):
    figures = Figures(as_the_paper_says(Rows(tmp_path)), 8, 4)
    lines = architectures(figures, "edge F1").splitlines()
    assert lines[0] == "| edge F1 | none | insufficient | conflicting | perfect |"
    assert lines[2] == "| ControlNet | 0.898 ± 0.002 | 0.898 ± 0.002 | 0.898 ± 0.002 | 0.898 ± 0.002 |"
    assert lines[4].startswith("| ControlNet-lite | 0.198 ± 0.002 |")
    assert "| – |" in architectures(figures, "colour error").splitlines()[2]
    assert amounts(figures).splitlines()[2].startswith("| 100 | 0.502 ± 0.002 |")
    assert "0.402 ± 0.002" in guidance(figures, "none").splitlines()[4]
    assert len(conditions(figures).splitlines()) == 5
    assert len(references(figures).splitlines()) == 5
    assert conflict(figures).splitlines()[2].startswith("| ControlNet | 0.800 ± 0.000 | – |")
    assert table(["a"], [["1"]]) == "| a |\n| --- |\n| 1 |"
    assert verdicts(claims(figures, {})).count("**agrees**") == 16
