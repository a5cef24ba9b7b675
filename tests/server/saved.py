"""Workflows written down as the page of their time saved them (version 0.4), and prompts in API format."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

Slot = tuple[int, int]
"""A node's id and the number of its output."""


class Saved:
    """A workflow in the making. Old pages wrote sizes as objects and knew neither widgets among the inputs nor subgraphs."""

    def __init__(self, old: bool = True) -> None:
        self.old = old
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.subgraphs: list[dict[str, Any]] = []

    def node(
        self,
        kind: str,
        widgets: Sequence[Any] = (),
        inputs: Mapping[str, tuple[str, Slot | None]] | None = None,
        outputs: Sequence[tuple[str, str]] = (),
        title: str | None = None,
        widget_inputs: Sequence[str] = (),
        **more: Any,
    ) -> int:
        """`inputs`: name -> (type, where from); `outputs`: (name, type); `widget_inputs` are inputs that were widgets."""
        number = len(self.nodes) + 1
        sockets = []
        for position, (name, (of_type, source)) in enumerate((inputs or {}).items()):
            link = None if source is None else self._link(source, number, position, of_type)
            sockets.append({"name": name, "type": of_type, "link": link})
            if name in widget_inputs:
                sockets[-1]["widget"] = {"name": name}
        saved: dict[str, Any] = {
            "id": number,
            "type": kind,
            "pos": [60 + 340 * (number % 6), 60 + 260 * (number // 6)],
            "size": {"0": 315, "1": 130} if self.old else [315, 130],
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": [
                {"name": name, "type": of_type, "links": None, "shape": 3, "slot_index": position}
                for position, (name, of_type) in enumerate(outputs)
            ],
            "properties": {"Node name for S&R": kind},
            "widgets_values": list(widgets),
            **more,
        }
        if title:
            saved["title"] = title
        self.nodes.append(saved)
        for link in self.links:
            if link[3] == number:
                output = self.nodes[link[1] - 1]["outputs"][link[2]]
                output["links"] = [*(output["links"] or []), link[0]]
        return number

    def _link(self, source: Slot, target: int, position: int, of_type: str) -> int:
        self.links.append([len(self.links) + 1, source[0], source[1], target, position, of_type])
        return len(self.links)

    def group(self, title: str, bounding: Sequence[float] = (40, 40, 900, 700)) -> None:
        self.groups.append({"title": title, "bounding": list(bounding), "color": "#3f789e", "font_size": 24})

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }
        if not self.old:
            found |= {"id": str(uuid.UUID(int=5)), "revision": 0, "definitions": {"subgraphs": self.subgraphs}}
        return found


def subgraph(
    name: str,
    inner: Saved,
    inputs: Sequence[tuple[str, str, Slot]],
    outputs: Sequence[tuple[str, str, Slot]],
) -> dict[str, Any]:
    """A subgraph's definition. `inputs`: name, type, (node, number of its input); `outputs`: name, type, (node, number of its output)."""
    identity = str(uuid.UUID(int=7))
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
        for link in inner.links
    ]

    def boundary(number: int, ends: Sequence[tuple[str, str, Slot]]) -> list[dict[str, Any]]:
        slots = []
        for position, (title, of_type, (node, place)) in enumerate(ends):
            link = len(links) + 1
            if number == -10:
                links.append(ends_of(link, (-10, position), (node, place), of_type))
                inner.nodes[node - 1]["inputs"][place]["link"] = link
            else:
                links.append(ends_of(link, (node, place), (-20, position), of_type))
                output = inner.nodes[node - 1]["outputs"][place]
                output["links"] = [*(output["links"] or []), link]
            slots.append(
                {
                    "id": str(uuid.UUID(int=100 - number + position)),
                    "name": title,
                    "type": of_type,
                    "linkIds": [link],
                    "pos": [0, 20 * position],
                }
            )
        return slots

    begins, ends = boundary(-10, inputs), boundary(-20, outputs)
    return {
        "id": identity,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(inner.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": -10, "bounding": [-200, 60, 120, 160]},
        "outputNode": {"id": -20, "bounding": [1400, 60, 120, 100]},
        "inputs": begins,
        "outputs": ends,
        "widgets": [],
        "nodes": inner.nodes,
        "groups": [],
        "links": links,
        "extra": {},
    }


def ends_of(link: int, origin: Slot, target: Slot, of_type: str) -> dict[str, Any]:
    return {
        "id": link,
        "origin_id": origin[0],
        "origin_slot": origin[1],
        "target_id": target[0],
        "target_slot": target[1],
        "type": of_type,
    }


def prompt_node(kind: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt in API format; a link is (id, number of the output)."""
    linked = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
    return {"class_type": kind, "inputs": linked, "_meta": {"title": title or kind}}
