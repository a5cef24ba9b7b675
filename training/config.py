"""What a training on a cluster is told: one JSON file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from .dataset.settings import DatasetSettings
from .errors import TrainingError
from .export import Layout
from .settings import Precision, Settings
from .start import Start

DEMO = "demo"
Form = Literal["copy", "lite"]
Told = TypeVar("Told")


@dataclass(frozen=True)
class CopyConfig:
    """Arguments of `trainable_copy`."""

    hint_channels: int = 3
    start: Start = "zero"
    form: Form = "copy"
    seed: int = 0


@dataclass(frozen=True)
class DatasetConfig:
    """Where pictures, captions and hints lie, and how they are cut."""

    path: Path
    """A folder of shards or of pictures, or a JSONL file."""
    hints: Path | None = None
    """The folder of the hints of a folder of pictures."""
    settings: DatasetSettings = field(default_factory=DatasetSettings)


@dataclass(frozen=True)
class ValidationConfig:
    """Pictures that are drawn while it trains; `rows` 0 for none."""

    rows: int = 4
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
    condition: str = ""
    """The id of the preprocessor that made the hints, by which pictures are measured; where it is empty, as the prepared rows tell."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The preprocessor's."""
    annotators: Path | None = None
    """The folder with the files of its networks."""


@dataclass(frozen=True)
class Config:
    """Paths are absolute, or as seen from the file's folder."""

    base: str
    """"demo", or the path of a checkpoint file."""
    cache: Path
    """The prepared rows; made here where `dataset` is told."""
    folder: Path
    """State, losses and validation."""
    settings: Settings
    copy: CopyConfig = field(default_factory=CopyConfig)
    dataset: DatasetConfig | None = None
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    save: Path | None = None
    """The file of the finished control, in the diffusers layout its folder."""
    layout: Layout = "cldm"
    dtype: Precision = "fp16"
    about: dict[str, str] = field(default_factory=dict)
    """Words into the file: condition, licence and so on."""


def read_config(path: Path) -> Config:
    """Raises TrainingError for a file that is none, for unknown and missing keys, and for values that cannot be."""
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _wrong(path, f"cannot be read ({error})", "a JSON file was expected", "correct it") from error
    return _Reader(path).config(told)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def config(self, told: Any) -> Config:
        told = self._mapping(told, "")
        parts: dict[str, Any] = {}
        if "settings" in told:
            settings = self._mapping(told["settings"], "settings")
            if isinstance(settings.get("betas"), list):
                settings["betas"] = tuple(settings["betas"])
            parts["settings"] = self._filled(Settings, settings, "settings")
        if "copy" in told:
            parts["copy"] = self._filled(CopyConfig, told["copy"], "copy")
        if "validation" in told:
            validation = self._mapping(told["validation"], "validation")
            validation |= {key: self._path(validation[key], key) for key in ("annotators",) if validation.get(key)}
            parts["validation"] = self._filled(ValidationConfig, validation, "validation")
        if told.get("dataset") is not None:
            parts["dataset"] = self._dataset(self._mapping(told["dataset"], "dataset"))
        if "about" in told:
            about = self._mapping(told["about"], "about")
            parts["about"] = {key: str(value) for key, value in about.items()}
        for key in ("cache", "folder", "save"):
            if told.get(key) is not None:
                parts[key] = self._path(told[key], key)
        if isinstance(told.get("base"), str) and told["base"] != DEMO:
            parts["base"] = str(self._path(told["base"], "base"))
        config = self._filled(Config, told | parts, "")
        self._check(config)
        return config

    def _dataset(self, told: dict[str, Any]) -> DatasetConfig:
        """The settings lie beside the paths in the file."""
        paths = {key: self._path(told[key], key) for key in ("path", "hints") if told.get(key) is not None}
        others = {key: value for key, value in told.items() if key not in ("path", "hints")}
        if "path" not in paths:
            raise self._missing("path", "dataset")
        return DatasetConfig(**paths, settings=self._filled(DatasetSettings, others, "dataset", tuple(paths)))

    def _filled(self, kind: type[Told], told: Any, where: str, others: tuple[str, ...] = ()) -> Told:
        told = self._mapping(told, where)
        # Of a class that this function is given, mypy does not see that it is a dataclass.
        known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
        for key in told:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                names = ", ".join(f"'{name}'" for name in (*others, *known))
                raise _wrong(
                    self.path,
                    f"has the unknown key '{key}'{_inside(where)}",
                    f"only {names} were expected there",
                    f"call it '{near[0]}'" if near else "correct or remove it",
                )
        for name, one in known.items():
            if name not in told and one.default is MISSING and one.default_factory is MISSING:
                raise self._missing(name, where)
        try:
            return kind(**told)
        except TypeError as error:
            raise _wrong(
                self.path,
                f"has a value of the wrong kind{_inside(where)} ({error})",
                "a number where a number belongs and a text where a text does was expected",
                "correct it",
            ) from error

    def _check(self, config: Config) -> None:
        for name, value, allowed in (
            ("layout", config.layout, get_args(Layout)),
            ("dtype", config.dtype, get_args(Precision)),
            ("start", config.copy.start, get_args(Start)),
            ("form", config.copy.form, get_args(Form)),
        ):
            if value not in allowed:
                raise _wrong(self.path, f"has '{name}' {value!r}", f"{' or '.join(allowed)} was expected", "change it")
        for name, number, least in (
            ("rows", config.validation.rows, 0),
            ("steps", config.validation.steps, 1),
            ("seed", config.validation.seed, 0),
            ("seed", config.copy.seed, 0),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise _wrong(
                    self.path, f"has '{name}' {number!r}", f"a whole number from {least} was expected", "change it"
                )
        if config.save is not None and config.copy.form == "lite":
            raise _wrong(
                self.path,
                "has 'save' beside the form 'lite'",
                "a copy of an encoder was expected, since no other program reads a lite control",
                "remove 'save' or use the form 'copy'",
            )

    def _mapping(self, told: Any, where: str) -> dict[str, Any]:
        if not isinstance(told, Mapping):
            raise _wrong(
                self.path,
                f"has {type(told).__name__} {json.dumps(told)}{_inside(where) or ' as a whole'}",
                "an object of keys and values was expected",
                "write it in braces",
            )
        return dict(told)

    def _path(self, told: Any, key: str) -> Path:
        if not isinstance(told, str) or not told:
            raise _wrong(self.path, f"has '{key}' {told!r}", "a path was expected", "write one in quotes")
        return (self.path.resolve().parent / Path(told).expanduser()).resolve()

    def _missing(self, key: str, where: str) -> TrainingError:
        return _wrong(self.path, f"has no '{key}'{_inside(where)}", "one was expected", "add it")


def _inside(where: str) -> str:
    return f" in '{where}'" if where else ""


def _wrong(path: Path, found: str, expected: str, remedy: str) -> TrainingError:
    return TrainingError(f"The file '{path}'", found=found, expected=expected, remedy=remedy)
