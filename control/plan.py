"""What must be computed at a step: which layers act, and the fewest passes of their networks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..residuals.batches import BatchError, picture_of
from ..residuals.schedules import ScheduleError
from .errors import ControlError
from .foreign import ForeignControl
from .hint import picture_key
from .layer import Layer
from .network import EncoderNetwork
from .patch_network import PatchNetwork
from .step import Step

NO_LIMIT = 999999999.9
"""The sigma that the host gives for percent 0 (comfy/model_sampling.py, `percent_to_sigma`), but for models that know none above 1."""


@dataclass(frozen=True, eq=False)
class Act:
    """A layer at one step: the factor of everything it adds, and one more for each row; or the reason why it adds nothing."""

    number: int
    layer: Layer
    gain: float
    factors: tuple[float, ...]
    idle: str = ""

    @property
    def rows(self) -> list[int]:
        return [] if self.idle else [row for row, factor in enumerate(self.factors) if factor != 0]


def act(number: int, layer: Layer, step: Step) -> Act:
    """How a layer acts at a step. The ends of its range belong to it, with the host's own comparison of sigmas."""
    idle = layer.idle
    gain = 0.0
    factors: tuple[float, ...] = ()
    if not idle:
        start, end = step.run.sigma_ranges[number]
        if not everywhere(start, end) and (step.sigma > start or step.sigma < end):
            idle = f"outside {layer.start_percent:g} to {layer.end_percent:g}"
    if not idle:
        gain = layer.gain
        if layer.schedule is not None and not layer.schedule.timeless:
            gain *= layer.schedule(step.moment)
        idle = "" if gain else "the schedule is 0 here"
    if not idle:
        factors = row_factors(layer, step)
        if not any(factors):
            idle = "its balance and strengths leave out all of these rows"
    return Act(number, layer, gain, factors, idle)


def everywhere(start: Any, end: Any) -> bool:
    """Whether a range of sigmas is that of 0 to 1 in the host, so that nobody has to wait for the device to know a step's sigma."""
    return bool(start >= NO_LIMIT and end <= 0)


def row_factors(layer: Layer, step: Step) -> tuple[float, ...]:
    """Balance times the strength of the row's picture."""
    try:
        strengths = layer.picture_strengths(step.total)
    except ScheduleError as problem:
        raise ControlError(f"The schedule of {layer.source.name} does not go with the batch: {problem}") from None
    return tuple(
        (1.0 if kind == 0 else layer.uncond_strength) * strengths[frame] for kind in step.kinds for frame in step.frames
    )


@dataclass(eq=False)
class Evaluation:
    """One picture under one network: the rows that somebody needs, and the layers that share them."""

    source: EncoderNetwork | ForeignControl
    key: Hashable
    rows: set[int]
    acts: list[Act]

    @property
    def layer(self) -> Layer:
        return self.acts[0].layer


@dataclass(frozen=True, eq=False)
class Segment:
    """The rows of an evaluation that one pass computes."""

    evaluation: Evaluation
    rows: tuple[int, ...]


def evaluations_of(acts: Iterable[Act]) -> list[Evaluation]:
    """Layers with the same network, picture and placing are evaluated once; those that act inside of the UNet are not among them."""
    found: dict[Hashable, Evaluation] = {}
    for one in acts:
        layer, source = one.layer, one.layer.source
        if one.idle or isinstance(source, PatchNetwork):
            continue
        key = evaluation_key(layer)
        evaluation = found.setdefault(key, Evaluation(source, key, set(), []))
        evaluation.rows |= set(one.rows)
        evaluation.acts.append(one)
    return list(found.values())


def evaluation_key(layer: Layer) -> Hashable:
    """Equal for layers that one evaluation serves."""
    source = layer.source
    key: Hashable = source.key
    if isinstance(source, EncoderNetwork):
        key = (
            network_key(source),
            tuple((reading.embedding_key, picture_key(hint)) for reading, hint in layer.readings),
            layer.placing,
            layer.batch,
        )
    return key, layer.reuse


def network_key(network: EncoderNetwork) -> Hashable:
    """Equal for networks whose rows one pass can compute."""
    return (network.key, network.pooling, network.dtype)


def passes(evaluations: Sequence[Evaluation], rows_per_pass: Callable[[int], int]) -> Iterator[list[Segment]]:
    """Groups rows that share a network into passes; a foreign control is always on its own.

    `rows_per_pass` tells how many of a network's rows one pass may have.
    """
    waiting: dict[Hashable, list[Segment]] = {}
    totals: dict[Hashable, int] = {}
    for evaluation in evaluations:
        if isinstance(evaluation.source, EncoderNetwork):
            key = network_key(evaluation.source)
            totals[key] = totals.get(key, 0) + len(evaluation.rows)
    for evaluation in evaluations:
        rows = sorted(evaluation.rows)
        if isinstance(evaluation.source, ForeignControl):
            yield [Segment(evaluation, tuple(rows))]
            continue
        key = network_key(evaluation.source)
        group, limit = waiting.setdefault(key, []), rows_per_pass(totals[key])
        while rows:
            room = limit - sum(len(segment.rows) for segment in group)
            taken, rows = rows[:room], rows[room:]
            group.append(Segment(evaluation, tuple(taken)))
            if len(taken) == room:
                yield list(group)
                group.clear()
    yield from (group for group in waiting.values() if group)


def picture_for(layer: Layer, frame: int, total: int, pictures: int | None = None) -> int:
    """The hint for a latent, of as many `pictures` as the layer's hint has, or of another number. Raises ControlError where hints and latents differ in number in a way that cannot be meant."""
    try:
        return picture_of(frame, pictures or layer.hint_bchw.shape[0], total, layer.batch)
    except BatchError as problem:
        raise ControlError(f"The hints for {layer.source.name} do not go with the batch: {problem}") from None
