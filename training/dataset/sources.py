"""Where examples come from: a folder, a JSONL file, shards, lists of pictures."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from torch import Tensor

from ..errors import TrainingError
from .example import Example, Found, Problem
from .pictures import FOREIGN, SUFFIXES
from .shards import read_shards

CAPTIONS = (".txt", ".caption")
"""Where both lie beside a picture, the first counts."""
PICTURE_KEYS = ("target", "image", "file_name")
HINT_KEYS = ("source", "conditioning_image", "conditioning_image_file_name")
CAPTION_KEYS = ("prompt", "text", "caption")
"""The first of each are those of fill50k in the tutorial of the ControlNet repository; then those that `datasets` and its examples use."""


def from_folder(pictures: Path, hints: Path | None = None) -> Found:
    """The picture files of a folder and the folders in it, with captions of their name beside them (.txt, .caption) and hints of their name in
    the same place of the folder `hints`. Raises TrainingError for what is no folder and one without pictures.
    """
    if hints is not None and pictures.is_dir() and hints.is_dir() and pictures.samefile(hints):
        raise TrainingError(
            f"The folder of hints '{hints}'",
            found="is the folder of pictures",
            expected="another one was expected",
            remedy="put the hints into a folder of their own, under the pictures' names",
        )
    listed = _pictures(pictures, "pictures", hints)
    by_stem = Counter(_stem(name) for name in listed)
    offered: dict[str, list[str]] = {}
    if hints is not None:
        for name in _pictures(hints, "hints", pictures):
            offered.setdefault(_stem(name), []).append(name)
    captions = {suffix: {_stem(name): name for name in _files(pictures, {suffix}, hints)} for suffix in CAPTIONS}
    examples, problems = (
        [],
        [
            Problem(name, "is of a kind that cannot be read; save it as PNG or JPEG")
            for name in _files(pictures, FOREIGN, hints)
        ],
    )
    for name in listed:
        stem = _stem(name)
        try:
            if by_stem[stem] > 1:
                raise _OddError(
                    f"shares its name with {_many(by_stem[stem] - 1)}, so a caption or hint cannot be told to be its own"
                )
            hint = None if hints is None else hints / _hint(name, offered.get(stem, []))
            beside = next((found[stem] for found in captions.values() if stem in found), None)
            caption = "" if beside is None else _caption(pictures / beside)
        except _OddError as odd:
            problems.append(Problem(name, str(odd)))
        else:
            examples.append(Example(name, pictures / name, caption, hint))
    for what, names in (("caption", captions.values()), ("hint", [offered])):
        alone = sorted({stem for found in names for stem in found} - by_stem.keys())
        problems += [Problem(stem, f"is a {what} without a picture of its name") for stem in alone]
    return Found(tuple(examples), tuple(problems))


def from_jsonl(path: Path) -> Found:
    """One example a line, as fill50k of the ControlNet tutorial: {"source": hint, "target": picture, "prompt": caption}; hints may be missing.

    Names of files are relative to the file's folder. Other names for the three: `CAPTION_KEYS` and its like. Raises TrainingError for what is no
    such file.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"'{path}'",
            found=f"cannot be read ({error})",
            expected="a JSONL file in UTF-8 was expected",
            remedy="give the path of one",
        ) from error
    examples, problems, seen = [], [], Counter[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            picture, hint, caption = _fields(line)
        except _OddError as odd:
            problems.append(Problem(f"{path.name}, line {number}", str(odd)))
            continue
        seen[picture] += 1
        name = picture if seen[picture] == 1 else f"{picture} (line {number})"
        examples.append(Example(name, path.parent / picture, caption, None if hint is None else path.parent / hint))
    if not examples and not problems:
        raise _empty(path, "a line of JSON for each picture")
    return Found(tuple(examples), tuple(problems))


def from_lists(
    images: Sequence[Tensor], texts: Sequence[str] | None = None, hints: Sequence[Tensor] | None = None
) -> Found:
    """Pictures as the host's dataset nodes give them: each of `images` (B, H, W, C) or (H, W, C) float 0..1, one caption for each or one for
    all, one hint for each. Raises TrainingError for other numbers of them.
    """
    pictures = _single(images)
    if not pictures:
        raise TrainingError(
            "The connected images",
            found="are none",
            expected="one picture at least was expected",
            remedy="look what the node before gives",
        )
    captions = [""] if texts is None else list(texts)
    if len(captions) == 1:
        captions *= len(pictures)
    own_hints: list[Tensor] = [] if hints is None else _single(hints)
    for what, count in (("texts", len(captions)), ("hints", len(own_hints) if hints is not None else len(pictures))):
        if count != len(pictures):
            raise TrainingError(
                f"The connected {what}",
                found=f"are {count}",
                expected=f"{len(pictures)} were expected, one for each picture",
                remedy="connect lists of the same length",
            )
    given: list[Tensor | None] = [*own_hints] or [None] * len(pictures)
    return Found(
        tuple(
            Example(f"picture {number}", picture, caption.strip(), hint)
            for number, (picture, caption, hint) in enumerate(zip(pictures, captions, given, strict=True), 1)
        )
    )


def from_shards(folder: Path) -> Found:
    """What the dataset command or WebDataset wrote; pictures stay where they are. Raises TrainingError."""
    return read_shards(folder)


def is_shards(path: Path) -> bool:
    """Whether it is a folder with tar files."""
    return path.is_dir() and any(one.suffix == ".tar" for one in path.iterdir())


def from_path(path: Path, hints: Path | None = None) -> Found:
    """Whichever is there: a JSONL file, a folder of shards, or one of pictures, of which alone `hints` can be. Raises TrainingError."""
    if not path.is_file() and not is_shards(path):
        return from_folder(path, hints)
    if hints is not None:
        raise TrainingError(
            f"The folder of hints '{hints}'",
            found=f"is given beside '{path}'",
            expected="none was expected, since that says itself where its hints are",
            remedy="leave it out",
        )
    return from_jsonl(path) if path.is_file() else from_shards(path)


class _OddError(ValueError):
    """Why an example is left out."""


def _pictures(folder: Path, what: str, without: Path | None) -> list[str]:
    if not folder.is_dir():
        raise TrainingError(
            f"The folder of {what} '{folder}'",
            found="is a file" if folder.exists() else "is not there",
            expected="a folder of picture files was expected",
            remedy="give the path of one",
        )
    names = _files(folder, SUFFIXES, without)
    if not names:
        raise _empty(folder, f"picture files ({', '.join(sorted(SUFFIXES))})")
    return names


def _files(folder: Path, suffixes: AbstractSet[str], without: Path | None) -> list[str]:
    """Relative names, sorted, of files with these suffixes in any case, but for those in the folder `without`.

    Hidden ones are none (macOS leaves `._name.jpg` beside each).
    """
    found, seen = [], {os.path.realpath(without)} if without is not None else set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        place = Path(where).relative_to(folder)
        found += [
            (place / name).as_posix()
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found)


def _stem(name: str) -> str:
    """Without suffix; macOS writes accents as letters of their own, others do not."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _hint(name: str, offered: list[str]) -> str:
    if not offered:
        raise _OddError("has no hint of its name")
    if name in offered:
        return name
    if len(offered) > 1:
        raise _OddError(f"has {len(offered)} hints of its name ({', '.join(offered)})")
    return offered[0]


def _caption(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _OddError(f"has a caption that cannot be read as UTF-8 ({error})") from error


def _fields(line: str) -> tuple[str, str | None, str]:
    """Picture, hint, caption."""
    try:
        content = json.loads(line)
    except ValueError as error:
        raise _OddError(f"is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise _OddError("is no JSON object")
    picture, hint, caption = (
        next((content[key] for key in keys if content.get(key) is not None), None)
        for keys in (PICTURE_KEYS, HINT_KEYS, CAPTION_KEYS)
    )
    if not isinstance(picture, str) or not picture:
        raise _OddError(f"names no picture (one of {', '.join(PICTURE_KEYS)})")
    if not isinstance(hint, str | None) or not isinstance(caption, str | None):
        raise _OddError("has a hint or caption that is no text")
    return picture, hint or None, (caption or "").strip()


def _single(images: Sequence[Tensor]) -> list[Tensor]:
    """Batches as their pictures."""
    return [picture for image in images for picture in (image.unbind(0) if image.ndim == 4 else [image])]


def _many(count: int) -> str:
    return "another picture" if count == 1 else f"{count} others"


def _empty(path: Path, expected: str) -> TrainingError:
    return TrainingError(
        f"'{path}'",
        found="is empty",
        expected=f"it was expected to hold {expected}",
        remedy="fill it, or give another path",
    )
