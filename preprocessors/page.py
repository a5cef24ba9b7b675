"""The table of all preprocessors in docs/preprocessors.md: `python host.py python -m control_composer.preprocessors.page` prints it."""

from __future__ import annotations

from collections.abc import Iterable

from . import PREPROCESSORS, Preprocessor

HEAD = "| node | hint | networks |\n|---|---|---|"


def table(preprocessors: Iterable[Preprocessor] = PREPROCESSORS) -> str:
    """A row for each, in the order of the menu."""
    return "\n".join([HEAD, *(row(preprocessor) for preprocessor in preprocessors)])


def row(preprocessor: Preprocessor) -> str:
    return f"| {preprocessor.name} | {preprocessor.output} | {', '.join(preprocessor.annotators)} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
