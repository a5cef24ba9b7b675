"""Published files fetched when a person asks for them: to the end or not at all, resumed where they were cut, compared with what is known of them.

A file that is under way lies beside its place as NAME.part, with NAME.part.json saying of what it is a part. Of libraries the standard one.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from .annotators.annotator import HUGGING_FACE, File
from .errors import PreprocessorError
from .file_lock import lock

AGENT = "control-composer (ComfyUI node pack; Python urllib)"
CHUNK = 1 << 20
SECONDS = 30.0
"""Without a byte, after which a connection counts as cut."""
ATTEMPTS = 4
"""In a row that bring nothing."""
PAUSE = 2.0
"""Seconds before the second of them; it doubles."""
SPARE = 64 << 20
"""Bytes that a disk keeps free."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Answers that another attempt may not get."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class DownloadError(PreprocessorError):
    """A file that is not there after all: says what, what was found, what was expected, what to do."""


class Cut(Exception):
    """The connection ended early; what has come is kept."""


class Downloaded(NamedTuple):
    path: Path
    bytes: int
    sha256: str
    """Of what was fetched; empty where the file was there already and nobody read it."""
    verified: bool
    """Whether its checksum was known, and is that."""
    fetched: bool
    """False where it was there already."""


class Answer(NamedTuple):
    """What a server gives for a file from some byte on."""

    body: IO[bytes]
    start: int
    total: int
    """Bytes of the whole file; 0 where the server does not say."""
    validator: str
    """What tells this version of the file from another; empty where the server gives nothing that does."""


@dataclass(frozen=True)
class Wishes:
    """What goes with a download: `progress(done, total)` in bytes, total 0 where it is not known; `check()` is called between chunks, and what it
    raises ends the download, which goes on from there another time."""

    progress: Callable[[int, int], None] = lambda done, total: None
    check: Callable[[], None] = lambda: None
    offline: bool = False


def is_offline(environment: Mapping[str, str] = os.environ) -> str:
    """The variable that forbids the network, or an empty text."""
    for name in OFFLINE:
        if environment.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return ""


def address_of(file: File, environment: Mapping[str, str] = os.environ) -> str:
    """Where the file is fetched from: HF_ENDPOINT names a mirror of the hub."""
    endpoint = environment.get("HF_ENDPOINT", "").strip().rstrip("/")
    if endpoint and file.address.startswith(HUGGING_FACE):
        return f"{endpoint}/{file.address.removeprefix(HUGGING_FACE)}"
    return file.address


def is_plain(name: str) -> bool:
    """Whether a name is one of a file in a folder, wherever it is put."""
    return bool(name.strip(". ")) and not any(mark in name for mark in '/\\:*?"<>|\0')


