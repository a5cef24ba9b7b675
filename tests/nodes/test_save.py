"""A control through the Save node, and its file in our loader and in the stock one."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")
import comfy.controlnet
import comfy.model_detection
import comfy.supported_models
import folder_paths
import torch
from safetensors import safe_open

from control_composer.control import Control, EncoderNetwork
from control_composer.nodes.load import load_source
from control_composer.nodes.save import ControlComposerSave
from control_composer.tests import narrow
from control_composer.tests.training.bases import CONFIGS, SMALL, inputs, make_unet
from control_composer.training import export
from control_composer.training.copy import trainable_copy
from control_composer.training.errors import TrainingError

ABOUT = {"condition": "Canny", "steps": "6133", "licence": "CC0"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    extensions = folder_paths.folder_names_and_paths["controlnet"][1]
    own = tmp_path / "controlnet"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", ([str(own), str(tmp_path)], extensions))
    return own


CHANGES = {"sd1": SMALL, "sd2": SMALL, "sdxl": SMALL | {"transformer_depth": [0, 2], "transformer_depth_middle": 2}}


def made(kind: str = "sd1", about: dict[str, str] | None = None, **options: Any) -> tuple[Any, Any]:
    """A UNet and a CONTROL_NET of it, as the Train node gives one."""
    unet = make_unet(kind, **CHANGES[kind])
    control = trainable_copy(unet, **options)
    narrow.fill(control, seed=7)
    network = EncoderNetwork.from_module(control.eval(), name="trained", base=kind, about=about)
    return unet, Control.unbound(network)


def save(control: Any, filename: str = "own", **options: Any) -> Path:
    path, _ = ControlComposerSave.execute(control, filename, **{"dtype": "fp32"} | options).result
    return Path(path)


def load(path: Path) -> tuple[EncoderNetwork, str]:
    source, description = load_source(path, None, "auto")
    assert isinstance(source, EncoderNetwork)
    return source, description


def residuals(network: EncoderNetwork, given: dict[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        embedding = network.embed_hint(given["hint"])
        found = network.residuals(given["x"], embedding, given["timesteps"], given["context"], given.get("y"))
    return [*found.output, *found.middle]


def stock_residuals(path: Path, given: dict[str, Any]) -> list[torch.Tensor]:
    control = comfy.controlnet.load_controlnet(str(path))
    dtype = control.manual_cast_dtype or control.control_model.dtype
    with torch.no_grad():
        found = control.control_model(**{name: value.to(dtype) for name, value in given.items()})
    return [*found["output"], *found["middle"]]


def known_to_the_host(unet: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock loader goes by a table of published widths; here it has a row for narrow ones."""
    heads = {"num_heads": unet.num_heads, "num_head_channels": unet.num_head_channels}

    class Narrow(comfy.supported_models.SD15):
        unet_config: ClassVar = {"model_channels": 32, "context_dim": config["context_dim"]}
        unet_extra_config: ClassVar = heads

    monkeypatch.setattr(comfy.supported_models, "models", [Narrow])
    row = config | heads | {"out_channels": 4}
    monkeypatch.setattr(comfy.model_detection, "unet_config_from_diffusers_unet", lambda *_: dict(row))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_both_loaders_compute_what_was_saved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, control = made(kind)
    known_to_the_host(unet, CONFIGS[kind] | CHANGES[kind], monkeypatch)
    given = inputs(unet)
    expected = residuals(control.network, given)
    for layout in ("cldm", "diffusers"):
        path = save(control, layout=layout)
        for found in (residuals(load(path)[0], given), stock_residuals(path, given)):
            assert len(found) == len(expected) and all(map(torch.equal, found, expected)), layout


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_the_same_to_both_loaders(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, control = made()
    known_to_the_host(unet, CONFIGS["sd1"] | CHANGES["sd1"], monkeypatch)
    given = inputs(unet)
    path = save(control, dtype=dtype)
    with safe_open(path, "pt") as held:
        assert {held.get_slice(name).get_dtype() for name in held.keys()} == {{"fp16": "F16", "bf16": "BF16"}[dtype]}  # noqa: SIM118
    found, exact = residuals(load(path)[0], given), residuals(control.network, given)
    assert all(map(torch.equal, found, stock_residuals(path, given)))
    for one, other in zip(found, exact, strict=True):
        assert 0 < narrow.relative(one, other) < 0.05


def test_the_words_are_in_the_file_and_stay_with_the_control() -> None:
    _, control = made(about=ABOUT | {"base": "my model"})
    network, description = load(save(control))
    assert network.about == ABOUT | {"base": "my model"}
    for line in ("made for: my model", "condition: Canny", "steps of training: 6133", "licence: CC0"):
        assert line in description.splitlines()
    again, _ = load(save(Control.unbound(network), "sub/again.safetensors", licence="MIT", base=" "))
    assert again.about == ABOUT | {"base": "my model", "licence": "MIT"}


def test_what_is_not_told_is_the_base_alone() -> None:
    _, control = made()
    assert load(save(control))[0].about == {"base": "sd1"}


@pytest.mark.parametrize("pooling", [True, False])
def test_pooling_is_in_the_file(pooling: bool, folder: Path) -> None:
    network = made()[1].network
    control = Control.unbound(EncoderNetwork.from_module(network.module, name="own", base="SD1", pooling=pooling))
    path, description = ControlComposerSave.execute(control, "own").result
    source, told = load(Path(path))
    assert source.pooling is pooling
    assert f"pooling: {'on' if pooling else 'off'}, by the file's metadata" in told
    assert ("only where a file's name ends with _shuffle" in description) is pooling


def test_names_lead_into_the_first_folder(folder: Path) -> None:
    _, control = made()
    assert save(control, " mine/canny.safetensors ") == folder / "mine" / "canny.safetensors"
    path = save(control, "mine/canny", layout="diffusers")
    assert path.parent == folder / "mine" / "canny"
    assert json.loads((path.parent / "config.json").read_text())["_class_name"] == "ControlNetModel"
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.json", path.name]


@pytest.mark.parametrize("name", ["", "../own", "/own", "a/../own", "C:own", "own?", "a//own", "o\nwn", ".safetensors"])
def test_names_that_lead_elsewhere_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    control = Control.unbound(EncoderNetwork(None, None, "own", "SD1"))
    with pytest.raises(
        TrainingError, match=r"The filename is .*, but a name inside of the controlnet folder.*; choose"
    ):
        save(control, name)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("layout", ["cldm", "diffusers"])
def test_a_file_is_replaced_only_where_that_is_asked_for(layout: str) -> None:
    _, control = made()
    path = save(control, layout=layout)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match="is there already, but a new name was expected, since overwrite is off; "):
        save(control, layout=layout, licence="MIT")
    assert path.read_bytes() == before
    assert load(save(control, layout=layout, licence="MIT", overwrite=True))[0].about["licence"] == "MIT"


