"""Annotators in the host: where their files are looked for, what is kept in memory, and how many frames go at once."""

from __future__ import annotations

import gc
import pickle
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.checkpoints.errors import CheckpointError
from control_composer.nodes import annotator_files, preprocess
from control_composer.nodes.annotator_files import FOLDER
from control_composer.nodes.annotators import KEPT, LOADED, RECENT, held_network, networks_for
from control_composer.preprocessors import PREPROCESSORS, PreprocessorError
from control_composer.preprocessors.annotators import ANNOTATORS, BY_ID
from control_composer.preprocessors.sizing import Size
from control_composer.tests.preprocessors.annotator_weights import MADE, random_network, write

PIDINET = BY_ID["PiDiNet"]
PICTURE = torch.rand((3, 40, 70, 3), generator=torch.Generator().manual_seed(0))
SIZE = Size(64, 128)
"""Of the picture in a network."""
NODES = {node.define_schema().node_id: node for node in preprocess.NODES}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty host: no annotator, no other pack, nothing in memory."""
    for name in (FOLDER, "custom_nodes"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], set()))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    RECENT.clear()
    yield tmp_path / FOLDER
    RECENT.clear()
    comfy.model_management.unload_all_models()


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": MADE["PiDiNet"]()}, path)
    return path


def test_a_missing_file_says_where_to_get_it(folder: Path) -> None:
    with pytest.raises(PreprocessorError) as refused:
        NODES["ControlComposerPiDiNet"].execute(image=PICTURE)
    assert str(refused.value) == (
        "PiDiNet: found no file 'table5_pidinet.pth' in models/annotators, but the network's weights of 2,871,148 bytes were expected there "
        "(for research (hellozhuo/pidinet): commercial use needs the authors' consent); "
        "queue the node Download Annotators or run `python host.py annotators download PiDiNet`, "
        f"or download https://huggingface.co/lllyasviel/Annotators/resolve/main/table5_pidinet.pth into {folder}."
    )


@pytest.mark.parametrize(
    "place",
    [
        "custom_nodes/comfyui_controlnet_aux/ckpts/lllyasviel/Annotators/table5_pidinet.pth",
        "controlnet_aux/lllyasviel/Annotators/table5_pidinet.pth",
    ],
)
def test_files_of_other_packs_are_read(folder: Path, place: str) -> None:
    put(folder.parent / place)
    assert annotator_files.find(PIDINET) == folder.parent / place
    own = put(folder / "table5_pidinet.pth")
    assert annotator_files.find(PIDINET) == own
    save_file(MADE["PiDiNet"](), folder / "table5_pidinet.safetensors")
    assert annotator_files.find(PIDINET) == folder / "table5_pidinet.safetensors"


def test_a_folder_that_was_there_before(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host remembers its folders, and asks each for its age."""
    extra = tmp_path / "extra"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(extra), str(folder)], set()))
    path = put(extra / "downloads" / "table5_pidinet.pth")
    assert annotator_files.find(PIDINET) == path
    shutil.rmtree(extra)
    with pytest.raises(PreprocessorError, match="found no file"):
        annotator_files.find(PIDINET)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_both_formats_give_the_same_hint(folder: Path, form: str) -> None:
    if form == "pth":
        torch.save(
            {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in MADE["PiDiNet"]().items()}}, folder / PIDINET.file
        )
    else:
        save_file(MADE["PiDiNet"](), folder / "table5_pidinet.safetensors")
    (hint,) = NODES["ControlComposerPiDiNet"].execute(image=PICTURE, safe=False).result
    (preprocessor,) = [one for one in PREPROCESSORS if one.id == "PiDiNet"]
    assert torch.equal(hint, preprocessor(PICTURE, networks={"PiDiNet": random_network("PiDiNet")}, safe=False))


def test_code_in_a_file_is_not_run(folder: Path) -> None:
    (folder / PIDINET.file).write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(CheckpointError, match="asks to run code"):
        held_network(PIDINET)


def test_one_network_for_one_file_and_another_for_a_changed_one(folder: Path) -> None:
    path = put(folder / PIDINET.file)
    held = held_network(PIDINET)
    assert held_network(PIDINET).patcher is held.patcher
    path.unlink()
    put(path)
    assert held_network(PIDINET).patcher is not held.patcher


def test_only_the_last_few_stay_in_memory(folder: Path) -> None:
    chosen = [annotator for annotator in ANNOTATORS if annotator.id.startswith("PiDiNet")][: KEPT + 1]
    for annotator in chosen:
        write(annotator, folder)
    held = [weakref.ref(held_network(annotator).patcher) for annotator in chosen]
    gc.collect()
    assert [reference() is not None for reference in held] == [False, *[True] * KEPT]
    assert len(LOADED) == KEPT
    again = held_network(chosen[1]).patcher
    held_network(chosen[0])
    gc.collect()
    assert again is held[1]() and held[2]() is None


