"""Segmentation against transformers' own processors, networks and post-processing, on random weights."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

pytest.importorskip("transformers")

import transformers

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.annotators.segmentation import MASK2FORMERS, ONEFORMERS, SEGFORMERS, UPERNETS
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.networks.segmenter import TASK
from control_composer.preprocessors.networks.sight import Sight, read_sight
from control_composer.preprocessors.palettes import ADE20K, COCO
from control_composer.preprocessors.segmentation import best, segmented
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_segmentation import ASPECT, SQUARE, WRITTEN

BY_ID = {annotator.id: annotator for annotator in (*ONEFORMERS, *MASK2FORMERS, *UPERNETS, *SEGFORMERS)}
CASES = {
    "segformer-b0-finetuned-ade-512-512": "SegformerImageProcessor",
    "upernet-convnext-small": "SegformerImageProcessor",
    "upernet-swin-tiny": "SegformerImageProcessor",
    "mask2former-swin-tiny-ade-semantic": "Mask2FormerImageProcessor",
    "mask2former-swin-tiny-coco-panoptic": "Mask2FormerImageProcessor",
    "oneformer_ade20k_swin_tiny": "OneFormerImageProcessor",
    "oneformer_coco_swin_large": "OneFormerImageProcessor",
}
IN_ONEFORMER = (
    "wall|building|sky|floor|tree|ceiling|road, route|bed|window |grass|cabinet|sidewalk, pavement|person|earth, ground|door|table|mountain, mount|"
    "plant|curtain|chair|car|water|painting, picture|sofa|shelf|house|sea|mirror|rug|field|armchair|seat|fence|desk|rock, stone|"
    "wardrobe, closet, press|lamp|tub|rail|cushion|base, pedestal, stand|box|column, pillar|signboard, sign|"
    "chest of drawers, chest, bureau, dresser|counter|sand|sink|skyscraper|fireplace|refrigerator, icebox|grandstand, covered stand|path|stairs|"
    "runway|case, display case, showcase, vitrine|pool table, billiard table, snooker table|pillow|screen door, screen|stairway, staircase|river|"
    "bridge, span|bookcase|blind, screen|coffee table|toilet, can, commode, crapper, pot, potty, stool, throne|flower|book|hill|bench|countertop|"
    "stove|palm, palm tree|kitchen island|computer|swivel chair|boat|bar|arcade machine|hovel, hut, hutch, shack, shanty|bus|towel|light|truck|"
    "tower|chandelier|awning, sunshade, sunblind|street lamp|booth|tv|plane|dirt track|clothes|pole|land, ground, soil|"
    "bannister, banister, balustrade, balusters, handrail|escalator, moving staircase, moving stairway|ottoman, pouf, pouffe, puff, hassock|bottle|"
    "buffet, counter, sideboard|poster, posting, placard, notice, bill, card|stage|van|ship|fountain|"
    "conveyer belt, conveyor belt, conveyer, conveyor, transporter|canopy|washer, automatic washer, washing machine|plaything, toy|pool|stool|"
    "barrel, cask|basket, handbasket|falls|tent|bag|minibike, motorbike|cradle|oven|ball|food, solid food|step, stair|tank, storage tank|trade name|"
    "microwave|pot|animal|bicycle|lake|dishwasher|screen|blanket, cover|sculpture|hood, exhaust hood|sconce|vase|traffic light|tray|trash can|fan|"
    "pier|crt screen|plate|monitor|bulletin board|shower|radiator|glass, drinking glass|clock|flag"
)
"""The names of ADE20K as OneFormer's and detectron2's metadata have them."""
ONEFORMER_NAMES = IN_ONEFORMER.split("|")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    folder = tmp_path_factory.mktemp("segmentation")
    for name in CASES:
        WRITTEN[name](folder / name)
    return {name: Network(BY_ID[name].build(folder / name), torch.device("cpu"), torch.float32) for name in CASES}


def labels_of(name: str, module: Any, image_bhwc: Tensor, size: tuple[int, int]) -> Tensor:
    """The classes (B, *size) as the library finds them."""
    processor = getattr(transformers, CASES[name])(**(ASPECT if name.startswith("oneformer") else SQUARE))
    # In floats, so that nothing is rounded to 8 bits between the steps.
    frames = list(255 * image_bhwc.movedim(-1, 1))
    extra = {}
    if name.startswith("oneformer"):
        task = torch.zeros(len(frames), 77, dtype=torch.int64)
        task[:, : len(TASK)] = torch.tensor(TASK)
        extra["task_inputs"] = task
        inputs = processor(frames, task_inputs=["semantic"] * len(frames), return_tensors="pt")
    else:
        inputs = processor(frames, return_tensors="pt")
    with torch.no_grad():
        found = module.network(pixel_values=inputs["pixel_values"], **extra)
    return torch.stack(processor.post_process_semantic_segmentation(found, target_sizes=[size] * len(frames)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(64, 64), (100, 61), (31, 205)])
def test_the_library_finds_the_same_classes(name: str, size: tuple[int, int], networks: dict[str, Network]) -> None:
    image = as_image(noise(*size), noise(*size, 1))
    expected = labels_of(name, networks[name].module, image, size)
    palette = COCO if "coco" in name else ADE20K
    colours = torch.tensor([colour for colour, _ in palette.classes], dtype=torch.uint8)
    hint = segmented(image, networks[name], name, 0)
    assert hint.shape == (2, *size, 3) and hint.dtype == torch.float32
    assert len(expected.unique()) > 1
    different = ((hint * 255).round().byte() != colours[expected]).any(-1)
    assert different.float().mean() < 1e-3
    # Not near a palette's colours: at them.
    assert torch.equal((hint * 255).round() / 255, hint)


@pytest.mark.parametrize(("resolution", "size"), [(96, (96, 144)), (8, (8, 12))])
@pytest.mark.parametrize("name", list(CASES))
def test_a_hint_of_another_size_and_each_frame_alone(
    name: str, resolution: int, size: tuple[int, int], networks: dict[str, Network]
) -> None:
    image = as_image(noise(60, 90), noise(60, 90, 1), noise(60, 90, 2))
    hint = segmented(image, networks[name], name, resolution)
    expected = labels_of(name, networks[name].module, image, size)
    palette = COCO if "coco" in name else ADE20K
    colours = torch.tensor([colour for colour, _ in palette.classes])[expected] / 255
    assert (hint != colours).any(-1).float().mean() < 1e-3
    singles = torch.cat([segmented(frame[None], networks[name], name, resolution) for frame in image])
    assert (hint != singles).any(-1).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["segformer-b0-finetuned-ade-512-512", "upernet-convnext-small"])
def test_half_precision(name: str, dtype: torch.dtype, networks: dict[str, Network], tmp_path: Path) -> None:
    WRITTEN[name](tmp_path / name)
    half = Network(BY_ID[name].build(tmp_path / name, dtype=dtype), torch.device("cpu"), dtype)
    image = as_image(noise(64, 64))
    found, expected = segmented(image, half, name, 0), segmented(image, networks[name], name, 0)
    assert found.dtype == torch.float32
    assert 0 < (found != expected).any(-1).float().mean() < 0.08


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(40, 56), (16, 20), (7, 5), (100, 13), (9, 300), (1, 1), (700, 3)])
def test_the_best_class_of_resized_scores(size: tuple[int, int], antialias: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr("control_composer.preprocessors.segmentation.NUMBERS_AT_ONCE", 12 * 130)
    scores = torch.randn(12, 16, 20, generator=torch.Generator().manual_seed(0))
    expected = interpolate(scores[None], size, mode="bilinear", align_corners=False, antialias=antialias)[0].argmax(0)
    found = best(scores, Size(*size), antialias)
    assert found.shape == size and (found != expected).float().mean() < 1e-3


def test_the_task_is_in_the_tokens_of_clip() -> None:
    clip = pytest.importorskip("comfy.sd1_clip")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(Path(clip.__file__).parent / "sd1_tokenizer")
    assert tuple(tokenizer("the task is semantic")["input_ids"]) == TASK


def test_colours_of_ade20k() -> None:
    colours = np.array([colour for colour, _ in ADE20K.classes], dtype=np.uint8)
    # Of the 450 numbers in mmsegmentation, lllyasviel/ControlNet and sd-webui-controlnet, which are the same.
    assert hashlib.sha256(colours.tobytes()).hexdigest() == ADE20K_SHA256
    assert colours.shape == (150, 3) and len({tuple(colour) for colour in colours}) == 149
    assert tuple(colours[6]) == tuple(colours[48]) == (140, 140, 140)
    named = {
        names.split(",")[0]: tuple(colour) for (_, names), colour in zip(ADE20K.classes, colours.tolist(), strict=True)
    }
    assert named["wall"] == (120, 120, 120) and named["person"] == (150, 5, 61) and named["flag"] == (92, 0, 255)


def test_colours_of_coco() -> None:
    colours = np.array([colour for colour, _ in COCO.classes], dtype=np.uint8)
    # Of the 399 numbers in detectron2's and the panoptic API's metadata.
    assert hashlib.sha256(colours.tobytes()).hexdigest() == COCO_SHA256
    assert len({tuple(colour) for colour in colours}) == 133
    assert COCO.classes[0] == ((220, 20, 60), "person") and COCO.classes[132] == ((250, 141, 255), "rug-merged")
    assert COCO.classes[79][1] == "toothbrush" and COCO.classes[80][1] == "banner"


def test_the_names_of_published_files_are_known() -> None:
    """mmsegmentation's are ours."""
    ADE20K.check(dict(enumerate(ONEFORMER_NAMES)), "config.json")
    ADE20K.check({number: names.split(",")[0] for number, (_, names) in enumerate(ADE20K.classes)}, "config.json")
    ADE20K.check({number: f"LABEL_{number}" for number in range(150)}, "config.json")


