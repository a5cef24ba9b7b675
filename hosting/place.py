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
    }
    if not host.ours:
        variables["PYTHONPYCACHEPREFIX"] = str(HOME / "pycache")  # not one byte into a person's installation
    return variables


def python_command(host: Host, arguments: Sequence[str], version: tuple[int, int]) -> tuple[list[str], dict[str, str]]:
    """The command that runs `python ARGUMENTS` without the current folder on sys.path."""
    variables = environment(host)
    first = arguments[0] if arguments else ""
    if version >= (3, 11):
        if not first or first.startswith("-"):
            variables["PYTHONSAFEPATH"] = "1"
        return [str(host.python), *arguments], variables
    if first == "-c" and len(arguments) > 1:
        arguments = ["-c", "import sys; del sys.path[0]\n" + arguments[1], *arguments[2:]]
    elif first == "-m" and len(arguments) > 1:
        start = "import runpy, sys; del sys.path[0]; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
        arguments = ["-c", start, *arguments[1:]]
    return [str(host.python), *arguments], variables


def version_of(host: Host) -> tuple[int, int]:
    done = subprocess.run(
        [str(host.python), "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    )
    major, minor = done.stdout.split()
    return int(major), int(minor)


def run_python(
    host: Host, arguments: Sequence[str], folder: Path | None = None, extra: Mapping[str, str] | None = None
) -> int:
    """Runs the host's Python in `folder` (default: the current one) and returns its exit code; output passes through."""
    command, variables = python_command(host, arguments, version_of(host))
    process = subprocess.Popen(command, env={**variables, **(extra or {})}, cwd=folder)
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
