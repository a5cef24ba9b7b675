"""What is found in folders, JSONL files and lists, and what is said of the rest."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
import torch

from control_composer.tests.training.dataset.files import noise, write
from control_composer.training.dataset.example import Found, Problem
from control_composer.training.dataset.sources import from_folder, from_jsonl, from_lists
from control_composer.training.errors import TrainingError

PICTURE = noise(8, 8)


def captions(found: Found) -> dict[str, str]:
    return {example.name: example.caption for example in found.examples}


def test_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "b.png", PICTURE, " a bird\n")
    write(tmp_path / "A.JPG", PICTURE, None)
    write(tmp_path / "cats" / "b.webp", PICTURE, "a cat")
    (tmp_path / "A.caption").write_text("a house")
    write(tmp_path / ".hidden" / "c.png", PICTURE)
    (tmp_path / "._b.png").write_text("what macOS leaves")
    (tmp_path / "notes.md").write_text("none of it")
    write(tmp_path / "last.png", PICTURE, None)
    found = from_folder(tmp_path)
    assert captions(found) == {"A.JPG": "a house", "b.png": "a bird", "cats/b.webp": "a cat", "last.png": ""}
    assert found.problems == ()
    assert [example.picture for example in found.examples] == [tmp_path / example.name for example in found.examples]
    assert all(example.hint is None for example in found.examples)


def test_captions_as_people_write_them(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "\u00e9t\u00e9 \u732b") for form in ("NFC", "NFD"))
    write(tmp_path / f"{apart}.png", PICTURE, None)
    (tmp_path / f"{composed}.txt").write_bytes("\ufeffein Sch\u00e4fchen \u732b".encode())
    write(tmp_path / "old.png", PICTURE, None)
    (tmp_path / "old.txt").write_bytes("Sch\u00e4fchen".encode("latin-1"))
    write(tmp_path / "both.png", PICTURE, "this")
    (tmp_path / "both.caption").write_text("not this")
    found = from_folder(tmp_path)
    assert captions(found) == {f"{apart}.png": "ein Sch\u00e4fchen \u732b", "both.png": "this"}
    (problem,) = found.problems
    assert problem.name == "old.png"
    assert problem.what.startswith("has a caption that cannot be read as UTF-8 (")


def test_what_a_folder_cannot_give_is_said(tmp_path: Path) -> None:
    write(tmp_path / "good.png", PICTURE)
    for name in ("same.png", "same.jpg", "thrice.png", "thrice.jpg", "thrice.webp"):
        write(tmp_path / name, PICTURE)
    (tmp_path / "phone.HEIC").write_bytes(b"a photograph")
    (tmp_path / "lost.txt").write_text("words without a picture")
    found = from_folder(tmp_path)
    assert captions(found) == {"good.png": "a thing"}
    shared = "shares its name with {}, so a caption or hint cannot be told to be its own"
    assert set(found.problems) == {
        *(Problem(f"same.{suffix}", shared.format("another picture")) for suffix in ("png", "jpg")),
        *(Problem(f"thrice.{suffix}", shared.format("2 others")) for suffix in ("png", "jpg", "webp")),
        Problem("phone.HEIC", "is of a kind that cannot be read; save it as PNG or JPEG"),
        Problem("lost", "is a caption without a picture of its name"),
    }


@pytest.mark.parametrize("place", ["hints", "pictures/hints"])
def test_hints_of_a_folder(tmp_path: Path, place: str) -> None:
    pictures, hints = tmp_path / "pictures", tmp_path / place
    for name in ("a.png", "b.jpg", "deep/c.png", "d.png", "e.png"):
        write(pictures / name, PICTURE)
    for name in ("a.png", "a.jpg", "b.png", "deep/c.webp", "e.png.png", "f.png", "d.jpg", "d.webp"):
        write(hints / name, PICTURE, None)
    found = from_folder(pictures, hints)
    assert {example.name: example.hint for example in found.examples} == {
        "a.png": hints / "a.png",
        "b.jpg": hints / "b.png",
        "deep/c.png": hints / "deep" / "c.webp",
    }
    assert found.problems == (
        Problem("d.png", "has 2 hints of its name (d.jpg, d.webp)"),
        Problem("e.png", "has no hint of its name"),
        Problem("e.png", "is a hint without a picture of its name"),
        Problem("f", "is a hint without a picture of its name"),
    )


@pytest.mark.skipif(os.name != "posix", reason="links need a right of their own there")
def test_links_that_lead_back(tmp_path: Path) -> None:
    write(tmp_path / "a.png", PICTURE)
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert captions(from_folder(tmp_path)) == {"a.png": "a thing"}


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file = write(tmp_path / "pictures" / "a.png", PICTURE)
    kinds = ".avif, .bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp"
    wanted = "but a folder of picture files was expected; give the path of one."
    for folder, said in {
        tmp_path / "absent": f"The folder of pictures '{tmp_path / 'absent'}' is not there, {wanted}",
        file: f"The folder of pictures '{file}' is a file, {wanted}",
        tmp_path / "empty": f"'{tmp_path / 'empty'}' is empty, but it was expected to hold picture files ({kinds}); "
        "fill it, or give another path.",
    }.items():
        with pytest.raises(TrainingError) as error:
            from_folder(folder)
        assert str(error.value) == said
    with pytest.raises(TrainingError) as error:
        from_folder(file.parent, tmp_path / "absent")
    assert str(error.value) == f"The folder of hints '{tmp_path / 'absent'}' is not there, {wanted}"
    with pytest.raises(TrainingError) as error:
        from_folder(file.parent, file.parent)
    assert str(error.value) == (
        f"The folder of hints '{file.parent}' is the folder of pictures, but another one was expected; "
        "put the hints into a folder of their own, under the pictures' names."
    )


def test_jsonl_as_in_the_tutorial(tmp_path: Path) -> None:
    lines = [
        {
            "source": "source/0.png",
            "target": "target/0.png",
            "prompt": "pale golden rod circle with old lace background",
        },
        {"source": "source/1.png", "target": "target/1.png", "prompt": "light coral circle"},
    ]
    path = tmp_path / "prompt.json"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    found = from_jsonl(path)
    assert found.problems == ()
    assert [(one.name, one.picture, one.caption, one.hint) for one in found.examples] == [
        (line["target"], tmp_path / line["target"], line["prompt"], tmp_path / line["source"]) for line in lines
    ]


def test_jsonl_of_other_tools(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    lines = [
        '{"file_name": "a.png", "text": "one", "conditioning_image": "b.png"}',
        '{"image": "a.png", "caption": "two\u2028and more"}',  # no end of a line, though Python takes it for one
        '{"image": "c.png", "caption": null}',
    ]
    path.write_bytes("\r\n\r\n".join(lines).encode("utf-8-sig"))
    found = from_jsonl(path)
    assert [(one.name, one.caption, one.hint) for one in found.examples] == [
        ("a.png", "one", tmp_path / "b.png"),
        ("a.png (line 3)", "two\u2028and more", None),
        ("c.png", "", None),
    ]
    assert found.problems == ()


def test_lines_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    lines = ['{"target": "a.png"', "[1]", '{"prompt": "x"}', '{"target": "a.png", "prompt": 5}', '{"target": "b.png"}']
    path.write_text("\n".join(lines))
    found = from_jsonl(path)
    assert [example.name for example in found.examples] == ["b.png"]
    first, *others = found.problems
    assert first.name == "set.jsonl, line 1" and first.what.startswith("is no JSON (")
    assert others == [
        Problem("set.jsonl, line 2", "is no JSON object"),
        Problem("set.jsonl, line 3", "names no picture (one of target, image, file_name)"),
        Problem("set.jsonl, line 4", "has a hint or caption that is no text"),
    ]


def test_files_that_are_no_jsonl(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TrainingError) as error:
        from_jsonl(tmp_path / "empty.jsonl")
    assert str(error.value) == (
        f"'{tmp_path / 'empty.jsonl'}' is empty, but it was expected to hold a line of JSON for each picture; "
        "fill it, or give another path."
    )
    for name in ("latin.jsonl", "absent.jsonl"):
        with pytest.raises(
            TrainingError,
            match=r"cannot be read \(.+\), but a JSONL file in UTF-8 was expected; give the path of one\.$",
        ):
            from_jsonl(tmp_path / name)


def test_lists() -> None:
    images = [torch.rand(2, 8, 9, 3), torch.rand(8, 8, 4)]
    hints = [torch.rand(1, 8, 9, 3)] * 3
    found = from_lists(images, ["one ", "two", "three"], hints)
    assert captions(found) == {"picture 1": "one", "picture 2": "two", "picture 3": "three"}
    assert torch.equal(found.examples[1].picture, images[0][1])
    assert torch.equal(found.examples[2].picture, images[1])
    assert torch.equal(found.examples[0].hint, hints[0][0])
    assert set(captions(from_lists(images, ["for all"])).values()) == {"for all"}
    assert set(captions(from_lists(images)).values()) == {""}
    assert from_lists(images).examples[0].hint is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ([],),
            "The connected images are none, but one picture at least was expected; look what the node before gives.",
        ),
        (
            ([torch.rand(3, 8, 8, 3)], ["a", "b"]),
            "The connected texts are 2, but 3 were expected, one for each picture; connect lists of the same length.",
        ),
        (
            ([torch.rand(3, 8, 8, 3)], ["a"], [torch.rand(1, 8, 8, 3)]),
            "The connected hints are 1, but 3 were expected, one for each picture; connect lists of the same length.",
        ),
    ],
)
def test_lists_that_do_not_fit(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(TrainingError) as error:
        from_lists(*arguments)
    assert str(error.value) == said
