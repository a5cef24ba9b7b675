"""Reports: a record in words for people and in JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .norms import Norm, read_norms, strength_of
from .record import LayerInfo, LayerStep, Record

LISTED = 6
"""Groups of steps, or sizes, listed before the rest is only counted."""


def report_text(record: Record) -> str:
    """What every layer did, at which steps, how strongly, and why it did not; a paragraph per layer."""
    numbers, norms = record.step_numbers(), read_norms(record)
    return "\n\n".join([headline(record), *(_layer_text(record, layer, numbers, norms) for layer in record.layers)])


def headline(record: Record) -> str:
    """Layers, model, steps and calls of a run."""
    calls = len({entry.call for entry in record.steps})
    model = f", {record.model} model" if record.model else ""
    return f"{counted(len(record.layers), 'layer')}{model}, {counted(record.step_count, 'step')}, {counted(calls, 'call')} of the model"


def _layer_text(record: Record, layer: LayerInfo, numbers: dict[int, int], norms: Sequence[Norm]) -> str:
    entries = [entry for entry in record.steps if entry.layer == layer.number]
    ran = [entry for entry in entries if entry.ran]
    of = f" of {record.step_count}"
    name = f"{layer.number}. {layer.name}{f' ({layer.base})' if layer.base else ''}, strength {brief(layer.strength)}"
    if ran:
        when = f"ran at {steps_of(ran, numbers)}{of}"
        percents = [entry.percent for entry in ran if not math.isnan(entry.percent)]  # a run that was stopped has none
        if percents:
            when += f", percent {min(percents):.2f}–{max(percents):.2f}"
        computed = [entry for entry in ran if entry.held_from is None]
        evaluations = len({entry.call for entry in computed})
        if evaluations > len({numbers[entry.call] for entry in computed}) or len(computed) < len(ran):
            when += f", {counted(evaluations, 'evaluation')}"
    elif entries:
        when = "never ran"
    else:
        when = "never ran: the sampler did not ask for it" if layer.enabled else "never ran: off"
    lines = [f"{name}: {when}."]

    for reason, skipped in _grouped(
        (entry for entry in entries if not entry.ran), lambda entry: entry.reason or "no reason noted"
    ):
        lines.append(f"Did not run at {steps_of(skipped, numbers)}{of}: {reason}.")
    held = [entry for entry in ran if entry.held_from is not None]
    if held:
        lines.append(f"Used earlier residuals again at {steps_of(held, numbers)}{of}.")
    lines += _lanes(record, [entry for entry in ran if entry.held_from is None], numbers)
    lines.append("; ".join(_settings(layer)))
    lines.append(layer.note)
    if ran:
        lines += [
            _cost(record, layer, ran, numbers),
            *_multipliers(ran, numbers),
            *_batch(layer, ran),
            _sizes(layer, ran),
        ]
        lines.append(_strongest([norm for norm in norms if norm.layer == layer.number]))
    return "\n   ".join(line for line in lines if line)


def _settings(layer: LayerInfo) -> list[str]:
    between = (
        ""
        if (layer.start_percent, layer.end_percent) == (0.0, 1.0)
        else f"{brief(layer.start_percent)}–{brief(layer.end_percent)}"
    )
    words = {"range": between, **_words(layer)}
    return [f"{name}: {value}" for name, value in words.items() if value]


def _words(layer: LayerInfo) -> dict[str, str]:
    return {
        name: getattr(layer, name)
        for name in ("types", "weights", "schedule", "mask", "balance", "batch", "sizing", "reuse")
    }


def _cost(record: Record, layer: LayerInfo, ran: Sequence[LayerStep], numbers: dict[int, int]) -> str:
    words = []
    seconds = [value for value in seconds_of(ran) if math.isfinite(value)]
    if seconds:
        words.append(f"{duration(sum(seconds) / len(seconds))} per evaluation, {duration(sum(seconds))} in all")
    for other, shared in _grouped((entry for entry in ran if entry.shares is not None), lambda entry: entry.shares):
        when = f"at {steps_of(shared, numbers)} " if len(shared) < len(ran) else ""
        words.append(f"{when}evaluated together with layer {other}, where the time is counted")
    if layer.inside:
        words.append("acts inside of the model, its time is part of the model's")
    evaluated: dict[int, tuple[int, int]] = {}  # a batch may go through the network in several passes
    for entry in (entry for entry in ran if entry.held_from is None):
        evaluated[entry.call] = (evaluated.get(entry.call, (0, 0))[0] + entry.rows_run, entry.rows)
    words += [f"{run} of {rows} rows evaluated" for run, rows in dict.fromkeys(evaluated.values()) if run < rows]
    embedding = record.embedding_bytes.get(layer.number, 0)
    residuals = max(entry.residual_bytes for entry in ran)
    memory = {"weights": layer.weights_bytes, "hint embedding": embedding, "residuals": residuals}
    words += [f"{what} {size(amount)}" for what, amount in memory.items() if amount]
    return "; ".join(words)


def _lanes(record: Record, computed: Sequence[LayerStep], numbers: dict[int, int]) -> list[str]:
    """Where its network ran, and why not beside the model."""
    lines = []
    for (beside, words), same in _grouped(computed, lambda entry: (entry.beside, entry.lane)):
        when = f" at {steps_of(same, numbers)}" if len(same) < len(computed) else ""
        if beside:
            lines.append(f"Ran beside the model{when}{f', {words}' if words else ''}.")
        elif words:
            lines.append(f"Ran before the model{when}, not beside it: {words}.")
    early = [entry for entry in computed if entry.call in record.waited_early]
    if early:
        lines.append(
            f"Waited for before the model at {steps_of(early, numbers)}: a control behind it reads its residuals."
        )
    return lines


def seconds_of(ran: Sequence[LayerStep]) -> list[float]:
    """The time of each pass once."""
    return [watch.seconds for watch in dict.fromkeys(entry.stopwatch for entry in ran) if watch is not None]


def _multipliers(ran: Sequence[LayerStep], numbers: dict[int, int]) -> list[str]:
    """The effective multiplier of each block, for each run of steps in which it is the same to three digits."""
    groups = _grouped(ran, lambda entry: tuple((name, brief(value)) for name, value in entry.blocks))
    lines = [f"Multipliers at {steps_of(same, numbers)}: {_blocks(blocks)}" for blocks, same in groups if blocks]
    if len(groups) == 1 and lines:
        lines = [f"Multipliers: {_blocks(groups[0][0])}"]
    more = len(lines) - LISTED
    if more > 0:
        lines = [*lines[: LISTED - 1], f"… and {more} more; the JSON has them all", lines[-1]]
    factors = _grouped((entry for entry in ran if entry.picture_factors), lambda entry: entry.picture_factors)
    lines += [
        f"Factor of each latent at {steps_of(same, numbers)}: {' '.join(map(brief, values))}"
        for values, same in factors[:LISTED]
    ]
    return lines


def _blocks(blocks: Sequence[tuple[str, str]]) -> str:
    """(("output 0", "0.1"), …) as "output 0–11: 0.1 0.2 …; middle: 1"."""
    if len(blocks) > 1 and len({value for _, value in blocks}) == 1:
        return f"{blocks[0][1]} in all {len(blocks)} blocks"
    lists: dict[str, list[tuple[str, str]]] = {}
    for name, value in blocks:
        place, index = place_of(name)
        lists.setdefault(place, []).append((index, value))
    parts = []
    for place, entries in lists.items():
        first, last = entries[0][0], entries[-1][0]
        where = " ".join(filter(None, (place, first if first == last else f"{first}–{last}")))
        parts.append(f"{where}: {' '.join(value for _, value in entries)}")
    return "; ".join(parts)


def place_of(block: str) -> tuple[str, str]:
    """A block's name without its number, and the number: "attention input 4" -> ("attention input", "4")."""
    place, _, index = block.rpartition(" ")
    return (place, index) if index.isdigit() else (block, "")


