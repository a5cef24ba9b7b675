"""The sum of many layers at one step: each network pass once, one sum per block."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

import comfy.model_base
import comfy.model_management
import torch
from torch import Tensor

from ..residuals.accumulator import Accumulator, At
from ..residuals.residuals import Residuals
from ..residuals.rows import picked
from ..residuals.shaping import all_shaped
from .areas import Area
from .features import record_norm, record_norms, watch_features
from .foreign import ForeignControl
from .held import Parts, rows_of
from .layer import Layer
from .network import EncoderNetwork, NetworkInputs
from .patch_network import PatchCall, Patches, PatchNetwork, check_not_compiled, place_patches
from .plan import Act, Evaluation, Segment, act, evaluations_of, passes, picture_for
from .record import Stopwatch
from .recording import record_idle, record_run
from .step import Step


def evaluate(layers: Sequence[Layer], step: Step, previous: Residuals | None) -> Residuals | None:
    """The sum of `previous` and of all layers, in new tensors; `previous` itself where no layer acts at this step.

    In a lane beside the model (`Run.lane`) they have their values only when what the lane hands out was waited for. Raises what the networks raise.
    """
    call = step.run.record.next_call()
    if call > 0 and all(layer.idle for layer in layers):
        return previous  # told at the first call
    acts = [act(number, layer, step) for number, layer in enumerate(layers)]
    for one in acts:
        if one.idle:
            record_idle(one, call, step)
    inside = [one for one in acts if not one.idle and isinstance(one.layer.source, PatchNetwork)]
    # All are made before one is placed: a network may run the model itself, as it is without any of them.
    for one, patches in [(one, patches_of(one, call, step)) for one in inside]:
        place_patches(step.options, patches, one.layer.source.before_others)  # type: ignore[union-attr]
    evaluations = evaluations_of(acts)
    if not evaluations:
        return previous
    result = beside_or_before(evaluations, call, step, previous)
    if step.run.record.inspect:
        blocks = result.blocks(step.run.unet, *step.size)
        record_norms(step.run.record, call, result, blocks)
        watch_features(step.options, step.run.record, call, blocks, step.run.unet)
    return result


def beside_or_before(evaluations: Sequence[Evaluation], call: int, step: Step, previous: Residuals | None) -> Residuals:
    """`sum_of` in the run's lane; where memory does not suffice beside the model, before it, from this step on."""
    run, record = step.run, step.run.record
    for evaluation in evaluations if run.lane.beside else ():
        if isinstance(evaluation.source, EncoderNetwork) and evaluation.source.loads_models:
            # Not beside the model: its own weights may be loaded anew for this.
            embedding_rows(evaluation, sorted(evaluation.rows), step)
    noted = len(record.steps), dict(record.embedding_bytes)
    try:
        with run.lane.work(tensors_read(step, previous)):
            return sum_of(evaluations, call, step, previous)
    except Exception as problem:
        if not (run.lane.beside and comfy.model_management.is_oom(problem)):
            raise
    # Outside of the handler, whose traceback holds on to tensors.
    run.leave_lane("memory did not suffice beside the model")
    del record.steps[noted[0] :]
    record.embedding_bytes = noted[1]
    return sum_of(evaluations, call, step, previous)


def tensors_read(step: Step, previous: Residuals | None) -> list[Tensor]:
    """What was made outside of a call and is read in it."""
    given = [step.x_noisy, step.sigmas, *step.cond.values()]
    before = [] if previous is None else [residual for _, _, residual in previous.items()]
    return [value for value in (*given, *before) if isinstance(value, Tensor)]


def sum_of(evaluations: Sequence[Evaluation], call: int, step: Step, previous: Residuals | None) -> Residuals:
    """The sum of `previous` and of all evaluations: those that are reused, then the passes of the networks."""
    total = Accumulator(previous)
    fresh = [evaluation for evaluation in evaluations if not add_held(total, evaluation, call, step)]
    for evaluation in fresh:
        step.run.held.make_room(held_key(evaluation, step), evaluation.layer.reuse)
    kept: dict[Hashable, Parts] = {evaluation.key: [] for evaluation in fresh if not evaluation.layer.reuse.never}
    todo = [Pass(segments, step) for segments in passes(fresh, step.rows_per_pass)]
    if step.run.lane.beside:
        step.begin()
    in_turn = iter(todo)
    for residuals in step.run.lane.networks((one.key, one.run) for one in todo):
        one = next(in_turn)
        add_pass(total, residuals, one.segments, call, step, one)
        start = 0
        for segment in one.segments:
            if segment.evaluation.key in kept:
                part = (segment.rows, rows_of(residuals, start, len(segment.rows)))
                kept[segment.evaluation.key].append(part)
            start += len(segment.rows)
        del residuals  # or two sets are alive while the next one is computed
    for evaluation in fresh:
        if evaluation.key in kept:
            step.run.held.keep(
                held_key(evaluation, step),
                evaluation.layer.reuse,
                float(step.sigma),
                step.sample_sigmas,
                kept[evaluation.key],
            )
    return total.total()


