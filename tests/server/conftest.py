"""A real ComfyUI server with this pack, started once for all tests here, and what they need to talk to it."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from control_composer.demo.graph import prompt_from_workflow

ROOT = Path(__file__).resolve().parents[2]
PACK = "control-composer"
START_SECONDS = 400

Prompt = dict[str, dict[str, Any]]


class Refused(Exception):
    """What the server answered to a prompt that it did not queue."""


class Failed(Exception):
    """The `execution_error` of a prompt."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data["exception_message"])
        self.node_type: str = data["node_type"]


@dataclass
class Run:
    pictures: dict[str, np.ndarray]
    """Title of each Save Image node -> uint8 (B, H, W, 3)."""
    texts: dict[str, str]
    """Title of each node that shows a text -> the text."""
    cached: frozenset[str]
    """Ids of the nodes that the host did not execute again."""


@dataclass
class Server:
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    base: Path
    known: dict[str, Any] = field(default_factory=dict)
    """What the nodes' inputs are: asked for once, since all nodes together are a long answer."""

    Refused: ClassVar = Refused
    Failed: ClassVar = Failed

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            body: bytes = response.read()
        return body

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def object_info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads(self.get("/object_info"))
        return info

    def example(self, name: str) -> Prompt:
        workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
        self.known = self.known or self.object_info()
        return prompt_from_workflow(workflow, self.known)

    def forget(self) -> None:
        """Empties the host's cache of node outputs and unloads its models."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1)

    def run(self, prompt: Prompt, timeout: float = 300) -> Run:
        """Queues the prompt, waits, fetches the saved pictures. Raises Refused or Failed."""
        try:
            answer = self.post("/prompt", {"prompt": prompt})
        except urllib.error.HTTPError as refusal:
            raise Refused(refusal.read().decode()) from None
        if answer.get("node_errors"):
            raise Refused(json.dumps(answer["node_errors"]))  # the host would run what does not depend on them
        prompt_id = answer["prompt_id"]
        end = time.monotonic() + timeout
        while True:
            history = json.loads(self.get(f"/history/{prompt_id}"))
            if prompt_id in history:
                break
            assert time.monotonic() < end, f"no end after {timeout} s"
            assert self.process.poll() is None, "the server died"
            time.sleep(0.05)
        entry = history[prompt_id]
        messages = dict(entry["status"]["messages"])
        if "execution_error" in messages:
            raise Failed(messages["execution_error"])
        assert entry["status"]["completed"]
        pictures = {
            prompt[node]["_meta"]["title"]: np.stack([self.picture(saved) for saved in output["images"]])
            for node, output in entry["outputs"].items()
            if prompt[node]["class_type"] == "SaveImage"
        }
        texts = {
            prompt[node]["_meta"]["title"]: "".join(output["text"])
            for node, output in entry["outputs"].items()
            if "text" in output and "_meta" in prompt[node]
        }
        return Run(pictures, texts, frozenset(messages["execution_cached"]["nodes"]))

    def picture(self, saved: dict[str, str]) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.get("/view?" + urllib.parse.urlencode(saved)))).convert("RGB"))

    def lines(self) -> list[str]:
        """The log without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(encoding="utf-8", errors="replace")).splitlines()


def comfyui() -> Path:
    """The folder of the ComfyUI that these tests run in."""
    comfy = pytest.importorskip("comfy")
    return Path(next(iter(comfy.__path__))).resolve().parent


@contextmanager
def serving(base: Path) -> Iterator[Server]:
    """A server with its own base directory, ended afterwards."""
    for name in ("custom_nodes", "models", "input", "output", "user", "temp"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / f"server-{port}.log"
    command = [sys.executable, str(comfyui() / "main.py"), "--cpu", "--port", str(port), "--disable-api-nodes"]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=base, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", log, process, base)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                server.get("/queue")
                break
            except OSError:
                tail = "\n".join(server.lines()[-20:])
                assert process.poll() is None, f"the server ended at its start:\n{tail}"
                assert time.monotonic() < end, f"no server after {START_SECONDS} s:\n{tail}"
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("host")) as started:
        yield started


@pytest.fixture(scope="session")
def start_another(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """`with start_another() as server`: a second server, for what only a restart can show."""
    return lambda: serving(tmp_path_factory.mktemp("restarted"))


@pytest.fixture(scope="session")
def script_environment() -> dict[str, str]:
    """Variables in which ComfyUI's modules can be imported."""
    return {**os.environ, "PYTHONPATH": str(comfyui()), "PYTHONUTF8": "1"}
