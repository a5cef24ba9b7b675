"""Small hints of the kind that each preprocessor makes."""

import numpy as np
import torch

from control_composer.evaluation.fidelity import MEASURES
from control_composer.evaluation.measures import AREAS, CLASSES, LINES, NORMALS, POSES
from control_composer.preprocessors.palettes.ade20k import ADE20K
from control_composer.preprocessors.pose import Person, Pose
from control_composer.preprocessors.pose_drawing import drawn

SIDE = 20


def hint_like(identifier: str, seed: int) -> torch.Tensor:
    """(1, SIDE, SIDE, 3) in the colours of such a hint, another one for each seed."""
    random = torch.rand((1, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(seed))
    measure = MEASURES[identifier]
    if measure in (LINES, AREAS):
        return (random[..., :1] > (0.98 if measure is LINES else 0.6)).float().expand(-1, -1, -1, 3)
    if measure is CLASSES:
        return ADE20K.colours()[(random[..., 0] * 5).long()]
    if measure is NORMALS:
        return torch.nn.functional.normalize(random * 2 - 1, dim=3) / 2 + 0.5
    if measure is POSES:
        return drawn(pose_like(seed))[None]
    return random


def pose_like(seed: int) -> Pose:
    body = np.random.default_rng(seed).uniform(2, SIDE - 2, (18, 3)).astype(np.float32)
    body[:, 2] = 1
    return Pose(SIDE, SIDE, (Person(body=body),))
