"""What a measure raises; the one base class lets a caller catch them all."""

from __future__ import annotations


class EvaluationError(ValueError):
    """Something that a measure cannot judge: says what, what was found, what was expected, what to do."""
