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
    (tmp_path / "ComfyUI").mkdir()
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


def test_a_persons_installation_gets_no_compiled_files(host):
    assert "PYTHONPYCACHEPREFIX" not in place.environment(host)
    foreign = Host(host.python, host.comfyui, ours=False)
    assert place.environment(foreign)["PYTHONPYCACHEPREFIX"] == str(place.HOME / "pycache")


SHOW = "import json, sys, nodes; print(json.dumps([sys.path, nodes.whose, sys.argv]))"


@pytest.mark.parametrize("version", [(3, 10), sys.version_info[:2]])
@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_nodes_is_comfyuis_however_python_is_called_from_the_root(host, tmp_path, version, how):
    if version >= (3, 11) > sys.version_info[:2]:
        pytest.skip("this Python does not know PYTHONSAFEPATH")
    script = tmp_path / "ComfyUI" / "show_path.py"
    script.write_text(SHOW)
    arguments = {"-c": ["-c", SHOW], "-m": ["-m", "show_path"], "script": [str(script)]}[how]
    command, variables = place.python_command(host, [*arguments, "--last"], version)
    done = subprocess.run(command, env=variables, cwd=place.ROOT, capture_output=True, text=True, check=True)
    path, whose, argv = json.loads(done.stdout)
    assert whose == "ComfyUI"
    assert str(place.ROOT) not in path
    assert argv[1:] == ["--last"]


def test_the_pack_can_be_imported_under_its_name(host):
    command, variables = place.python_command(
        host, ["-c", "import control_composer.residuals as r; print(r.__file__)"], (3, 11)
    )
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert Path(done.stdout.strip()).resolve().parent == place.ROOT / "residuals", done.stderr


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
