"""Conditions on the names of a checkpoint, as data that can explain itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

Names = Mapping[str, object]


class Condition(ABC):
    """Something that holds for a set of names or says what it misses."""

    @abstractmethod
    def missing(self, names: Names) -> tuple[str, ...]:
        """What would have to be there (or be absent), each as a phrase; empty where the condition holds."""

    @abstractmethod
    def evidence(self, names: Names) -> str | None:
        """The first name that speaks for the condition."""

    def holds(self, names: Names) -> bool:
        return not self.missing(names)


@dataclass(frozen=True)
class Key(Condition):
    """Exactly this name."""

    name: str

    def missing(self, names: Names) -> tuple[str, ...]:
        return () if self.name in names else (f"'{self.name}'",)

    def evidence(self, names: Names) -> str | None:
        return self.name if self.name in names else None


@dataclass(frozen=True)
class Starting(Condition):
    """Some name begins like this."""

    part: str

    def missing(self, names: Names) -> tuple[str, ...]:
        return () if self.evidence(names) is not None else (f"keys that begin with '{self.part}'",)

    def evidence(self, names: Names) -> str | None:
        return next((name for name in names if name.startswith(self.part)), None)


@dataclass(frozen=True)
class Containing(Condition):
    """Some name has this in it."""

    part: str

    def missing(self, names: Names) -> tuple[str, ...]:
        return () if self.evidence(names) is not None else (f"keys with '{self.part}'",)

    def evidence(self, names: Names) -> str | None:
        return next((name for name in names if self.part in name), None)


class AllOf(Condition):
    """Every part holds."""

    def __init__(self, *parts: Condition | str) -> None:
        self.parts = tuple(Key(part) if isinstance(part, str) else part for part in parts)

    def missing(self, names: Names) -> tuple[str, ...]:
        return tuple(phrase for part in self.parts for phrase in part.missing(names))

    def evidence(self, names: Names) -> str | None:
        return next((found for part in self.parts if (found := part.evidence(names)) is not None), None)


class AnyOf(AllOf):
    """At least one part holds; when none does, the part nearest to holding is what is missing."""

    def missing(self, names: Names) -> tuple[str, ...]:
        return min((part.missing(names) for part in self.parts), key=len)


class NoneOf(AllOf):
    """No part holds."""

    def missing(self, names: Names) -> tuple[str, ...]:
        return tuple(f"the absence of '{part.evidence(names)}'" for part in self.parts if part.holds(names))

    def evidence(self, names: Names) -> str | None:
        return None