@pytest.mark.parametrize(("one", "other"), [(0, 1), (57, 58), (12, 149), (88, 89)])
def test_classes_in_another_order_are_refused(one: int, other: int) -> None:
    labels = dict(enumerate(ONEFORMER_NAMES))
    labels[one], labels[other] = labels[other], labels[one]
    with pytest.raises(PreprocessorError) as refused:
        ADE20K.check(labels, "some/config.json")
    assert str(refused.value) == (
        f"'some/config.json': found '{labels[one]}' as class {one}, which is '{ADE20K.classes[one][1]}', but the 150 classes of ADE20K in their "
        "order were expected; put the published folder there, or choose the network that this one is."
    )


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "oneformer_ade20k_swin_tiny"
    WRITTEN["oneformer_coco_swin_large"](folder)
    with pytest.raises(PreprocessorError) as refused:
        BY_ID["oneformer_ade20k_swin_tiny"].build(folder)
    assert str(refused.value) == (
        "'oneformer_ade20k_swin_tiny/config.json': found 133 classes, but the 150 classes of ADE20K in their order were expected; "
        "put the published folder there, or choose the network that this one is."
    )


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (None, "no such file"),
        ("{", "no settings that tell the size, mean and deviation of pictures"),
        ('{"size": {"height": 0, "width": 9}}', "no settings that tell the size, mean and deviation of pictures"),
        ('{"size": 512, "image_std": [0, 1, 1]}', "no settings that tell the size, mean and deviation of pictures"),
        ("[]", "no settings that tell the size, mean and deviation of pictures"),
    ],
)
def test_folders_that_do_not_say_how_they_see(written: str | None, found: str, tmp_path: Path) -> None:
    if written is not None:
        (tmp_path / "preprocessor_config.json").write_text(written, encoding="utf-8")
    with pytest.raises(PreprocessorError) as refused:
        read_sight(tmp_path)
    assert str(refused.value) == (
        f"'{tmp_path.name}/preprocessor_config.json': found {found}, but the settings of transformers' image processor were expected; "
        "put the published file there."
    )


