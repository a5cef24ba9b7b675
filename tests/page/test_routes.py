"""How questions of the page come to their answers, over a real connection."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp")
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control_composer.page.routes import handler


def answer(question: dict[str, Any]) -> dict[str, Any]:
    if question.get("strength", 0) < 0:
        raise ValueError("strength is less than 0, but 0 or more was expected; type another.")
    return {"twice": 2 * question["strength"]}


def asked(body: bytes) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        app = web.Application()
        app.router.add_post("/question", handler(answer))
        async with TestClient(TestServer(app)) as client:
            response = await client.post("/question", data=body)
            return response.status, (await response.json() if response.status == 200 else None)

    return asyncio.run(run())


def test_an_answer_goes_back() -> None:
    assert asked(b'{"strength": 2}') == (200, {"twice": 4})


def test_a_refusal_is_an_answer_with_its_sentence() -> None:
    """Not a status of 400, which browsers complain of in their console."""
    assert asked(b'{"strength": -1}') == (
        200,
        {"refused": "strength is less than 0, but 0 or more was expected; type another."},
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"3"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    status, found = asked(body)
    assert status == 200 and found["refused"].endswith("but it answers those only; send one.")


def test_a_defect_of_ours_is_not_told_as_a_refusal() -> None:
    assert asked(b'{"other": 1}')[0] == 500