def _batch(layer: LayerInfo, ran: Sequence[LayerStep]) -> list[str]:
    """Which hint steers which latents, or frames of a context window."""
    steered: dict[int, set[int]] = {}
    frames = any(entry.frames is not None for entry in ran)
    for entry in ran:
        for place, picture in enumerate(entry.pictures):
            there = entry.frames[place] if entry.frames is not None and place < len(entry.frames) else place
            steered.setdefault(picture, set()).add(there)
    if not steered:
        return []
    latents = set().union(*steered.values())
    word = "frame" if frames else "latent"
    if len(latents) == 1:
        return []
    if len(steered) == 1:
        (picture,) = steered
        return [f"Hint {picture + 1} → all {len(latents)} {word}s"]
    if all(places == {picture} for picture, places in steered.items()):
        return [f"Each hint → the {word} of its number, {listed(place + 1 for place in latents)}"]
    pairs = [
        f"hint {picture + 1} → {word}{'s' if len(places) > 1 else ''} {listed(place + 1 for place in places)}"
        for picture, places in sorted(steered.items())
    ]
    unused = sorted(set(range(layer.pictures)) - set(steered))
    if unused:
        pairs.append(f"not used: hint {listed(picture + 1 for picture in unused)}")
    text = "; ".join(pairs)
    return [text[0].upper() + text[1:]]


