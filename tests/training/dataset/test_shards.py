"""Tar files of examples: ours with their index, and those of others."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from control_composer.training.dataset import shards
from control_composer.training.dataset.example import Problem
from control_composer.training.dataset.pictures import read_picture
from control_composer.training.dataset.shards import Member, Sample, read_shards, shard_path, write_shard
from control_composer.training.dataset.sources import from_shards, is_shards
from control_composer.training.errors import TrainingError


def png(colour: str, size: tuple[int, int] = (6, 4)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def sample(number: int, caption: str = "grün") -> Sample:
    picture, hint = ("red", "blue")[number % 2], ("white", "black")[number % 2]
    key = f"{number:09d}"
    return Sample(f"set/{number}.PNG", key, (".png", png(picture)), caption, (".png", png(hint)), {"width": 6})


def tar(path: Path, files: dict[str, bytes], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def refused(folder: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        read_shards(folder)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 3)
    broken = Problem("set/7.png", "the picture is not there")
    assert write_shard(path, [sample(0), broken, sample(1, "")], "abc") == (2, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shard-000003.json", "shard-000003.tar"]
    found = from_shards(tmp_path)
    assert [example.name for example in found.examples] == ["set/0.PNG", "set/1.PNG"]
    assert [example.caption for example in found.examples] == ["grün", ""]
    assert found.problems == (broken,)
    for number, example in enumerate(found.examples):
        assert isinstance(example.picture, Member) and isinstance(example.hint, Member)
        assert example.picture.read() == sample(number).picture[1]
        assert example.hint.read() == sample(number).hint[1]
        assert example.picture.suffix == ".png"
    assert read_picture(found.examples[0].picture).getpixel((0, 0)) == (255, 0, 0)
    assert is_shards(tmp_path)


def test_the_tar_file_is_what_webdataset_reads(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, [sample(0), sample(1)], "abc")
    with tarfile.open(path) as file:
        names = file.getnames()
        facts = json.load(file.extractfile("000000001.json"))  # type: ignore[arg-type]
        assert file.extractfile("000000000.txt").read() == "grün".encode()  # type: ignore[union-attr]
        assert {(info.mtime, info.uid, info.uname) for info in file} == {(0, 0, "")}
    assert names == [f"{key}.{end}" for key in ("000000000", "000000001") for end in ("png", "txt", "hint.png", "json")]
    assert facts == {"name": "set/1.PNG", "width": 6}


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for number in (1, 2):
        write_shard(shard_path(tmp_path, number), [sample(0), sample(1)], "abc")
    one, two = shard_path(tmp_path, 1), shard_path(tmp_path, 2)
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".json").read_bytes() == two.with_suffix(".json").read_bytes()


def test_the_index_and_the_headers_tell_the_same(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, [sample(0), sample(1)], "abc")
    by_index = read_shards(tmp_path).examples
    path.with_suffix(".json").unlink()
    for one, other in zip(by_index, read_shards(tmp_path).examples, strict=True):
        assert one.caption == other.caption
        for mine, theirs in ((one.picture, other.picture), (one.hint, other.hint)):
            assert isinstance(mine, Member) and isinstance(theirs, Member)
            assert (mine.offset, mine.size, mine.suffix) == (theirs.offset, theirs.size, theirs.suffix)


def test_a_copied_set_is_the_same_set(tmp_path: Path) -> None:
    stamps = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shard(shard_path(tmp_path / name, 0), [sample(0)], "abc")
        picture = read_shards(tmp_path / name).examples[0].picture
        assert isinstance(picture, Member)
        stamps.append(repr(picture.stamp))
    assert stamps[0] == stamps[1]


def test_a_shard_in_which_nothing_was_good_is_known(tmp_path: Path) -> None:
    broken = Problem("a.png", "the picture is not there")
    assert write_shard(shard_path(tmp_path, 0), [broken], "abc") == (0, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["shard-000000.json"]
    found = read_shards(tmp_path)
    assert found.examples == () and found.problems == (broken,)


def test_tar_files_of_others(tmp_path: Path) -> None:
    files = {
        "a/1.JPG": png("red"),
        "a/1.txt": b" one ",
        "a/2.png": png("red"),
        "a/2.json": json.dumps({"caption": "two", "prompt": "no"}).encode(),
        "a/2.hint.png": png("blue"),
        "3.png": png("red"),
        "4.png": png("red"),
        "4.webp": png("red"),
        "5.txt": b"no picture",
        "6.png": png("red"),
        "6.txt": b"\xff\xfe\xff",
        "a/._1.JPG": b"left by macOS",
        "__key__": b"",
    }
    tar(tmp_path / "00000.tar", files)
    # Such as other programs put beside theirs.
    (tmp_path / "00000.json").write_text("{}")
    (tmp_path / "set.json").write_text("{}")
    found = read_shards(tmp_path)
    assert [(one.name, one.caption, one.hint is None) for one in found.examples] == [
        ("00000.tar/a/1", "one", True),
        ("00000.tar/a/2", "two", False),
        ("00000.tar/3", "", True),
    ]
    assert [(one.name, one.what.split(" (")[0]) for one in found.problems] == [
        ("00000.tar/4", "has 2 pictures"),
        ("00000.tar/5", "has 0 pictures"),
        ("00000.tar/6", "has a caption that cannot be read"),
    ]
    hint = found.examples[1].hint
    assert isinstance(hint, Member) and hint.read() == files["a/2.hint.png"]


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(layout: int, tmp_path: Path) -> None:
    name = "ü" * 90 + "/" + "n" * 120
    tar(tmp_path / "x.tar", {f"{name}.png": png("red"), f"{name}.txt": b"word"}, format=layout)
    (example,) = read_shards(tmp_path).examples
    assert example.caption == "word"
    assert read_picture(example.picture).size == (6, 4)


def test_what_is_no_shard_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith(
        "holds no tar files, but those that the dataset command or WebDataset writes were expected; give the path of their folder."
    )
    assert "is not there, but" in refused(tmp_path / "no")
    path = shard_path(tmp_path, 0)
    write_shard(path, [sample(0), sample(1)], "abc")
    content, index = path.read_bytes(), path.with_suffix(".json").read_text()
    path.write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes, but {len(content)} were expected by the index beside it; copy" in refused(
        tmp_path
    )
    path.unlink()
    assert "has 0 bytes, but" in refused(tmp_path)
    path.write_bytes(content)
    path.with_suffix(".json").write_text(index.replace('"version": 1', '"version": 2'))
    assert "cannot be read (it is of another kind or version), but the one that was written" in refused(tmp_path)
    path.with_suffix(".json").unlink()
    # Inside of a file, of a header, of the last file.
    for cut in (700, content.index(b"000000001.txt") + 99, content.index(b'{"name": "set/1.PNG"') + 5):
        path.write_bytes(content[:cut])
        assert "cannot be read (" in refused(tmp_path) and "; get it again, or take it out" in refused(tmp_path)


def test_a_tar_file_that_shrinks_later_is_a_problem_of_its_pictures(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, [sample(0)], "abc")
    (example,) = read_shards(tmp_path).examples
    path.write_bytes(path.read_bytes()[:600])
    assert isinstance(example.hint, Member)
    with pytest.raises(OSError, match="ends inside of it"):
        example.hint.read()


def test_what_a_killed_process_left_of_a_shard_goes(tmp_path: Path) -> None:
    for name in ("shard-000000.12ab.unfinished", "shard-000001.12ab.unfinished"):
        (tmp_path / name).write_bytes(b"half of a tar file")
    write_shard(shard_path(tmp_path, 0), [sample(0)], "abc")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"shard-000000.json", "shard-000000.tar", "shard-000001.12ab.unfinished"}


def test_a_full_disk_leaves_whole_shards_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(shard_path(tmp_path, 0), [sample(0)], "abc")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(
        TrainingError, match=r"shard-000001.tar' could not be written \(.*No space.*\).*; free some room"
    ):
        write_shard(shard_path(tmp_path, 1), [sample(1)], "abc")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shard-000000.json", "shard-000000.tar"]
