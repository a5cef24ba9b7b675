"""Several hints of a union network in one pass, against diffusers' class, through the host's sampler and its UNet at the union's real width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from control_composer.control import Control, ControlError, compose_controls, layer_of
from control_composer.control.union_layer import TypedPicture, union_layer_of
from control_composer.nodes.load import load_source
from control_composer.nodes.union import ControlComposerUnionHint, ControlComposerUnionLayer
from control_composer.residuals.residuals import Residuals
from control_composer.tests import narrow
from control_composer.tests.control.case import made, save
from control_composer.tests.control.cases import UNION, WideSDXL, union

TOLERANCE = 1e-4
NODE = "Union Control Layer"
SIZE = (1, 8, 16)
NUMBERS = {"openpose": 0, "depth": 1, "canny/lineart/anime_lineart/mlsd": 3, "tile": 6}
CANNY = "canny/lineart/anime_lineart/mlsd"


def reference() -> Any:
    """Diffusers' ProMax network for the narrow model, with every weight random."""
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.ControlNetUnionModel(
        block_out_channels=(320, 320),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(5, 5),  # numbers of heads
        conditioning_embedding_out_channels=(16, 32, 96, 256),
        cross_attention_dim=UNION["context_dim"],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        num_control_type=8,
    )
    narrow.fill(net, 1)
    return net.eval()


@pytest.fixture(scope="module")
def promax(tmp_path_factory: Any) -> tuple[Any, Control, Any]:
    """Diffusers' network, ours from the same file, and the model."""
    net = reference()
    path = save(
        tmp_path_factory.mktemp("union"), dict(net.state_dict()), "promax.safetensors", {"num_head_channels": "64"}
    )
    model = made(WideSDXL)
    return net, Control.unbound(load_source(path, model, "auto")[0]), model


class Watch(narrow.Spy):
    """Also keeps what the UNet is asked."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.asked: list[dict[str, Tensor]] = []

    def _record(self, apply_model: Any, call: dict[str, Any]) -> Tensor:
        inside = self.model.model
        sigma = call["timestep"]
        self.asked.append(
            {
                "x": inside.model_sampling.calculate_input(sigma, call["input"]),
                "time": inside.model_sampling.timestep(sigma).float(),
                "context": call["c"]["c_crossattn"],
                "y": call["c"]["y"],
            }
        )
        return super()._record(apply_model, call)


def start() -> Any:
    return narrow.conditioning("sdxl", 10), narrow.conditioning("sdxl", 11)


def through_the_host(model: Any, layers: Any, size: Any = SIZE, steps: int = 2) -> Watch:
    watch = Watch(model)
    narrow.sample(watch.model, *compose_controls(*start(), layers), size, steps=steps)
    return watch


@torch.no_grad()
def theirs(
    net: Any, asked: dict[str, Tensor], row: int, hints: dict[str, tuple[Tensor, float]], left: int = 0
) -> list[Tensor]:
    """Diffusers' residuals for one row: each picture (1, H, W, 3) at the size of the canvas, cut where an area begins, with its strength."""
    x = asked["x"][row : row + 1]
    height, width = 64, 128
    placed = [interpolate(image.movedim(-1, 1), (height, width), mode="nearest-exact") for image, _ in hints.values()]
    placed = [hint[..., left : left + 8 * x.shape[-1]] for hint in placed]
    numbers = [NUMBERS[name] for name in hints]
    chosen = torch.zeros(1, 8)
    chosen[0, numbers] = 1.0
    text = asked["y"][row : row + 1, :1280]
    ids = torch.tensor([[height, width, 0.0, 0.0, height, width]])
    assert narrow.relative(net.add_time_proj(ids.flatten()).reshape(1, -1), asked["y"][row : row + 1, 1280:]) < 1e-3
    down, middle = net(
        x,
        asked["time"][row : row + 1],
        asked["context"][row : row + 1],
        placed,
        chosen,
        numbers,
        [strength for _, strength in hints.values()],
        added_cond_kwargs={"text_embeds": text, "time_ids": ids},
        return_dict=False,
    )
    return [*down, middle]


HINTS = {
    "tile": (narrow.picture(1, 96, 192, seed=21), 1.4),  # sizes of their own, of one aspect
    "openpose": (narrow.picture(1, 64, 128, seed=22), 0.7),
    CANNY: (narrow.picture(1, 32, 64, seed=23), 0.35),
}


def typed(names: Any) -> list[TypedPicture]:
    return [TypedPicture(HINTS[name][0], name, HINTS[name][1]) for name in names]


