"""Solo at Compose Controls, and what that node tells the page of its layers."""

import json
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("comfy_api")
pytest.importorskip("comfy")

import folder_paths
import torch

from control_composer.control import ControlError
from control_composer.nodes import layer_list as listed
from control_composer.nodes.apply import ControlComposerCompose, ControlComposerLayer
from control_composer.nodes.layer_list import KEY, THUMBNAIL_PIXELS, origin_of, thumbnail
from control_composer.residuals import SoftWeights
from control_composer.tests import narrow


@pytest.fixture(autouse=True)
def temporary(tmp_path):
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_temp_directory(before)


@pytest.fixture(scope="module")
def control():
    return narrow.make_ours(narrow.make_module("sd1"), "SD1")


def layer(control, strength=1.0, image=None, **settings):
    image = narrow.picture(1, 64, 64) if image is None else image
    return ControlComposerLayer.execute(control, image, strength, 0.0, 1.0, 1.0, **settings).result[0]


def compose(layers, strength=1.0, **settings):
    """Layers of the control that is made, and what the page is told of each."""
    conditioning = narrow.conditioning("sd1", 1)
    output = ControlComposerCompose.execute(
        conditioning, conditioning, {f"layer{number}": one for number, one in layers.items()}, strength, **settings
    )
    told = [json.loads(text) for text in output.ui[KEY]]
    return output.result[0][0][1]["control"].layers, told


def idle(layers):
    return [one.idle for one in layers]


def test_without_solo_all_layers_act(control):
    layers, told = compose({0: layer(control), 1: layer(control)})
    assert idle(layers) == ["", ""]
    assert [one["number"] for one in told] == [1, 2]


@pytest.mark.parametrize("solo", ["2", " 2 ,", "2, 2"])
def test_solo_makes_the_others_silent(control, solo):
    layers, told = compose({0: layer(control), 1: layer(control), 2: layer(control)}, solo=solo)
    assert idle(layers) == ["another layer is soloed", "", "another layer is soloed"]
    assert [one["idle"] for one in told] == idle(layers)


def test_several_may_be_soloed_and_one_that_is_off_stays_off(control):
    layers, _ = compose({0: layer(control), 1: layer(control, enabled=False), 2: layer(control)}, solo="1,2")
    assert idle(layers) == ["", "off", "another layer is soloed"]


def test_numbers_are_those_of_the_inputs_also_where_one_is_left_free(control):
    layers, told = compose({0: None, 1: layer(control, 0.5), 3: layer(control, 0.25)}, solo="4")
    assert [(one.strength, one.idle) for one in layers] == [(0.5, "another layer is soloed"), (0.25, "")]
    assert [one["number"] for one in told] == [2, 4]


@pytest.mark.parametrize("wrong", ["3", "0", "-1", "1.5", "edges", "1;2", "1 2", "²"])
def test_a_number_of_no_layer_is_refused_with_the_numbers_there_are(control, wrong):
    with pytest.raises(ControlError) as refused:
        compose({0: layer(control), 1: layer(control)}, solo=f"1, {wrong}")
    assert str(refused.value) == (
        f'solo of Compose Controls names "{wrong}", but numbers of its connected layers (1, 2) with commas between them were expected; '
        "write such numbers, or nothing to let all layers act."
    )


def test_without_layers_the_message_is_that_of_the_layers():
    with pytest.raises(ControlError, match="has no layers"):
        compose({}, solo="1")


def test_the_page_is_told_how_each_layer_acts(control):
    mask = torch.ones(1, 64, 64)
    layers = {0: layer(control, 0.5, weights=SoftWeights(), mask=mask), 1: layer(control, 0.0)}
    _, (first, second) = compose(layers, 1.5)
    assert (first["strength"], first["acts"], first["idle"]) == (0.5, 0.75, "")
    assert (first["weights"], first["mask"], first["schedule"]) == (True, True, False)
    assert (second["weights"], second["mask"], second["idle"]) == (False, False, "strength 0")
    assert (first["start"], first["end"], first["uncond_strength"]) == (0.0, 1.0, 1.0)
    assert first["name"] == layers[0].source.name
    _, (first, _) = compose(layers, 0.0)
    assert first["idle"] == "strength 0"


def test_thumbnails_are_small_files_of_the_hosts_temporary_folder(control, temporary):
    image = torch.zeros(2, 64, 128, 3)
    image[0, :, 64:] = 1.0
    _, (told,) = compose({0: layer(control, image=image)})
    assert told["pictures"] == 2
    assert told["thumbnail"]["type"] == "temp"
    found = np.asarray(Image.open(temporary / told["thumbnail"]["subfolder"] / told["thumbnail"]["filename"]))
    assert found.shape == (48, THUMBNAIL_PIXELS, 3)
    assert found[:, :40].max() == 0 and found[:, 56:].min() == 255


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_hint_has_a_thumbnail(channels, dtype):
    hint = torch.full((3, channels, 10, 300), 0.5, dtype=dtype)
    hint[0, 0, 0, 0], hint[0, 0, 9, 9] = float("nan"), -4.0
    found = thumbnail(hint)
    assert (found.shape, found.dtype) == ((1, 3, 96, 3), torch.float32)
    assert bool(found.isfinite().all()) and found.min() >= 0 and found.max() <= 0.5


def test_small_pictures_keep_their_size():
    hint = narrow.picture(1, 16, 24).movedim(-1, 1)
    assert torch.equal(thumbnail(hint), hint.movedim(1, -1))


def test_a_run_does_not_fail_for_a_thumbnail(control, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(listed.ui.ImageSaveHelper, "save_images", full)
    layers, (told,) = compose({0: layer(control)})
    assert told["thumbnail"] is None and idle(layers) == [""]
    assert "no thumbnail of a hint could be written: No space left on device" in caplog.text


def hidden(own, link, others):
    prompt = {own: {"inputs": {"layers.layer1": link}}, **others}
    return types.SimpleNamespace(hidden=types.SimpleNamespace(unique_id=own, prompt=prompt))


@pytest.mark.parametrize(
    ("own", "origin", "expected"),
    [
        ("17", "13", "13"),
        ("17", "5:13", "5:13"),
        ("5:17", "5:13", "13"),
        ("5:17", "5:6:13", "6:13"),
        ("5:17", "13", ""),
        ("5:17", "55:13", ""),
    ],
)
def test_the_page_is_told_the_node_of_each_layer_as_within_its_graph(own, origin, expected):
    node = hidden(own, [origin, 0], {origin: {"_meta": {"title": "Edges"}}})
    assert origin_of(node, 2) == (expected, "Edges")


@pytest.mark.parametrize(
    "node", [types.SimpleNamespace(hidden=None), hidden("17", 3, {}), hidden("17", ["9", 0], {}), hidden("17", [], {})]
)
def test_without_a_prompt_there_is_no_origin(node):
    assert origin_of(node, 2) == ("", "")
    assert origin_of(node, 7) == ("", "")
