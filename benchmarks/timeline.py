"""A picture of two steps: what the host's threads and each stream of a CUDA device did, and for which network.

A thread shows the operators of torch that Python called, a stream what the device ran. Colours tell the part of the step that called them: the
control networks, the UNet up to the end of its middle block (none of it needs residuals), the rest of the UNet. While the profiler watches,
the host is slower than it is by itself; the device is not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .heads import watched
from .launches import ON_DEVICE, Event, traced

CONTROL, ENCODER, REST, OTHER, WAITING = (
    "control networks",
    "UNet until the middle block is done",
    "rest of the UNet",
    "the sampler",
    "host waits",
)
STEP = "a step"
COLOURS = {
    CONTROL: (216, 92, 40),
    ENCODER: (44, 110, 190),
    REST: (46, 160, 96),
    OTHER: (130, 130, 130),
    WAITING: (214, 190, 60),
}
"""RGB."""
CALLED = ("cpu_op", "cuda_runtime", "cuda_driver")


@dataclass(frozen=True)
class Block:
    """Something that ran, in milliseconds from the beginning."""

    start: float
    end: float
    part: str


@dataclass(frozen=True)
class Lane:
    name: str
    blocks: tuple[Block, ...]
    behind: tuple[Block, ...] = ()
    """The parts themselves, drawn pale."""


def draw_timeline(
    file: Path,
    words: str,
    steps: Sequence[Callable[[], Tensor]],
    unet: nn.Module,
    conditionings: Any,
    device: torch.device,
) -> None:
    """Runs the steps, and writes the picture of what they did."""
    lanes, marks = lanes_of(events_of(steps, unet, conditionings, device))
    picture = drawn(lanes, marks, words)
    if not cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"--timeline {file} could not be written, but a folder that is there was expected; make it.")


def events_of(
    steps: Sequence[Callable[[], Tensor]], unet: nn.Module, conditionings: Any, device: torch.device
) -> list[Event]:
    """The profiler's events of the steps, with ranges of the parts among them."""

    def call() -> None:
        for step in steps:
            with record_function(STEP):
                step()

    def control() -> AbstractContextManager[object]:
        return record_function(CONTROL)

    with ranges(unet), watched(conditionings, lambda: 0.0, control):
        return traced(call, device)


@contextmanager
def ranges(unet: Any) -> Iterator[None]:
    """While open, each evaluation of the host's UNet tells the profiler which part of it runs."""
    opened: list[record_function] = []

    def begin(part: str) -> None:
        opened.append(record_function(part))
        opened[-1].__enter__()

    def end(*_: object) -> None:
        while opened:
            opened.pop().__exit__(None, None, None)

    def middle_done(*_: object) -> None:
        end()
        begin(REST)

    with ExitStack() as stack:
        for hook in (
            unet.register_forward_pre_hook(lambda *_: begin(ENCODER)),
            # The host calls the layers of a block, not the block.
            unet.middle_block[-1].register_forward_hook(middle_done),
            unet.register_forward_hook(end),
        ):
            stack.callback(hook.remove)
        stack.callback(end)
        yield


def lanes_of(events: Iterable[Event]) -> tuple[list[Lane], list[float]]:
    """The lanes, the host's threads first, and when each step began, in milliseconds after the first."""
    complete = [event for event in events if event.get("ph") == "X"]
    by_thread: defaultdict[Any, list[Event]] = defaultdict(list)
    by_stream: defaultdict[Any, list[Event]] = defaultdict(list)
    for event in complete:
        kind = event.get("cat")
        if kind == "user_annotation" or kind in CALLED:
            by_thread[event["tid"]].append(event)
        elif kind in ON_DEVICE:
            by_stream[event["pid"], event["tid"]].append(event)
    steps = sorted(event["ts"] for event in complete if event.get("cat") == "user_annotation" and event["name"] == STEP)
    begin = steps[0] if steps else min((event["ts"] for event in complete), default=0.0)

    def block(event: Event, part: str) -> Block:
        start = (event["ts"] - begin) / 1000
        return Block(start, start + event.get("dur", 0.0) / 1000, part)

    parts = {thread: Parts(some) for thread, some in by_thread.items()}
    called_by = {
        event["args"]["correlation"]: parts[thread].at(event["ts"])
        for thread, some in by_thread.items()
        for event in some
        if event["cat"] in CALLED[1:] and "correlation" in event.get("args", {})
    }
    lanes = []
    for thread, some in by_thread.items():
        calls = [event for event in some if event["cat"] in CALLED]
        if not calls:
            continue
        behind = tuple(block(event, event["name"]) for event in some if event["name"] in (CONTROL, ENCODER, REST))
        blocks = tuple(
            block(event, WAITING if "Synchronize" in event["name"] else parts[thread].at(event["ts"]))
            for event in outermost(calls)
        )
        lanes.append(Lane("", blocks, behind))
    # The one that does most is the sampler's.
    lanes = sorted(lanes, key=lambda lane: -len(lane.blocks))
    lanes = [Lane(f"host thread {number}", lane.blocks, lane.behind) for number, lane in enumerate(lanes, 1)]
    for (gpu, stream), some in sorted(by_stream.items(), key=lambda pair: [f"{number:>9}" for number in pair[0]]):
        blocks = tuple(
            block(event, called_by.get(event.get("args", {}).get("correlation"), OTHER))
            for event in sorted(some, key=lambda event: float(event["ts"]))
        )
        lanes.append(Lane(f"GPU {gpu}, stream {stream}", blocks))
    return lanes, [(start - begin) / 1000 for start in steps]


