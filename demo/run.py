"""Runs the example workflows on a ComfyUI server and lays their pictures side by side.

`python host.py demo` does all of it; by hand: `python host.py python demo/run.py --server ADDRESS --output FOLDER`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
from PIL import Image

if __name__ == "__main__" and not __package__:
    # PEP 366, relative imports in a script: the root of the pack needs a whole ComfyUI, a client of its server does not.
    __package__ = "demo"
    sys.modules[__package__] = ModuleType(__package__)
    sys.modules[__package__].__path__ = [str(Path(__file__).resolve().parent)]

from .client import Client, ServerError
from .contact import contact_sheet, thumbnail
from .graph import GraphError, prompt_from_workflow

WORKFLOWS = ("demo_one_control", "demo_two_controls", "demo_composed")
FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"


@dataclass(frozen=True)
class Saved:
    """What one Save Image node of a workflow made."""

    title: str
    paths: tuple[Path, ...]


class Line:
    """One line of the terminal that is written over; in a file or pipe, a line per node instead."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.last = ""

    def show(self, title: str, value: int, most: int) -> None:
        bar = f" {value}/{most} [{'#' * round(20 * value / most):20}]" if most else ""
        if sys.stdout.isatty():
            self._write_over(f"{self.label}: {title}{bar}", "")
        elif title != self.last:
            print(f"{self.label}: {title}", flush=True)
        self.last = title

    def end(self, text: str) -> None:
        done = f"{self.label}: {text}"
        if sys.stdout.isatty():
            self._write_over(done, "\n")
        else:
            print(done, flush=True)

    def _write_over(self, text: str, end: str) -> None:
        width = shutil.get_terminal_size().columns - 1  # a longer line would wrap and stay
        print(f"\r{text[:width].ljust(width)}", end=end, flush=True)


async def run_workflow(client: Client, name: str, object_info: Any, output: Path) -> list[Saved]:
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    prompt = prompt_from_workflow(workflow, object_info)
    line = Line(name)
    started = time.monotonic()
    pictures = await client.run(prompt, line.show)
    saved = []
    for node_id in sorted((node for node in pictures if prompt[node]["class_type"] == "SaveImage"), key=int):
        title = prompt[node_id]["_meta"]["title"]
        stem = f"{name}_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}"
        paths = [output / f"{stem}_{n + 1}.png" for n in range(len(pictures[node_id]))]
        for path, picture in zip(paths, pictures[node_id], strict=True):
            path.write_bytes(await client.picture(picture))
        saved.append(Saved(title, tuple(paths)))
    line.end(f"{sum(len(entry.paths) for entry in saved)} pictures in {time.monotonic() - started:.1f} s")
    return saved


async def run(server: str, output: Path, thumbnails: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    memory = asyncio.create_task(watch_memory(server))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)) as session:
        client = Client(session, server)
        object_info = await client.get_json("/object_info")
        rows = {name: await run_workflow(client, name, object_info, output) for name in WORKFLOWS}
    memory.cancel()
    peak = (await asyncio.gather(memory, return_exceptions=True))[0]

    sheet = output / "contact_sheet.png"
    columns = {
        name: [(saved.title, [Image.open(io.BytesIO(path.read_bytes())) for path in saved.paths]) for saved in row]
        for name, row in rows.items()
    }
    contact_sheet(columns).save(sheet)
    if thumbnails:
        for name, row_columns in columns.items():
            thumbnail(row_columns).save(FOLDER / f"{name}.jpg", quality=88)
    for name, row in rows.items():
        for saved in row:
            print(f"{name}, {saved.title}:")
            for path in saved.paths:
                print(f"  {path}")
    print(f"Contact sheet: {sheet}")
    told = f", the server's memory peaked at {peak / 2**20:.0f} MiB" if isinstance(peak, int) else ""
    print(f"Pictures made in {time.monotonic() - started:.1f} s{told}.")


def server_process(port: int) -> psutil.Process | None:
    """The local process that listens on the port, if this user may know."""
    for process in psutil.process_iter():
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        if any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in connections):
            return process
    return None


async def watch_memory(server: str) -> int | None:
    """Until it is cancelled; the largest resident memory of the server's process seen, in bytes."""
    address = urlsplit(server)
    process = server_process(address.port or 80) if address.hostname in ("127.0.0.1", "localhost", "::1") else None
    if process is None:
        return None
    peak = 0
    try:
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.05)
    except (asyncio.CancelledError, psutil.Error):
        return peak


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the example workflows on a ComfyUI server.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of a ComfyUI with this pack")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures and the contact sheet")
    parser.add_argument("--thumbnails", action="store_true", help="make the example workflows' thumbnails anew")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(run(options.server, options.output, options.thumbnails))
    except (GraphError, ServerError) as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except aiohttp.ClientError as problem:
        print(
            f"\nThe server at {options.server} does not answer ({problem}), but a running ComfyUI was expected there; "
            "start one with `python host.py serve` or give its address with --server.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the graph was taken off the server.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
