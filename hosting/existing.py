"""A ComfyUI that somebody already has: where its Python is, and whether that Python has what a command needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .place import HOME, MODULE, Host, HostError, environment, interpreter

TOOLS = {
    "test": ("pytest", "xdist", "hypothesis", "diffusers", "cv2"),
    "check": ("ruff", "mypy"),
    "format": ("ruff",),
    "demo": ("cv2",),
    "serve": ("cv2",),
    "annotators": ("cv2",),
}
PACKAGE_OF = {"cv2": "opencv-python", "xdist": "pytest-xdist"}

PROBE = """
import importlib.util, json, sys
def found(name):
    try: return importlib.util.find_spec(name) is not None
    except ImportError: return False
answer = {"missing": [name for name in sys.argv[2:] if not found(name)], "accelerator": None}
if sys.argv[1] == "device" and found("torch"):
    import torch
    answer["accelerator"] = torch.cuda.is_available() or torch.backends.mps.is_available() or (hasattr(torch, "xpu") and torch.xpu.is_available())
print(json.dumps(answer))
"""


def existing_host(path: str) -> Host:
    comfyui = find_comfyui(path)
    python = next(candidate for candidate in interpreters_of(comfyui) if candidate.exists())
    return Host(python, comfyui, ours=False)


def find_comfyui(path: str) -> Path:
    """The folder with ComfyUI's main.py; a portable Windows build has it one level down."""
    given = Path(path).expanduser().resolve()
    for folder in (given, given / "ComfyUI"):
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir() and (folder / "folder_paths.py").is_file():
            return folder
    raise HostError(
        f"--comfyui (or COMFYUI_PATH) names {given}, which {'has no ComfyUI in it' if given.is_dir() else 'is no folder'}: "
        "give the folder that holds ComfyUI's main.py, comfy and folder_paths.py."
    )


def interpreters_of(comfyui: Path) -> list[Path]:
    """The places where installations keep their Python, best first; the last is the one that runs this file."""
    return [
        *(interpreter(comfyui / name) for name in ("venv", ".venv")),
        *(folder / "python_embeded" / "python.exe" for folder in (comfyui, comfyui.parent)),
        Path(sys.executable),
    ]


def probe(host: Host, modules: Sequence[str], device: bool = False) -> dict[str, Any]:
    """Asks the host's interpreter which modules it lacks and whether torch sees an accelerator."""
    done = subprocess.run(
        [str(host.python), "-c", PROBE, "device" if device else "-", *modules],
        env=environment(host),
        capture_output=True,
        text=True,
        cwd=HOME,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise HostError(
            f"The Python at {host.python} does not run ({last}): repair that installation, or delete {HOME} if it lies there."
        ) from None
    return answer


def check_tools(host: Host, command: str) -> None:
    missing = probe(host, ("torch", "aiohttp", "comfy", MODULE, *TOOLS.get(command, ())))["missing"]
    if MODULE in missing or "comfy" in missing:
        raise HostError(
            f"The Python at {host.python} ignores PYTHONPATH and so cannot see {MODULE}: use an installation with an ordinary virtual environment."
        )
    if missing:
        names = " ".join(PACKAGE_OF.get(name, name) for name in missing)
        raise HostError(
            f"The Python at {host.python}, which runs {host.comfyui}, lacks {', '.join(missing)} for `{command}`: "
            f"install with `{host.python} -m pip install {names}`, or leave --comfyui out."
        )
