"""What the dataset command is told: one JSON file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from .sharded import ShardSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATHS = ("pictures", "hints", "shards", "annotators")
NEEDED = ("pictures", "shards")


@dataclass(frozen=True)
class ShardConfig:
    """Paths are absolute, or as seen from the file's folder."""

    pictures: Path
    """A folder of pictures with captions, a JSONL file, or a folder of tar files of WebDataset."""
    shards: Path
    """The folder that becomes the set."""
    hints: Path | None = None
    """The folder of the hints of a folder of pictures."""
    condition: str = ""
    """The id of the preprocessor that makes the hints; "" where they are with the pictures."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the preprocessor; its defaults where nothing is said."""
    annotators: Path | None = None
    """The folder with the files of its networks."""
    device: str = "auto"
    dtype: str = "fp32"
    """In which networks compute."""
    settings: ShardSettings = field(default_factory=ShardSettings)


def read_shard_config(path: Path) -> ShardConfig:
    """The keys of the settings lie beside the others in the file. Raises TrainingError."""
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _wrong(path, f"cannot be read ({error})", "a JSON file was expected", "correct it") from error
    if not isinstance(told, dict):
        raise _wrong(path, "holds no object", "keys and values in braces were expected", "correct it")
    settings = {one.name for one in fields(ShardSettings)}
    known = [one.name for one in fields(ShardConfig) if one.name != "settings"] + sorted(settings)
    for key in told:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise _wrong(
                path,
                f"has the unknown key '{key}'",
                f"only {', '.join(known)} were expected",
                f"did you mean '{near[0]}'?" if near else "correct or remove it",
            )
    for key in NEEDED:
        if not told.get(key):
            raise _wrong(path, f"has no '{key}'", "one was expected", "add it")
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        **{key: (lambda value: isinstance(value, str), "a path in quotes") for key in PATHS},
        "condition": (lambda value: isinstance(value, str), "the id of a preprocessor in quotes"),
        "parameters": (lambda value: isinstance(value, dict), "an object of names and values"),
        "device": (_is_device, "auto, cpu, cuda or cuda with a number"),
        "dtype": (lambda value: value in DTYPES, " or ".join(DTYPES)),
        "empty_captions": (lambda value: isinstance(value, bool), "true or false"),
    }
    given = {key: value for key, value in told.items() if value is not None}
    for key, (holds, wanted) in checks.items():
        if key in given and not holds(given[key]):
            raise _wrong(path, f"has '{key}' {json.dumps(given[key])}", f"{wanted} was expected", "change it")
    folder = path.resolve().parent
    for key in PATHS:
        if given.get(key):
            given[key] = (folder / Path(given[key]).expanduser()).resolve()
        else:
            given.pop(key, None)
    own = {key: given.pop(key) for key in settings if key in given}
    return ShardConfig(**given, settings=ShardSettings(**own))


def _is_device(value: object) -> bool:
    name, colon, number = str(value).partition(":")
    return (
        isinstance(value, str)
        and name in ("auto", "cpu", "cuda")
        and (not colon or (name == "cuda" and number.isdigit()))
    )


def _wrong(path: Path, found: str, expected: str, remedy: str) -> TrainingError:
    return TrainingError(f"The file '{path}'", found=found, expected=expected, remedy=remedy)
