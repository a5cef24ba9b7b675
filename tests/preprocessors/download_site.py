"""A server on this machine that behaves as badly as servers do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from control_composer.preprocessors import downloads

CONTENT = bytes(range(256)) * 2000
SUM = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    tag: str = '"one"'
    cut_at: list[int] = field(default_factory=list)
    """For each answer to come: after how many bytes it breaks."""
    statuses: list[int] = field(default_factory=list)
    """For each answer to come."""
    ranges: bool = True
    length: bool = True
    kind: str = "application/octet-stream"
    moved_to: str = ""
    shifted: int = 0
    """Bytes by which a part is another than the one asked for."""
    address: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site, headers = self.site, dict(self.headers.items())
        site.asked.append(headers | {"path": self.path})
        if site.moved_to and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", site.moved_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = site.statuses.pop(0) if site.statuses else 200
        if status >= 400:
            self.send_error(status)
            return
        start = 0
        wanted = headers.get("Range", "")
        if wanted and site.ranges and headers.get("If-Range", site.tag) == site.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(site.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(site.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            start -= site.shifted
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        else:
            self.send_response(status)
        body = site.content[start:]
        self.send_header("Content-Type", site.kind)
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if site.cut_at:
            body = body[: site.cut_at.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The server, for a fixture to yield from; with nothing in the environment that concerns downloads."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setattr(downloads, "SECONDS", 5.0)
    monkeypatch.setattr(downloads, "CHUNK", 1 << 16)
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join(5)
