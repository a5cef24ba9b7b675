"""Makes the pack importable as `control_composer` without running its root `__init__`, and ComfyUI importable where there is one."""

import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# ComfyUI's own `nodes` must win over our folder of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

if "control_composer" not in sys.modules:
    package = types.ModuleType("control_composer")
    package.__path__ = [str(ROOT)]
    sys.modules["control_composer"] = package

try:
    import comfy.cli_args
    import torch
except ImportError:
    pass
else:
    if not torch.cuda.is_available():
        comfy.cli_args.args.cpu = True


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and annotator files beside the checkout; tests that want it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return SHARED
