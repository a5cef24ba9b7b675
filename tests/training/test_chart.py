"""Curves as pictures."""

import numpy as np
import pytest

from control_composer.training.chart import COLOURS, Line, chart
from control_composer.training.errors import TrainingError

NAMES = {"title": "t", "x_name": "step", "y_name": "loss"}


def pixels(lines, **options):
    return np.asarray(chart(lines, **(NAMES | options))).astype(int)


def of_colour(picture, number):
    """Where a line's colour is, as rows and columns."""
    colour = [int(COLOURS[number][i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((np.abs(picture - colour) < 30).all(axis=2))


def test_a_line_goes_from_corner_to_corner_and_another_against_it():
    picture = pixels([Line("", [0, 10], [0, 1]), Line("", [0, 10], [1, 0])])
    # The keys of the legend lie above the frame.
    frame = picture[90:]
    for number, rises in ((0, True), (1, False)):
        rows, columns = of_colour(frame, number)
        left, right = rows[columns < columns.min() + 20], rows[columns > columns.max() - 20]
        assert (left.mean() > right.mean()) == rises
        assert abs(left.mean() - right.mean()) > 200
    assert picture.shape == (400, 640, 3)


def test_a_logarithmic_axis_gives_each_power_the_same_width():
    steps = [1, 10, 100]
    rows, columns = of_colour(pixels([Line("", steps, [0, 1, 0])], log_x=True), 0)
    peak = columns[rows == rows.min()].mean()
    assert peak == pytest.approx((columns.min() + columns.max()) / 2, abs=4)
    rows, columns = of_colour(pixels([Line("", steps, [0, 1, 0])]), 0)
    assert columns[rows == rows.min()].mean() < columns.min() + 80
    # What has no logarithm is left out.
    same = [pixels([Line("", x, y)], log_x=True) for x, y in (([0, 1, 10], [9, 1, 2]), ([1, 10], [1, 2]))]
    assert (same[0] == same[1]).all()


def test_no_number_is_a_gap():
    x = list(range(100))
    y = [float("nan") if 40 <= place < 60 else 0.5 for place in x]
    _, columns = of_colour(pixels([Line("", [*x, 100], [*y, 0.0])])[:380], 0)
    there = np.isin(np.arange(640), columns)
    span = np.arange(640)[there]
    middle = slice(int(span.min() + 0.45 * np.ptp(span)), int(span.min() + 0.55 * np.ptp(span)))
    assert not there[middle].any()
    assert there[span.min() : span.min() + 100].all()


def test_a_band_is_pale_and_lies_below_all_lines():
    # The first line's band would cover it, were bands not drawn before lines; the last two only widen the axis.
    banded = Line("b", [0, 1], [0.5, 0.5], band=([0.2, 0.2], [0.8, 0.8]))
    lines = [Line("a", [0, 1], [0.3, 0.3]), banded, Line("", [0, 1], [0, 0]), Line("", [0, 1], [1, 1])]
    picture = pixels(lines)[70:]
    top, bottom = (int(of_colour(picture, number)[0].mean()) for number in (3, 2))
    rows, _ = of_colour(picture, 0)
    assert len(rows) > 500 and int(rows.mean()) == pytest.approx(bottom - 0.3 * (bottom - top), abs=2)

    def shade(y):
        return picture[int(bottom - y * (bottom - top)), 301].sum()

    assert shade(0.1) == shade(0.9) == 3 * 255
    assert 500 < shade(0.25) == shade(0.75) < 3 * 255 - 30


def test_the_mark_stands_at_its_step():
    line = Line("", [0, 100], [0, 1])
    plain, marked = pixels([line]), pixels([line], mark=25)
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    line_columns = columns[rows > 200]
    _, of_line = of_colour(plain, 0)
    expected = of_line.min() + 0.25 * (of_line.max() - of_line.min())
    assert line_columns.min() == pytest.approx(expected, abs=2) and np.ptp(line_columns) <= 1


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [Line("a", [], [])],
        [Line("a", [5], [1e-6])],
        [Line("a", [1, 2], [3, 3])],
        [Line("a", [0, 0], [1e9, -1e9])],
        [Line("a", [0, 1], [float("inf"), float("nan")])],
        [Line("a" * 200, [1, 2], [3, 4]), *(Line(str(i), [1, 2], [i, i]) for i in range(9))],
    ],
)
@pytest.mark.parametrize("log_x", [False, True])
def test_all_that_there_is_can_be_drawn(lines, log_x):
    assert pixels(lines, size=(240, 160), log_x=log_x, mark=0).shape == (160, 240, 3)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(TrainingError) as caught:
        chart([Line("loss", [1, 2], [3], band=([1], [2]))], **NAMES)
    assert str(caught.value) == (
        "The chart's line 'loss' has lists of 2, 1, 1, 1 numbers, but one y for each x was expected, and for each edge of the band; "
        "give lists of one length."
    )
    with pytest.raises(TrainingError, match="was asked for at 200 x 400 pixels, but 240 x 160 at least were expected"):
        chart([], **NAMES, size=(200, 400))