def test_the_host_knows_the_network_and_can_put_it_away(folder: Path) -> None:
    put(folder / PIDINET.file)
    ready = networks_for(["PiDiNet"], SIZE)
    patcher = held_network(PIDINET).patcher
    assert any(loaded.model is patcher for loaded in comfy.model_management.current_loaded_models)
    before = ready.networks["PiDiNet"](PICTURE.movedim(-1, 1))
    comfy.model_management.unload_all_models()
    assert not any(loaded.model is patcher for loaded in comfy.model_management.current_loaded_models)
    assert torch.equal(networks_for(["PiDiNet"], SIZE).networks["PiDiNet"](PICTURE.movedim(-1, 1)), before)


def free_memory(free: int) -> Callable[..., Any]:
    return lambda *_, torch_free_too=False: (free, free) if torch_free_too else free


def test_chunks_by_free_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / PIDINET.file)
    frame = PIDINET.values_per_pixel * 64 * 128 * 4
    asked: list[int] = []
    load = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        comfy.model_management,
        "load_models_gpu",
        lambda models, memory_required, force_full_load: (asked.append(memory_required), load(models, memory_required)),
    )
    for free, frames in ((frame * 4, 2), (frame * 21, 10), (0, 1)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", free_memory(free))
        assert networks_for(["PiDiNet"], SIZE).frames == frames
    assert asked == [frame] * 3
    told: list[int] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, *_, **__: told.append(value))
    monkeypatch.setattr(comfy.model_management, "get_free_memory", free_memory(frame * 4))
    (hint,) = NODES["ControlComposerPiDiNet"].execute(image=PICTURE, safe=False).result
    assert (told[0], told[-1]) == (0, 3) and set(told) <= {0, 2, 3}  # the host leaves out what comes too quickly
    assert hint.shape == PICTURE.shape


def test_the_dtype_is_the_hosts_choice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / PIDINET.file)
    for chosen, expected in (
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float8_e4m3fn, torch.float32),
    ):
        monkeypatch.setattr(comfy.model_management, "unet_dtype", lambda *_, chosen=chosen: chosen)
        monkeypatch.setattr(comfy.model_management, "unet_manual_cast", lambda *_: None)
        held = held_network(PIDINET)
        assert held.dtype == expected
        assert {weight.dtype for weight in held.patcher.model.parameters()} == {expected}
        made = networks_for(["PiDiNet"], SIZE).networks["PiDiNet"](PICTURE.movedim(-1, 1)).sigmoid()
        exact = random_network("PiDiNet")(PICTURE.movedim(-1, 1)).sigmoid()
        assert made.dtype == torch.float32
        # Three digits are what bfloat16 has, and thirty layers lose one.
        assert float((made - exact).abs().mean()) < {torch.float16: 3e-3, torch.bfloat16: 3e-2}.get(expected, 1e-6)


def test_what_is_no_picture_is_said_of_the_picture(folder: Path) -> None:
    put(folder / PIDINET.file)
    for image in (torch.zeros(1, 0, 8, 3), torch.zeros(8, 8, 3)):
        with pytest.raises(PreprocessorError, match="image: found"):
            NODES["ControlComposerPiDiNet"].execute(image=image, resolution=64)


def test_the_table() -> None:
    assert len(BY_ID) == len(ANNOTATORS)
    for annotator in ANNOTATORS:
        assert annotator.files and annotator.licence and annotator.commercial and annotator.values_per_pixel > 0
        assert len(annotator.files) == 1 or annotator.folder
        assert annotator.reads == "path" or not annotator.folder
        for file in annotator.files:
            assert file.address.startswith("https://") and file.address.endswith("/" + file.name)
            assert file.sha256 is None or len(file.sha256) == 64
    for preprocessor in PREPROCESSORS:
        assert set(preprocessor.annotators) <= set(BY_ID)
        choices = (preprocessor.chosen_by,) if isinstance(preprocessor.chosen_by, str) else preprocessor.chosen_by
        parameters = {parameter.id: parameter for parameter in preprocessor.parameters}
        for choice in choices:
            assert set(parameters[choice].options) <= set(preprocessor.annotators)
            for option in parameters[choice].options:
                assert option in preprocessor.needed({choice: option})
        assert set(preprocessor.switches) <= set(preprocessor.annotators)
        for switch in preprocessor.switches.values():
            assert isinstance(parameters[switch].default, bool)
