"""Presets that travel: how a layer acts, with a name, what it is for and who says so, as a JSON text that a person can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from .preset_error import PresetError, check_keys, number_of, plain, shown, word_of
from .preset_schedules import Curves, schedule_from, schedule_json
from .preset_weights import weights_from, weights_json
from .schedules import Schedule
from .weights import BlockWeights, Flat

FORMAT = 1
MARK = "control_composer_preset"
"""The key by which a text is known as a preset; its value is the format."""

ANY = "any"
CONDITIONS = (
    ANY,
    "canny",
    "line art",
    "straight lines",
    "scribble",
    "soft edge",
    "depth",
    "normal",
    "pose",
    "hands",
    "face",
    "segmentation",
    "tile",
    "blur",
    "colour",
    "brightness",
    "qr",
    "inpaint",
    "reference",
)
BASES = (ANY, "SD1.5", "SD2.1", "SDXL")
MOST_STRENGTH = 10.0
LONGEST_TEXT = 100_000
LONGEST_WORDS = {"name": 100, "source": 1000}


@dataclass(frozen=True)
class Settings:
    """How a layer acts. All defaults are neutral: multiplied with them, other settings stay as they are."""

    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    uncond_strength: float = 1.0
    weights: BlockWeights = field(default_factory=Flat)
    schedule: Schedule | None = None

    def __mul__(self, other: Settings) -> Settings:
        """Both at once: factors multiplied, the range where both act. Raises PresetError where they never act together."""
        start, end = max(self.start_percent, other.start_percent), min(self.end_percent, other.end_percent)
        if start > end:
            raise PresetError(
                f"The ranges {self.start_percent:g} to {self.end_percent:g} and {other.start_percent:g} to {other.end_percent:g} of the layer and "
                "its presets have nothing in common, but the layer acts where all of them do; set start_percent and end_percent to 0 and 1, or "
                "choose another preset."
            )
        one, two = self.schedule, other.schedule
        return Settings(
            self.strength * other.strength,
            start,
            end,
            self.uncond_strength * other.uncond_strength,
            other.weights
            if self.weights == Flat()
            else self.weights
            if other.weights == Flat()
            else self.weights * other.weights,
            two if one is None else one if two is None else one * two,
        )


@dataclass(frozen=True)
class LayerPreset:
    """Settings under a name; `condition` and `base` say what they are for, `source` who says so."""

    name: str
    settings: Settings = field(default_factory=Settings)
    condition: str = ANY
    base: str = ANY
    source: str = ""

    def __str__(self) -> str:
        return self.name


KEYS = (
    MARK,
    "name",
    "condition",
    "base",
    "strength",
    "start_percent",
    "end_percent",
    "uncond_strength",
    "weights",
    "schedule",
    "source",
)


def under(settings: Settings, presets: Iterable[LayerPreset | None]) -> Settings:
    """The layer's own settings under presets, each of which multiplies."""
    return reduce(Settings.__mul__, (preset.settings for preset in presets if preset is not None), settings)


def parse_preset(text: str, curves: Curves | None = None) -> LayerPreset:
    """A preset from its JSON text; `curves` reads drawn ones. Raises PresetError, one sentence that says what is wrong and what to write."""
    found = object_of(text)
    version = found.get(MARK)
    if version is None:
        raise PresetError(
            f'The preset has no "{MARK}", by which a preset is known, but it was expected with the number {FORMAT}; if this is a preset, '
            f'write "{MARK}": {FORMAT} into it.'
        )
    if version != FORMAT or isinstance(version, bool):
        raise PresetError(
            f"The preset is of format {shown(version)}, but this version of Control Composer reads format {FORMAT}; update Control Composer, or "
            "export the preset anew."
        )
    check_keys(found, KEYS, "The preset")
    start = number_of(found.get("start_percent", 0), '"start_percent"', 0.0, 1.0)
    end = number_of(found.get("end_percent", 1), '"end_percent"', 0.0, 1.0)
    if start > end:
        raise PresetError(
            f"The preset has start_percent {start:g} and end_percent {end:g}, but the range ends after its start; exchange the two numbers."
        )
    return LayerPreset(
        words_of(found, "name"),
        Settings(
            number_of(found.get("strength", 1), '"strength"', 0.0, MOST_STRENGTH),
            start,
            end,
            number_of(found.get("uncond_strength", 1), '"uncond_strength"', 0.0, 1.0),
            weights_from(found["weights"]) if "weights" in found else Flat(),
            schedule_from(found["schedule"], curves or Curves()) if "schedule" in found else None,
        ),
        word_of(found.get("condition", ANY), '"condition"', CONDITIONS),
        word_of(found.get("base", ANY), '"base"', BASES),
        words_of(found, "source") if "source" in found else "",
    )


