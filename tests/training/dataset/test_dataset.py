"""Examples become rows of one size; whatever is wrong with one is listed, and the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from control_composer.tests.training.dataset.files import cut_off, noise, ramp, write
from control_composer.training.dataset.dataset import ConditionDataset
from control_composer.training.dataset.errors import DatasetError
from control_composer.training.dataset.example import Example, Found, Problem
from control_composer.training.dataset.hints import Condition
from control_composer.training.dataset.settings import DatasetSettings
from control_composer.training.dataset.sources import from_folder
from control_composer.training.errors import TrainingError

SMALL = DatasetSettings(resolution=128)


def shadow(image: torch.Tensor) -> torch.Tensor:
    """A condition that tells left from right."""
    return (image + image.roll(1, dims=2)) / 2


SHADOW = Condition("Shadow", shadow, {"steps": 1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "pictures" / "square.png", noise(128, 128), "a square to the left")
    write(tmp_path / "pictures" / "wide.jpg", ramp(150, 480), "a wide one")
    write(tmp_path / "pictures" / "small.png", noise(40, 48), "a small one")
    return tmp_path / "pictures"


def test_rows(folder: Path) -> None:
    dataset = ConditionDataset(from_folder(folder), replace(SMALL, widest=4.0), SHADOW)
    assert len(dataset) == 3 and dataset.condition == "Shadow" and dataset.annotate is shadow
    assert [example.name for example in dataset.examples] == ["small.png", "square.png", "wide.jpg"]
    assert dataset.sizes == ((128, 128), (64, 256))
    assert dataset.groups.tolist() == [0, 0, 1] and dataset.groups.dtype == torch.int64
    for index, group in enumerate(dataset.groups.tolist()):
        row = dataset.row(index)
        assert row.picture.dtype == row.hint.dtype == torch.uint8
        assert row.picture.shape == row.hint.shape == (*dataset.sizes[group], 3)
        assert row.caption == dataset.examples[index].caption
        wanted = shadow(row.picture[None].float() / 255)[0] * 255
        assert (row.hint.float() - wanted).abs().max() <= 0.501
    assert torch.equal(dataset.row(1).picture, torch.from_numpy(noise(128, 128)))


def test_hints_are_made_of_the_mirrored_picture(folder: Path, tmp_path: Path) -> None:
    dataset = ConditionDataset(from_folder(folder), replace(SMALL, flip=True), SHADOW, tmp_path / "hints")
    plain, turned = dataset.row(2), dataset.row(3)
    assert torch.equal(turned.picture, plain.picture.flip(1))
    assert not torch.equal(turned.hint, plain.hint.flip(1))
    wanted = shadow(turned.picture[None].float() / 255)[0] * 255
    assert (turned.hint.float() - wanted).abs().max() <= 0.501


def test_hints_that_came_along_are_mirrored(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.*g"):
        write(tmp_path / "hints" / f"{path.stem}.png", 255 - np.asarray(Image.open(path)), None)
    found = from_folder(folder, tmp_path / "hints")
    dataset = ConditionDataset(found, replace(SMALL, flip=True))
    assert dataset.condition == "" and dataset.annotate is None
    plain, turned = dataset.row(2), dataset.row(3)
    assert torch.equal(plain.hint, 255 - plain.picture)
    assert torch.equal(turned.hint, 255 - turned.picture)
    normals = ConditionDataset(found, replace(SMALL, flip=True, hint_kind="normals")).row(3)
    assert torch.equal(normals.hint[..., 1:], turned.hint[..., 1:])
    assert torch.equal(normals.hint[..., 0], 255 - turned.hint[..., 0])


@pytest.mark.parametrize(
    ("kind", "shown", "why"),
    [
        ("pose", "poses", "a right arm would become a left one of the wrong colour"),
        ("text", "text", "letters cannot be read mirrored"),
    ],
)
def test_what_cannot_be_mirrored(folder: Path, kind: str, shown: str, why: str) -> None:
    found, settings = from_folder(folder, None), replace(SMALL, flip=True, hint_kind=kind)
    with pytest.raises(TrainingError) as error:
        ConditionDataset(found, settings)
    assert str(error.value) == (
        f"The setting 'flip' is on for hints that show {shown}, but hints that stay true when mirrored were expected ({why}); "
        "turn it off, or let a preprocessor make the hints."
    )
    assert len(ConditionDataset(found, settings, SHADOW)) == 6


def broken_pairs(folder: Path) -> Found:
    cut_off(write(folder / "half.png", noise(128, 128), "broken"))
    (folder / "text.png").write_text("no picture")
    write(folder / "mute.png", noise(128, 128), None)
    (folder / "text.txt").write_text("words")
    return from_folder(folder)


def test_broken_pairs_are_listed_and_left_out(folder: Path) -> None:
    found = broken_pairs(folder)
    seen: list[int] = []
    dataset = ConditionDataset(found, SMALL, SHADOW, on_example=seen.append)
    assert seen == list(range(6))
    assert [example.name for example in dataset.examples] == ["small.png", "square.png", "wide.jpg"]
    half, *others = dataset.problems
    assert half.name == "half.png" and half.what.startswith("the picture cannot be read (")
    assert others == [
        Problem("mute.png", "has no caption; write one, or allow empty captions"),
        Problem("text.png", "the picture is no picture file that can be read"),
    ]
    allowed = ConditionDataset(found, replace(SMALL, empty_captions=True), SHADOW)
    assert "mute.png" in [example.name for example in allowed.examples]


def test_what_only_shows_when_it_is_read(folder: Path) -> None:
    dataset = ConditionDataset(broken_pairs(folder), replace(SMALL, read_all=False), SHADOW)
    assert [example.name for example in dataset.examples] == ["half.png", "small.png", "square.png", "wide.jpg"]
    with pytest.raises(DatasetError) as error:
        dataset.row(0)
    assert str(error.value).startswith("The picture of 'half.png' cannot be read (")
    assert str(error.value).endswith(
        "), but a whole picture was expected; replace the file or take it out of the set, and make the set again."
    )
    assert dataset.row(1).picture.shape == (128, 128, 3)
    assert dataset.contact_sheet().shape[0] == 1


def test_a_picture_that_was_replaced_meanwhile(folder: Path) -> None:
    dataset = ConditionDataset(from_folder(folder), SMALL, SHADOW)
    write(folder / "small.png", noise(48, 40))
    with pytest.raises(DatasetError) as error:
        dataset.row(0)
    assert "The picture of 'small.png' has another size than when the set was made, but" in str(error.value)


def test_pairs_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    hints = tmp_path / "hints"
    write(hints / "square.png", noise(64, 66), None)
    cut_off(write(hints / "small.png", noise(40, 48), None))
    write(hints / "wide.png", noise(75, 120), None)
    dataset = ConditionDataset(from_folder(folder, hints), SMALL)
    assert [example.name for example in dataset.examples] == ["square.png"]
    small, wide = dataset.problems
    assert small.what.startswith("the hint cannot be read (")
    assert wide == Problem("wide.jpg", "the hint has 120 x 75 pixels, another shape than the picture's 480 x 150")
    with pytest.raises(TrainingError) as error:
        ConditionDataset(from_folder(folder), SMALL)
    what = "has no hint; give it one, or choose a preprocessor"
    assert str(error.value) == (
        f"The set of pictures has none that can be used: 'small.png' {what}; 'square.png' {what}; 'wide.jpg' {what}, "
        "but at least one picture with caption and hint was expected; mend or add files."
    )


def test_nothing_at_all() -> None:
    with pytest.raises(TrainingError, match=r"^The set of pictures is empty, but"):
        ConditionDataset(Found(()))


CHANGES: dict[str, Callable[[Path], object]] = {
    "caption": lambda folder: (folder / "small.txt").write_text("another"),
    "time": lambda folder: os.utime(folder / "small.png", ns=(0, 12345)),
    "size": lambda folder: write(folder / "small.png", noise(40, 49), None),
    "one more": lambda folder: write(folder / "new.png", noise(64, 64)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_tells_other_files(folder: Path, change: str) -> None:
    before = ConditionDataset(from_folder(folder), SMALL, SHADOW).fingerprint
    assert ConditionDataset(from_folder(folder), SMALL, SHADOW).fingerprint == before
    assert len(before) == 64
    CHANGES[change](folder)
    assert ConditionDataset(from_folder(folder), SMALL, SHADOW).fingerprint != before


def test_the_fingerprint_tells_other_settings(folder: Path) -> None:
    found = from_folder(folder)
    pixels = torch.rand(64, 64, 3)
    prints = [
        ConditionDataset(found, SMALL, SHADOW),
        ConditionDataset(found, replace(SMALL, resolution=192), SHADOW),
        ConditionDataset(found, replace(SMALL, seed=1), SHADOW),
        ConditionDataset(found, SMALL, Condition("Shadow", shadow, {"steps": 2})),
        ConditionDataset(found, SMALL, Condition("Other", shadow, {"steps": 1})),
        ConditionDataset(Found((Example("a", pixels, "x"),)), SMALL, SHADOW),
        ConditionDataset(Found((Example("a", pixels.square(), "x"),)), SMALL, SHADOW),
        ConditionDataset(Found((Example("a", pixels, "x", pixels),)), SMALL),
        ConditionDataset(Found((Example("a", pixels, "x", pixels.square()),)), SMALL),
    ]
    assert len({one.fingerprint for one in prints}) == len(prints)


def test_the_report(folder: Path) -> None:
    dataset = ConditionDataset(broken_pairs(folder), replace(SMALL, crops=2, flip=True, widest=4.0), SHADOW)
    lines = dataset.report().split("\n")
    assert lines[:7] == [
        "10 rows of 3 pictures (2 crops, mirrored too)",
        "hints: made by Shadow (steps 1)",
        "128 x 128 pixels: 6 rows",
        "256 x 64 pixels: 4 rows",
        "2 rows fewer than crops ask for: they would show the same part again, or enlarge it",
        "1 picture enlarged, which blurs: most of all small.png, 3.2 times",
        "1 caption with 'left' or 'right', which mirrored pictures make wrong",
    ]
    assert lines[7] == "left out: 3" and lines[8].startswith("  half.png: the picture cannot be read (")
    assert len(lines) == 11


def test_a_long_report_ends(folder: Path) -> None:
    found = from_folder(folder)
    many = Found(found.examples, tuple(Problem(f"{number}", "is lost") for number in range(150)))
    lines = ConditionDataset(many, SMALL, SHADOW).report().split("\n")
    assert lines[-102] == "left out: 150" and lines[-2:] == ["  99: is lost", "  and 50 more"]


def test_the_contact_sheet_shows_what_is_there() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).expand(64, 64, 3)
    # Words, and a language without spaces.
    examples = tuple(Example(f"{number}", red, ("w " if number % 2 else "猫") * 300, 1 - red) for number in range(20))
    sheet = ConditionDataset(Found(examples), replace(SMALL, flip=True)).contact_sheet(6)
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and sheet.min() >= 0 and sheet.max() == 1
    for colour in (red, 1 - red):
        # 6 of 128 x 128 pixels each, and no seventh.
        assert int((sheet == colour[0, 0]).all(dim=3).sum()) == 6 * 128 * 128


def test_the_contact_sheet_has_each_picture_before_any_twice() -> None:
    shades = torch.arange(1, 6) * 40 / 255
    examples = tuple(Example(f"{shade}", shade.expand(64, 64, 1), "x", torch.zeros(64, 64, 3)) for shade in shades)
    dataset = ConditionDataset(Found(examples), replace(SMALL, flip=True))
    for count in (5, 7):
        shown = set((dataset.contact_sheet(count)[0, ..., 0] * 255).round().int().unique().tolist())
        assert {40, 80, 120, 160, 200} <= shown