def _sizes(layer: LayerInfo, ran: Sequence[LayerStep]) -> str:
    words = [f"Hint {layer.hint_width}×{layer.hint_height} pixels"] if layer.hint_width else []
    reads = dict.fromkeys((entry.hint_size, entry.latent_size, entry.area) for entry in ran)
    for hint, latent, area in list(reads)[:LISTED]:
        part = [f"read at {hint[1]}×{hint[0]}"] if hint else []
        part += [f"latent {latent[1]}×{latent[0]}"] if latent else []
        part += [f"area {area[1]}×{area[0]} at {area[3]}, {area[2]}"] if area else []
        words += [" for ".join(part)] if part else []
    if len(reads) > LISTED:
        words.append(f"and {len(reads) - LISTED} more sizes")
    return ", ".join(words)


def _strongest(norms: Sequence[Norm]) -> str:
    """How large the layer's residuals were beside the features, where both are known."""
    absolute, whole = strength_of(norms)
    if norms and not math.isfinite(absolute):
        return "Its residuals are NaN or infinite: the network or the hint is broken, or its dtype is too small"
    if not norms or whole is None or not math.isfinite(whole):
        return ""
    blocks = [(strength_of(same)[1] or 0.0, block) for block, same in _grouped(norms, lambda norm: norm.block)]
    most, block = max(blocks)
    return f"Adds {brief(100 * whole)} % of the features' norm, most at {block} ({brief(100 * most)} %)"


# -- JSON ------------------------------------------------------------------------------------------------------------------------------------


def report_json(record: Record) -> str:
    """The whole record. Keys are stable; numbers are finite, null stands for what is not known.

    - `format` "control-composer-report", `version` 1, `model`, `sampler_steps`, `steps` (as counted here), `calls`
    - `layers`: number, name, base, strength, start_percent, end_percent, enabled; `settings` in words; `hint` (pictures, height, width: as
      given, in pixels); `note`, a remark on it; weights_bytes, embedding_bytes; ran_steps, reused_steps, evaluations, mean_seconds, total_seconds; `skipped`: reason, steps,
      evaluations
    - `evaluations`: one per layer and call: beside (the model, or before it), lane (how, or why not), waited_early; call, layer, step (from 1), sigma, percent, step_fraction, ran, reason, gain, blocks (name →
      effective multiplier), uncond_factor, picture_factors, rows_run, rows, pictures (hint, from 0, of each latent), area (height, width, top,
      left in latent cells), frames (from 0), hint_size and latent_size (height, width), seconds, held_from (the sigma whose residuals were used
      again), residual_bytes, shares
    - `norms`: call, layer (null: all together), block, residual and feature (a norm per row), relative
    """
    numbers, norms = record.step_numbers(), read_norms(record)
    content = {
        "format": "control-composer-report",
        "version": 1,
        "model": record.model,
        "sampler_steps": record.sampler_steps,
        "steps": record.step_count,
        "calls": len(numbers),
        "layers": [_layer_json(record, layer, numbers) for layer in record.layers],
        "evaluations": [
            {**_evaluation_json(entry, numbers), "waited_early": entry.call in record.waited_early}
            for entry in record.steps
        ],
        "norms": [
            {
                "call": norm.call,
                "layer": norm.layer,
                "block": norm.block,
                "residual": norm.residual,
                "feature": norm.feature,
                "relative": strength_of([norm])[1],
            }
            for norm in norms
        ],
    }
    return json.dumps(_finite(content), ensure_ascii=False, indent=1, allow_nan=False)


