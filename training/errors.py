"""What training raises, in one sentence of four parts."""

from __future__ import annotations


class TrainingError(ValueError):
    """What it is about, what was found, what was expected, what to do."""

    def __init__(self, subject: str, *, found: str, expected: str, remedy: str) -> None:
        self.subject = subject
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{subject} {found}, but {expected}; {remedy}.")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.subject, self.found, self.expected, self.remedy)


def _rebuild(kind: type[TrainingError], subject: str, found: str, expected: str, remedy: str) -> TrainingError:
    return kind(subject, found=found, expected=expected, remedy=remedy)
