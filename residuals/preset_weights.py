"""Block weights in a preset: their written form, read and written without loss."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from .block_values import ListedWeights, NamedWeights, parse_block_values
from .blocks import NOMINAL_LATENT
from .preset_error import PresetError, check_keys, number_of, plain, without_defaults, word_of
from .weights import BlockWeights, Flat, Form, Ladder, LevelWeights, Product, ResolutionWeights, Size, SoftWeights

KEYS: dict[str, dict[str, Any]] = {
    "resolution": {"size": "nominal", "reference": NOMINAL_LATENT},
    "soft": {"ladder": "power"},
    "levels": {"middle": 1},
    "product": {},
}
"""The first key of each kind of weights, and its others with what they are where they are not written."""


def weights_from(value: Any) -> BlockWeights:
    """Weights from a JSON value. Raises PresetError.

    A number, a list or an object with names of blocks, or any of these as a text, is what Block Weights reads. {"resolution": "normalised"},
    {"soft": 0.825}, {"levels": [1, 1, 0.5, 0.5], "middle": 1} are the nodes of these names, {"product": [...]} several multiplied.
    """
    kind = next((key for key in KEYS if isinstance(value, dict) and key in value), None)
    if kind is not None:
        check_keys(value, (kind, *KEYS[kind]), f'"weights" of the preset, beside "{kind}",')
    try:
        if kind is not None:
            return of_kind(kind, {**KEYS[kind], **value})
        return parse_block_values(value if isinstance(value, str) else json.dumps(value))
    except PresetError:
        raise
    except ValueError as problem:
        raise PresetError(f"The weights of the preset cannot be read: {problem}") from None


def of_kind(kind: str, value: dict[str, Any]) -> BlockWeights:
    own = value[kind]
    if kind == "resolution":
        form = cast(Form, word_of(own, 'the form of "resolution"', get_args(Form)))
        size = cast(Size, word_of(value["size"], '"size"', get_args(Size)))
        return ResolutionWeights(form, size, number_of(value["reference"], '"reference"'))
    if kind == "soft":
        ladder = cast(Ladder, word_of(value["ladder"], '"ladder"', get_args(Ladder)))
        return SoftWeights(number_of(own, 'the base of "soft"'), ladder)
    if not isinstance(own, list) or not own:
        raise PresetError(
            f'The preset has no list as "{kind}" of its weights, but at least one entry in [ ] was expected; write one, such as [1].'
        )
    if kind == "levels":
        levels = tuple(number_of(each, f"level {at} of its weights") for at, each in enumerate(own))
        return LevelWeights(levels, number_of(value["middle"], '"middle" of its weights'))
    return Product(tuple(weights_from(part) for part in own))


def weights_json(weights: BlockWeights) -> Any:
    """The JSON value that `weights_from` reads back as equal weights. Raises PresetError for weights of another kind."""
    if type(weights) is Flat:
        return plain(weights.value)
    if type(weights) is ListedWeights:
        return [plain(value) for value in weights.values]
    if type(weights) is NamedWeights:
        return {
            name: [plain(each) for each in value] if isinstance(value, tuple) else plain(value)
            for name, value in weights.values
        }
    if type(weights) is ResolutionWeights:
        said: dict[str, Any] = {"resolution": weights.form, "size": weights.size, "reference": plain(weights.reference)}
        return without_defaults(said, KEYS["resolution"])
    if type(weights) is SoftWeights:
        return without_defaults({"soft": plain(weights.base), "ladder": weights.ladder}, KEYS["soft"])
    if type(weights) is LevelWeights:
        said = {"levels": [plain(value) for value in weights.levels], "middle": plain(weights.middle)}
        return without_defaults(said, KEYS["levels"])
    if type(weights) is Product:
        return {"product": [weights_json(part) for part in weights.parts]}
    raise PresetError(
        f"The weights are of a kind without a written form ({type(weights).__name__}), but a preset holds those of Resolution, Soft, Level and "
        "Block Weights and Weight Preset; connect one of these."
    )
