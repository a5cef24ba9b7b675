"""One sampling step of many layers: what must be computed, once each, and one sum per block."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import comfy.model_base
import comfy.model_management
import torch
from torch import Tensor

from ..residuals.blocks import Layout
from ..residuals.residuals import Accumulator, Residuals, spread
from .foreign import ForeignControl
from .hint import HintEmbeddings, picture_key, picture_rows
from .layer import Layer
from .network import EncoderNetwork


@dataclass(frozen=True, eq=False)
class Run:
    """What holds for one sampling run: made before it, dropped after it."""

    model_sampling: Any
    unet: Layout | None
    sigma_ranges: tuple[tuple[Any, Any], ...]
    embeddings: HintEmbeddings = field(default_factory=HintEmbeddings)


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the sampler: `chunks` batches of latents, one below the other, each for one conditioning.

    `x_noisy` (B, C, h, w) and `sigma` (B,) are the sampler's values; `kinds` holds 0 for each conditional chunk, as the host marks them.
    """

    x_noisy: Tensor
    sigma: Tensor
    cond: dict[str, Any]
    chunks: int
    options: dict[str, Any]
    run: Run

    @property
    def count(self) -> int:
        return int(self.x_noisy.shape[0])

    @property
    def per_chunk(self) -> int:
        return self.count // self.chunks

    @property
    def size(self) -> tuple[int, int]:
        return int(self.x_noisy.shape[-2]), int(self.x_noisy.shape[-1])

    @property
    def kinds(self) -> list[int]:
        kinds: list[int] = self.options.get("cond_or_uncond") or [0] * self.chunks
        return kinds

    @cached_property
    def latent(self) -> Tensor:
        """The latent as the network sees it."""
        latent: Tensor = self.run.model_sampling.calculate_input(self.sigma, self.x_noisy)
        return latent

    @cached_property
    def timesteps(self) -> Tensor:
        timesteps: Tensor = self.run.model_sampling.timestep(self.sigma)
        return timesteps

    def row_factors(self, layer: Layer) -> tuple[float, ...]:
        """The layer's factor for each row of the batch."""
        return tuple(1.0 if kind == 0 else layer.uncond_strength for kind in self.kinds for _ in range(self.per_chunk))


@dataclass(eq=False)
class Evaluation:
    """One pass of a network, and the layers that share it because they have the same picture."""

    source: EncoderNetwork | ForeignControl
    rows: set[int]
    layers: list[Layer]


def active(layers: Sequence[Layer], step: Step) -> list[Layer]:
    """The layers that act at this step's sigma, with the host's comparison: both ends of a range belong to it."""
    if not layers:
        return []
    sigma = step.sigma[0].cpu()  # one wait for the device, not two per layer
    return [
        layer
        for layer, (start, end) in zip(layers, step.run.sigma_ranges, strict=True)
        if layer.strength != 0 and not (sigma > start or sigma < end)
    ]


def plan(layers: Iterable[Layer], step: Step) -> list[Evaluation]:
    """The fewest network passes for these layers, over the rows that somebody needs."""
    evaluations: dict[Hashable, Evaluation] = {}
    for layer in layers:
        rows = {row for row, factor in enumerate(step.row_factors(layer)) if factor != 0}
        if not rows:
            continue
        key: Hashable = layer.source.key
        if isinstance(layer.source, EncoderNetwork):
            key = (key, layer.source.pooling, layer.source.dtype, picture_key(layer.hint_bchw))
        evaluation = evaluations.setdefault(key, Evaluation(layer.source, set(), []))
        evaluation.rows |= rows
        evaluation.layers.append(layer)
    return list(evaluations.values())


def evaluate(layers: Sequence[Layer], step: Step, previous: Residuals | None) -> Residuals | None:
    """The sum of `previous` and of all layers, in new tensors; `previous` itself where no layer acts at this step."""
    evaluations = plan(active(layers, step), step)
    if not evaluations:
        return previous
    total = Accumulator(previous)
    for evaluation in evaluations:
        accumulate(total, evaluation, step)
    return total.total()


def accumulate(total: Accumulator, evaluation: Evaluation, step: Step) -> None:
    """Evaluates one network and adds its residuals, shaped by each of its layers."""
    source = evaluation.source
    if isinstance(source, ForeignControl):
        rows = list(range(step.count))
        control = source.control.get_control(step.x_noisy, step.sigma, step.cond, step.chunks, step.options)
        if control is None:
            return
        residuals = Residuals.from_host(control)
    else:
        rows = sorted(evaluation.rows)
        residuals = encode(source, evaluation.layers[0].hint_bchw, rows, step)

    blocks = residuals.blocks(step.run.unet, *step.size)
    if step.run.unet is not None:
        residuals.check(blocks, len(rows), source.name)
    fed = residuals.fed(step.run.unet)
    for layer in evaluation.layers:
        factors = step.row_factors(layer)
        weights = dict(zip(fed, layer.block_weights([blocks[position] for position in fed]), strict=True))
        for position, (place, index, residual) in enumerate(residuals.items()):
            shaped, weight = None, weights.get(position, 0.0)
            if residual is not None and weight != 0:
                shaped = spread(shape(residual, layer.gain, weight, [factors[row] for row in rows]), rows, step.count)
            total.add(place, index, shaped)  # None too: the UNet counts from the end of the list


def shape(residual: Tensor, gain: float, weight: float, factors: Sequence[float]) -> Tensor:
    """residual · gain · weight · the factor of each row, in this order, in a new tensor unless all are one.

    The order matters to the last bit: the weighted residual is exactly the flat one times the weight.
    """
    for factor in (gain, weight):
        if factor != 1:
            residual = residual * factor
    if any(factor != 1 for factor in factors):
        by_row = torch.tensor(factors, dtype=residual.dtype, device=residual.device)
        residual = residual * by_row.view(-1, *[1] * (residual.ndim - 1))
    return residual


def encode(network: EncoderNetwork, hint_bchw: Tensor, rows: Sequence[int], step: Step) -> Residuals:
    """The network's residuals for some rows of the step."""
    x, dtype = step.latent, network.dtype
    pictures = min(hint_bchw.shape[0], step.per_chunk)
    embedding = step.run.embeddings.get(network, hint_bchw, *step.size, pictures, x.device)
    context = step.cond.get("crossattn_controlnet", step.cond["c_crossattn"])
    y = step.cond.get("y")
    index = torch.tensor(rows, device=x.device)

    def pick(values: Tensor) -> Tensor:
        return values if len(rows) == step.count else values.index_select(0, index)

    if pictures > 1:
        embedding = embedding.index_select(
            0, torch.tensor(picture_rows(rows, step.per_chunk, pictures), device=x.device)
        )
    return network.residuals(
        pick(x).to(dtype),
        embedding,
        pick(step.timesteps),
        pick(comfy.model_management.cast_to_device(context, x.device, dtype)),
        None if y is None else pick(comfy.model_base.convert_tensor(y, dtype, x.device)),
    )
