"""What the host's own nodes give, through the host's own code, as hints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("comfy")
pytest.importorskip("cv2")

import comfy.model_patcher

from control_composer.nodes.convert import NODES
from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.normal_convention import BAE, CONVENTIONS, DIRECTX, MIDAS, OPENGL, normal_convention
from control_composer.preprocessors.normal_from_depth import normal_from_depth
from control_composer.preprocessors.segment_colours import seeded_colours

BY_ID: dict[str, Any] = {node.define_schema().node_id.removeprefix("ControlComposer"): node for node in NODES}


def run(name: str, *given: Any, **settings: Any) -> torch.Tensor:
    hint: torch.Tensor = BY_ID[name].execute(*given, **settings).args[0]
    assert hint.dtype == torch.float32 and hint.shape[-1] == 3
    assert float(hint.min()) >= 0 and float(hint.max()) <= 1
    return hint


class Measuring(torch.nn.Module):
    """Depth Anything 3 as its node sees it: the distance is the picture's green, the sky its blue."""

    dtype = torch.float32

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        spread = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
        shown = picture * spread + mean
        return {"depth": 1 + 9 * shown[:, 1], "sky": shown[:, 2]}


def test_depth_anything_3() -> None:
    extras = pytest.importorskip("comfy_extras.nodes_depth_anything_3")
    cpu = torch.device("cpu")
    network = torch.nn.Module()
    network.diffusion_model = Measuring()
    patcher = comfy.model_patcher.CoreModelPatcher(network, cpu, cpu)
    image = torch.zeros(2, 140, 140, 3)
    image[0, ..., 1] = torch.linspace(0, 1, 140)
    image[1, ..., 1] = torch.linspace(1, 0.5, 140).reshape(140, 1)
    image[1, :20, :, 2] = 1
    geometry = extras.DA3Inference.execute(patcher, image, 140, "upper_bound_resize", {"mode": "mono"}).args[0]
    hint = run("GeometryDepth", geometry)
    row, column = hint[0, 70, :, 0], hint[1, :, 70, 0]
    assert float(row[0]) == 1 and float(row[-1]) == 0 and bool((row.diff() <= 0).all())
    assert bool((column[:20] == 0).all()) and float(column[-1]) == 1 and bool((column[20:].diff() >= 0).all())
    # The host's own picture of it tells the same order.
    evenly = run("GeometryDepth", geometry, grading="evenly")
    own = extras.DA3Render.execute(
        geometry, {"output": "depth", "normalization": "v2_style", "apply_sky_clip": False}
    ).args[0]
    for frame in (0, 1):
        pair = torch.stack([evenly[frame, ..., 0].flatten(), own[frame, ..., 0].flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.95


def tilted(toward_left: float, toward_top: float, height: int = 24, width: int = 32) -> torch.Tensor:
    """Points (1, H, W, 3) of a plane, nearer at the left and at the top, x to the right, y down, z away, as MoGe gives them."""
    y, x = torch.meshgrid(torch.arange(height) / width, torch.arange(width) / width, indexing="ij")
    away = 3 + toward_left * x + toward_top * y
    return torch.stack([x * away, y * away, away], dim=2)[None]


@pytest.mark.parametrize(("left", "top"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (0.7, -0.4)])
def test_moge(left: float, top: float) -> None:
    """Its depth as the host draws it; its normals with those of the depth by Sobel, the convention that ControlNets learnt."""
    extras = pytest.importorskip("comfy_extras.nodes_moge")
    points = tilted(left, top)
    found = {"points": points, "depth": points[..., 2].clone(), "mask": torch.ones(1, 24, 32, dtype=torch.bool)}
    found["mask"][0, :3] = False
    found["depth"][0, :3] = float("inf")
    model = SimpleNamespace(infer=lambda picture, **settings: found)
    geometry = extras.MoGeInference.execute(model, torch.rand(1, 24, 32, 3), 9, 0.0, 4, True, True).args[0]
    depth = run("GeometryDepth", geometry)
    assert torch.allclose(depth, extras.MoGeRender.execute(geometry, "depth").args[0], atol=1e-4)

    hints = [
        run("NormalConvention", extras.MoGeRender.execute(geometry, f"normal_{name}").args[0], source=source)
        for name, source in (("opengl", OPENGL), ("directx", DIRECTX))
    ]
    assert torch.allclose(hints[0], hints[1], atol=1e-6)
    inside = hints[0][0, 6:-3, 3:-3] - 0.5
    sobel = normal_from_depth(depth, channels="x y z", a=200.0, background=0.0)[0, 6:-3, 3:-3] - 0.5
    for channel, slope in ((0, left), (1, top)):
        if slope:
            assert bool((inside[..., channel].sign() == sobel[..., channel].sign()).all())
    assert bool((inside[..., 2] > 0.2).all())


def test_conventions() -> None:
    """A direction to the left, to the top and to the viewer."""
    left, top, front = (
        torch.tensor(values).reshape(1, 1, 1, 3) for values in ([1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1])
    )
    shown = {
        OPENGL: ([0, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]),
        DIRECTX: ([0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 1]),
        BAE: ([1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]),
        MIDAS: ([0.5, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 0.5]),
    }
    for target, expected in shown.items():
        for direction, colour in zip((left, top, front), expected, strict=True):
            assert normal_convention(direction, BAE, target).flatten().tolist() == colour
    image = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    image[0, 0] = 0
    for source in CONVENTIONS:
        for target in CONVENTIONS:
            there = normal_convention(image, source, target)
            assert torch.allclose(normal_convention(there, target, source), image, atol=1e-6)
            assert not there[0, 0].any()


def test_masks_of_things_in_colours() -> None:
    masks = torch.zeros(3, 8, 9)
    masks[0, 2:4, 2:4] = 0.6  # on the larger one
    masks[1, 1:7, 1:7] = 1
    masks[2, 7:, :] = 0.4  # not more than half there
    hint = run("ColourMasks", masks, seed=5)
    colours = seeded_colours(3, 5)
    assert hint.shape == (1, 8, 9, 3)
    assert torch.equal(hint[0, 3, 3], colours[0]) and torch.equal(hint[0, 5, 5], colours[1])
    assert not hint[0, 7].any() and not hint[0, 0].any()
    assert not torch.equal(hint, run("ColourMasks", masks, seed=6))
    assert not run("ColourMasks", torch.zeros(0, 8, 9)).any()


def packed(masks: torch.Tensor) -> torch.Tensor:
    """(frames, things, H, W) bool -> as SAM3's tracker keeps them."""
    from comfy.ldm.sam3.tracker import pack_masks

    found: torch.Tensor = pack_masks(masks)
    return found


def test_things_that_sam3_follows() -> None:
    extras = pytest.importorskip("comfy_extras.nodes_sam3")
    masks = torch.zeros(3, 2, 16, 24, dtype=torch.bool)
    for frame in range(3):
        masks[frame, 0, 2:9, frame : frame + 8] = True
        masks[frame, 1, 1:15, 4:20] = True
    data = {"packed_masks": packed(masks), "orig_size": (32, 60), "n_frames": 3, "scores": [1.0, 1.0]}
    hint = run("ColourTracks", data, seed=3)
    assert hint.shape == (3, 32, 60, 3)
    first, second = seeded_colours(2, 3)
    both = extras.SAM3_TrackToMask.execute(data, "").args[0]
    one = extras.SAM3_TrackToMask.execute(data, "0").args[0] >= 0.5
    assert torch.equal((hint == first).all(dim=3), one)
    assert bool((hint[both == 0] == 0).all())
    assert bool((hint[(both >= 0.5) & ~one] == second).all(dim=1).float().mean() > 0.99)
    assert run("ColourTracks", data | {"packed_masks": None}).shape == (3, 32, 60, 3)


LAION_FACE = {
    "face_oval": (10, 200, 10),
    "left_eye": (10, 200, 180),
    "left_eyebrow": (10, 220, 180),
    "right_eye": (180, 200, 10),
    "right_eyebrow": (180, 220, 10),
    "lips": (10, 180, 10),
}
"""Red, green, blue: the published drawing's colours, which it gives as blue, green, red."""


def test_faces() -> None:
    extras = pytest.importorskip("comfy_extras.nodes_mediapipe")
    points = np.full((478, 2), 5.0, dtype=np.float32)
    places = {"face_oval": 20, "left_eye": 40, "left_eyebrow": 60, "right_eye": 80, "right_eyebrow": 100, "lips": 120}
    parts: dict[str, frozenset[tuple[int, int]]] = {}
    for index, (part, y) in enumerate(places.items()):
        points[2 * index], points[2 * index + 1] = (10, y), (140.7, y)
        parts[part] = frozenset({(2 * index, 2 * index + 1)})
    points[468], points[473] = (60, 140), (90, 140)
    points[300] = (400, 50)  # out of the picture
    parts["lips"] |= {(300, 10)}
    parts["nose"] = frozenset({(0, 11)})
    face = {"landmarks_xy": points}
    small = {"landmarks_xy": np.minimum(points, 150) * np.array([1, 0.2], dtype=np.float32)}
    data = {"frames": [[face], [], [small]], "image_size": (150, 160), "connection_sets": parts}
    hint = run("DrawFaces", data)
    assert hint.shape == (3, 150, 160, 3) and not hint[1:].any()
    shown = (hint[0] * 255).round()
    for part, y in places.items():
        assert tuple(shown[y, 75].tolist()) == LAION_FACE[part]
        assert not shown[y + 5, 75].any()
    assert shown[140, 60].tolist() == [250, 200, 10] and shown[139, 89].tolist() == [10, 200, 250]
    assert run("DrawFaces", data, smallest=10)[2].any()
    # Where the host draws the same parts in one colour, its line out of the picture aside.
    parts["lips"] -= {(300, 10)}
    every = {"connections": "custom"} | {part: True for part in places}
    own = extras.MediaPipeFaceMeshVisualize.execute(data, every, "#ffffff", 2, 0).args[0]
    lines, near = own[0].any(dim=2), torch.nn.functional.max_pool2d(hint[:1].amax(dim=3), 3, 1, 1)[0].bool()
    assert int(lines.sum()) > 500 and bool(near[lines].all())


@pytest.mark.parametrize(
    ("node", "given", "text"),
    [
        (
            "GeometryDepth",
            {"image": 1},
            "geometry: found image, but a dictionary with depth was expected; connect the output of the node "
            '"Run Depth Anything 3".',
        ),
        (
            "DrawFaces",
            [1],
            "face_landmarks: found list, but a dictionary with frames was expected; connect the output of the node "
            '"Detect Face Landmarks (MediaPipe)".',
        ),
        (
            "ColourTracks",
            {},
            "track_data: found nothing, but a dictionary with packed_masks was expected; connect the output of the node "
            '"Run SAM3 Video Track".',
        ),
        (
            "ColourMasks",
            torch.zeros(1, 2, 3, 4),
            "masks: found a tensor of shape (1, 2, 3, 4), but masks (number, height, width) were expected; connect a MASK output.",
        ),
    ],
)
def test_other_things_are_refused(node: str, given: Any, text: str) -> None:
    with pytest.raises(PreprocessorError) as refusal:
        BY_ID[node].execute(given)
    assert str(refusal.value) == text


def test_the_host_has_these_types() -> None:
    """Custom types are strings: a misspelt one would connect to nothing."""
    from comfy_extras import nodes_depth_anything_3, nodes_mediapipe, nodes_moge, nodes_sam3

    theirs = {
        nodes_depth_anything_3.DA3Geometry.io_type,
        nodes_moge.MoGeGeometry.io_type,
        nodes_sam3.SAM3TrackData.io_type,
        nodes_mediapipe.FaceLandmarksType.io_type,
    }
    ours = {
        kind
        for node in NODES
        for value in node.define_schema().inputs
        for kind in value.get_io_type().split(",")
        if kind not in {"IMAGE", "MASK", "INT", "COMBO"}
    }
    assert ours == theirs
