"""When a control begins to obey."""

import math
import random

import pytest

from control_composer.training.convergence import sudden_step

STEPS = list(range(0, 2100, 100))


def curve(shape, noise=0.0, seed=0):
    source = random.Random(seed)
    return [shape(step / STEPS[-1]) + source.gauss(0, noise) for step in STEPS]


def jump(at):
    return lambda share: 0.15 + 0.6 * (share >= at)


@pytest.mark.parametrize("at", [400, 1000, 1500, 1800])
def test_a_jump_is_found_where_it_is(at):
    scores = curve(jump(at / STEPS[-1]))
    assert sudden_step(STEPS, scores, True) == at
    assert sudden_step(STEPS, [-score for score in scores], False) == at
    assert sudden_step(STEPS, scores, False) is None


def test_order_and_missing_scores_do_not_matter():
    scores = curve(jump(0.5))
    scores[3] = scores[7] = float("nan")
    assert sudden_step(STEPS[::-1], scores[::-1], True) == 1000


@pytest.mark.parametrize(
    "shape",
    [
        lambda share: share,
        lambda share: 1 - math.exp(-4 * share),
        lambda share: 0.3,
        lambda share: math.sqrt(share),
        lambda share: 1 - share,
        # Comes and goes again.
        lambda share: float(0.5 <= share < 0.7),
        # Within the first tenth, too early to tell.
        lambda share: float(share >= 0.05),
    ],
)
def test_what_is_even_slow_or_passing_is_not_sudden(shape):
    assert sudden_step(STEPS, curve(shape), True) is None


def test_a_rise_over_few_validations_is_sudden_and_its_steepest_end_is_told():
    scores = [0.1] * 12 + [0.2, 0.6, 0.7] + [0.75] * 6
    assert sudden_step(STEPS, scores, True) == 1300


def test_noise_hides_few_and_makes_none():
    tries = range(200)
    found = [sudden_step(STEPS, curve(lambda share: float(share >= 0.6), 0.1, seed), True) for seed in tries]
    assert sum(step is not None and abs(step - 1200) <= 100 for step in found) >= 194
    for shape in (lambda share: share, lambda share: 1 - math.exp(-4 * share), lambda share: 0.0):
        assert sum(sudden_step(STEPS, curve(shape, 0.1, seed), True) is not None for seed in tries) <= 2


def test_few_scores_and_other_lengths():
    assert sudden_step([0, 1, 2, 3], [0, 0, 0, 1], True) is None
    assert sudden_step([], [], True) is None
    with pytest.raises(ValueError):
        sudden_step([1], [], True)
