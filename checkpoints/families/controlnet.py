"""ControlNet: a trainable copy of the encoder with a hint network and zero convolutions (arXiv 2302.05543), in two key layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..about import about_of
from ..base import ConnectedBase, base_name, check_base
from ..beside import yaml_of
from ..canonical import Canonical
from ..condition import AllOf, Containing, NoneOf
from ..diffusers_layout import cldm_names
from ..encoder import EncoderHyperparameters, Shape, expected_shapes
from ..encoder_shapes import MissingNameError, check_shapes, hint_widths_of, in_file, incomplete, read_encoder
from ..family import METADATA, Built, Family, Kind, Match
from ..heads import Heads, resolve_heads
from ..tensors import main_dtype

POOLING_KEY = "global_average_pooling"


@dataclass(frozen=True)
class ControlNetLoader:
    """Both layouts differ only in their names; `rename` gives the cldm name of each canonical one."""

    rename: Callable[[Iterable[str]], Mapping[str, str]]
    diffusers: bool
    kind: Kind = "encoder"
    adds_to_model: bool = False

    def names(self, file: Canonical) -> dict[str, str]:
        """The network's name -> the canonical one."""
        return {ours: theirs for theirs, ours in self.rename(file.tensors).items()}

    def read(self, family: Family, file: Canonical, shapes: Mapping[str, Shape]) -> EncoderHyperparameters:
        """The hyperparameters by the shapes in the network's names. Raises IncompleteError."""
        try:
            return replace(read_encoder(shapes), hint_widths=hint_widths_of(shapes))
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [in_file(str(error), self.names(file))], ()) from None

    def shapes(self, net: EncoderHyperparameters) -> dict[str, Shape]:
        """The shapes that the hyperparameters ask for."""
        return expected_shapes(net)

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        names = self.names(file)
        shapes = {ours: file.shape(theirs) for ours, theirs in names.items()}
        net = self.read(family, file, shapes)
        check_shapes(file.path, family.noun, self.shapes(net), shapes, names)
        if connected is not None:
            check_base(file.path, net, connected)
        config = file.beside.config if self.diffusers else {}
        heads = resolve_heads(file.path, net, file.metadata, connected, config)
        pooling, told_by = pooling_of(file)
        tensors = [file.tensors[theirs] for theirs in names.values()]
        return Match(
            family=family,
            base=base_name(net),
            hyperparameters=net,
            heads=heads,
            names={ours: file.tensors[theirs].name for ours, theirs in names.items()},
            parameter_count=sum(info.numel for info in tensors),
            dtype=main_dtype(tensors),
            pooling=pooling,
            pooling_source=told_by,
            notes=heads_notes(heads),
            about=about_of(file.metadata),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build import build_encoder

        return build_encoder(match, tensors, diffusers=self.diffusers)


def pooling_of(file: Canonical) -> tuple[bool | None, str]:
    """Global average pooling, and what says so: the file's metadata, or else the .yaml of its name; None where neither does."""
    text = file.metadata.get(POOLING_KEY)
    if text is not None:
        return text.strip().lower() in ("true", "1", "yes", "on"), METADATA
    return file.beside.pooling, yaml_of(file.path).name


def heads_notes(heads: Heads) -> tuple[str, ...]:
    """A word on heads that stand beside the file, where they might be another's."""
    if heads.source != "config.json":
        return ()
    return (f"heads: {heads.count or f'of {heads.width} channels'}, by the config.json beside the file",)


def unchanged(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


CONTROLNET_DIFFUSERS = Family(
    name="a ControlNet (diffusers layout)",
    condition=AllOf(
        "controlnet_cond_embedding.conv_in.weight",
        "controlnet_mid_block.weight",
        NoneOf("task_embedding", Containing("motion_modules")),
    ),
    loader=ControlNetLoader(rename=cldm_names, diffusers=True),
)

CONTROLNET_CLDM = Family(
    name="a ControlNet (cldm layout)",
    condition=AllOf(
        "zero_convs.0.0.weight", "input_hint_block.0.weight", NoneOf("task_embedding", "difference", "lora_controlnet")
    ),
    loader=ControlNetLoader(rename=unchanged, diffusers=False),
)
