"""The report as a table: what the page shows of each layer in a row."""

from __future__ import annotations

import math
from typing import Any

from .norms import read_norms, strength_of
from .record import Record
from .report import brief, duration, headline, listed, seconds_of


def report_table(record: Record) -> dict[str, Any]:
    """What JSON can hold: `head`, a sentence; `steps`, of the run; `layers`, each with `name`, `strength`, `ran` (steps in words, empty for never),
    `why` (not, in words), `gains` (of each step of the run, from the first: strength × schedule, null where it did not run), `adds` (to the
    features, in words) and `time`.
    """
    numbers, norms = record.step_numbers(), read_norms(record)
    layers = []
    for layer in record.layers:
        entries = [entry for entry in record.steps if entry.layer == layer.number]
        ran = [entry for entry in entries if entry.ran]
        gains: dict[int, float] = {}
        for entry in ran:  # The first call of each step is at its beginning.
            gains.setdefault(numbers[entry.call], entry.gain)
        own = [norm for norm in norms if norm.layer == layer.number]
        whole = strength_of(own)[1] if own else None
        seconds = [value for value in seconds_of(ran) if math.isfinite(value)]
        shared = next((entry.shares for entry in ran if entry.shares is not None), None)
        reasons = dict.fromkeys(entry.reason for entry in entries if not entry.ran and entry.reason)
        layers.append(
            {
                "name": f"{layer.number}. {layer.name}",
                "strength": brief(layer.strength),
                "ran": listed({numbers[entry.call] for entry in ran}),
                "why": "; ".join(reasons) if entries else "" if layer.enabled else "off",
                "gains": [gains.get(number) for number in range(1, record.step_count + 1)],
                "adds": f"{brief(100 * whole)} %" if whole is not None and math.isfinite(whole) else "",
                "time": duration(sum(seconds)) if seconds else f"with layer {shared}" if shared is not None else "",
            }
        )
    return {"head": headline(record), "steps": record.step_count, "layers": layers}