def _layer_json(record: Record, layer: LayerInfo, numbers: dict[int, int]) -> dict[str, Any]:
    entries = [entry for entry in record.steps if entry.layer == layer.number]
    ran = [entry for entry in entries if entry.ran]
    seconds = seconds_of(ran)
    return {
        "number": layer.number,
        "name": layer.name,
        "base": layer.base,
        "strength": layer.strength,
        "start_percent": layer.start_percent,
        "end_percent": layer.end_percent,
        "enabled": layer.enabled,
        "settings": _words(layer),
        "hint": {"pictures": layer.pictures, "height": layer.hint_height, "width": layer.hint_width},
        "note": layer.note,
        "weights_bytes": layer.weights_bytes,
        "embedding_bytes": record.embedding_bytes.get(layer.number, 0),
        "ran_steps": sorted({numbers[entry.call] for entry in ran}),
        "evaluations": len({entry.call for entry in ran if entry.held_from is None}),
        "reused_steps": sorted({numbers[entry.call] for entry in ran if entry.held_from is not None}),
        "mean_seconds": sum(seconds) / len(seconds) if seconds else None,
        "total_seconds": sum(seconds) if seconds else None,
        "skipped": [
            {
                "reason": reason,
                "steps": sorted({numbers[entry.call] for entry in same}),
                "evaluations": len(same),
            }
            for reason, same in _grouped((entry for entry in entries if not entry.ran), lambda entry: entry.reason)
        ],
    }


def _evaluation_json(entry: LayerStep, numbers: dict[int, int]) -> dict[str, Any]:
    return {
        "call": entry.call,
        "layer": entry.layer,
        "step": numbers[entry.call],
        "sigma": entry.sigma,
        "percent": entry.percent,
        "step_fraction": entry.step,
        "ran": entry.ran,
        "reason": entry.reason,
        "gain": entry.gain,
        "blocks": dict(entry.blocks),
        "uncond_factor": entry.uncond_factor,
        "picture_factors": entry.picture_factors,
        "rows_run": entry.rows_run,
        "rows": entry.rows,
        "pictures": entry.pictures,
        "area": entry.area,
        "frames": entry.frames,
        "hint_size": entry.hint_size,
        "latent_size": entry.latent_size,
        "seconds": entry.seconds,
        "held_from": entry.held_from,
        "residual_bytes": entry.residual_bytes,
        "shares": entry.shares,
        "beside": entry.beside,
        "lane": entry.lane,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- words -----------------------------------------------------------------------------------------------------------------------------------


def _grouped(entries: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """Entries by key, in the order in which the keys come first."""
    groups: dict[Any, list[Any]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return list(groups.items())


def steps_of(entries: Iterable[LayerStep], numbers: dict[int, int]) -> str:
    """ "step 4" or "steps 1–8, 10" for the steps of the sampler in which these are."""
    steps = sorted({numbers[entry.call] for entry in entries})
    return f"step{'s' if len(steps) > 1 else ''} {listed(steps)}"


def listed(values: Iterable[int]) -> str:
    """Whole numbers in order, neighbours joined: "1–3, 5"."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(
        str(low) if low == high else f"{low}, {high}" if high == low + 1 else f"{low}–{high}" for low, high in runs
    )


def brief(value: float) -> str:
    """Three digits, no zeros at the end."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    return f"{brief(seconds)} s" if seconds >= 1 else f"{brief(1000 * seconds)} ms"


def size(amount: int) -> str:
    """Bytes in decimal units: 2.6 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= factor:
            return f"{brief(amount / factor)} {unit}"
    return f"{amount} bytes"