def test_a_full_disk_leaves_the_file_before(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    _, control = made()
    path = save(control)
    before = path.read_bytes()

    def full(tensors: Any, unfinished: Path, metadata: Any) -> None:
        unfinished.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(TrainingError, match=r"could not be written to .*No space left on device.*; free some room"):
        save(control, overwrite=True)
    assert path.read_bytes() == before and [file.name for file in folder.iterdir()] == [path.name]


def test_numbers_that_do_no_good_in_a_file_are_refused(folder: Path) -> None:
    _, control = made()
    bias = control.network.module.middle_block_out[0].bias
    with torch.no_grad():
        bias[0] = 1e6
    with pytest.raises(
        TrainingError,
        match=r"holds 1e\+06 in its tensor 'middle_block_out.0.bias', but at most 65504 was expected in float16; save it in bf16 or fp32",
    ):
        save(control, dtype="fp16")
    with torch.no_grad():
        bias[0] = float("nan")
    with pytest.raises(
        TrainingError, match=r"holds NaN or infinity in its tensor 'middle_block_out.0.bias', but finite"
    ):
        save(control)
    assert not folder.exists()


def test_a_control_of_the_stock_loader_is_saved_too() -> None:
    module = narrow.make_module("sd1", **{name: value for name, value in SMALL.items() if "output" not in name})
    path = save(narrow.make_stock(module))
    assert load(path)[1].startswith("family: a ControlNet")
    state = load(path)[0].module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_other_controls_are_refused() -> None:
    class Union:
        control_add_embedding = type("Types", (), {"num_control_type": 6})

    union = EncoderNetwork(Union(), None, "union", "SDXL")
    for control, what in ((Control.unbound(union), "EncoderNetwork"), (comfy.controlnet.ControlBase(), "ControlBase")):
        with pytest.raises(
            TrainingError, match=rf"is no plain ControlNet \({what}\), but a copy of an encoder.*; connect"
        ):
            save(control)
    _, lite = made(form="lite")
    with pytest.raises(TrainingError, match="but a copy of an encoder was expected"):
        save(lite)


def test_it_saves_where_the_host_runs_nodes() -> None:
    """In inference mode, where tensors of a control may be inference tensors."""
    with torch.inference_mode():
        _, control = made()
        path = save(control, dtype="fp16")
    assert load(path)[0].about == {"base": "sd1"}
