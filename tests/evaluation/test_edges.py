"""Edge F1 on maps whose score can be told by hand."""

import pytest
import torch

from control_composer.evaluation.edges import edge_score


def line(column: int, size: int = 32) -> torch.Tensor:
    edges = torch.zeros(1, size, size)
    edges[:, :, column] = 1
    return edges


@pytest.mark.parametrize(("shift", "f1"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_a_shifted_line_counts_up_to_the_tolerance(shift: int, f1: float):
    assert edge_score(line(10 + shift), line(10)).f1.item() == pytest.approx(f1)


def test_a_second_line_costs_precision_and_a_missing_one_recall():
    both = line(5) + line(20)
    more, less = edge_score(both, line(5)), edge_score(line(5), both)
    assert (more.precision.item(), more.recall.item()) == (0.5, 1.0)
    assert (less.precision.item(), less.recall.item()) == (1.0, 0.5)
    assert more.f1.item() == less.f1.item() == pytest.approx(2 / 3)


def test_the_tolerance_is_a_disc():
    dot = torch.zeros(1, 9, 9)
    dot[:, 4, 4] = 1
    corner = torch.zeros(1, 9, 9)
    corner[:, 6, 6] = 1  # 2.83 pixels away
    assert edge_score(corner, dot).f1.item() == 0
    assert edge_score(corner, dot, tolerance=3).f1.item() == 1


def test_empty_maps():
    nothing = torch.zeros(1, 8, 8)
    assert edge_score(nothing, nothing).f1.item() == 1
    assert edge_score(nothing, line(3, 8)).f1.item() == 0
    assert edge_score(line(3, 8), nothing).f1.item() == 0


def test_each_picture_has_its_own_score():
    found, wanted = torch.cat([line(3), line(3)]), torch.cat([line(3), line(20)])
    assert edge_score(found, wanted).f1.tolist() == [1, 0]


def test_unequal_sizes_are_refused():
    with pytest.raises(ValueError, match=r"found maps of shape \(1, 8, 8\) and wanted ones of \(1, 9, 9\).*resize one"):
        edge_score(torch.zeros(1, 8, 8), torch.zeros(1, 9, 9))