def test_files_of_all_years_say_how_they_see(tmp_path: Path) -> None:
    def read(divisor: int = 1, **settings: Any) -> Sight:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return read_sight(tmp_path, divisor)

    assert read(size=512) == read(size={"height": 512, "width": 512}) == Sight(square=Size(512, 512))
    assert read(size=640, max_size=2560) == read(size={"shortest_edge": 640, "longest_edge": 2560})
    assert read(size=640, max_size=2560) == Sight(shorter=640, longer=2560)
    assert read(size={"longest_edge": 1024}) == Sight(longer=1024)
    assert read(32, size=384).divisor == 32 and read(32, size=384, size_divisor=16).divisor == 16
    assert read(size=384, size_divisor=16).divisor == 1
    assert read(size=8, image_mean=[0.5] * 3, image_std=[0.25] * 3).statistics == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (100, 900), (901, 100), (33, 33), (1, 1), (2000, 30), (720, 1281)]
)
def test_pictures_are_seen_at_the_size_of_the_library(size: tuple[int, int]) -> None:
    from transformers.image_transforms import get_size_with_aspect_ratio

    assert Sight(shorter=64, longer=192).size_of(Size(*size)) == get_size_with_aspect_ratio(size, 64, 192)
    sides = get_size_with_aspect_ratio(size, 64, 192)
    assert Sight(shorter=64, longer=192, divisor=32).size_of(Size(*size)) == tuple(
        32 * math.ceil(s / 32) for s in sides
    )
    expected = transformers.SamImageProcessor()._get_preprocess_shape(size, 64)
    assert Sight(longer=64).size_of(Size(*size)) == expected


def test_a_line_of_pixels_is_seen_as_one() -> None:
    assert Sight(shorter=64, longer=192).size_of(Size(1, 4000)) == (1, 192)
    assert Sight(longer=64).size_of(Size(4000, 1)) == (64, 1)


def test_weights_that_are_no_numbers(networks: dict[str, Network]) -> None:
    name = "segformer-b0-finetuned-ade-512-512"
    bias = networks[name].module.network.decode_head.classifier.bias  # type: ignore[union-attr]
    whole = bias.clone()
    bias[3] = float("nan")
    try:
        with pytest.raises(PreprocessorError) as refused:
            segmented(as_image(noise(20, 20)), networks[name], name, 0)
    finally:
        bias.copy_(whole)
    assert str(refused.value) == (
        f"{name}: found scores that are NaN or infinite, but numbers were expected; start ComfyUI with --fp32-unet, or download the network's "
        "files anew."
    )


ADE20K_SHA256 = "ce475c9151035eff51f4cf27fd7d906959b1480f6d15b9423ae2417c1b23a0ed"
COCO_SHA256 = "efcc320916d0acb3f51547ec72e0c0218aafc04dc222894062fb087f5233dbc2"
