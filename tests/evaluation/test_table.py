"""Fidelity in words."""

import math

import pytest
import torch

from control_composer.evaluation.fidelity import MEASURES, Fidelity, fidelity
from control_composer.evaluation.measures import POSES
from control_composer.evaluation.table import MEANINGS, joined, mean_of, summary, table
from control_composer.preprocessors.palettes.ade20k import ADE20K
from control_composer.tests.evaluation.inputs import hint_like, pose_like


def score(*values: float) -> Fidelity:
    numbers = {"mean ΔE": torch.tensor(values), "largest ΔE": torch.tensor(values) * 10}
    return Fidelity("colour difference (CIEDE2000)", numbers["mean ΔE"], numbers, False)


def test_a_table_is_read_by_people() -> None:
    assert table(score(1.0, math.nan, 2.5), "Tile").splitlines() == [
        "Tile: colour difference (CIEDE2000), lower is better",
        "picture  mean ΔE  largest ΔE",
        "1           1.00       10.00",
        "2              -           -",
        "3           2.50       25.00",
        "mean        1.75       17.50",
        "mean ΔE, largest ΔE: CIEDE2000: 1 can just be seen, black to white is 100, lower is better",
        "-: nothing could be compared; the mean is of the other pictures",
    ]
    assert "nothing" not in table(score(1.0), "Tile")


def test_a_summary_is_one_line() -> None:
    meaning = "lower is better; CIEDE2000: 1 can just be seen, black to white is 100"
    assert summary(score(3.0)) == f"mean ΔE 3.00 ({meaning}), mean of 1 picture"
    assert summary(score(1.0, math.nan, 2.5)) == (
        f"mean ΔE 1.75 ({meaning}), mean of 2 pictures; nothing could be compared in 1 more"
    )
    assert math.isnan(mean_of(torch.tensor([math.nan])))


@pytest.mark.parametrize("identifier", MEASURES)
def test_every_number_of_every_preprocessor_has_a_meaning(identifier: str) -> None:
    """Of a hint given back the numbers are the best that there are; of another they are worse, in the direction that the meaning says."""
    hint, other = hint_like(identifier, 0), hint_like(identifier, 1)
    poses = MEASURES[identifier] is POSES
    wanted, found = [pose_like(0)], [pose_like(1)]
    same = fidelity(identifier, hint, hint, (wanted, wanted) if poses else None)
    different = fidelity(identifier, hint, other, (wanted, found) if poses else None)
    assert set(same.numbers) == set(different.numbers) <= set(MEANINGS)
    assert MEANINGS[next(iter(same.numbers))].higher_is_better == same.higher_is_better
    for name in same.numbers:
        best, worse = float(same.numbers[name]), float(different.numbers[name])
        assert best == pytest.approx(1 if MEANINGS[name].higher_is_better else 0, abs=1e-5), name
        assert worse < best - 1e-3 if MEANINGS[name].higher_is_better else worse > best + 1e-3, name


def test_pictures_are_joined() -> None:
    whole = joined([score(1.0, 2.0), score(3.0)])
    assert whole.score.tolist() == [1, 2, 3] and whole.numbers["largest ΔE"].tolist() == [10, 20, 30]
    assert whole.score is whole.numbers["mean ΔE"] and not whole.higher_is_better


def test_classes_have_their_own_lines() -> None:
    hint, other = hint_like("SegFormer", 0), hint_like("SegFormer", 0)
    wall, building = ADE20K.colours()[0], ADE20K.colours()[1]
    hint[:, :10], other[:, :10] = wall, wall
    hint[:, 10:], other[:, 10:15], other[:, 15:] = building, building, wall
    first, second = fidelity("SegFormer", hint, other), fidelity("SegFormer", hint[:, :10], hint[:, :10])
    assert {name: values.item() for name, values in first.each_class.items()} == {
        "wall": pytest.approx(2 / 3),
        "building": 0.5,
    }
    whole = joined([first, second])
    assert whole.each_class["wall"].tolist() == [pytest.approx(2 / 3), 1]
    assert whole.each_class["building"][0] == 0.5 and whole.each_class["building"][1].isnan()
    assert whole.score.tolist() == [pytest.approx((2 / 3 + 0.5) / 2), 1]
    assert table(whole, "SegFormer").splitlines()[-3:] == [
        "IoU of each class, mean of the pictures where it is asked for or found:",
        "wall      0.833",
        "building  0.500",
    ]
    assert not fidelity("Canny", hint, hint).each_class
