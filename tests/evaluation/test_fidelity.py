"""Every preprocessor has a measure or a reason why not; hints that are given back are perfect, others are worse, and the pictures show where."""

import numpy as np
import pytest
import torch

from control_composer.evaluation.delta_e import colour_difference
from control_composer.evaluation.edges import edge_score
from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.fidelity import MEASURES, UNMEASURED, fidelity, overlay
from control_composer.evaluation.measures import AREAS, CLASSES, COLOURS, DEPTH, LINES, NORMALS, POSES
from control_composer.evaluation.ssim import ssim
from control_composer.preprocessors import PREPROCESSORS
from control_composer.preprocessors.palettes.ade20k import ADE20K
from control_composer.preprocessors.palettes.coco import COCO
from control_composer.preprocessors.pose import Person, Pose
from control_composer.preprocessors.pose_drawing import drawn

SIDE = 24
ONE_OF_EACH = ("Canny", "HED", "Binary", "SegFormer", "DepthPro", "NormalBAE", "Tile")


def noise(seed: int = 0) -> torch.Tensor:
    return torch.rand((2, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(seed))


def lines(*columns: int) -> torch.Tensor:
    hint = torch.zeros(1, SIDE, SIDE, 3)
    hint[:, :, list(columns)] = 1
    return hint


def standing(x: float) -> Pose:
    body = np.random.default_rng(0).uniform(4, 20, (18, 3)).astype(np.float32)
    body[:, 0] += x
    body[:, 2] = 1
    return Pose(SIDE, SIDE, (Person(body=body),))


def test_every_preprocessor_is_accounted_for():
    assert set(MEASURES) | set(UNMEASURED) == {one.id for one in PREPROCESSORS}
    assert not set(MEASURES) & set(UNMEASURED)


def test_the_measures_are_those_of_what_the_hints_are():
    """The convention that each preprocessor declares decides; the table is held against it."""
    for preprocessor in PREPROCESSORS:
        measure = MEASURES.get(preprocessor.id)
        if measure is None:
            continue
        output = preprocessor.output
        assert (measure is POSES) == (preprocessor.data == "pose")
        assert (measure is DEPTH) == output.startswith("depth")
        assert (measure is NORMALS) == output.startswith("surface normals")
        assert (measure is CLASSES) == output.startswith("classes")
        assert (measure is AREAS) == output.startswith("white where")
        assert (measure is COLOURS) == (
            (output.startswith("the picture") and "grey" not in output) or "squares" in output
        )
        assert measure is not LINES or "white" in output


@pytest.mark.parametrize("identifier", ONE_OF_EACH)
def test_a_hint_that_is_given_back_is_perfect_and_others_are_worse(identifier: str):
    hint, other = noise(), noise(1)
    if identifier == "Canny":
        hint, other = ((one > 0.98).float() for one in (hint, other))
    if identifier == "SegFormer":
        hint, other = (ADE20K.colours()[(one[..., 0] * 5).long()] for one in (hint, other))
    same, different = fidelity(identifier, hint, hint), fidelity(identifier, hint, other)
    assert same.score.tolist() == pytest.approx([1, 1] if same.higher_is_better else [0, 0], abs=1e-5)
    worse = different.score < same.score - 0.01 if same.higher_is_better else different.score > same.score + 0.01
    assert worse.all()
    assert next(iter(different.numbers.values())) is different.score
    for number in different.numbers.values():
        assert number.shape == (2,) and number.dtype == torch.float32


@pytest.mark.parametrize("identifier", ONE_OF_EACH)
def test_a_batch_is_its_pictures(identifier: str):
    hint, other = noise(), noise(1)
    whole, shown = fidelity(identifier, hint, other), overlay(identifier, hint, other, noise(2))
    for number in range(2):
        one = slice(number, number + 1)
        alone = fidelity(identifier, hint[one], other[one])
        for name, value in alone.numbers.items():
            assert value.item() == pytest.approx(whole.numbers[name][number].item(), abs=1e-5)
        assert torch.allclose(overlay(identifier, hint[one], other[one], noise(2)[one]), shown[one], atol=1e-5)


def test_the_hint_is_what_is_wanted_and_the_other_is_what_is_found():
    score = fidelity("Canny", lines(3), lines(3, 20))
    direct = edge_score(lines(3, 20)[..., 0], lines(3)[..., 0])
    assert score.numbers["precision"].item() == direct.precision.item() == 0.5
    assert score.numbers["recall"].item() == direct.recall.item() == 1
    assert score.score.item() == pytest.approx(2 / 3)


def test_soft_and_colour_scores_are_those_of_their_files():
    hint, other = noise(), noise(1)
    assert torch.equal(fidelity("TEED", hint, other).score, ssim(other, hint))
    assert torch.allclose(fidelity("Blur", hint, other).score, colour_difference(other, hint).mean(dim=(1, 2)))


@pytest.mark.parametrize("palette", [ADE20K, COCO])
def test_the_palette_is_that_of_the_hint(palette):
    hint = palette.colours()[60:84].reshape(1, 1, 24, 3).expand(1, 24, 24, 3)
    again = hint.clone()
    again[:, :6] = palette.colours()[3]
    score = fidelity("OneFormer", hint, again)
    assert score.numbers["pixel accuracy"].item() == 0.75
    classes = len({colour for colour, _ in palette.classes[60:84]})
    assert score.score.item() == pytest.approx(0.75 * classes / (classes + 1), abs=1e-5)


def test_people_need_their_poses():
    poses = [standing(0)], [standing(1)]
    hints = torch.stack([drawn(one[0]) for one in poses])
    same = fidelity("DWPose", hints[:1], hints[:1], poses=(poses[0], poses[0]))
    moved = fidelity("OpenPose", hints[:1], hints[1:], poses=poses)
    assert same.score.item() == 1 and 0.2 < moved.score.item() < 0.99
    more = Pose(SIDE, SIDE, (*poses[0][0].people, *standing(3).people))
    two = fidelity("ViTPose", hints[:1], hints[1:], poses=(poses[0], [more]))
    assert (two.numbers["recall"].item(), two.numbers["precision"].item()) == (1, 0.5)
    with pytest.raises(
        EvaluationError, match=r"^fidelity: found no poses for 1 hints of 'DWPose', but one .*; connect"
    ):
        fidelity("DWPose", hints[:1], hints[1:])
    with pytest.raises(EvaluationError, match=r"found 1 and 0 poses for 1 hints"):
        fidelity("DWPose", hints[:1], hints[1:], poses=(poses[0], []))


def test_what_has_no_measure_says_why():
    with pytest.raises(
        EvaluationError, match=r"^fidelity: found the preprocessor 'Shuffle', of which .* because .* but one .*; choose"
    ):
        fidelity("Shuffle", noise(), noise())
    with pytest.raises(
        EvaluationError, match=r"^fidelity: found the unknown preprocessor 'Nothing', but one .*; choose"
    ):
        overlay("Nothing", noise(), noise(), noise())
    with pytest.raises(EvaluationError, match=r"^fidelity: found shapes \(1, 24, 24, 3\) and \(2, 24, 24, 3\), but"):
        fidelity("Canny", noise(), noise()[:1])


def test_empty_hints():
    black = torch.zeros(1, SIDE, SIDE, 3)
    for identifier in ("Canny", "HED", "Binary"):
        assert fidelity(identifier, black, black).score.item() == pytest.approx(1)
    assert fidelity("Canny", black, lines(3)).score.item() == 0
    assert fidelity("MiDaS", black, black).score.item() == pytest.approx(0, abs=1e-6)
    assert fidelity("NormalBAE", black, black).score.isnan().all()
    assert fidelity("SegFormer", black, black).score.isnan().all()


def test_lines_are_green_where_agreed_orange_where_missing_blue_where_added():
    shown = overlay("Canny", lines(2, 10), lines(3, 18), torch.ones(1, SIDE, SIDE, 3))[0, 5]
    assert (shown[2] * 255).round().tolist() == [0, 158, 115]
    assert (shown[10] * 255).round().tolist() == [213, 94, 0]
    assert (shown[18] * 255).round().tolist() == [86, 180, 233]
    dimmed = pytest.approx([0.35, 0.35, 0.35])
    assert shown[3].tolist() == shown[14].tolist() == dimmed  # Within reach of a wanted line, and nothing.


@pytest.mark.parametrize("identifier", [one for one in ONE_OF_EACH if one not in ("Canny", "DepthPro")])
def test_heat_is_where_they_differ(identifier: str):
    hint = noise()[:1] * 0.2 + 0.7
    if identifier == "SegFormer":
        hint = ADE20K.colours()[(noise()[:1, ..., 0] * 5).long()]
    again = hint.clone()
    again[:, :6, :6] = torch.tensor([0.1, 0.2, 0.05])
    if identifier == "NormalBAE":
        again[:, :6, :6] = torch.tensor([0.1, 0.5, 0.5])
    shown = overlay(identifier, hint, again, torch.zeros(1, SIDE, SIDE, 3))[0].sum(dim=2)
    assert shown[5:6, 5:6].min().item() > 0.2
    assert shown[13:, 13:].max().item() < 1e-5


def test_depths_are_aligned_before_they_are_shown():
    black = torch.zeros(1, SIDE, SIDE, 3)
    slope = torch.linspace(0, 1, SIDE).reshape(1, 1, -1, 1).expand(1, SIDE, SIDE, 3)
    assert overlay("MiDaS", slope, slope * 0.3 + 0.5, black).max().item() < 1e-5
    hole = slope.clone()
    hole[:, :6, 18:] = 0
    shown = overlay("MiDaS", slope, hole, black)[0].sum(dim=2)
    assert shown[:6, 18:].min() > shown[8:].max() > 0


def test_people_are_lines_in_the_overlay():
    hint, again = drawn(standing(0))[None], torch.zeros(1, SIDE, SIDE, 3)
    shown = overlay("DWPose", hint, again, again)
    sticks = hint.amax(dim=3) > 0.2
    assert sticks.any()
    orange = (shown[sticks] * 255).round()
    assert torch.equal(orange, torch.tensor([213.0, 94, 0]).expand_as(orange))


def test_pictures_too_small_for_a_window_have_heat_too():
    tiny = torch.zeros(1, 4, 4, 3)
    assert overlay("HED", tiny, tiny + 0.5, tiny).amax().item() > 0.2


def test_pictures_of_another_size_are_refused():
    with pytest.raises(
        EvaluationError, match=r"^overlay: found shapes \(1, 8, 8, 3\) and \(2, 24, 24, 3\), but two equal"
    ):
        overlay("Canny", noise(), noise(), torch.zeros(1, 8, 8, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("identifier", ONE_OF_EACH)
def test_an_accelerator_measures_the_same(identifier: str):
    hint, other = (noise(seed) for seed in (0, 1))
    there = fidelity(identifier, hint.cuda(), other.cuda())
    for name, number in fidelity(identifier, hint, other).numbers.items():
        assert torch.allclose(there.numbers[name].cpu(), number, atol=1e-4)
    shown = overlay(identifier, hint.cuda(), other.cuda(), noise(2).cuda())
    assert torch.allclose(shown.cpu(), overlay(identifier, hint, other, noise(2)), atol=1e-3)
