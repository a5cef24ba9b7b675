"""What a control's file says of the control in words: written when it is saved, kept when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import short

WORDS = {"base": "made for", "condition": "condition", "steps": "steps of training", "licence": "licence"}
"""Name in the file's metadata -> what the description calls it."""


def about_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the metadata of a file say in these words."""
    return {word: metadata[word] for word in WORDS if metadata.get(word, "").strip()}


def about_lines(about: Mapping[str, str]) -> tuple[str, ...]:
    """The same for the description, one fact a line."""
    return tuple(f"{name}: {short(about[word].strip())}" for word, name in WORDS.items() if word in about)