@pytest.mark.parametrize("names", [("tile",), ("openpose", "tile"), (CANNY, "openpose", "tile")], ids=len)
def test_residuals_equal_diffusers(promax: Any, names: tuple[str, ...]) -> None:
    """One, two and three types with different strengths: what reaches the UNet, for both branches, at two steps, out of one evaluation at each."""
    net, ours, model = promax
    hints = {name: ControlComposerUnionHint.execute(*HINTS[name][:1], name, HINTS[name][1]).args[0] for name in names}
    (layer,) = ControlComposerUnionLayer.execute(
        ours, {f"hint{number}": hint for number, hint in enumerate(hints.values())}, 0.9, 0.0, 1.0, 1.0
    ).args
    rows, embedded = [], []
    module = ours.network.module
    hooks = [
        module.middle_block.register_forward_hook(lambda _, given, __: rows.append(len(given[0]))),
        module.input_hint_block.register_forward_hook(lambda _, given, __: embedded.append(len(given[0]))),
    ]
    watch = through_the_host(model, [layer])
    for hook in hooks:
        hook.remove()
    assert rows == [2, 2]  # branches of each step
    assert embedded == [1] * len(names)  # once in the run
    for call, asked in zip(watch.calls, watch.asked, strict=True):
        found = Residuals.from_host(call.control or {})
        for row in range(2):
            expected = theirs(net, asked, row, {name: HINTS[name] for name in names})
            for mine, want in zip([*found.output, *found.middle], expected, strict=True):
                assert mine is not None
                assert narrow.relative(mine[row : row + 1], 0.9 * want) <= TOLERANCE


def test_batches_of_their_own(promax: Any) -> None:
    """Two pictures of one type and one of another: each latent gets its own sum."""
    net, ours, model = promax
    images = narrow.picture(2, 64, 128, seed=30)
    pictures = [TypedPicture(HINTS["tile"][0], "tile", 1.4), TypedPicture(images, "openpose", 0.7)]
    watch = through_the_host(model, [union_layer_of(ours, pictures, node=NODE)], size=(2, 8, 16), steps=1)
    found = Residuals.from_host(watch.calls[0].control or {})
    for row in range(4):
        hints = {"tile": HINTS["tile"], "openpose": (images[row % 2 : row % 2 + 1], 0.7)}
        for mine, want in zip([*found.output, *found.middle], theirs(net, watch.asked[0], row, hints), strict=True):
            assert mine is not None and narrow.relative(mine[row : row + 1], want) <= TOLERANCE


def test_an_area(promax: Any) -> None:
    """A conditioning for a part of the canvas: each hint is sized for the whole canvas and cut."""
    net, ours, model = promax
    positive, negative = start()
    positive[0][1]["area"] = (8, 8, 0, 4)  # height, width, top, left in cells
    watch = Watch(model)
    layer = union_layer_of(ours, typed(["tile", "openpose"]), node=NODE)
    narrow.sample(watch.model, *compose_controls(positive, negative, [layer]), SIZE, steps=1)
    hints = {name: HINTS[name] for name in ("openpose", "tile")}
    widths = []
    for call, asked in zip(watch.calls, watch.asked, strict=True):
        found = Residuals.from_host(call.control or {})
        widths.append(asked["x"].shape[-1])
        left = 32 if widths[-1] == 8 else 0
        for row in range(len(asked["x"])):
            for mine, want in zip([*found.output, *found.middle], theirs(net, asked, row, hints, left), strict=True):
                assert mine is not None and narrow.relative(mine[row : row + 1], want) <= TOLERANCE
    assert sorted(widths) == [8, 16]


def test_one_picture_is_an_ordinary_layer(promax: Any) -> None:
    """Alone, or beside one of strength 0: the bytes of a layer of this type."""
    _, ours, model = promax
    image, off = HINTS["openpose"][0], TypedPicture(HINTS["tile"][0], "tile", 0.0)
    plain = layer_of(Control.unbound(ours.network.with_type(0)), image, 0.5 * 0.6)
    alone = [TypedPicture(image, "openpose", 0.6)]
    latents = [
        narrow.sample(model, *compose_controls(*start(), [layer]), SIZE, steps=2)
        for layer in (
            plain,
            union_layer_of(ours, alone, 0.5, node=NODE),
            union_layer_of(ours, [off, *alone], 0.5, node=NODE),
        )
    ]
    assert torch.equal(latents[1], latents[0]) and torch.equal(latents[2], latents[0])
    assert union_layer_of(ours, [off], node=NODE).idle == "strength 0"


def test_equal_groups_share_one_evaluation(promax: Any) -> None:
    """In any order of their pictures and with other settings; a layer of one type goes into the same batch."""
    _, ours, model = promax
    there = union_layer_of(ours, typed(HINTS), 0.8, uncond_strength=0.5, node=NODE)
    back = union_layer_of(ours, typed(reversed(HINTS)), 0.4, end_percent=0.5, node=NODE)
    other = union_layer_of(ours, typed(["tile", "openpose"]), 0.3, node=NODE)
    single = layer_of(Control.unbound(ours.network.with_type(6)), HINTS["tile"][0], 0.2)
    rows: list[int] = []
    hook = ours.network.module.middle_block.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    whole = through_the_host(model, [there, back, other, single], steps=1)
    hook.remove()
    assert rows == [6]  # three evaluations of two rows
    apart = [through_the_host(model, [layer], steps=1) for layer in (there, back, other, single)]
    sums = [Residuals.from_host(watch.calls[0].control or {}).output for watch in apart]
    for number, mine in enumerate(Residuals.from_host(whole.calls[0].control or {}).output):
        assert mine is not None and narrow.relative(mine, sum(one[number] for one in sums)) <= 1e-5  # type: ignore[arg-type, misc]


