"""Draws the example workflows' thumbnails of what they really make: `python host.py python demo/thumbnails.py --server ADDRESS`.

Those that want models which are not part of the pack show their hints only; the host's example.png must lie in its input folder. The first three examples
have theirs of `demo/run.py`, training and fidelity of the runs that docs/training.md and docs/evaluation.md tell of.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
from PIL import Image, ImageDraw, ImageFont

if __name__ == "__main__" and not __package__:
    # PEP 366, relative imports in a script: the root of the pack needs a whole ComfyUI, a client of its server does not.
    __package__ = "demo"
    sys.modules[__package__] = ModuleType(__package__)
    sys.modules[__package__].__path__ = [str(Path(__file__).resolve().parent)]

from .client import Client
from .graph import prompt_from_workflow

log = logging.getLogger("demo.thumbnails")

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
WIDTH, HEIGHT = 400, 300
GAP, WORDS = 4, 17
GROUND, INK = (30, 30, 30), (235, 235, 235)

SHOWN: Mapping[str, Sequence[str]] = {
    "demo_batches": ("Hints", "Hints#1", "Repeat", "Repeat#1", "Repeat#2", "Repeat#3"),
    "demo_block_weights": ("Demo Scene", "Hint", "Flat", "Resolution weights", "Coarse only", "Fine only"),
    "demo_control_modes": (
        "Demo Scene",
        "Hint",
        "Balanced",
        "My prompt is more important",
        "ControlNet is more important",
        "CFG resolution weighting",
    ),
    "demo_hires": ("Hint", "First pass", "Second pass", "Second pass without control"),
    "demo_inspection": ("Hint: edges", "Picture", "Residual Heatmap", "Edges compared"),
    "demo_masks": (
        "Hint: edges",
        "Hint: colours",
        "The mask",
        "No masks",
        "Edges left, colours right",
        "Edges left, colours right#1",
    ),
    "demo_pose": ("Drawn", "Edited", "Selected", "Thick sticks"),
    "demo_preprocessors": ("Canny", "Standard Lineart", "Scribble", "Color Grid", "Tile, guided filter", "Shuffle"),
    "demo_regions": ("Hint", "Without control", "With control", "With control#1"),
    "demo_schedules": ("Demo Scene", "Hint", "All the time", "Early only", "Late only", "A drawn curve"),
    "demo_sizing": ("Hint, crop", "Hint, fit", "Hint, stretch", "Crop", "Fit", "Stretch"),
    "compare_sets": ("Hint", "Made", "Made#1", "Made#2", "Made#3", "Made#4"),
    "sd15_adapters": ("Hint: colours", "Hint: edges"),
    "sd15_canny_depth": ("Load Image", "Hint: edges"),
    "sd15_inpaint": ("512 x 512", "Hint"),
    "sd15_pose_regions": ("Hint",),
    "sd15_reference": ("Load Image",),
    "sd15_tile_upscale": ("512 x 512", "Hint"),
    "sdxl_lineart_weights": ("Load Image", "Hint"),
    "sdxl_union": ("Load Image", "Hint: lines"),
}
"""The titles of the nodes whose pictures are shown; a number behind # picks another picture than the first."""

Prompt = dict[str, dict[str, Any]]


def part_of(prompt: Prompt, titles: Sequence[str]) -> tuple[Prompt, dict[str, str]]:
    """The nodes that these titles need, each followed by a node that saves, and which node saves the pictures of which title."""
    by_title = {node["_meta"]["title"]: number for number, node in prompt.items()}
    part: Prompt = {}
    saving: dict[str, str] = {}

    def need(number: str) -> None:
        if number in part:
            return
        part[number] = prompt[number]
        for value in prompt[number]["inputs"].values():
            if isinstance(value, list) and len(value) == 2:
                need(value[0])

    for title in titles:
        number = by_title[title]
        need(number)
        if prompt[number]["class_type"] in ("SaveImage", "PreviewImage"):
            saving[title] = number
        else:
            saving[title] = f"1000{number}"
            part[saving[title]] = {
                "class_type": "PreviewImage",
                "inputs": {"images": [number, 0]},
                "_meta": {"title": title},
            }
    return part, saving


def sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """400 x 300: the pictures as large as they can be side by side, with their words below."""

    def cell(columns: int) -> tuple[float, float]:
        rows = -(-len(pictures) // columns)
        return (WIDTH - GAP) / columns - GAP, (HEIGHT - GAP) / rows - GAP - WORDS

    def fitted(picture: Image.Image, columns: int) -> tuple[int, int]:
        factor = min(cell(columns)[0] / picture.width, cell(columns)[1] / picture.height)
        return max(1, int(picture.width * factor)), max(1, int(picture.height * factor))

    def covered(columns: int) -> int:
        return sum(wide * high for wide, high in (fitted(picture, columns) for _, picture in pictures))

    columns = max(range(1, len(pictures) + 1), key=covered)
    across, down = WIDTH / columns, HEIGHT / -(-len(pictures) // columns)
    page = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(11)
    for n, (words, picture) in enumerate(pictures):
        small = picture.resize(fitted(picture, columns), Image.Resampling.LANCZOS)
        middle = (n % columns + 0.5) * across
        top = n // columns * down + (down - small.height - WORDS) / 2
        page.paste(small, (int(middle - small.width / 2), int(top)))
        while pen.textlength(words, font) > across - GAP:
            words = words[:-2].rstrip(" .…") + "…"
        pen.text((middle, int(top) + small.height + 2), words, fill=INK, font=font, anchor="ma")
    return page


async def draw(server: str, names: Sequence[str]) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)) as session:
        client = Client(session, server)
        object_info = await client.get_json("/object_info")
        for name in names or SHOWN:
            workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            whole = prompt_from_workflow(workflow, object_info)
            titles = list(dict.fromkeys(shown.split("#")[0] for shown in SHOWN[name]))
            part, saving = part_of(whole, titles)
            saved = await client.run(part, lambda *_: None)
            pictures = []
            for shown in SHOWN[name]:
                title, _, which = shown.partition("#")
                picture = await client.picture(saved[saving[title]][int(which or 0)])
                pictures.append((title, Image.open(io.BytesIO(picture)).convert("RGB")))
            sheet(pictures).save(FOLDER / f"{name}.jpg", quality=88)
            log.info("%s", name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the thumbnails of the example workflows.")
    parser.add_argument("names", nargs="*", help="those to draw; all without it")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of a ComfyUI with this pack")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(draw(options.server, options.names))


if __name__ == "__main__":
    main()