def without_cycles(step: Step) -> Step:
    """The step for patches: if they held the options that hold them, all that a call makes would stay until Python looks for cycles."""
    cond = {name: value for name, value in step.cond.items() if value is not step.options}
    return replace(step, cond=cond, options=dict(step.options))


def patches_of(one: Act, call: int, step: Step) -> Patches:
    """What a layer's patch network wants done in this call of the UNet."""
    layer, network = one.layer, one.layer.source
    assert isinstance(network, PatchNetwork)
    check_not_compiled(step.options, network.name)
    blocks = network.blocks(*step.size)
    weights = layer.block_weights(blocks)
    patch_call = PatchCall(one, call, without_cycles(step), blocks, weights)
    patches = network.patches(patch_call)
    record_run(one, call, step, patch_call.rows, list(zip(blocks, weights, strict=True)), 0, None, None)
    return patches


def held_key(evaluation: Evaluation, step: Step) -> Hashable:
    """Equal for calls of the sampler that ask for the same: conditionings may come together or one by one, areas and windows in turn."""
    chunks = (tuple(step.options.get("uuids") or ()), tuple(step.kinds), step.frames, step.areas, step.size)
    return evaluation.key, chunks, tuple(sorted(evaluation.rows))


def add_held(total: Accumulator, evaluation: Evaluation, call: int, step: Step) -> bool:
    """Adds what an earlier step gave, if the layers want that and it is there."""
    if evaluation.layer.reuse.never:
        return False
    ends = [float(step.run.sigma_ranges[one.number][1]) for one in evaluation.acts]
    found = step.run.held.reusable(
        held_key(evaluation, step), evaluation.layer.reuse, float(step.sigma), step.sample_sigmas, ends
    )
    if found is None:
        return False
    for rows, residuals in found.parts:
        add_pass(total, residuals, [Segment(evaluation, rows)], call, step, None, found.sigma)
    return True


class Pass:
    """One evaluation of a network for some segments; `words` say in which lane, after it."""

    def __init__(self, segments: Sequence[Segment], step: Step) -> None:
        self.source = segments[0].evaluation.source
        if isinstance(self.source, ForeignControl):
            segments = [replace(segments[0], rows=whole_chunks(segments[0].rows, step))]
        self.segments = segments
        self.stopwatch = Stopwatch(step.x_noisy.device)
        self.words = step.run.lane.words
        self._step = step

    @property
    def key(self) -> Hashable:
        """Passes of one network must not run at the same time."""
        return self.source.key

    def run(self) -> Residuals:
        comfy.model_management.throw_exception_if_processing_interrupted()
        step, source = self._step, self.source
        self.stopwatch.start()
        if isinstance(source, ForeignControl):
            found = source.residuals(self.segments[0].evaluation.layer, self.segments[0].rows, step)
            residuals = Residuals() if found is None else found
        else:
            residuals, how = step.run.lane.residuals(source, inputs_of(source, self.segments, step))
            self.words = "; ".join(filter(None, (self.words, how)))
        self.stopwatch.stop()
        return residuals


def add_pass(
    total: Accumulator,
    residuals: Residuals,
    segments: Sequence[Segment],
    call: int,
    step: Step,
    by: Pass | None,
    held_from: float | None = None,
) -> None:
    """Adds the residuals of some segments, one below the other, of the pass `by`, or reused from the sigma `held_from`."""
    first = segments[0].evaluation.acts[0]
    source = segments[0].evaluation.source
    blocks = residuals.blocks(step.run.unet, *step.size)
    if step.run.unet is not None:
        residuals.check(blocks, sum(len(segment.rows) for segment in segments), source.name)
    fed = residuals.fed(step.run.unet)
    start = 0
    for segment in segments:
        for one in segment.evaluation.acts:
            weights = one.layer.block_weights([blocks[position] for position in fed])
            for position, shaped in add(
                total, residuals, dict(zip(fed, weights, strict=True)), one, segment.rows, start, step
            ):
                if step.run.record.inspect:
                    record_norm(
                        step.run.record, call, blocks[position], shaped, one.number + 1, segment.rows, step.count
                    )
            record_run(
                one,
                call,
                step,
                segment.rows,
                [(blocks[position], weight) for position, weight in zip(fed, weights, strict=True)],
                residuals.nbytes,
                None if by is None else by.stopwatch,
                None if one is first else first,
                held_from,
                *(("", False) if by is None else (by.words, step.run.lane.beside)),
            )
        start += len(segment.rows)