def test_the_report_tells_types_and_strengths(promax: Any) -> None:
    from control_composer.control.report import report_json, report_text

    _, ours, model = promax
    pictures = [*typed(["tile"]), TypedPicture(narrow.picture(2, 64, 128, seed=30), "openpose", 0.7)]
    single = layer_of(Control.unbound(ours.network.with_type(1)), HINTS["tile"][0])
    composed = compose_controls(*start(), [union_layer_of(ours, pictures, node=NODE), single])
    narrow.sample(model, *composed, (2, 8, 16), steps=1)
    record = composed[0][0][1]["control"].record
    text = report_text(record)
    assert "types: openpose × 0.7 (2 of 128×64), tile × 1.4 (192×96)" in text
    assert "types: depth" in text
    assert "Each hint → the latent of its number, 1, 2" in text
    assert '"types": "openpose × 0.7 (2 of 128×64), tile × 1.4 (192×96)"' in report_json(record)


def refused(pictures: Any, control: Any, **settings: Any) -> str:
    with pytest.raises(ControlError) as caught:
        union_layer_of(control, pictures, **settings, node=NODE)
    return str(caught.value)


def test_what_is_refused(promax: Any, tmp_path: Path) -> None:
    _, ours, _ = promax
    tile, pose = typed(["tile", "openpose"])
    assert refused([], ours) == (
        "Union Control Layer has no pictures, but at least one was expected by its ControlNet Union; connect Union Hint nodes to it, or take it out."
    )
    assert refused([pose, tile, pose], ours) == (
        "Union Control Layer has two pictures of the type openpose, but promax.safetensors reads one of each type in a pass; change the type of one "
        "of them, or give it a layer of its own."
    )
    six = Control.unbound(union(tmp_path).ours.network.with_type(None))
    assert refused([pose, tile], six) == (
        "union.safetensors is a union ControlNet of the types openpose, depth, hed/pidi/scribble/ted, canny/lineart/anime_lineart/mlsd, normal, "
        "segment, but the type tile was asked for; choose one of its types, or another file."
    )
    plain = narrow.make_ours(narrow.make_module("sdxl"), "SDXL")
    assert refused([pose], plain) == (
        "control_net of Union Control Layer is test.safetensors, which has no types of hint, but a ControlNet Union or ProMax was expected; connect "
        "one, or take Control Layer for a control of one kind of hint."
    )
    assert "is the connected control_net, which has no types of hint" in refused(
        [pose], narrow.make_stock(narrow.make_module("sdxl"))
    )
    assert refused([TypedPicture(pose.image_bhwc, "pose")], ours) == (
        'type of a picture of Union Control Layer is "pose", but one of openpose, depth, hed/pidi/scribble/ted, canny/lineart/anime_lineart/mlsd, '
        "normal, segment, tile, repaint was expected; choose one of them."
    )
    assert refused([tile, TypedPicture(narrow.picture(1, 64, 128, channels=4), "openpose")], ours) == (
        "image of Union Control Layer (openpose) has 4 channels, but promax.safetensors reads hints of 3; remove the alpha channel, for example with "
        "Split Image with Alpha."
    )
    assert refused([tile, TypedPicture(None, "openpose")], ours) == (  # type: ignore[arg-type]
        "image of Union Control Layer (openpose) is NoneType, but a batch of pictures (pictures, height, width, channels) was expected; connect an "
        "IMAGE output."
    )
    assert refused([tile, TypedPicture(pose.image_bhwc, "openpose", float("nan"))], ours) == (
        "strength of openpose of Union Control Layer is nan, but a finite number was expected by promax.safetensors; type one, for example 1.0."
    )
    broken = TypedPicture(torch.full((1, 64, 128, 3), float("nan")), "openpose")
    assert "has pixels that are NaN or infinite" in refused([tile, broken], ours)
    assert "mask is 64×64 pixels, but the hint is 192×96" in refused([tile, pose], ours, mask=torch.ones(1, 64, 64))


def test_the_stock_loaders_union(promax: Any, tmp_path: Path) -> None:
    """The stock control_net of a union file works too, whatever type was set on it."""
    case = union(tmp_path)
    pictures = [*typed(["openpose"]), TypedPicture(HINTS["tile"][0], "depth", 0.5)]
    layers = [union_layer_of(control, pictures, node=NODE) for control in (case.ours, case.stock)]
    latents = [narrow.sample(case.model, *compose_controls(*start(), [layer]), SIZE, steps=1) for layer in layers]
    assert torch.equal(*latents)
    assert layers[1].source.patcher is case.stock.control_model_wrapped  # type: ignore[union-attr]
