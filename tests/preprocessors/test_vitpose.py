"""Bodies by RT-DETR and ViTPose, against transformers' own processors around the same networks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.pose import BODY
from control_composer.preprocessors.rtdetr_boxes import boxes_of_people
from control_composer.preprocessors.top_down import areas_of, as_body, bodies_in_boxes, crop, maps_of, points_of_maps
from control_composer.preprocessors.vitpose import VITPOSE, vitpose
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_vitpose import EXPERTS, ONE, network, rt_detr

CPU = torch.device("cpu")
COCO = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow"),
    *("right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee"),
    *("left ankle", "right ankle"),
)


def held(module: nn.Module) -> Network:
    return Network(module, CPU, torch.float32)


def processor(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        return getattr(transformers, name)()


def pictures_of(*pictures: np.ndarray) -> Tensor:
    return as_image(*pictures).movedim(-1, 1)


# --- people ---


@pytest.mark.parametrize("threshold", [0.3, 0.38])
def test_boxes_as_transformers_finds_them(threshold: float) -> None:
    theirs, pictures = processor("RTDetrImageProcessor"), pictures_of(noise(120, 90, 1), noise(120, 90, 2))
    module = network(rt_detr)
    seen = theirs(list(pictures), do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        output = module(**seen)
    expected = theirs.post_process_object_detection(output, threshold, target_sizes=[(120, 90)] * 2)
    found = boxes_of_people(pictures, held(module), threshold)
    assert any(len(one) for one in found) and any((one["labels"] != 0).any() for one in expected)
    for boxes, one in zip(found, expected, strict=True):
        people = one["boxes"][one["labels"] == 0]
        assert boxes.shape == people.shape
        assert torch.allclose(boxes, people, atol=1e-2)


def test_a_detector_that_does_not_know_people() -> None:
    class Birds(nn.Module):
        config = type("Config", (), {"id2label": {0: "tit", 1: "wren", 2: "swift", 3: "rook", 4: "owl"}})

    with pytest.raises(PreprocessorError) as refused:
        boxes_of_people(torch.rand(1, 3, 8, 8), held(Birds()), 0.3)
    assert str(refused.value) == (
        "RT-DETR: found a network for tit, wren, swift, rook and 1 more, but one that knows 'person' was expected; choose a detector trained on COCO."
    )


# --- points ---

BOXES = torch.tensor([[10.0, 20.0, 60.0, 150.0], [-15.0, 90.0, 70.0, 110.0], [80.0, 100.0, 139.0, 178.0]])


def coco_boxes(boxes: Tensor) -> np.ndarray:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).numpy()


def test_what_the_network_sees_as_transformers_prepares_it() -> None:
    theirs, picture = processor("VitPoseImageProcessor"), pictures_of(noise(180, 140))
    expected = theirs([picture[0] * 255], boxes=[coco_boxes(BOXES)], return_tensors="pt")["pixel_values"]
    seen = torch.stack([crop(picture[0], area) for area in areas_of(BOXES)])
    mean, deviation = torch.tensor(theirs.image_mean)[:, None, None], torch.tensor(theirs.image_std)[:, None, None]
    found = (seen - mean) / deviation
    # A pixel on the picture's border is in it or not by the last bit.
    apart = (found - expected).abs().amax(1)
    assert expected.shape == found.shape == (3, 3, 256, 192) and float(expected.std()) > 0.5
    assert float((apart > 1e-3).float().mean()) < 0.002


def blobs(seed: int, people: int) -> Tensor:
    """(people, 17, 64, 48) maps of one peak each, between cells, as networks make them."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :48]
    maps = np.zeros((people, 17, 64, 48))
    for of_person in maps:
        for point, map_ in enumerate(of_person):
            px, py = generator.uniform(-0.4, 47.4), generator.uniform(-0.4, 63.4)
            map_ += (point / 16) * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.0**2)) * generator.uniform(0.9, 1)
    return torch.from_numpy(maps).float()


def test_points_as_transformers_finds_them() -> None:
    theirs, maps = processor("VitPoseImageProcessor"), blobs(0, 3)
    output = type("Output", (), {"heatmaps": maps})()
    (expected,) = theirs.post_process_pose_estimation(output, boxes=[coco_boxes(BOXES)])
    found = points_of_maps(maps, areas_of(BOXES))
    assert found.shape == (3, 17, 3)
    for ours, one in zip(found, expected, strict=True):
        # The first map is empty: nothing is seen there.
        assert not ours[0].any()
        assert torch.allclose(ours[1:, 2], one["scores"][1:].float())
        assert float((ours[1:, :2] - one["keypoints"][1:].float()).abs().max()) < 0.01


def test_a_point_between_cells_is_found_there() -> None:
    y, x = np.mgrid[:64, :48]
    map_ = torch.from_numpy(np.exp(-((x - 20.3) ** 2 + (y - 30.6) ** 2) / (2 * 2.0**2))).float()
    # One cell of the map is one pixel of the picture.
    area = torch.tensor([[23.5, 31.5, 47.0, 63.0]])
    found = points_of_maps(map_[None, None], area)[0, 0]
    assert torch.allclose(found[:2], torch.tensor([20.3, 30.6]), atol=0.02)


