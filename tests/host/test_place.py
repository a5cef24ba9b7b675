"""Links and variables: ComfyUI's modules and this pack can be imported, the repository root never is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from control_composer.hosting import place
from control_composer.hosting.place import Host, HostError


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A stand-in for ComfyUI with the one module that matters here, in a home of its own."""
    monkeypatch.setattr(place, "HOME", tmp_path / ".host")
    (tmp_path / "ComfyUI" / "comfy").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "comfy" / "cli_args.py").write_text("class args:\n    cpu = False\n")
    (tmp_path / "ComfyUI" / "nodes.py").write_text("whose = 'ComfyUI'\n")
    place.lay_out()
    return Host(Path(sys.executable), tmp_path / "ComfyUI", ours=True)


def test_python_path_is_ours_then_comfyui_then_the_callers_without_the_root(host, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/other", str(place.ROOT), "", "/other"]))
    paths = place.environment(host)["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(place.HOME / "site"), str(host.comfyui), "/other"]


def test_programs_reach_the_server_directly_and_know_the_installation(host, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.org")
    variables = place.environment(host)
    assert variables["NO_PROXY"] == variables["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert variables["COMFYUI_PATH"] == str(host.comfyui)


@pytest.mark.parametrize("ours", [True, False])
def test_compiled_files_are_kept_in_our_folder_and_nowhere_else(host, ours, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    variables = place.environment(Host(host.python, host.comfyui, ours))
    assert variables["PYTHONPYCACHEPREFIX"] == str(place.HOME / "pycache")
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    subprocess.run([sys.executable, "-c", "import comfy.cli_args"], env=variables, check=True)
    assert list((place.HOME / "pycache").rglob("cli_args.*.pyc"))
    assert not list(host.comfyui.rglob("*.pyc"))


SHOW = "import json, sys, nodes, comfy.cli_args as c; print(json.dumps([sys.path, nodes.whose, c.args.cpu, sys.argv]))"


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_nodes_is_comfyuis_however_python_is_called_from_the_root(host, on_cpu, how):
    script = host.comfyui / "show_path.py"
    script.write_text(f"if __name__ == '__main__':\n    {SHOW}\n")
    words = {"-c": ["-c", SHOW], "-m": ["-m", "show_path"], "script": [str(script)]}[how]
    command = [sys.executable, *place.python_arguments([*words, "--last"], on_cpu)]
    variables = place.environment(host)
    done = subprocess.run(command, env=variables, cwd=place.ROOT, capture_output=True, text=True)
    path, whose, cpu, argv = json.loads(done.stdout or done.stderr)
    assert (whose, cpu) == ("ComfyUI", on_cpu)
    assert str(place.ROOT) not in path and "" not in path
    assert argv[1:] == ["--last"]
    assert how == "-c" or argv[0] == str(script)


@pytest.mark.parametrize("words", [[], ["-V"], ["-X", "dev", "x.py"], ["-"], ["x.py", "-m", "y"]])
def test_other_arguments_are_left_as_they_are(words):
    assert place.python_arguments(words) == words


def test_the_pack_can_be_imported_under_its_name(host):
    script = "import importlib.util as u; print(u.find_spec('control_composer').origin)"
    variables = place.environment(host)
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True)
    assert Path(done.stdout.strip()).resolve() == place.ROOT / "__init__.py", done.stderr


def test_the_exit_code_passes_through(host):
    assert place.run_python(host, ["-c", "raise SystemExit(7)"]) == 7


def test_the_base_directory_has_the_pack_and_laying_out_again_changes_nothing(host):
    base = place.HOME / "base"
    assert {"models", "input", "output", "user", "custom_nodes"} == {path.name for path in base.iterdir()}
    assert (base / "custom_nodes" / "control-composer").resolve() == place.ROOT
    place.lay_out()
    assert (base / "custom_nodes" / "control-composer").resolve() == place.ROOT


def test_a_link_to_another_place_or_to_nothing_is_renewed(tmp_path):
    for old in (tmp_path / "elsewhere", tmp_path / "gone"):
        at = tmp_path / "link"
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        at.unlink(missing_ok=True)
        at.symlink_to(old, target_is_directory=True)
        place.link(tmp_path, at)
        assert at.resolve() == tmp_path.resolve()


def test_a_real_folder_in_the_links_place_is_left_alone(tmp_path):
    at = tmp_path / "link"
    at.mkdir()
    (at / "precious.txt").write_text("mine")
    with pytest.raises(HostError) as error:
        place.link(tmp_path, at)
    assert (
        str(error.value) == f"{at} is a folder with files in it, where a link to {tmp_path} was expected: move it away."
    )
    assert (at / "precious.txt").read_text() == "mine"
