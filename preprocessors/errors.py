"""What a preprocessor raises; the one base class lets a caller catch them all."""

from __future__ import annotations


class PreprocessorError(ValueError):
    """A picture or parameter that a preprocessor refuses: says what, what was found, what was expected, what to do."""
