"""Layouts of the real bases, and any other."""

from hypothesis import strategies as st

from control_composer.residuals import Layout

SD1 = Layout(
    tuple((i // 3, (320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280, 1280, 1280)[i]) for i in range(12)), (3, 1280)
)
SDXL = Layout(tuple((i // 3, (320, 320, 320, 320, 640, 640, 640, 1280, 1280)[i]) for i in range(9)), (2, 1280))


@st.composite
def layouts(draw):
    """Any number of levels with any number of blocks."""
    levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    channels = draw(st.integers(1, 3))
    encoder = tuple((level, channels * 2**level) for level, count in enumerate(levels) for _ in range(count))
    return Layout(encoder, encoder[-1])
