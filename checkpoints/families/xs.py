"""ControlNet-XS: a narrow control stream beside the model's encoder, to and from which every block adds (vislearn/ControlNet-XS), in three layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..base import ConnectedBase, other_base
from ..canonical import Canonical
from ..condition import AllOf, AnyOf, Containing, NoneOf, Starting
from ..encoder_shapes import MissingNameError, check_shapes, in_file, incomplete
from ..errors import IncompleteError
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..tensors import main_dtype
from ..xs import RES_BLOCKS, XSHyperparameters, read_xs, xs_shapes
from ..xs_layouts import model_names, original_names
from ..xs_settings import Layout, XSSettings, resolve_settings
from .controlnet import unchanged

HALVINGS = 3
"""Of the hint, down to the size of the latent."""


@dataclass(frozen=True)
class XSMatch:
    """`hyperparameters` of a match: what the shapes tell of the network, and what else it takes to run it."""

    net: XSHyperparameters
    settings: XSSettings

    @property
    def hint_channels(self) -> int:
        return self.net.hint_channels


@dataclass(frozen=True)
class XSLoader:
    """`rename` gives the name in diffusers' ControlNetXSAdapter of each canonical one."""

    rename: Callable[[Iterable[str]], Mapping[str, str]]
    layout: Layout
    kind: Kind = "xs"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        names = {ours: theirs for theirs, ours in self.rename(file.tensors).items()}
        shapes = {ours: file.shape(theirs) for ours, theirs in names.items()}
        try:
            net = read_xs(shapes, "adapter" if self.layout == "adapter" else "original")
        except MissingNameError as error:
            raise incomplete(file.path, family.noun, [in_file(str(error), names)], ()) from None
        check_shapes(file.path, family.noun, xs_shapes(net), shapes, names)
        if len(net.hint_widths) != HALVINGS + 1:
            raise IncompleteError(
                file.path,
                found=f"is a {family.noun} whose hint network halves the picture {len(net.hint_widths) - 1} times",
                expected=f"{HALVINGS} times were expected, down to the size of the latent",
                remedy="use the node that its author made for it",
            )
        base = xs_base(net)
        if connected is not None and not goes_with(net, connected):
            raise other_base(file.path, base, connected)
        settings = resolve_settings(file.path, net, base, self.layout, file.metadata, file.beside.config, connected)
        tensors = [file.tensors[theirs] for theirs in names.values()]
        return Match(
            family=family,
            base=base,
            hyperparameters=XSMatch(net, settings),
            heads=Heads(count=None, width=None, source=settings.source),
            names={ours: file.tensors[theirs].name for ours, theirs in names.items()},
            parameter_count=sum(info.numel for info in tensors),
            dtype=main_dtype(tensors),
            pooling=None,
            notes=notes(net, settings),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_xs import build_xs

        return build_xs(match, tensors)


def notes(net: XSHyperparameters, settings: XSSettings) -> tuple[str, ...]:
    widths, heads = "-".join(map(str, net.channels)), "-".join(map(str, settings.heads))
    time = "the model's" if settings.time_mix is None else f"its own, mix {settings.time_mix:g}"
    return (
        f"control stream: {widths} channels; heads {heads} ({settings.source})",
        f"time embedding: {time}",
        *(("hint channels: blue, green, red",) if settings.bgr else ()),
    )


def xs_base(net: XSHyperparameters) -> str:
    """SD1, SD2 and SDXL by name; any other by its sizes. A pooled vector leaves no trace in the file."""
    known: dict[tuple[tuple[int, ...], int | None], str] = {
        ((320, 640, 1280, 1280), 768): "SD1",
        ((320, 640, 1280, 1280), 1024): "SD2",
        ((320, 640, 1280), 2048): "SDXL",
    }
    widths = "-".join(str(channels) for channels in net.base_channels)
    text = "no text" if net.context_dim is None else f"text of {net.context_dim}"
    return known.get((net.base_channels, net.context_dim), f"custom ({widths} channels, {text})")


def goes_with(net: XSHyperparameters, model: ConnectedBase) -> bool:
    widths = tuple(mult * model.model_channels for mult in model.channel_mult)
    blocks = (RES_BLOCKS,) * net.levels
    return (widths, model.num_res_blocks) == (net.base_channels, blocks) and net.context_dim in (
        None,
        model.context_dim,
    )


XS_ADAPTER = Family(
    name="a ControlNet-XS (diffusers layout)",
    condition=AllOf(
        AnyOf("control_to_base_for_conv_in.weight", Containing("base_to_ctrl"), Containing("ctrl_to_base")),
        NoneOf(Containing("ctrl_resnets.")),
    ),
    loader=XSLoader(rename=unchanged, layout="adapter"),
)

XS_MODEL = Family(
    name="a ControlNet-XS (layout of diffusers 0.25 to 0.27)",
    condition=AnyOf(Starting("down_zero_convs_"), Starting("up_zero_convs_")),
    loader=XSLoader(rename=model_names, layout="model"),
)

XS_ORIGINAL = Family(
    name="a ControlNet-XS (vislearn layout)",
    condition=AnyOf(Starting("enc_zero_convs_"), Starting("dec_zero_convs_")),
    loader=XSLoader(rename=original_names, layout="original"),
)

XS_WHOLE = Family(
    name="a ControlNet-XS merged with its model",
    condition=Containing("ctrl_resnets."),
    remedy="save diffusers' ControlNetXSAdapter instead of its UNetControlNetXSModel, and choose that file here",
)
