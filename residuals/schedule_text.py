"""Schedules written down by a person: keyframes, plain lists, strengths for the pictures of a batch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .block_values import NUMBER
from .moments import Axis
from .schedule_images import ImageStrengths, NamedStrengths, StrengthPolicy
from .schedules import EASINGS, Between, Easing, Keyframe, Keyframes, ListSchedule, Schedule, nearest_easing

SEPARATOR = re.compile(r"[,;\n]")
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)", re.ASCII)
MISSING_COMMA = re.compile(r"(?<=[^\s@])[^\S\n]+(?=[^\s@,;]+[^\S\n]*@)")
PICTURES = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", re.ASCII)

KEYFRAMES = "keyframes of Strength Keyframes"
STRENGTHS = "strengths of Image Strengths"
KEYFRAMES_ADVICE = 'write strength@position with commas between them, such as "0.2@0, 0.8@0.4 ease, 0@0.9", or a plain list of strengths, such as "1, 0.5, 0"'
STRENGTHS_ADVICE = 'write numbers with commas between them, such as "1, 0.5, 0", or name pictures, counted from 0, such as "0-3: 0.5, 4: 1"'


@dataclass(frozen=True)
class Entry:
    """What stands between two separators: its text without the blanks around it, and where that is."""

    text: str
    number: int
    line: int
    character: int
    lines: int

    @property
    def where(self) -> str:
        line = f"line {self.line}, " if self.lines > 1 else ""
        return f"in place {self.number} ({line}character {self.character})"


def entries_of(text: str, blanks: bool = False) -> list[Entry]:
    """The entries of a text, at least one; a separator at the end of a line or of the text does no harm, nor does an empty line.

    `blanks` separate too where that is set. An entry is empty only between two separators of one line.
    """
    entries: list[Entry] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        parts = list(parts_of(line, re.compile(r"\s*[,;]\s*|\s+") if blanks else SEPARATOR))
        if not parts[-1][0]:
            parts.pop()
        for part, start in parts:
            entries.append(Entry(part, len(entries) + 1, number, start + 1, len(lines)))
    return entries


def parts_of(line: str, separator: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    start = len(line) - len(line.lstrip()) if line.strip() else 0
    end = len(line.rstrip())
    for match in separator.finditer(line, start, end):
        yield stripped(line, start, match.start())
        start = match.end()
    yield stripped(line, start, end)


def stripped(line: str, start: int, end: int) -> tuple[str, int]:
    part = line[start:end]
    return part.strip(), start + len(part) - len(part.lstrip())


def parse_schedule(text: str, axis: Axis = "percent", between: Between = "hold") -> Schedule:
    """A schedule from text: keyframes, "0.2@0, 0.8@40% ease, 0@0.9", or a plain list, "1, 0.5, 0", spread evenly over the axis.

    Keyframes are separated by commas, semicolons or line ends, plain numbers by blanks as well. `between` is for plain lists. Raises
    ValueError, naming what could not be read, where it stands and what to write instead.
    """
    if not text.strip(" \t\r\n,;"):
        raise ValueError(f"{KEYFRAMES} is empty, but keyframes were expected; {KEYFRAMES_ADVICE}.")
    if "@" not in text:
        return ListSchedule(numbers_of(text, KEYFRAMES, KEYFRAMES_ADVICE), axis, between)
    try:
        return Keyframes(tuple(keyframes_of(text)), axis)
    except ValueError:
        repaired = DECIMAL_COMMA.sub(".", text)
        if repaired != text and readable(repaired):
            found = DECIMAL_COMMA.search(text)
            assert found is not None
            line = text.count("\n", 0, found.start()) + 1
            character = found.start() - text.rfind("\n", 0, found.start())
            where = f"line {line}, character {character}" if "\n" in text else f"character {character}"
            raise ValueError(
                f'{KEYFRAMES} has "{shortened(text.strip())}" with a comma inside a number (the first at {where}), but decimals are written with '
                f'a point, as commas stand between keyframes; write "{shortened(repaired.strip(), 200)}".'
            ) from None
        raise


def readable(text: str) -> bool:
    try:
        Keyframes(tuple(keyframes_of(text)))
    except ValueError:
        return False
    return True


def keyframes_of(text: str) -> list[Keyframe]:
    frames: list[Keyframe] = []
    for entry in entries_of(text):
        frame = keyframe_of(entry)
        if frames and frame.position < frames[-1].position:
            earlier = next(position for position, before in enumerate(frames, 1) if before.position > frame.position)
            raise ValueError(
                f"{KEYFRAMES} has position {frame.position:g} after {frames[-1].position:g} {entry.where}, but positions must not go backwards; "
                f"correct it, or move this keyframe to place {earlier}."
            )
        frames.append(frame)
    return frames


def keyframe_of(entry: Entry) -> Keyframe:
    """One keyframe: strength @ position, and an easing behind them that may be left out."""

    def refusal(found: str, advice: str = KEYFRAMES_ADVICE) -> ValueError:
        return ValueError(f"{KEYFRAMES} has {found}; {advice}.")

    text, where = entry.text, entry.where
    if not text:
        raise refusal(
            f"nothing between two separators {where}, but a keyframe was expected", f"remove one, or {KEYFRAMES_ADVICE}"
        )
    missing = MISSING_COMMA.search(text)
    if missing and text[: missing.start()].count("@"):
        begin, end = text[: missing.start()], text[missing.end() :]
        raise refusal(
            f'"{shortened(text)}" {where}, but a comma was expected between two keyframes',
            f'write "{shortened(begin)}, {shortened(end)}"',
        )
    if text.count("@") > 1:
        pieces = [piece.strip() for piece in text.split("@") if piece.strip()]
        advice = f'write "{"@".join(pieces)}"' if len(pieces) == 2 else KEYFRAMES_ADVICE
        raise refusal(f'"{shortened(text)}" {where}, but one "@" between strength and position was expected', advice)
    strength_text, at, rest = (part.strip() for part in text.partition("@"))
    if not at:
        raise refusal(
            f'"{shortened(text)}" {where} without a position, but every keyframe of this text needs one',
            f'write "{shortened(text)}@" with a number from 0 to 1 behind it, or remove the others\' "@" for a plain list',
        )
    if not strength_text and rest:
        raise refusal(
            f'no strength before "{shortened(text)}" {where}, but strength@position was expected',
            f'write "1{shortened(text)}"',
        )
    if not rest:
        raise refusal(
            f'no position behind "{shortened(text)}" {where}, but strength@position was expected',
            f'write "{shortened(strength_text or "1")}@0.5"',
        )
    strength = number_of(strength_text)
    if strength is None:
        raise refusal(f'"{shortened(strength_text)}" as a strength {where}, but a finite number was expected')
    percent = re.match(r"(\S+?)\s*%\s*", rest)
    if percent is None:
        position_text, easing_text = [*rest.split(None, 1), ""][:2]
    else:
        position_text, easing_text = percent[1], rest[percent.end() :]
    position = number_of(position_text)
    if position is None:
        raise refusal(f'"{shortened(position_text)}" as a position {where}, but a number from 0 to 1 was expected')
    if percent is not None:
        position /= 100
    if not 0 <= position <= 1:
        shown = f"{position_text}%" if percent else position_text
        advice = (
            f'write "{position_text}%"' if percent is None and 2 <= position <= 100 else f"write {int(position > 1)}"
        )
        raise refusal(
            f'the position "{shortened(shown)}" {where}, but positions run from 0, the beginning of the sampling, to 1, its end',
            f"{advice}, or another number between 0 and 1",
        )
    return Keyframe(position, strength, easing_of(easing_text.strip(), entry))


def easing_of(text: str, entry: Entry) -> Easing:
    if not text:
        return "linear"
    word = "-".join(re.split(r"[\s_-]+", text.lower()))
    known = next((easing for easing in EASINGS if word == easing), None)
    if known is None:
        meant = nearest_easing(word)
        advice = f'write "{meant}"' if meant else "use one of these, or none for linear"
        raise ValueError(
            f'{KEYFRAMES} has the easing "{shortened(text)}" {entry.where}, but {", ".join(EASINGS)} are known; {advice}.'
        )
    if entry.number == 1:
        raise ValueError(
            f'{KEYFRAMES} has the easing "{known}" {entry.where}, but an easing is the way from the keyframe before, and the first has none; '
            "write it behind the second keyframe."
        )
    return known


def parse_strengths(text: str, policy: StrengthPolicy = "hold last") -> ImageStrengths | NamedStrengths:
    """Strengths for the pictures of a batch from text: a list, "1, 0.5, 0", or ranges of pictures counted from 0, "0-3: 0.5, 4: 1".

    `policy` is for lists shorter than the batch; pictures that ranges leave out keep 1. Raises ValueError as `parse_schedule` does.
    """
    if not text.strip(" \t\r\n,;"):
        raise ValueError(f"{STRENGTHS} is empty, but strengths were expected; {STRENGTHS_ADVICE}.")
    if ":" not in text:
        return ImageStrengths(numbers_of(text, STRENGTHS, STRENGTHS_ADVICE), policy)
    return NamedStrengths(tuple(span_of(entry) for entry in entries_of(text)))


def span_of(entry: Entry) -> tuple[int, int, float]:
    name, colon, value_text = (part.strip() for part in entry.text.partition(":"))
    shown = f'"{shortened(entry.text)}"' if entry.text else "nothing"
    pictures, value = PICTURES.fullmatch(name), number_of(value_text)
    if not colon or pictures is None:
        raise ValueError(
            f"{STRENGTHS} has {shown} {entry.where}, but pictures and their strength were expected, such as 4: 1; {STRENGTHS_ADVICE}."
        )
    if value is None:
        raise ValueError(
            f'{STRENGTHS} has "{shortened(value_text)}" as a strength {entry.where}, but a finite number was expected; {STRENGTHS_ADVICE}.'
        )
    first, last = int(pictures[1]), int(pictures[2] or pictures[1])
    if last < first:
        raise ValueError(
            f"{STRENGTHS} has the pictures {first}-{last} {entry.where}, but ranges go upwards; write {last}-{first}."
        )
    return first, last, value


def numbers_of(text: str, name: str, advice: str) -> tuple[float, ...]:
    values = []
    for entry in entries_of(text, blanks=True):
        value = number_of(entry.text)
        if value is None:
            shown = f'"{shortened(entry.text)}"' if entry.text else "nothing"
            raise ValueError(f"{name} has {shown} {entry.where}, but a finite number was expected; {advice}.")
        values.append(value)
    return tuple(values)


def number_of(text: str) -> float | None:
    """`text` as a finite float; None where it is none."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
