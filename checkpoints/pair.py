"""Two files that make one network: a LoRA of CtrLoRA and its base."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .ctrlora import CtrLoraHyperparameters
from .errors import PairError
from .families import CTRLORA, CTRLORA_BASE
from .family import Match
from .load import Loaded, Opened, build_network, read_weights
from .mapping import may_stay_mapped


@dataclass(frozen=True, eq=False)
class Pair(Opened):
    """Both files, known and accounted for; `checkpoint` is the LoRA's, `match` what they are together."""

    lora: Opened
    base: Opened

    def load(self) -> Loaded:
        """The network of both: the base's weights, those that the LoRA replaces, and the products that it adds."""
        base, lora = self.base.checkpoint, self.lora.checkpoint
        weights = read_weights(base, self.match, mapped=may_stay_mapped(base.path))
        weights |= read_weights(lora, self.lora.match, mapped=may_stay_mapped(lora.path))
        return build_network(lora.path, self.match, weights)


def pair(opened: Opened, base: Opened | None) -> Opened:
    """The control of a file and of the one that base_name tells, if any. Raises PairError where one needs the other, or has no use for it."""
    if base is not None:
        return Pair(opened.checkpoint, paired(opened, base), opened, base)
    check_alone(opened.checkpoint.path, opened.match)
    return opened


def check_alone(path: Path, match: Match) -> None:
    """Raises PairError for a file that is no network by itself."""
    if match.family is CTRLORA:
        raise PairError(
            path,
            found=f"is {match.family.name}, half of a network",
            expected="base_name is none",
            remedy="set base_name to the file of the base that it was trained on (the published ones: ctrlora_sd15_basecn700k)",
        )


def paired(lora: Opened, base: Opened) -> Match:
    """What the two files are together, from their headers alone. Raises PairError."""
    path, other = lora.checkpoint.path, base.checkpoint.path
    if lora.match.family is not CTRLORA:
        raise PairError(
            path,
            found=f"is {lora.match.family.name}, which needs no second file",
            expected=f"base_name is '{other.name}'",
            remedy=exchange(base)
            if lora.match.family is CTRLORA_BASE
            else "set base_name to none, or choose a LoRA of CtrLoRA",
        )
    if base.match.family is not CTRLORA_BASE:
        raise PairError(
            other,
            found=f"is {base.match.family.name}",
            expected=f"base_name must be the CtrLoRA base that '{path.name}' was trained on",
            remedy="choose that file (the published ones: ctrlora_sd15_basecn700k)",
        )
    if encoder_of(lora.match) != encoder_of(base.match):
        raise PairError(
            path,
            found=f"is {lora.match.family.name} for a base of {lora.match.base}",
            expected=f"base_name '{other.name}' is one of {base.match.base} with other blocks or widths",
            remedy="choose the base that it was trained on",
        )
    replaced = {name: theirs for name, theirs in base.match.names.items() if name not in lora.match.names}
    return replace(
        base.match,
        notes=(base.match.notes[0], f"LoRA: '{path.name}', rank {lora.match.hyperparameters.rank}, on '{other.name}'"),
        names=replaced,
        hyperparameters=replace(base.match.hyperparameters, rank=lora.match.hyperparameters.rank),
    )


def encoder_of(match: Match) -> object:
    net = match.hyperparameters
    assert isinstance(net, CtrLoraHyperparameters)
    return net.encoder


def exchange(base: Opened) -> str:
    if base.match.family is CTRLORA:
        return "exchange the two files"
    return "set base_name to none, or choose a LoRA of CtrLoRA in place of this file"
