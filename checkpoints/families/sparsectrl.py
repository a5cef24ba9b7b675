"""SparseCtrl: a ControlNet for videos that is given pictures for a few of their frames (arXiv 2311.16933), in AnimateDiff's and diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..base import ConnectedBase, base_name, check_base
from ..canonical import Canonical
from ..condition import AllOf, Containing, NoneOf
from ..encoder_shapes import MissingNameError, check_shapes, in_file, incomplete
from ..errors import IncompleteError
from ..family import Built, Family, Kind, Match
from ..heads import resolve_heads
from ..sparsectrl import (
    ENCODING,
    MOTION_HEADS,
    SparseHyperparameters,
    motion_widths,
    read_sparse,
    sparse_names,
    sparse_shapes,
)
from ..tensors import main_dtype


@dataclass(frozen=True)
class SparseLoader:
    """AnimateDiff's control for a few frames of a video."""

    kind: Kind = "sparsectrl"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        names = {ours: theirs for theirs, ours in sparse_names(file.tensors).items()}
        shapes = {ours: file.shape(theirs) for ours, theirs in names.items()}
        try:
            net = read_sparse(shapes)
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [in_file(str(error), names)], ()) from None
        encodings = any(ENCODING.fullmatch(name) for name in names)
        check_shapes(file.path, family.noun, sparse_shapes(net, encodings), shapes, names)
        check_motion_heads(family, file, net)
        if connected is not None:
            check_base(file.path, net, connected)
        # The encodings are a table that the network computes itself, as AnimateDiff's own loader does.
        kept = {ours: file.tensors[theirs] for ours, theirs in names.items() if not ENCODING.fullmatch(ours)}
        return Match(
            family=family,
            base=base_name(net),
            hyperparameters=net,
            heads=resolve_heads(file.path, net, file.metadata, connected),
            names={ours: info.name for ours, info in kept.items()},
            parameter_count=sum(info.numel for info in kept.values()),
            dtype=main_dtype(kept.values()),
            pooling=None,
            notes=(
                "pictures: for some frames of a video"
                + (", as latents (connect a VAE to the Apply node)" if net.latent_hint else ""),
                f"motion modules: {MOTION_HEADS} heads, up to {net.frames} frames at a time",
            ),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_sparsectrl import build_sparse

        return build_sparse(match, tensors)


def check_motion_heads(family: Family, file: Canonical, net: SparseHyperparameters) -> None:
    """Raises IncompleteError for widths that the heads of motion modules do not divide."""
    odd = [channels for channels in motion_widths(net) if channels % MOTION_HEADS]
    if odd:
        raise IncompleteError(
            file.path,
            found=f"is a {family.noun} with a motion module of {odd[0]} channels",
            expected=f"a multiple of {MOTION_HEADS} was expected, the number of its attention heads",
            remedy="use the node that its author made for it",
        )


SPARSE_RGB = Family(
    name="a SparseCtrl (RGB)",
    condition=AllOf(Containing("motion_modules"), "controlnet_cond_embedding.weight"),
    loader=SparseLoader(),
)

SPARSE_SCRIBBLE = Family(
    name="a SparseCtrl (scribble)",
    condition=AllOf(
        Containing("motion_modules"), Containing("controlnet_"), NoneOf("controlnet_cond_embedding.weight")
    ),
    loader=SparseLoader(),
)
