"""What a set of examples raises beside TrainingError."""

from __future__ import annotations

from ..errors import TrainingError


class DatasetError(TrainingError):
    """One example cannot be read, though its file looked well: whoever reads rows lists it and goes on with the next."""
