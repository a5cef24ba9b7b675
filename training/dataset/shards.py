"""Tar files as WebDataset reads them, some thousand files in one: `key.jpg`, `key.txt`, `key.hint.png`, `key.json`.

Beside a tar file of ours lies an index of its name (.json), written last: where it is, the shard is whole. Tar files of others have none and
are looked through.
"""

from __future__ import annotations

import json
import os
import secrets
import tarfile
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from ..checkpoint import remove
from ..errors import TrainingError
from .example import Example, Found, Problem
from .pictures import SUFFIXES

VERSION = 1
SET = "set.json"
"""What a set of shards was made of."""
STEM = "shard-"
CAPTIONS = ("txt", "caption", "text")
"""Names of the caption, the first first; then these words in key.json."""
CAPTION_WORDS = ("caption", "prompt", "text")
HINT = "hint."
HEADER = 512
"""Bytes before the content of each file in a tar file without long names."""


@dataclass(frozen=True)
class Member:
    """A file inside of a tar file, read from there."""

    shard: Path
    offset: int
    size: int
    suffix: str
    """With its dot, in small letters."""
    version: Hashable = ()
    """Of the shard's content."""

    @property
    def stamp(self) -> Hashable:
        return self.shard.name, self.offset, self.size, self.version

    def read(self) -> bytes:
        """Raises OSError."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) != self.size:
            raise OSError(f"'{self.shard}' ends inside of it")
        return content


@dataclass(frozen=True)
class Sample:
    """What a shard holds of one example: suffix with its dot, and content."""

    name: str
    key: str
    picture: tuple[str, bytes]
    caption: str
    hint: tuple[str, bytes]
    facts: Mapping[str, Any]
    """For key.json."""


def write_shard(path: Path, samples: Iterable[Sample | Problem], fingerprint: str) -> tuple[int, int]:
    """Writes `path` (.tar) and its index; how many examples it holds and how many were left out.

    Each comes to its place whole, the index last; a shard without any example has only an index. The same samples give the same bytes.
    Raises TrainingError where the disk refuses, and what `samples` raises.
    """
    index = path.with_suffix(".json")
    for before in path.parent.glob(f"{path.stem}.*.unfinished"):
        remove(before)  # of a process that was killed
    unfinished = _beside(path)
    rows: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    try:
        with unfinished.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                if isinstance(sample, Problem):
                    problems.append({"name": sample.name, "what": sample.what})
                    continue
                row: dict[str, Any] = {"name": sample.name, "caption": sample.caption}
                row["picture"] = _put(tar, file.tell(), sample.key + sample.picture[0], sample.picture[1])
                _put(tar, file.tell(), f"{sample.key}.txt", sample.caption.encode())
                row["hint"] = _put(tar, file.tell(), f"{sample.key}.{HINT[:-1]}{sample.hint[0]}", sample.hint[1])
                facts = json.dumps({"name": sample.name, **sample.facts}, sort_keys=True, ensure_ascii=False)
                _put(tar, file.tell(), f"{sample.key}.json", facts.encode())
                rows.append(row)
        told = {"version": VERSION, "fingerprint": fingerprint, "bytes": unfinished.stat().st_size if rows else 0}
        if rows:
            _into_place(unfinished, path)
        content = json.dumps(told | {"rows": rows, "problems": problems}, ensure_ascii=False, indent=0)
        write_text(index, content)
    except OSError as error:
        raise TrainingError(
            f"The shard '{path}'",
            found=f"could not be written ({error})",
            expected="room and permission for it were expected",
            remedy="free some room and start again to go on; shards that are there are not made again",
        ) from error
    finally:
        remove(unfinished)
    return len(rows), len(problems)


def write_text(path: Path, text: str) -> None:
    """A whole file or none. Raises OSError."""
    unfinished = _beside(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        _into_place(unfinished, path)
    finally:
        remove(unfinished)


def read_shards(folder: Path, on_shard: Callable[[int, int], None] | None = None) -> Found:
    """The examples of all tar files of a folder, those that were left out of them among the problems; pictures stay where they are.

    `on_shard` is called with the number of shards read and of all. Raises TrainingError for a folder without any, and for a tar file that is not
    the one of its index.
    """
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    stems = sorted(
        {path.stem for path in names if path.suffix == ".tar"} | {path.stem for path in names if is_index(path)}
    )
    if not stems:
        raise TrainingError(
            f"The folder of shards '{folder}'",
            found="holds no tar files" if folder.is_dir() else "is not there",
            expected="those that the dataset command or WebDataset writes were expected",
            remedy="give the path of their folder",
        )
    examples: list[Example] = []
    problems: list[Problem] = []
    if (folder / SET).is_file() and any(stem.startswith(STEM) for stem in stems):
        problems += (Problem(**problem) for problem in told_by(folder / SET)["problems"])
    for number, stem in enumerate(stems):
        if on_shard is not None:
            on_shard(number, len(stems))
        tar, index = folder / f"{stem}.tar", folder / f"{stem}.json"
        found = read_index(tar, index) if stem.startswith(STEM) and index.is_file() else read_tar(tar)
        examples += found.examples
        problems += found.problems
    return Found(tuple(examples), tuple(problems))


def is_index(path: Path) -> bool:
    """Whether a file is the index of a shard without examples: there are no others without a tar file beside them."""
    return path.suffix == ".json" and path.stem.startswith(STEM) and not path.with_suffix(".tar").exists()


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{STEM}{number:06d}.tar"


def is_whole(path: Path) -> bool:
    """Whether a shard (.tar) was written to its end."""
    return path.with_suffix(".json").is_file()


def told_by(index: Path) -> dict[str, Any]:
    """The content of the index of a shard or a set. Raises TrainingError."""
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or told.get("version") != VERSION or not isinstance(told.get("problems"), list):
            raise ValueError("it is of another kind or version")
        return told
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"The index '{index}'",
            found=f"cannot be read ({error})",
            expected="the one that was written with its shard was expected",
            remedy="delete it and start the dataset command again, which makes it anew",
        ) from error


def read_index(tar: Path, index: Path) -> Found:
    """What the index of a shard tells. Raises TrainingError."""
    told = told_by(index)
    size = tar.stat().st_size if tar.is_file() else 0
    if size != told["bytes"]:
        raise TrainingError(
            f"The shard '{tar}'",
            found=f"has {size} bytes",
            expected=f"{told['bytes']} were expected by the index beside it",
            remedy="copy it again, or delete both and start the dataset command again, which makes this shard anew",
        )
    version = told["fingerprint"]

    def member(place: tuple[str, int, int]) -> Member:
        suffix, offset, length = place
        return Member(tar, offset, length, suffix, version)

    examples = [
        Example(row["name"], member(row["picture"]), row["caption"], member(row["hint"])) for row in told["rows"]
    ]
    return Found(tuple(examples), tuple(Problem(**problem) for problem in told["problems"]))


def read_tar(path: Path) -> Found:
    """What a tar file of WebDataset holds, by its headers: pictures of any kind, a hint where there is one, a caption from a text or a JSON file.

    Raises TrainingError for a file that is no tar file or ends early.
    """
    groups: dict[str, dict[str, Member]] = {}
    state = path.stat()
    version = (state.st_size, state.st_mtime_ns)
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                place, _, name = info.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not info.isreg() or info.issparse() or not dot or not stem:
                    continue
                suffix = f".{ending.rpartition('.')[2].lower()}"
                member = Member(path, info.offset_data, info.size, suffix, version)
                groups.setdefault(f"{place}/{stem}" if place else stem, {})[ending.lower()] = member
            # The library takes a file that ends before its last block, of zeros, for a whole one.
            if Member(path, tar.offset, HEADER, "").read().strip(b"\0"):
                raise tarfile.ReadError("it ends early")
    except (tarfile.TarError, OSError) as error:
        raise TrainingError(
            f"The shard '{path}'",
            found=f"cannot be read ({error})",
            expected="a whole tar file, not compressed, was expected",
            remedy="get it again, or take it out of the folder",
        ) from error
    examples, problems = [], []
    for key, files in groups.items():
        name = f"{path.name}/{key}"
        pictures = [ending for ending in files if f".{ending}" in SUFFIXES]
        hints = [ending for ending in files if ending.startswith(HINT) and f".{ending[len(HINT) :]}" in SUFFIXES]
        if len(pictures) != 1 or len(hints) > 1:
            what = f"has {len(pictures)} pictures" if len(pictures) != 1 else f"has {len(hints)} hints"
            problems.append(Problem(name, what))
            continue
        try:
            caption = _caption(files)
        except (OSError, ValueError) as error:
            problems.append(Problem(name, f"has a caption that cannot be read ({error})"))
            continue
        examples.append(Example(name, files[pictures[0]], caption, files[hints[0]] if hints else None))
    return Found(tuple(examples), tuple(problems))


def _caption(files: Mapping[str, Member]) -> str:
    for ending in CAPTIONS:
        if ending in files:
            return files[ending].read().decode("utf-8-sig").strip()
    facts = json.loads(files["json"].read()) if "json" in files else {}
    words = (facts.get(word) for word in CAPTION_WORDS) if isinstance(facts, dict) else ()
    return next((word.strip() for word in words if isinstance(word, str)), "")


def _put(tar: tarfile.TarFile, start: int, name: str, content: bytes) -> tuple[str, int, int]:
    """Suffix, offset and size of the file that was added. Nothing in it tells when or by whom it was made."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, BytesIO(content))
    return os.path.splitext(name)[1], start + HEADER, len(content)


def _beside(path: Path) -> Path:
    """A name that no other process has, on whatever machine."""
    return path.with_name(f"{path.stem}.{secrets.token_hex(4)}.unfinished")


def _into_place(unfinished: Path, path: Path) -> None:
    with unfinished.open("rb+") as written:
        os.fsync(written.fileno())
    unfinished.replace(path)
