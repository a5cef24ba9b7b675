"""Two sets of pictures: how far the made ones are from the real ones, in the eyes of a network."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from .errors import EvaluationError
from .frechet import check_features
from .pairs import check_pictures

SUBSET = 1000
"""Pictures in each of KID's subsets, or as many as the smaller set has (Bińkowski et al. 2018, section 4)."""
SUBSETS = 100
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
"""91 MiB. pytorch-fid publishes the same file as pt_inception-2015-12-05-6726825d.pth; the last number begins its SHA-256."""


@dataclass(frozen=True)
class FeatureNetwork:
    name: str
    """Which network it is, with the file that its weights are from: distances in the eyes of two networks cannot be compared."""
    features: Callable[[Tensor], Tensor]
    """(B, H, W, 3) float 0..1 -> (B, D) float"""
    module: nn.Module | None = None
    """What of it can be put on another device, to which `features` then brings the pictures."""


@dataclass(frozen=True)
class SetDistance:
    fid: float
    """Fréchet distance (Heusel et al. 2017), from 0."""
    kid: float
    """Kernel distance (Bińkowski et al., "Demystifying MMD GANs", 2018), the mean of subsets; unbiased, so that it may be below 0."""
    kid_spread: float
    """The subsets' standard deviation."""
    network: str
    """The name of the network whose features these are."""
    real: int
    made: int
    """How many pictures; FID is larger for fewer."""


Pictures = Tensor | Sequence[Tensor]
"""(n, H, W, 3) float 0..1, or several such of several sizes."""


def set_distance(
    real: Pictures, made: Pictures, network: FeatureNetwork, *, batch: int = 16, seed: int = 0
) -> SetDistance:
    """FID and KID by torchmetrics, `batch` pictures through the network at once.

    `seed` draws KID's subsets. Raises EvaluationError where torchmetrics is not installed, for fewer than two pictures, and for broken features.
    """
    fid_class = needed("torchmetrics.image.fid", "torchmetrics").FrechetInceptionDistance
    kid_class = needed("torchmetrics.image.kid", "torchmetrics").KernelInceptionDistance
    sets = {True: features_of(real, network, batch), False: features_of(made, network, batch)}
    for rows in sets.values():
        check_features(rows)
    given = _Given(sets[True].shape[1])
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # That it holds all features in memory.
        torch.manual_seed(seed)
        fid = fid_class(feature=given)
        kid = kid_class(feature=given, subsets=SUBSETS, subset_size=min(SUBSET, *map(len, sets.values())))
        for is_real, rows in sets.items():
            fid.update(rows, real=is_real)
            kid.update(rows, real=is_real)
        mean, spread = kid.compute()
        distance = float(fid.compute())
    return SetDistance(distance, float(mean), float(spread), network.name, len(sets[True]), len(sets[False]))


def features_of(pictures: Pictures, network: FeatureNetwork, batch: int = 16) -> Tensor:
    """(n, D) float64 on the CPU. Raises EvaluationError for anything but finite RGB pictures."""
    batches = [pictures] if isinstance(pictures, Tensor) else pictures
    for one in batches:
        check_pictures("features", one, one)
    with torch.no_grad():
        parts = [network.features(part).to("cpu", torch.float64) for one in batches for part in one.split(batch)]
    return torch.cat(parts)


def inception(tensors: Mapping[str, Tensor], file: str, features: int = 2048) -> FeatureNetwork:
    """The Inception-v3 of the published FID, in torch-fidelity's port, with the weights that were read from `file`.

    `features`: 64, 192, 768 or 2048. Pictures are sized with antialiasing, as torchmetrics does it by itself; the first FID was not, so that numbers
    printed elsewhere may differ. Raises EvaluationError where torchmetrics or torch-fidelity is not installed, or the weights are not its.
    """
    needed("torch_fidelity", "torch-fidelity")
    kind = needed("torchmetrics.image.fid", "torchmetrics").NoTrainInceptionV3
    # torch-fidelity reads files by itself only, and runs whatever code is in them.
    copy = BytesIO()
    torch.save(dict(tensors), copy)
    copy.seek(0)
    try:
        module = kind("inception-v3-compat", [str(features)], feature_extractor_weights_path=copy)
    except RuntimeError as problem:
        lines = str(problem).strip().splitlines()
        raise EvaluationError(
            f"'{file}': found other tensors ({' '.join(lines[:2])[:200]}), but the weights of Inception-v3 in torch-fidelity's port were "
            f"expected; download {INCEPTION_ADDRESS}."
        ) from problem

    def pooled(pictures: Tensor) -> Tensor:
        eight_bit = (pictures.movedim(-1, 1).clamp(0, 1) * 255).round()
        found: Tensor = module(eight_bit.to(next(module.parameters()).device, torch.uint8))
        return found.reshape(len(pictures), -1)

    return FeatureNetwork(
        f"Inception-v3, {features} features, pictures antialiased to 299 × 299 ({file})", pooled, module
    )


def needed(module: str, package: str) -> Any:
    """A module of a package that the pack works without. Raises EvaluationError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise EvaluationError(
            f"Compare Sets: found no package '{package}' ({problem}), but it was expected for this measure; "
            f"install it with: pip install {package}"
        ) from problem


class _Given(torch.nn.Module):
    """For torchmetrics: features that were made before are their own features."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, rows: Tensor) -> Tensor:
        return rows
