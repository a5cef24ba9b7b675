"""The pack as ComfyUI loads it: silent, and with the ids, inputs, defaults and outputs that workflows rely on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("comfy")

FOLDER = Path(__file__).parent
FROZEN = FOLDER / "surface.json"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What another process saw, and what it wrote to its log."""
    folder = tmp_path_factory.mktemp("surface")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "surface.py"), str(folder / "found.json")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text()), done.stdout + done.stderr


def test_nothing_that_workflows_rely_on_has_changed(loaded):
    """Additions are listed in surface.json by hand; removals and changed defaults break workflows."""
    assert loaded[0]["nodes"] == json.loads(FROZEN.read_text())


def test_everything_is_documented_in_the_menu(loaded):
    for name, found in loaded[0]["documented"].items():
        assert found["undocumented"] == [], name
        assert found["description"] and found["aliases"], name
        assert found["category"].startswith("Control Composer/"), name


def test_importing_the_pack_says_nothing(loaded):
    assert not [line for line in loaded[1].splitlines() if "control" in line.lower()]


def test_the_demo_controls_are_offered_by_the_loaders(loaded):
    assert loaded[0]["demo_controls"]