def test_maps_without_a_top_keep_the_peak() -> None:
    maps = torch.rand(3, 17, 64, 48, generator=torch.Generator().manual_seed(0)) ** 3
    areas, index = areas_of(BOXES), maps.flatten(2).argmax(2)
    cell = areas[:, None, 2:] / torch.tensor([47, 63])
    peaks = torch.stack([index % 48, index // 48], 2) * cell + areas[:, None, :2] - areas[:, None, 2:] / 2
    (theirs,) = processor("VitPoseImageProcessor").post_process_pose_estimation(
        type("Output", (), {"heatmaps": maps})(), boxes=[coco_boxes(BOXES)]
    )
    expected = torch.stack([one["keypoints"].float() for one in theirs])
    near, found = ((expected - peaks).abs() <= cell).all(2), points_of_maps(maps, areas)[..., :2]
    assert int((~near).sum()) >= 3 and int(near.sum()) >= 3
    assert torch.allclose(found[near], expected[near], atol=0.01)
    assert torch.allclose(found[~near], peaks[~near], atol=1e-3)


@pytest.mark.parametrize("make", [ONE, EXPERTS], ids=["one", "experts"])
def test_the_networks_with_and_without_experts(make: Any) -> None:
    module, seen = network(make), torch.rand(2, 3, 256, 192)
    theirs = processor("VitPoseImageProcessor")
    mean, deviation = torch.tensor(theirs.image_mean)[:, None, None], torch.tensor(theirs.image_std)[:, None, None]
    index = torch.zeros(2, dtype=torch.long) if make is EXPERTS else None
    with torch.no_grad():
        expected = module((seen - mean) / deviation, dataset_index=index).heatmaps
    found = maps_of(seen, held(module))
    assert found.shape == (2, 17, 64, 48) and torch.allclose(found, expected, atol=1e-5)


def test_points_in_openpose_order_with_a_neck() -> None:
    points = np.stack([np.arange(17) * 10.0, np.arange(17) + 100.0, 0.5 + np.arange(17) / 40], 1)
    body = as_body(points)
    for place, name in enumerate(BODY):
        if name == "neck":
            assert np.allclose(body[place], [55, 105.5, 0.5 + 5 / 40])
        else:
            assert np.allclose(body[place], points[COCO.index(name)])
    points[5] = 0
    assert not as_body(points)[1].any()


# --- whole ---


def test_people_of_all_frames_at_once() -> None:
    pictures = pictures_of(noise(180, 140, 1), noise(180, 140, 2), noise(180, 140, 3))
    boxes = [BOXES, BOXES[:0], BOXES[1:]]
    module = held(network(ONE))
    found = bodies_in_boxes(pictures, boxes, module)
    assert [len(one) for one in found] == [3, 0, 2]
    alone = [bodies_in_boxes(pictures[frame : frame + 1], [boxes[frame]], module)[0] for frame in range(3)]
    assert all(
        np.allclose(a, b, atol=1e-3)
        for one, other in zip(found, alone, strict=True)
        for a, b in zip(one, other, strict=True)
    )


class Nobody(nn.Module):
    config = type("Config", (), {"id2label": {0: "person"}})

    def forward(self, picture: Tensor) -> Any:
        empty = torch.full((len(picture), 2, 1), -9.0)
        return {"logits": empty, "pred_boxes": torch.zeros(len(picture), 2, 4)}


def test_nobody_is_nobody_or_the_whole_picture() -> None:
    networks = {"ViTPose-Base": held(network(ONE)), "RT-DETR-R50": held(Nobody())}
    image = as_image(noise(60, 40))
    hint, (pose,) = vitpose(image, networks=networks, or_whole_picture=False)
    assert not hint.any() and pose.people == () and (pose.height, pose.width) == (60, 40)
    hint, (pose,) = vitpose(image, networks=networks, least_score=0.0, resolution=80)
    assert hint.any() and len(pose.people) == 1 and hint.shape == (1, 120, 80, 3)
    (whole,) = bodies_in_boxes(
        image.movedim(-1, 1), [torch.tensor([[0.0, 0.0, 40.0, 60.0]])], networks["ViTPose-Base"]
    )[0]
    assert np.allclose(pose.people[0].body, whole * [2, 2, 1], atol=1e-3)
    faint, (same,) = vitpose(image, networks=networks, least_score=9.0)
    assert not faint.any() and np.array_equal(same.people[0].body, whole)


def test_the_networks_that_are_chosen_are_needed() -> None:
    assert VITPOSE.needed({}) == ("ViTPose-Base", "RT-DETR-R50")
    assert VITPOSE.needed({"network": "ViTPose-Plus-Huge", "detector": "RT-DETR-R18"}) == (
        "ViTPose-Plus-Huge",
        "RT-DETR-R18",
    )
