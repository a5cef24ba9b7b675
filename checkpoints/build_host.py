"""Controls that the host's own loader makes of a file's weights."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import comfy.controlnet
import torch
from torch import Tensor

from .errors import HostLoaderError, short
from .family import Built, Match

# The first part of what the host fills from the connected model before each run (comfy.controlnet.ControlNetSD35.pre_run).
FROM_MODEL = ("orig_y_embedder.", "x_embedder.")


class HostWords(logging.Handler):
    """The warnings of one thread: all that the host says about weights that it misses."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())

    def __enter__(self) -> HostWords:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


def build_host(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """A `comfy.controlnet.ControlBase` in place of a module; its notes have what the host said. Raises HostLoaderError.

    The host takes tensors out of the dict that it is given.
    """
    problem: Exception | None = None
    with HostWords() as said:
        try:
            control = comfy.controlnet.load_controlnet_state_dict(dict(tensors))
        except Exception as error:  # whatever weights that it did not expect make of the host's loader
            control, problem = None, error
    if control is None:
        words = f"{type(problem).__name__}: {short(' '.join(str(problem).split()))}" if problem else "no reason given"
        raise HostLoaderError(
            match.hyperparameters.path,
            found=f"is {match.family.name} that the host's own loader does not take ({words})",
            expected="one that it knows was expected",
            remedy="update the host, download the file again, or use the nodes that its author made for it",
        ) from problem
    device = torch.device("cpu")
    return Built(
        control, match.dtype, None, device, device, notes=tuple(f"the host says: {short(text)}" for text in said.texts)
    )
