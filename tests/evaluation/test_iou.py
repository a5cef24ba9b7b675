"""Intersection over union on label maps whose score can be told by hand, and on pictures in palette colours."""

import numpy as np
import pytest
import torch

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.iou import NO_CLASS, iou, labels_of
from control_composer.preprocessors.palettes.ade20k import ADE20K
from control_composer.preprocessors.palettes.coco import COCO


def by_sets(found: np.ndarray, wanted: np.ndarray, classes: int) -> list[float]:
    scores = []
    for number in range(classes):
        a = {place for place in np.ndindex(found.shape) if found[place] == number and wanted[place] != NO_CLASS}
        b = {place for place in np.ndindex(found.shape) if wanted[place] == number}
        scores.append(len(a & b) / len(a | b) if a | b else float("nan"))
    return scores


def test_it_is_what_counting_pixels_in_sets_gives():
    random = np.random.default_rng(0)
    found, wanted = random.integers(-1, 4, (2, 3, 7, 9))
    score = iou(torch.from_numpy(found), torch.from_numpy(wanted), classes=6)
    expected = np.array([by_sets(*pair, 6) for pair in zip(found, wanted, strict=True)])
    np.testing.assert_allclose(score.per_class.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(score.mean.numpy(), np.nanmean(expected, axis=1), rtol=1e-6)
    assert score.per_class[:, 4:].isnan().all()


def test_the_mean_is_over_the_classes_that_are_there():
    wanted = torch.tensor([[[0, 0, 1, 1]]])
    found = torch.tensor([[[0, 1, 1, 5]]])
    score = iou(found, wanted, classes=8)
    assert score.per_class[0, [0, 1, 5]].tolist() == [1 / 2, pytest.approx(1 / 3), 0]
    assert score.mean.item() == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_the_same_is_perfect_and_each_picture_has_its_own_score():
    labels = torch.randint(0, 5, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    other = torch.stack([labels[0], (labels[1] + 1) % 5])
    assert iou(labels, labels, 5).mean.tolist() == [1, 1]
    assert iou(other, labels, 5).mean.tolist() == [1, 0]


def test_where_nothing_is_asked_for_nothing_counts():
    wanted = torch.tensor([[[3, 3, NO_CLASS, NO_CLASS]]])
    assert iou(torch.tensor([[[3, 3, 0, 1]]]), wanted, 4).mean.item() == 1
    assert iou(torch.tensor([[[3, NO_CLASS, 0, 1]]]), wanted, 4).mean.item() == 0.5
    assert iou(wanted, torch.full((1, 1, 4), NO_CLASS), 4).mean.isnan().all()


def test_a_class_can_be_left_out():
    wanted, found = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[1, 1, 1, 1]]])
    assert iou(found, wanted, 2, ignore=0).mean.item() == 1
    assert iou(found, wanted, 2, ignore=None).mean.item() == 0.25


@pytest.mark.parametrize("palette", [ADE20K, COCO])
def test_colours_of_a_palette_are_its_classes(palette):
    colours = palette.colours()
    # ADE20K gives one colour to two classes.
    first = [next(n for n, other in enumerate(palette.classes) if other[0] == colour) for colour, _ in palette.classes]
    assert labels_of(colours.reshape(1, 1, -1, 3), colours)[0, 0].tolist() == first
    assert len(set(first)) >= len(first) - 1


def test_colours_that_compression_changed_are_the_nearest():
    random = torch.Generator().manual_seed(2)
    picture, colours = torch.rand(2, 11, 13, 3, generator=random), ADE20K.colours()
    eight_bit = (picture * 255).round() / 255
    with_black = torch.cat([colours, torch.zeros(1, 3)])
    distance = torch.cdist(eight_bit.reshape(-1, 3).double(), with_black.double())
    found = labels_of(picture, colours).flatten()
    nearest = distance.amin(dim=1)
    assert torch.allclose(distance.gather(1, (found % len(with_black))[:, None])[:, 0], nearest)
    assert labels_of(torch.full((1, 2, 2, 3), 0.004), colours).eq(NO_CLASS).all()


def test_black_is_a_class_where_the_palette_has_it():
    assert labels_of(torch.tensor([[[[0.1, 0, 0], [0.8, 1, 1]]]]), torch.tensor([[1.0, 1, 1], [0, 0, 0]])).tolist() == [
        [[1, 0]]
    ]


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(
        EvaluationError, match=r"found label 7, but whole numbers from 0 to 3 or -1 .*; give the number"
    ):
        iou(torch.tensor([[[7]]]), torch.tensor([[[0]]]), 4)
    with pytest.raises(EvaluationError, match=r"found torch.float32 labels, but whole numbers from 0 to 3 were"):
        iou(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), 4, ignore=None)


def test_unequal_sizes_are_refused():
    with pytest.raises(EvaluationError, match=r"shapes \(1, 2, 2\) and \(1, 3, 2\), but two equal ones .*size before"):
        iou(torch.zeros(1, 2, 2).long(), torch.zeros(1, 3, 2).long(), 2)
