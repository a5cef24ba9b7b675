"""Where the host lies, what it is made of, and the variables that programs in it run with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".host"
PACK = "control-composer"
MODULE = "control_composer"
WINDOWS = sys.platform == "win32"


class HostError(Exception):
    """What went wrong, in one sentence for the person at the keyboard."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI and the interpreter that runs it. `ours` tells the one in `.host/` from a person's own installation."""

    python: Path
    comfyui: Path
    ours: bool


def say(text: str) -> None:
    print(text, flush=True)


def interpreter(environment: Path) -> Path:
    return environment / "Scripts" / "python.exe" if WINDOWS else environment / "bin" / "python"


def own_host(home: Path) -> Host:
    return Host(interpreter(home / "venv"), home / "ComfyUI", ours=True)


def link(target: Path, at: Path) -> None:
    """Makes `at` lead to the folder `target`: a symbolic link, on Windows a junction, which needs no rights."""
    if os.path.lexists(at):
        if os.path.realpath(at) == os.path.realpath(target):
            return
        try:
            at.unlink() if at.is_symlink() else at.rmdir()  # rmdir takes a junction or an empty folder, nothing else
        except OSError:
            raise HostError(
                f"{at} is a folder with files in it, where a link to {target} was expected: move it away."
            ) from None
    at.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(target), str(at))
    else:
        at.symlink_to(target, target_is_directory=True)


def lay_out() -> None:
    """The base directory that ComfyUI works in, with this pack among its custom nodes, and the folder that makes it importable."""
    for name in ("models", "input", "output", "user"):
        (HOME / "base" / name).mkdir(parents=True, exist_ok=True)
    link(ROOT, HOME / "base" / "custom_nodes" / PACK)
    link(ROOT, HOME / "site" / MODULE)


def environment(host: Host) -> dict[str, str]:
    """Variables for everything that runs in the host. The repository root stays off the path: `nodes` is ComfyUI's."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(HOME / "site"), str(host.comfyui), *(p for p in inherited if p and Path(p).resolve() != ROOT)]
    direct = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    local = ",".join(dict.fromkeys([*filter(None, direct), "127.0.0.1", "localhost"]))
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "COMFYUI_PATH": str(host.comfyui),
        "NO_PROXY": local,
        "no_proxy": local,
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        # Kept, or each start compiles torch anew; here, because a person's installation gets no byte from us.
        "PYTHONPYCACHEPREFIX": str(HOME / "pycache"),
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


# Without the current folder on the path (as -c has it, as ''), `nodes` is ComfyUI's even when called from the root.
CLEAN_PATH = "import sys; sys.path[:] = filter(None, sys.path)\n"
# ComfyUI decides on import whether it may use a GPU, and fails on a machine without one unless told so before.
ON_CPU = "import comfy.cli_args; comfy.cli_args.args.cpu = True\n"
MODULE_AS_MAIN = "import runpy; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
SCRIPT_AS_MAIN = (
    "import os, runpy; del sys.argv[0]; sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0]))); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def python_arguments(arguments: Sequence[str], on_cpu: bool = False) -> list[str]:
    """What to give Python so that it does what `python ARGUMENTS` does, with ComfyUI ready to be imported."""
    first, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    before = CLEAN_PATH + (ON_CPU if on_cpu else "")
    if first == "-c" and rest:
        return ["-c", before + rest[0], *rest[1:]]
    if first == "-m" and rest:
        return ["-c", before + MODULE_AS_MAIN, *rest]
    if on_cpu and first.endswith(".py"):
        return ["-c", before + SCRIPT_AS_MAIN, *arguments]
    return list(arguments)


def run_python(
    host: Host,
    arguments: Sequence[str],
    folder: Path | None = None,
    extra: Mapping[str, str] | None = None,
    on_cpu: bool = False,
) -> int:
    """Runs the host's Python in `folder` (default: the current one) and returns its exit code; output passes through."""
    command = [str(host.python), *python_arguments(arguments, on_cpu)]
    variables = {**environment(host), **(extra or {})}
    process = subprocess.Popen(command, env=variables, cwd=folder)
    try:
        return process.wait()
    except BaseException as reason:
        # A Ctrl-C in a terminal reaches both: let it end what it started, pytest its servers for example.
        for patience, ask in (
            (10 if isinstance(reason, KeyboardInterrupt) else 0, process.terminate),
            (5, process.kill),
        ):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            if process.poll() is None:
                ask()
        raise
