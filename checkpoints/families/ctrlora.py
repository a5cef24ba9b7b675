"""CtrLoRA (arXiv 2410.09400): a base network for every kind of hint, and small LoRA files that make it the network for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..base import ConnectedBase, base_name, check_base
from ..canonical import Canonical
from ..condition import AllOf, AnyOf, Containing, NoneOf, Starting
from ..ctrlora import (
    FIRST,
    MARK,
    CtrLoraHyperparameters,
    base_shapes,
    difference_shapes,
    lora_shapes,
    read_base,
    read_lora,
)
from ..encoder import Shape
from ..encoder_shapes import MissingNameError, check_shapes, incomplete
from ..errors import PairError
from ..family import Built, Family, Kind, Match
from ..heads import Heads, resolve_heads
from ..tensors import main_dtype

READS = "the hint goes through the VAE: connect it to the Apply or Layer node"


@dataclass(frozen=True)
class BaseLoader:
    """A file with the whole network. Differences beside it are those of the last condition in its training, and left out, unless the file is
    a whole checkpoint, of one condition, with the Stable Diffusion model in it."""

    kind: Kind = "ctrlora"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        try:
            net = read_base(shapes)
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [str(error)], ()) from None
        expected = base_shapes(net) | (difference_shapes(net, net.rank) if net.rank else {})
        check_shapes(file.path, family.noun, expected, shapes)
        if connected is not None:
            check_base(file.path, net, connected)
        taken = {name: info for name, info in file.tensors.items() if file.with_model or MARK not in name}
        return Match(
            family=family,
            base=base_name(net),
            hyperparameters=net,
            heads=resolve_heads(file.path, net, file.metadata, connected),
            names={name: info.name for name, info in taken.items()},
            parameter_count=sum(info.numel for info in taken.values()),
            dtype=main_dtype(taken.values()),
            pooling=None,
            notes=(READS, base_note(net, file.with_model)),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_ctrlora import build_ctrlora

        return build_ctrlora(match, tensors)


@dataclass(frozen=True)
class LoraLoader(BaseLoader):
    """A file of differences, which becomes a network together with its base (pair.py)."""

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        shapes: dict[str, Shape] = {name: info.shape for name, info in file.tensors.items()}
        try:
            net = read_lora(shapes)
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [str(error)], ()) from None
        check_shapes(file.path, family.noun, lora_shapes(net, net.rank), shapes)
        if connected is not None:
            check_base(file.path, net, connected)
        tensors = file.tensors.values()
        return Match(
            family=family,
            base=base_name(net),
            hyperparameters=net,
            heads=Heads(count=None, width=None, source="base file"),
            names={name: info.name for name, info in file.tensors.items()},
            parameter_count=sum(info.numel for info in tensors),
            dtype=main_dtype(tensors),
            pooling=None,
            notes=(READS, f"rank: {net.rank}"),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        """Never: it is a pair that is built, by the base's loader."""
        raise PairError(
            match.family.name,
            found="is half of a network",
            expected="the tensors of its base were expected with it",
            remedy="open both files and make a pair of them",
        )


def base_note(net: CtrLoraHyperparameters, whole: bool) -> str:
    if not net.rank:
        return "LoRA: none; choose a LoRA file, and this one as its base_name, for what LoRA files were trained for"
    if whole:
        return f"LoRA: that of the file, rank {net.rank}"
    return f"LoRA: none (that in the file, of rank {net.rank}, is left over from training); choose a LoRA file, and this one as its base_name"


CTRLORA = Family(
    name="a LoRA file of CtrLoRA",
    # Others have the mark too: LoRAs of diffusers, in its names.
    condition=AllOf(Containing(MARK), AnyOf(Starting("input_blocks."), Starting("zero_convs.")), NoneOf(FIRST)),
    loader=LoraLoader(),
)

CTRLORA_BASE = Family(
    name="a CtrLoRA base",
    condition=AllOf(FIRST, "zero_convs.0.0.weight", "middle_block_out.0.weight", NoneOf(Starting("input_hint_block."))),
    loader=BaseLoader(),
)
