"""Similarity of poses against COCO's formula, written out here with its own order of points, and people matched by trying all orders."""

from itertools import permutations

import numpy as np
import pytest
import torch

from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.oks import pose_score, similarity
from control_composer.preprocessors.pose import Person, Pose

# cocoeval.py: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, left before right.
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
COCO_FROM_OPENPOSE = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]
CANVAS = 256


def body(seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(20, 200, (18, 3)).astype(np.float32)
    points[:, 2] = 1
    return points


def pose(*bodies: np.ndarray, size: int = CANVAS) -> Pose:
    return Pose(size, size, tuple(Person(body=points) for points in bodies))


def oks(found: np.ndarray, wanted: np.ndarray) -> float:
    dt, gt = found[COCO_FROM_OPENPOSE].astype(float), wanted[COCO_FROM_OPENPOSE].astype(float)
    seen = gt[:, 2] > 0
    width, height = np.ptp(gt[seen, 0]), np.ptp(gt[seen, 1])
    e = ((dt - gt)[:, :2] ** 2).sum(1) / (2 * COCO_SIGMAS) ** 2 / (width * height) / 2
    return float((np.exp(-e) * (dt[:, 2] > 0))[seen].sum() / seen.sum())


def moved(points: np.ndarray, right: float, down: float = 0.0) -> np.ndarray:
    return points + np.array([right, down, 0], dtype=np.float32)


def test_it_is_cocos_formula():
    wanted = body()
    wanted[[3, 9], 2] = 0
    for seed in range(3):
        found = wanted + np.random.default_rng(seed).normal(0, 12, (18, 3)).astype(np.float32)
        found[:, 2] = 0.5
        found[6, 2] = 0
        assert similarity(Person(found), Person(wanted), CANVAS) == pytest.approx(oks(found, wanted), rel=1e-6)
        assert 0.1 < oks(found, wanted) < 0.95


def test_the_neck_does_not_count():
    wanted = body()
    found = wanted.copy()
    found[1] = 0
    assert similarity(Person(found), Person(wanted), CANVAS) == 1
    neck = np.zeros((18, 3), dtype=np.float32)
    neck[1] = 50, 50, 1
    assert np.isnan(similarity(Person(wanted), Person(neck), CANVAS))
    assert pose_score([pose()], [pose(neck)]).f1.item() == 1


def test_each_point_that_is_missing_costs_its_part():
    wanted = body()
    found = wanted.copy()
    found[4, 2] = 0
    assert similarity(Person(found), Person(wanted), CANVAS) == pytest.approx(16 / 17)


def test_people_are_matched_as_is_best_for_all():
    wanted = [body(0), moved(body(0), 6), moved(body(0), 12)]
    found = [moved(body(0), 11), moved(body(0), 5), moved(body(0), 7)]
    best = max(
        sum(oks(found[place], wanted[number]) for number, place in enumerate(order)) for order in permutations(range(3))
    )
    score = pose_score([pose(*found)], [pose(*wanted)])
    assert score.recall.item() == pytest.approx(best / 3, rel=1e-5)
    assert pose_score([pose(*found[::-1])], [pose(*wanted)]).recall.item() == pytest.approx(best / 3, rel=1e-5)


def test_people_too_many_cost_precision_and_missing_ones_recall():
    one, two = pose(body(0)), pose(body(0), body(1))
    more, less = pose_score([two], [one]), pose_score([one], [two])
    assert more.recall.item() == less.precision.item() == 1
    assert more.precision.item() == pytest.approx(0.5, abs=0.1) and more.precision == less.recall
    assert more.f1.item() == pytest.approx(2 / 3)


def test_nobody():
    nobody, somebody = pose(), pose(body())
    assert pose_score([nobody], [nobody]).f1.item() == 1
    assert pose_score([nobody], [somebody]).f1.item() == pose_score([somebody], [nobody]).f1.item() == 0
    empty = pose(np.zeros((18, 3), dtype=np.float32))
    assert pose_score([empty], [nobody]).f1.item() == 1


def test_slim_people_and_single_points_have_an_area():
    line = body()
    line[:, 0] = 100
    assert 0.5 < similarity(Person(moved(line, 1)), Person(line), CANVAS) < 1
    point = np.zeros((18, 3), dtype=np.float32)
    point[0] = 50, 50, 1
    assert similarity(Person(point), Person(point), CANVAS) == 1
    assert similarity(Person(moved(point, 1)), Person(point), CANVAS) < 0.1


def test_canvases_of_another_size_are_brought_together():
    wanted = body()
    found = wanted.copy()
    found[:, :2] = (wanted[:, :2] + 0.5) * 2 - 0.5
    score = pose_score([pose(found, size=2 * CANVAS)], [pose(wanted)])
    assert score.f1.item() == pytest.approx(1, abs=1e-6)


def test_a_batch_is_its_pictures():
    found, wanted = [pose(body(0)), pose(), pose(moved(body(2), 8))], [pose(body(0)), pose(body(1)), pose(body(2))]
    whole = pose_score(found, wanted)
    assert whole.f1.tolist()[:2] == [1, 0] and 0 < whole.f1[2].item() < 1
    alone = torch.cat([pose_score([a], [b]).f1 for a, b in zip(found, wanted, strict=True)])
    assert torch.equal(alone, whole.f1)


def test_another_number_of_poses_is_refused():
    with pytest.raises(EvaluationError, match=r"^pose: found 1 poses for 2 hints, but one for each was expected; give"):
        pose_score([pose()], [pose(), pose()])