def object_of(text: str) -> dict[str, Any]:
    """The JSON object in a text. Raises PresetError."""
    expected = f'but an object was expected; paste a whole preset, such as {{"{MARK}": {FORMAT}, "name": "mine", "strength": 0.7}}.'
    if len(text) > LONGEST_TEXT:
        raise PresetError(f"The preset is {len(text)} characters long, {expected}")
    if not text.strip():
        raise PresetError(f"The preset is empty, {expected}")
    try:
        found = json.loads(text, object_pairs_hook=once_each)
    except json.JSONDecodeError as problem:
        raise PresetError(
            f"The preset cannot be read as JSON (line {problem.lineno}, character {problem.colno}: {problem.msg}), {expected}"
        ) from None
    except RecursionError:
        raise PresetError(f"The preset has lists in lists without end, {expected}") from None
    except PresetError:
        raise
    except ValueError:  # a number of thousands of digits
        raise PresetError(f"The preset has a number that is too long, {expected}") from None
    if not isinstance(found, dict):
        raise PresetError(f"The preset is {shown(found)}, {expected}")
    return found


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PresetError(f'The preset has "{key[:40]}" twice, but each was expected once; remove one of them.')
        found[key] = value
    return found


def words_of(found: dict[str, Any], key: str) -> str:
    value, most = found.get(key), LONGEST_WORDS[key]
    if isinstance(value, str) and value.strip() and len(value) <= most:
        return value.strip()
    raise PresetError(
        f'The preset has {shown(value)} as "{key}", but words of at most {most} characters were expected; write, for example, "{key}": "mine".'
    )


def preset_json(preset: LayerPreset, curves: Curves | None = None) -> dict[str, Any]:
    """What `preset_text` writes, as JSON values; neutral weights, schedule and source are left out. Raises PresetError."""
    settings = preset.settings
    found: dict[str, Any] = {
        MARK: FORMAT,
        "name": preset.name,
        "condition": preset.condition,
        "base": preset.base,
        "strength": plain(settings.strength),
        "start_percent": plain(settings.start_percent),
        "end_percent": plain(settings.end_percent),
        "uncond_strength": plain(settings.uncond_strength),
    }
    if settings.weights != Flat():
        found["weights"] = weights_json(settings.weights)
    if settings.schedule is not None:
        found["schedule"] = schedule_json(settings.schedule, curves or Curves())
    return found | ({"source": preset.source} if preset.source else {})


def preset_text(preset: LayerPreset, curves: Curves | None = None) -> str:
    """The preset as JSON, a line for each key. `parse_preset` reads it back as an equal preset. Raises PresetError for what it would refuse."""
    values = preset_json(preset, curves)
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    text = "{\n" + ",\n".join(lines) + "\n}"
    parse_preset(text, curves)
    return text


def described(preset: LayerPreset) -> str:
    """A preset for a person: what it is for, its numbers, who says so."""
    settings = preset.settings
    purpose = [word for word in (preset.condition, preset.base) if word != ANY]
    balance = {1.0: "both branches", 0.0: "the conditional branch only"}.get(
        settings.uncond_strength, f"{settings.uncond_strength:g} of it on the unconditional branch"
    )
    lines = [
        f"{preset.name} (for {', '.join(purpose) or 'any control'})",
        f"strength {settings.strength:g}, from {settings.start_percent:g} to {settings.end_percent:g}, {balance}",
    ]
    if settings.weights != Flat():
        lines.append(f"weights: {settings.weights}")
    if settings.schedule is not None:
        lines.append(f"schedule: {settings.schedule}")
    return "\n".join((*lines, *([f"source: {preset.source}"] if preset.source else ())))