def add(
    total: Accumulator,
    residuals: Residuals,
    weights: Mapping[int, float],
    one: Act,
    rows: Sequence[int],
    start: int,
    step: Step,
) -> Iterator[tuple[int, Tensor]]:
    """Adds a layer's share of a pass: the residuals from row `start` on, for the rows `rows` of the batch. Yields what was added."""
    chosen: dict[int, tuple[At, Tensor]] = {}
    for position, (place, index, residual) in enumerate(residuals.items()):
        if residual is None or weights.get(position, 0.0) == 0:
            total.add(place, index, None)  # the UNet counts from the end of the list
            continue
        part = residual if residual.shape[0] in (1, len(rows)) else residual[start : start + len(rows)]
        chosen[position] = (place, index), part
    parts, made = all_shaped(
        [part for _, part in chosen.values()],
        one.gain,
        [weights[position] for position in chosen],
        [one.factors[row] for row in rows],
    )
    if one.layer.mask is not None:
        parts, made = [part * step.run.masks.rows(one.layer, step, rows, part) for part in parts], True
    total.add_rows([at for at, _ in chosen.values()], parts, rows, step.count, made)
    yield from zip(chosen, parts, strict=True)


def whole_chunks(rows: Sequence[int], step: Step) -> tuple[int, ...]:
    """All rows of the chunks that some of `rows` are in: a foreign control knows batches by chunks."""
    chunks = sorted({row // step.per_chunk for row in rows})
    return tuple(chunk * step.per_chunk + row for chunk in chunks for row in range(step.per_chunk))


def inputs_of(network: EncoderNetwork, segments: Sequence[Segment], step: Step) -> NetworkInputs:
    """What the network reads for the rows of some segments, one below the other."""
    x, dtype = step.latent, network.dtype
    rows = [row for segment in segments for row in segment.rows]
    embeddings = [embedding_rows(segment.evaluation, segment.rows, step) for segment in segments]
    if len(segments) > 1:
        embeddings = [
            embedding.expand(len(segment.rows), -1, -1, -1)
            for embedding, segment in zip(embeddings, segments, strict=True)
        ]
    context = step.cond.get("crossattn_controlnet", step.cond["c_crossattn"])
    y = step.cond.get("y")
    return NetworkInputs(
        picked(x, rows, step.count).to(dtype),
        embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings),
        picked(step.timesteps, rows, step.count),
        comfy.model_management.cast_to_device(picked(context, rows, step.count), x.device, dtype),
        None if y is None else comfy.model_base.convert_tensor(picked(y, rows, step.count), dtype, x.device),
        tuple(segment.evaluation.layer.told for segment in segments for _ in segment.rows),
    )


def embedding_rows(evaluation: Evaluation, rows: Sequence[int], step: Step) -> Tensor:
    """One hint embedding for each row, or a single one where all rows have the same."""
    layer = evaluation.layer
    # Its own networks: the others of a pass have the same module, but not always the same types of hint.
    parts = [
        step.run.embeddings.get(
            network, hint, layer.placing, pictures_of(layer, rows, step, len(hint)), step.canvas, step.x_noisy.device
        )
        for network, hint in layer.readings
    ]
    whole, *others = parts
    assert isinstance(whole, Tensor)
    for part in others:
        assert isinstance(part, Tensor)
        whole = whole + part
    return whole


def pictures_of(
    layer: Layer, rows: Sequence[int], step: Step, pictures: int | None = None
) -> list[tuple[int, Area | None]]:
    """For each row the picture that it shows, of the layer's hint or of another of so many `pictures`, and in which area."""
    wanted = []
    for row in rows:
        frame, area = step.place(row)
        wanted.append((picture_for(layer, frame, step.total, pictures), area))
    return wanted
