"""Where the files of annotators are found: the host's folders, other packs', and the hub's cache on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import folder_paths
import huggingface_hub
from utils.extra_config import load_extra_path_config

from control_composer.nodes.annotator_files import FOLDER, find, located, register_folder, target_folder, weights_of
from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.annotators import BY_ID, File

SINGLE = BY_ID["HED"]
NAME = "ControlNetHED.pth"
SHARED = replace(
    SINGLE,
    id="Shared",
    files=tuple(
        File(name, address=f"https://huggingface.co/owner/name/resolve/main/{name}")
        for name in ("config.json", "model.safetensors")
    ),
    folder="owner/name",
    reads="path",
)


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty host with no annotators folder registered yet, a cache of the hub, and no network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.delenv("AUX_ANNOTATOR_CKPTS_PATH", raising=False)
    registry = {"custom_nodes": ([str(tmp_path / "custom_nodes")], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", registry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def test_the_hosts_folder_comes_after_those_of_extra_model_paths(host: Path) -> None:
    assert located(SINGLE) is None and target_folder(SINGLE) == host / "models" / FOLDER
    (host / "extra.yaml").write_text(f"mine:\n  base_path: {host}\n  annotators: |\n    shared\n    more\n")
    load_extra_path_config(str(host / "extra.yaml"))
    register_folder()
    register_folder()
    assert folder_paths.get_folder_paths(FOLDER) == [
        str(host / "shared"),
        str(host / "more"),
        str(host / "models" / FOLDER),
    ]
    assert target_folder(SHARED) == host / "shared" / "owner" / "name"
    own = put(host / "models" / FOLDER / NAME)
    assert find(SINGLE) == own
    first = put(host / "shared" / NAME)
    assert find(SINGLE) == first


def test_files_in_folders_of_the_hosts_folder(host: Path) -> None:
    """As sd-webui-controlnet's annotator/downloads has them, where extra_model_paths.yaml names it."""
    register_folder()
    nested = put(host / "models" / FOLDER / "hed" / NAME)
    assert find(SINGLE) == nested
    top = put(host / "models" / FOLDER / NAME)
    assert find(SINGLE) == top


@pytest.mark.parametrize(
    ("make", "root"),
    [
        (lambda host, _: None, "models/controlnet_aux"),
        (lambda host, _: None, "custom_nodes/comfyui_controlnet_aux/ckpts"),
        (lambda host, _: None, "custom_nodes/ComfyUI-ControlNet-Aux/ckpts"),
        (lambda host, patch: patch.setenv("AUX_ANNOTATOR_CKPTS_PATH", str(host / "theirs")), "theirs"),
        (
            lambda host, _: put(host / "custom_nodes/comfyui_controlnet_aux/config.yaml").write_text(
                "annotator_ckpts_path: ../../elsewhere\nUSE_SYMLINKS: false\n"
            ),
            "elsewhere",
        ),
        (
            lambda host, _: put(host / "custom_nodes/comfyui_controlnet_aux/config.yaml").write_text("- [no settings"),
            "custom_nodes/comfyui_controlnet_aux/ckpts",
        ),
    ],
)
def test_what_comfyui_controlnet_aux_has_downloaded(
    host: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], root: str
) -> None:
    make(host, monkeypatch)
    register_folder()
    put(host / root / "lllyasviel/Annotators" / NAME)
    assert find(SINGLE).samefile(host / root / "lllyasviel/Annotators" / NAME)
    for name in ("config.json", "model.safetensors"):
        assert located(SHARED) is None
        put(host / root / "owner/name" / name)
    assert find(SHARED).samefile(host / root / "owner/name")


def test_the_hubs_cache(host: Path) -> None:
    register_folder()
    for repository, names in (("lllyasviel/Annotators", [NAME]), ("owner/name", ["config.json", "model.safetensors"])):
        stored = host / "hub" / f"models--{repository.replace('/', '--')}"
        put(stored / "refs" / "main").write_text("abc")
        for name in names:
            put(stored / "snapshots" / "abc" / name)
    assert find(SINGLE) == host / "hub/models--lllyasviel--Annotators/snapshots/abc" / NAME
    assert find(SHARED) == host / "hub/models--owner--name/snapshots/abc"
    (host / "hub/models--owner--name/snapshots/abc/model.safetensors").unlink()
    assert located(SHARED) is None


@pytest.mark.parametrize("place", ["owner/name", "name"])
def test_folders_of_the_host(host: Path, place: str) -> None:
    register_folder()
    for name in ("config.json", "model.safetensors"):
        assert located(SHARED) is None
        put(host / "models" / FOLDER / place / name)
    assert find(SHARED) == host / "models" / FOLDER / place


def test_weights_in_either_format(host: Path) -> None:
    register_folder()
    published = replace(SHARED, files=(SHARED.files[0], File("pytorch_model.bin")))
    folder = host / "models" / FOLDER / "owner" / "name"
    put(folder / "config.json")
    assert located(published) is None
    converted = put(folder / "model.safetensors")
    assert find(published) == folder and weights_of(published, folder) == converted
    converted.unlink()
    other = put(folder / "pytorch_model.bin")
    assert find(SHARED) == folder and weights_of(SHARED, folder) == other
    assert weights_of(SINGLE, other) == other


def test_a_missing_folder_says_where_to_get_it(host: Path) -> None:
    register_folder()
    with pytest.raises(PreprocessorError) as refused:
        find(SHARED)
    assert str(refused.value) == (
        "Shared: found no folder 'owner/name' in models/annotators, but the network's weights were expected there "
        "(Apache-2.0 by the header of its code: everyone may use it commercially); queue the node Download Annotators or run "
        "`python host.py annotators download Shared`, or download https://huggingface.co/owner/name/resolve/main/config.json and "
        f"https://huggingface.co/owner/name/resolve/main/model.safetensors into {host / 'models' / FOLDER / 'owner' / 'name'}."
    )
