"""What a training in a folder was begun with, so that a second start continues it, ends at once, or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .checkpoint import NAME as STATE
from .errors import TrainingError
from .settings import Settings
from .validation import TABLE as VALIDATION
from .whole import write_whole

NAME = "run.json"
TEACHING = (
    "rate",
    "warm_up",
    "decay",
    "ema",
    "weight_decay",
    "betas",
    "clip",
    "empty_prompts",
    "middle_times",
    "min_snr",
)
"""The settings that decide what is learned and may be changed on the way."""
SECRET = ("base", "data set")
"""Told by a number that says nothing to people."""


@dataclass
class Record:
    """`identity`: what must stay, by a name for people. `settings`: those of the last start. `step`: steps done when it ended."""

    folder: Path
    identity: Mapping[str, Any]
    settings: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    """Spent on training so far."""
    changes: list[str] = field(default_factory=list)
    """Settings that were changed on the way, in words."""
    validation: dict[str, Any] = field(default_factory=dict)
    """What the scores so far were made with."""

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any], settings: Settings) -> Record:
        """That of a new training, or of the one in `folder`. Raises TrainingError where that one is another or cannot go on so."""
        now = _plain(settings)
        new = cls(folder, dict(identity), now)
        try:
            held = json.loads((folder / NAME).read_text(encoding="utf-8"))
            before = cls(folder, **held)
        except FileNotFoundError:
            return new
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"'{folder / NAME}'",
                found=f"cannot be read ({error})",
                expected="what the training was begun with was expected",
                remedy="choose another name to begin anew",
            ) from error
        if not (folder / STATE).is_file():
            return new  # it ended before anything was learned
        before._check_identity(new.identity)
        before.check_steps(settings)
        for name in _changed(before.settings, now):
            before.changes.append(f"{name}: {before.settings[name]} until step {before.step}, then {now[name]}")
        before.settings = now
        return before

    @property
    def finished(self) -> bool:
        return self.step >= int(self.settings["steps"])

    def with_validation(self, now: Mapping[str, Any]) -> None:
        """Lays the scores so far aside where they were made in another way, since the two cannot be compared."""
        table = self.folder / VALIDATION
        if self.validation not in ({}, dict(now)) and table.is_file():
            table.replace(table.with_name(f"{table.stem}_until_step_{self.step}{table.suffix}"))
        self.validation = dict(now)

    def save(self) -> None:
        """Raises TrainingError where the disk refuses."""
        told = {name: value for name, value in asdict(self).items() if name != "folder"}
        text = json.dumps(told, indent=1)
        write_whole(
            self.folder / NAME, lambda beside: beside.write_text(text, encoding="utf-8"), "The training's record"
        )

    def _check_identity(self, now: Mapping[str, Any]) -> None:
        for name, value in now.items():
            before = self.identity.get(name)
            if before == value:
                continue
            secret = name in SECRET
            raise TrainingError(
                self._subject,
                found=f"was begun with another {name}" if secret else f"was begun with {name} {before}",
                expected="the same was expected, since a training cannot change it on the way"
                if secret
                else f"{value} was asked for, and a training cannot change it on the way",
                remedy="choose another name to begin anew, or take back the change to continue",
            )

    def check_steps(self, settings: Settings) -> None:
        """Raises TrainingError where more steps are done than asked for, or all of them with other settings."""
        now = _plain(settings)
        if self.step > now["steps"]:
            raise TrainingError(
                self._subject,
                found=f"has done {self.step} steps",
                expected=f"only {now['steps']} were asked for",
                remedy=f"set steps to {self.step} or more, or choose another name to begin anew",
            )
        changed = _changed(self.settings, now)
        if self.step == now["steps"] and changed:
            name = changed[0]
            raise TrainingError(
                self._subject,
                found=f"has done all of its {self.step} steps with {name} {self.settings[name]}",
                expected=f"{now[name]} was asked for",
                remedy="raise steps to train on so, choose another name to begin anew, or take back the change to get what it has learned",
            )

    @property
    def _subject(self) -> str:
        return f"The training '{self.folder.name}'"


def _plain(settings: Settings) -> dict[str, Any]:
    """As JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in TEACHING if before.get(name) != now[name]]
