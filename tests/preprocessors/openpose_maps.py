"""Maps as OpenPose's networks would give them for drawn figures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.openpose_body import padded_size
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.stick_figures import Answers, perfect_maps

CPU = torch.device("cpu")


def answering(*answers: tuple[Tensor, ...]) -> Network:
    return Network(Answers(*answers), CPU, torch.float32)


def maps_of(people: list[np.ndarray], size: Size) -> Tensor:
    padded = padded_size(size)
    scale = 184 / size.height / 8
    return perfect_maps(people, padded.height // 8, padded.width // 8, scale)


def without(person: np.ndarray, *points: int) -> np.ndarray:
    return np.where(np.isin(np.arange(18), points)[:, None], np.nan, person)
