"""Picture -> hint: one pure function per file, and the explicit list of all of them."""

from __future__ import annotations

from .canny import canny
from .errors import PreprocessorError
from .preprocessor import Parameter, Preprocessor

CANNY = Preprocessor(
    id="Canny",
    name="Canny",
    function=canny,
    parameters=(
        Parameter(
            "low",
            default=100,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="Edges weaker than this are dropped; between low and high they stay if they touch a strong one.",
        ),
        Parameter(
            "high",
            default=200,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="Edges stronger than this always stay. Lower it to get more lines.",
        ),
    ),
    output="one-pixel white edges on black",
    description="OpenCV's Canny edge detector, as ControlNet canny and the edge-trained controls expect it.",
    aliases=("edge detection", "outline", "line art", "CannyEdgePreprocessor"),
)

PREPROCESSORS: tuple[Preprocessor, ...] = (CANNY,)

__all__ = ["CANNY", "PREPROCESSORS", "Parameter", "Preprocessor", "PreprocessorError", "canny"]