def download(file: File, folder: Path, wishes: Wishes | None = None) -> Downloaded:
    """Fetches a file into a folder, unless it is there. Raises DownloadError, or what `wishes.check` raises."""
    wishes = wishes or Wishes()
    if not is_plain(file.name):
        raise DownloadError(
            f"The file {file.name!r} has a name that leads elsewhere, where that of a file in {folder} was expected: tell the developers."
        )
    target = folder / file.name
    if os.path.lexists(target):
        return there_already(file, target)
    forbidden = "--offline" if wishes.offline else is_offline()
    if forbidden:
        raise DownloadError(
            f"'{file.name}' is not in {folder}, where it was expected, and {forbidden} forbids the network: put it there from {file.address}, "
            f"or leave {forbidden} out."
        )
    address = address_of(file)
    if urlsplit(address).scheme not in ("https", "http"):
        raise DownloadError(
            f"'{file.name}': found the address {address}, but one that begins with https:// was expected; correct HF_ENDPOINT."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return alone(file, address, target, wishes)
    except OSError as problem:
        raise DownloadError(
            f"'{file.name}': {folder} cannot be written ({problem.strerror or problem}), where the file was expected; "
            "choose another folder, or put it where you may write."
        ) from None


def alone(file: File, address: str, target: Path, wishes: Wishes) -> Downloaded:
    """Fetches the file while nobody else does."""
    part = target.with_name(f"{target.name}.part")
    said = note(part).open("a+b")
    if not lock(said.fileno()):
        said.close()
        raise DownloadError(
            f"'{file.name}' is being downloaded into {target.parent} by something else, where one download was expected: "
            "wait until it is there."
        )
    try:
        return to_the_end(file, address, target, part, wishes)
    finally:
        if part.is_file() and not part.stat().st_size:
            part.unlink()
        said.close()
        if not part.exists():
            note(part).unlink(missing_ok=True)


def to_the_end(file: File, address: str, target: Path, part: Path, wishes: Wishes) -> Downloaded:
    if os.path.lexists(target):
        return there_already(file, target)
    with part.open("a+b") as stream:
        size, found = fetched(file, address, stream, wishes)
        stream.flush()
        os.fsync(stream.fileno())
    if file.sha256 is not None and found != file.sha256:
        part.unlink()
        raise DownloadError(
            f"'{file.name}' came from {address} with the SHA-256 sum {found}, but {file.sha256} was expected: it is not kept; "
            "try another network or mirror."
        )
    if os.path.lexists(target):  # put there by hand meanwhile
        part.unlink()
        return there_already(file, target)
    part.rename(target)
    return Downloaded(target, size, found, file.sha256 is not None, True)


def there_already(file: File, target: Path) -> Downloaded:
    size = target.stat().st_size if target.is_file() else -1
    if size < 0 or (file.bytes and size != file.bytes):
        found = f"a file of {size:,} bytes" if size >= 0 else "something that is no file"
        expected = f"the published file of {file.bytes:,} bytes" if file.bytes else "a file"
        raise DownloadError(
            f"{target}: found {found}, but {expected} was expected; move it away to have it downloaded."
        )
    return Downloaded(target, size, "", False, False)


def fetched(file: File, address: str, stream: IO[bytes], wishes: Wishes) -> tuple[int, str]:
    """The rest of the file appended to `stream`, in as many attempts as it takes. Size and checksum of the whole. Raises DownloadError."""
    idle, reason = 0, ""
    while idle < ATTEMPTS:
        if idle:
            rest(PAUSE * 2 ** (idle - 1), wishes.check)
        before = stream.seek(0, os.SEEK_END)
        try:
            return attempt(file, address, stream, wishes)
        except Cut as problem:
            reason = str(problem)
        idle = 0 if stream.seek(0, os.SEEK_END) > before else idle + 1
    raise DownloadError(
        f"'{file.name}' was expected from {address}, but {reason}: check the network (and HTTPS_PROXY, if you use one) and ask again; "
        "what has come is kept."
    )


def attempt(file: File, address: str, stream: IO[bytes], wishes: Wishes) -> tuple[int, str]:
    """One connection. Raises Cut where another may bring more."""
    wishes.check()
    part = Path(stream.name)
    have = stream.seek(0, os.SEEK_END)
    validator = remembered(part, address) if have else ""
    if have and not validator and file.sha256 is None:
        have = 0  # nothing would show that the rest is of another version
    answer = ask(file, address, have, validator)
    with answer.body as body:
        total = answer.total or file.bytes
        if file.bytes and answer.total and answer.total != file.bytes:
            stream.truncate(0)
            raise DownloadError(
                f"'{file.name}': {address} offers {answer.total:,} bytes, but the published file has {file.bytes:,}; try another mirror."
            )
        check_room(file, part, total - answer.start)
        stream.truncate(answer.start)
        note(part).write_text(json.dumps({"address": address, "validator": answer.validator}))
        digest = hashlib.sha256()
        done = hashed(stream, digest, wishes)
        while chunk := received(body):
            stream.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            wishes.progress(done, total)
            wishes.check()
    if total and done < total:
        raise Cut(f"the connection ended after {done:,} of {total:,} bytes")
    if file.bytes and done != file.bytes:
        stream.truncate(0)
        raise DownloadError(
            f"'{file.name}': {done:,} bytes came from {address}, but the published file has {file.bytes:,}; try another mirror."
        )
    return done, digest.hexdigest()


def ask(file: File, address: str, have: int, validator: str) -> Answer:
    """Asks for the file from byte `have` on; the answer says from where it is. Raises Cut or DownloadError."""
    headers = {"User-Agent": AGENT}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        # Made anew, so that the proxies are those of the environment now.
        opener = urllib.request.build_opener(Redirects)
        response: Any = opener.open(urllib.request.Request(address, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as problem:
        problem.close()
        if problem.code == 416 and have:
            if problem.headers.get("Content-Range", "") == f"bytes */{have}":
                return Answer(io.BytesIO(), have, have, validator)  # nothing was left to bring
            return ask(file, address, 0, "")
        if problem.code in PASSING:
            raise Cut(f"the server answered {problem.code} ({problem.reason})") from None
        raise DownloadError(
            f"'{file.name}': {urlsplit(address).hostname} answered {problem.code} ({problem.reason}) to {address}, where the file was expected; "
            "look whether it has moved, and put it into the folder by hand."
        ) from None
    except (OSError, http.client.HTTPException) as problem:
        raise Cut(f"the server could not be reached ({getattr(problem, 'reason', None) or problem})") from None
    kind = response.headers.get_content_type()
    if kind == "text/html":
        response.close()
        raise DownloadError(
            f"'{file.name}': {address} gave a page ({kind}) where the file was expected; open it in a browser to see what it says."
        )
    start, total = extent(response, have)
    if start is None:
        response.close()
        return ask(file, address, 0, "")
    if not (total or file.bytes or file.sha256 or response.chunked):
        response.close()
        raise DownloadError(
            f"'{file.name}': {address} does not say how many bytes the file has, so that a cut one would look whole; try another mirror."
        )
    strong = response.headers.get("ETag", "")
    kept = strong if strong and not strong.startswith("W/") else response.headers.get("Last-Modified", "")
    return Answer(response, start, total, kept)


def extent(response: Any, have: int) -> tuple[int | None, int]:
    """From which byte on the answer is, and how many the file has. No byte: the answer is of another part than was asked for."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        return 0, int(length) if length.isdigit() else 0
    span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    if first != str(have):
        return None, 0
    return have, int(whole) if whole.isdigit() else 0


def received(body: IO[bytes]) -> bytes:
    try:
        return body.read(CHUNK)
    except (OSError, http.client.HTTPException) as problem:
        raise Cut(f"the connection broke ({problem})") from None


def hashed(stream: IO[bytes], digest: Any, wishes: Wishes) -> int:
    """Reads what has come before into the checksum; returns how much it is."""
    stream.seek(0)
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        wishes.check()
    return stream.tell()


def remembered(part: Path, address: str) -> str:
    """What tells the version of the file that a part is of, if it is of this address."""
    try:
        said = json.loads(note(part).read_text())
    except (OSError, ValueError):
        return ""
    fits = isinstance(said, dict) and said.get("address") == address
    return str(said.get("validator", "")) if fits else ""


def note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def check_room(file: File, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed + SPARE > free:
        raise DownloadError(
            f"'{file.name}': the disk of {part.parent} has {free / 1e6:,.0f} MB free, but {(needed + SPARE) / 1e6:,.0f} MB are needed; "
            "free some space, or choose another folder."
        )


def rest(seconds: float, check: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.25))


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows servers to where they keep their files, but not out of an encrypted connection."""

    def redirect_request(self, request: Any, body: Any, code: int, reason: str, headers: Any, address: str) -> Any:
        encrypted = request.full_url.startswith("https:")
        if not address.startswith("https:" if encrypted else ("https:", "http:")):
            reason = f"it leads to {address}, out of the encrypted connection"
            raise urllib.error.HTTPError(request.full_url, code, reason, headers, body)
        return super().redirect_request(request, body, code, reason, headers, address)
