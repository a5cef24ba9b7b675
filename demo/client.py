"""Runs one prompt on a ComfyUI server over its queue and follows it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp

Prompt = Mapping[str, Mapping[str, Any]]
Progress = Callable[[str, int, int], None]
"""Called with the title of the node that works and how far it is: (title, value, most)."""


class ServerError(RuntimeError):
    """The server refused the graph or a node failed: one sentence for the person at the terminal."""


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url.rstrip("/")

    async def get_json(self, path: str) -> Any:
        async with self.session.get(f"{self.url}{path}") as response:
            response.raise_for_status()
            return await response.json()

    async def picture(self, saved: Mapping[str, str]) -> bytes:
        """The file of one entry of a saving node's output."""
        query = {key: saved[key] for key in ("filename", "subfolder", "type")}
        async with self.session.get(f"{self.url}/view", params=query) as response:
            response.raise_for_status()
            return await response.read()

    async def run(self, prompt: Prompt, on_progress: Progress) -> dict[str, list[dict[str, str]]]:
        """Queues the prompt and waits for its end: {id of a saving node: what it saved}. Raises ServerError.

        Cancelled, it takes the prompt off the server again.
        """
        client_id, prompt_id = str(uuid.uuid4()), str(uuid.uuid4())
        async with self.session.ws_connect(f"{self.url}/ws", params={"clientId": client_id}, max_msg_size=0) as socket:
            finished = False
            try:
                await self._queue(prompt, prompt_id, client_id)
                await self._follow(socket, prompt, prompt_id, on_progress)
                finished = True
            finally:
                if not finished:
                    for path, body in (("queue", {"delete": [prompt_id]}), ("interrupt", {"prompt_id": prompt_id})):
                        with suppress(aiohttp.ClientError):  # a server that is gone needs no taking back
                            async with self.session.post(f"{self.url}/{path}", json=body):
                                pass
        history = await self.get_json(f"/history/{prompt_id}")
        outputs = history[prompt_id]["outputs"]
        return {node: output["images"] for node, output in outputs.items() if "images" in output}

    async def _queue(self, prompt: Prompt, prompt_id: str, client_id: str) -> None:
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": client_id}
        async with self.session.post(f"{self.url}/prompt", json=body) as response:
            answer = await response.json()
            # The server accepts a graph with faults where some of its outputs lie before them, and runs only those.
            if response.status != 200 or answer.get("node_errors"):
                raise ServerError(refusal(answer, prompt))

    async def _follow(self, socket: AsyncIterable[Any], prompt: Prompt, prompt_id: str, on_progress: Progress) -> None:
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = json.loads(message.data)
            kind, data = event["type"], event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "executing" and data["node"] is None:
                return  # only now the history has the pictures; "execution_success" comes a moment too early
            if kind == "executing":
                on_progress(node_title(prompt, data["node"]), 0, 0)
            elif kind == "progress":
                on_progress(node_title(prompt, data["node"]), data["value"], data["max"])
            elif kind == "execution_error":
                text = str(data["exception_message"]).strip()
                raise ServerError(f'node {data["node_id"]} "{node_title(prompt, data["node_id"])}": {text}')
            elif kind == "execution_interrupted":
                raise ServerError("the run was interrupted at the server; queue it again.")
        raise ServerError("the server closed the connection before the pictures were done; look at its log.")


def node_title(prompt: Prompt, node_id: str) -> str:
    node = prompt.get(node_id, {})
    return str(node.get("_meta", {}).get("title") or node.get("class_type") or node_id)


def refusal(answer: Mapping[str, Any], prompt: Prompt) -> str:
    """One sentence of a refused prompt: the errors of its nodes, else the error of the whole."""
    node_errors: Mapping[str, Any] = answer.get("node_errors") or {}
    sentences = [
        f'node {node_id} "{node_title(prompt, node_id)}": {error["message"]} ({error["details"]})'
        for node_id, entry in node_errors.items()
        for error in entry["errors"]
    ]
    error = answer.get("error") or {}
    return "; ".join(sentences) or f"{error.get('message')} ({error.get('details')})"
