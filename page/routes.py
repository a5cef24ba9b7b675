"""The addresses under which the scripts of `web/` ask, and how an answer goes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .presets import layer_preset, presets, read_preset
from .schedules import schedule
from .weights import weights

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""From the question, a JSON object, to the answer; a ValueError is the sentence that the page shows."""

PREFIX = "/control_composer"
ANSWERS: dict[str, Answer] = {
    "layer_preset": layer_preset,
    "presets": presets,
    "read_preset": read_preset,
    "schedule": schedule,
    "weights": weights,
}


def handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            question = await request.json()
        except json.JSONDecodeError:
            question = None
        if not isinstance(question, dict):
            return refused(f"{request.path} was sent no JSON object, but it answers those only; send one.")
        try:
            # Headers of files may be read; the server's loop goes on meanwhile.
            return web.json_response(await asyncio.to_thread(answer, question))
        except ValueError as refusal:
            return refused(str(refusal))

    return handle


def refused(sentence: str) -> web.Response:
    """An answer like any other: browsers write a complaint into their console for each status of 400, and one comes with every slip of the pen."""
    return web.json_response({"refused": sentence})


def register() -> None:
    """Tell the running server; does nothing where none runs."""
    from server import PromptServer  # here, because only a running host has a server

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    for name, answer in ANSWERS.items():
        server.routes.post(f"{PREFIX}/{name}")(handler(answer))