class Parts:
    """Which part of a step a thread was in."""

    def __init__(self, events: Iterable[Event]) -> None:
        named = (event for event in events if event["cat"] == "user_annotation" and event["name"] in COLOURS)
        self._ranges = sorted((event["ts"], event["ts"] + event["dur"], event["name"]) for event in named)
        self._starts = [start for start, _, _ in self._ranges]

    def at(self, time: float) -> str:
        """The range that was begun last, if it has not ended: none of them lies within another."""
        index = bisect_right(self._starts, time) - 1
        return self._ranges[index][2] if index >= 0 and time < self._ranges[index][1] else OTHER


def outermost(events: Iterable[Event]) -> Iterator[Event]:
    """Those of one thread that no other one of it encloses."""
    end = float("-inf")
    for event in sorted(events, key=lambda event: (event["ts"], -event.get("dur", 0.0))):
        if event["ts"] >= end:
            end = event["ts"] + event.get("dur", 0.0)
            yield event


# -- the picture -----------------------------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, LANE, GAP, BOTTOM = 1800, 190, 30, 92, 64, 22, 52
INK, PAPER, LINE = (30, 30, 30), (255, 255, 255), (205, 205, 205)
PALE = 0.22
TICKS = 10
"""Marks of time, about."""


def drawn(lanes: Sequence[Lane], marks: Sequence[float], words: str) -> np.ndarray:
    """RGB (height, 1800, 3) uint8: a lane below the other, time to the right; `marks` are when steps begin. A column that is busy for a part of its
    time has that much of the colour.
    """
    end = max((block.end for lane in lanes for block in (*lane.blocks, *lane.behind)), default=1.0)
    height = TOP + len(lanes) * (LANE + GAP) + BOTTOM
    picture = np.full((height, WIDTH, 3), PAPER, np.uint8)
    columns = WIDTH - LEFT - RIGHT
    scale = columns / end
    write(picture, words, 14, 30, 0.62)
    x = LEFT
    for part in (part for part in COLOURS if any(block.part == part for lane in lanes for block in lane.blocks)):
        picture[48:64, x : x + 26] = COLOURS[part]
        x = write(picture, part, x + 34, 62) + 34
    bottom = height - BOTTOM + 6
    for tick in ticks(end):
        at = LEFT + round(tick * scale)
        cv2.line(picture, (at, TOP - 8), (at, bottom), LINE, 1)
        write(picture, f"{tick:g} ms", at - 18, bottom + 22)
    for number, lane in enumerate(lanes):
        top = TOP + number * (LANE + GAP)
        write(picture, lane.name, 14, top + LANE // 2 + 5)
        row = np.full((columns, 3), PAPER, np.float64)
        shade(row, lane.behind, scale, PALE)
        shade(row, lane.blocks, scale, 1.0)
        picture[top : top + LANE, LEFT : LEFT + columns] = row.round().astype(np.uint8)
        cv2.rectangle(picture, (LEFT - 1, top - 1), (LEFT + columns, top + LANE), LINE, 1)
    for number, mark in enumerate(marks, 1):
        at = LEFT + round(mark * scale)
        cv2.line(picture, (at, TOP - 22), (at, bottom), INK, 1)
        write(picture, f"step {number}", at + 5, TOP - 9)
    return picture


def shade(row: np.ndarray, blocks: Iterable[Block], scale: float, strength: float) -> None:
    """Mixes the blocks' colours into a row of columns, each by the share of the column that it fills."""
    filled = {part: np.zeros(len(row)) for part in COLOURS}
    for block in blocks:
        cover(filled[block.part], block.start * scale, block.end * scale)
    whole = np.maximum(np.sum([*filled.values()], axis=0), 1.0)
    shares = {part: share / whole * strength for part, share in filled.items()}
    row *= 1.0 - np.sum([*shares.values()], axis=0)[:, None]
    for part, share in shares.items():
        row += share[:, None] * np.array(COLOURS[part], np.float64)


def cover(columns: np.ndarray, start: float, end: float) -> None:
    """Adds to each column how much of it lies between the two."""
    start, end = max(start, 0.0), min(end, float(len(columns)))
    first, last = int(start), min(int(end), len(columns) - 1)
    if end <= start:
        return
    if first == last:
        columns[first] += end - start
        return
    columns[first] += first + 1 - start
    columns[first + 1 : last] += 1.0
    columns[last] += end - last


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, about TICKS of them."""
    rough = end / TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    return [round(float(number * step), 9) for number in range(int(end / step) + 1)]


def write(picture: np.ndarray, words: str, x: int, y: int, size: float = 0.5) -> int:
    """Puts words there, which the font has in ASCII alone; returns where they end."""
    plain = words.replace("×", "x").encode("ascii", "replace").decode()
    cv2.putText(picture, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
    (wide, _), _ = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    return x + int(wide)
