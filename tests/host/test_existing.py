"""Somebody's own ComfyUI: found, asked, and refused in one sentence where it cannot do."""

import sys
from pathlib import Path

import pytest

from control_composer.hosting import existing, place
from control_composer.hosting.place import Host, HostError


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    monkeypatch.setattr(existing, "HOME", tmp_path)
    folder = tmp_path / "portable" / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "__init__.py").write_text("")
    for name in ("main.py", "folder_paths.py"):
        (folder / name).write_text("")
    return folder


def test_the_folder_or_the_one_above_it_will_do(comfyui):
    assert existing.find_comfyui(str(comfyui)) == comfyui
    assert existing.find_comfyui(str(comfyui.parent)) == comfyui


@pytest.mark.parametrize(("name", "what"), [("", "has no ComfyUI in it"), ("nowhere", "is no folder")])
def test_a_path_without_comfyui(tmp_path, name, what):
    path = tmp_path / name
    with pytest.raises(HostError) as error:
        existing.find_comfyui(str(path))
    assert str(error.value) == (
        f"--comfyui (or COMFYUI_PATH) names {path}, which {what}: "
        "give the folder that holds ComfyUI's main.py, comfy and folder_paths.py."
    )


@pytest.mark.parametrize("name", ["venv", ".venv"])
def test_the_installations_own_python_comes_first(comfyui, name):
    python = place.interpreter(comfyui / name)
    python.parent.mkdir(parents=True)
    python.write_text("")
    assert existing.existing_host(str(comfyui)) == Host(python, comfyui, ours=False)


def test_the_portable_builds_python(comfyui):
    python = comfyui.parent / "python_embeded" / "python.exe"
    python.parent.mkdir()
    python.write_text("")
    assert existing.existing_host(str(comfyui)).python == python


def test_without_one_the_python_that_runs_this_is_taken(comfyui):
    assert existing.existing_host(str(comfyui)).python == Path(sys.executable)


def test_a_missing_package_is_named_with_the_command_that_installs_it(comfyui, monkeypatch):
    monkeypatch.setattr(existing, "probe", lambda host, modules: {"missing": ["pytest", "cv2"]})
    host = Host(Path("/c/venv/bin/python"), comfyui, ours=False)
    with pytest.raises(HostError) as error:
        existing.check_tools(host, "test")
    assert str(error.value) == (
        f"The Python at /c/venv/bin/python, which runs {comfyui}, lacks pytest, cv2 for `test`: install with "
        "`/c/venv/bin/python -m pip install pytest opencv-python`, or leave --comfyui out."
    )


def test_a_python_that_ignores_our_path_is_named(comfyui, monkeypatch):
    monkeypatch.setattr(existing, "probe", lambda host, modules: {"missing": ["control_composer"]})
    with pytest.raises(HostError, match="ignores PYTHONPATH and so cannot see control_composer"):
        existing.check_tools(Host(Path("p"), comfyui, ours=False), "serve")


def test_the_probe_asks_the_real_interpreter(comfyui):
    host = Host(Path(sys.executable), comfyui, ours=False)
    assert existing.probe(host, ("json", "comfy", "no_such_module_here")) == {
        "missing": ["no_such_module_here"],
        "accelerator": None,
    }


def test_a_broken_interpreter_is_one_sentence(comfyui, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho library missing >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match=r"python does not run \(library missing\): repair that installation"):
        existing.probe(Host(broken, comfyui, ours=False), ())
