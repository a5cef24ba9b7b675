"""Starts a ComfyUI server, waits until it answers, and ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .existing import probe
from .place import HOME, WINDOWS, Host, HostError, environment

START_SECONDS = 300


@contextlib.contextmanager
def server(host: Host, port: int, extra: Sequence[str], log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """A running ComfyUI that answers at `port`; it, and nothing else, is ended on the way out."""
    command = server_command(host, port, has_accelerator(host), extra)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else None
        group: dict[str, Any] = {"creationflags": 0x200} if WINDOWS else {"start_new_session": True}
        process = subprocess.Popen(
            command,
            env=environment(host),
            cwd=HOME / "base",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if out else None,
            **group,
        )
        stack.callback(end, process)
        wait_ready(process, port, log)
        yield process


def server_command(host: Host, port: int, accelerator: bool, extra: Sequence[str]) -> list[str]:
    base = HOME / "base"
    command = [
        str(host.python),
        str(host.comfyui / "main.py"),
        "--base-directory",
        str(base),
        "--port",
        str(port),
        "--disable-auto-launch",
    ]
    if "--database-url" not in extra:  # the default lies inside ComfyUI's own folder
        command += ["--database-url", f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}"]
    if not accelerator and "--cpu" not in extra:
        command.append("--cpu")
    return [*command, *extra]


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path | None) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + START_SECONDS
    where = f"its log is {log}" if log else "its messages are above"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise HostError(f"ComfyUI ended with code {process.returncode} before it answered at port {port}: {where}.")
        try:
            with opener.open(f"http://127.0.0.1:{port}/system_stats", timeout=5) as answer:
                if answer.status == 200 and process.poll() is None:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise HostError(f"ComfyUI did not answer at port {port} within {START_SECONDS} s: {where}.")


def end(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    """Ends a process that `server` started, and its children: asks first, then forces."""
    for force in (False, True):
        if process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                subprocess.run(
                    ["taskkill", "/T", *(["/F"] if force else []), "/PID", str(process.pid)], capture_output=True
                )
            else:
                os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def check_port(port: int) -> None:
    with socket.socket() as probe_socket:
        if not WINDOWS:
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            raise HostError(
                f"Port {port} cannot be used, because another program listens there or the system refuses it: end that program or choose another with --port."
            ) from None


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port


def has_accelerator(host: Host) -> bool:
    """True if the host's torch can use a GPU."""
    return may_have_accelerator(host) and bool(probe(host, (), device=True)["accelerator"])


def may_have_accelerator(host: Host) -> bool:
    """False if there is surely no GPU for this host's torch; answers at once, where torch would need seconds.

    The torch of our lock knows CUDA, and Metal on a Mac; a person's own may know others.
    """
    return not host.ours or sys.platform == "darwin" or nvidia_driver()


def nvidia_driver() -> bool:
    """True if an NVIDIA driver with a device is there, in its own words."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False
