"""The distance between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EvaluationError


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between the normal distributions with the means and covariances of (n, D) and (m, D) features, in the square of their unit; 0 for equal ones.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6 (there of Inception's features: FID). In float64 on the CPU; of
    two thousand features, some seconds. Raises EvaluationError for fewer than two rows, unequal D, and for numbers that are not finite.
    """
    for rows in (first, second):
        check_features(rows)
    if first.shape[1] != second.shape[1]:
        raise EvaluationError(
            f"features: found {first.shape[1]} numbers for each picture of one set and {second.shape[1]} for those of the other, but as many "
            "were expected; take both from the same network."
        )
    (mean_1, covariance_1), (mean_2, covariance_2) = _moments(first), _moments(second)
    values, vectors = torch.linalg.eigh(covariance_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # The trace of the root of the product, whose eigenvalues are those of this symmetric one.
    roots = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp(min=0).sqrt().sum()
    spread = covariance_1.trace() + covariance_2.trace() - 2 * roots
    return max(0.0, float((mean_1 - mean_2).square().sum() + spread))


def check_features(rows: Tensor) -> None:
    """Refuses all but (n, D) finite floats of two or more pictures. Raises EvaluationError."""
    if rows.ndim != 2 or not rows.is_floating_point():
        raise EvaluationError(
            f"features: found {rows.dtype} numbers of shape {tuple(rows.shape)}, but floats (pictures, features) were expected; "
            "take the network's pooled output."
        )
    if len(rows) < 2 or rows.shape[1] == 0:
        raise EvaluationError(
            f"features: found {rows.shape[1]} features of {len(rows)} pictures, but those of 2 pictures or more, of thousands to be of use, "
            "were expected; give more pictures."
        )
    if not bool(torch.isfinite(rows).all()):
        raise EvaluationError(
            "features: found numbers that are NaN or infinite, but finite ones were expected; run the network in fp32."
        )


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.detach().to("cpu", torch.float64)
    mean = rows.mean(dim=0)
    centred = rows - mean
    return mean, centred.T @ centred / (len(rows) - 1)
