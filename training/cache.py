"""Prepared rows on disk, as the loop reads them: latents, texts and hints in memory-mapped shards (encode.py makes them)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .batch import Batch, EmptyPrompt
from .checkpoint import remove
from .errors import TrainingError
from .whole import UNFINISHED, write_whole

INDEX, BEGUN, EMPTY = "index.json", "begun.safetensors", "empty.safetensors"
ROWS, PROBLEMS = "rows-*.safetensors", "problems-*.json"
FORM = 1
SHARD_BYTES = 2**27
"""Rows of about so many bytes go into one file; a kill loses at most these."""
TOLERANCE = 0.02
"""Of the length: how far the same networks may be apart on two kinds of machine, in half precision."""


class Cache:
    """A finished folder of prepared rows, in the order of the data set's rows; the `Data` of a training."""

    def __init__(self, folder: Path, index: Mapping[str, Any], empty: EmptyPrompt) -> None:
        self._folder, self._files = folder, [shard["file"] for shard in index["shards"]]
        self._open: dict[int, dict[str, Tensor]] = {}
        places = sorted(
            (row, number, place)
            for number, shard in enumerate(index["shards"])
            for place, row in enumerate(shard["rows"])
        )
        self._places = [(number, place) for _, number, place in places]
        self.groups = torch.tensor([index["shards"][number]["group"] for number, _ in self._places], dtype=torch.int64)
        self.captions: list[str] = [index["shards"][number]["captions"][place] for number, place in self._places]
        self.problems: list[str] = index["problems"]
        """What was left out, in words."""
        self.condition: str = index["condition"]
        """The id of the preprocessor that made the hints, or "" for others."""
        self.parameters: dict[str, Any] = index["parameters"]
        """The preprocessor's."""
        self.fingerprint: str = index["fingerprint"]
        self._tokens: int = index["tokens"]
        self.empty = EmptyPrompt(_repeated(empty.context, self._tokens), empty.pooled)

    @classmethod
    @torch.inference_mode(False)
    def open(cls, folder: Path) -> Cache:
        """Raises TrainingError for a folder without a finished cache, and for one whose files are gone or cut."""
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["form"] != FORM:
                raise ValueError(f"its form is {index['form']}")
            cut = [
                shard["file"] for shard in index["shards"] if (folder / shard["file"]).stat().st_size != shard["size"]
            ]
            if cut:
                raise ValueError(f"'{cut[0]}' is not whole")
            with safe_open(folder / EMPTY, "pt") as file:
                held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return cls(folder, index, EmptyPrompt(held["context"], held.get("pooled")))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise TrainingError(
                f"The cache '{folder}'",
                found=f"cannot be read ({error})",
                expected="a finished folder of prepared rows was expected",
                remedy="prepare the data set again, in an empty folder",
            ) from error

    def __len__(self) -> int:
        return len(self._places)

    @property
    def hint_channels(self) -> int:
        return self._shard(0)["hint"].shape[1]

    @torch.inference_mode(False)
    def batch(self, rows: Tensor) -> Batch:
        """Float32 latents and texts, uint8 hints, in the CPU's memory. Texts of different lengths are repeated to one length, as the
        host does it, which changes nothing of what attention makes of them.
        """
        own = [self._row(row) for row in rows.tolist()]
        return Batch(
            torch.cat([row["latent"] for row in own]),
            torch.cat([_repeated(row["context"], self._tokens) for row in own]),
            torch.cat([row["y"] for row in own]) if "y" in own[0] else None,
            torch.cat([row["hint"] for row in own]),
        )

    def _row(self, row: int) -> dict[str, Tensor]:
        number, place = self._places[row]
        return {name: values[place : place + 1] for name, values in self._shard(number).items()}

    @torch.inference_mode(False)
    def _shard(self, number: int) -> dict[str, Tensor]:
        """Its tensors, mapped: read when they are looked at."""
        if number not in self._open:
            with safe_open(self._folder / self._files[number], "pt") as file:
                self._open[number] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return self._open[number]


class CacheWriter:
    """Fills a folder with rows, shard by shard; each is whole or not there. Several processes may fill one folder, each as its own `share`."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        condition: str,
        probe: Mapping[str, Tensor] | None = None,
        share: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Begins the folder or continues it. `probe`: what the networks make of the same inputs, by a name for people.

        Raises TrainingError for a folder that was begun for other data, or whose networks said something else to the probe.
        """
        self.folder, self._share = folder, share
        self._about = {"form": str(FORM), "fingerprint": fingerprint, "condition": condition}
        self._parameters = dict(parameters or {})
        self._begin(dict(probe or {}))
        self.done = {row for path in folder.glob(ROWS) for row in _rows_of(path)["rows"]}
        """Numbers of the rows that are in the folder."""
        self._problems: dict[int, str] = {}
        self._pending: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._bytes = 0
        self._files = sum(1 for _ in folder.glob(f"rows-{share:04d}-*.safetensors"))

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an interruption too; a disk that has just refused would refuse again.
        if not isinstance(error, TrainingError):
            self.flush()

    def add(
        self,
        group: int,
        latent: Tensor,
        context: Tensor,
        y: Tensor | None,
        hint: Tensor,
        caption: str,
        *,
        row: int | None = None,
    ) -> None:
        """One row: latent (4, h, w) as the UNet sees it, context (tokens, width), y (width,) or None, hint (C, 8h, 8w) uint8.

        `row` is its number in the data set; the next one unless told.
        """
        row = max(self.done, default=-1) + 1 if row is None else row
        tensors = {"latent": latent.float(), "context": context.float(), "hint": hint}
        if y is not None:
            tensors["y"] = y.float()
        tensors = {name: values.detach().cpu().contiguous() for name, values in tensors.items()}
        # Rows of one file are of one size.
        key = (group, *(tuple(values.shape) for values in tensors.values()))
        self._pending.setdefault(key, []).append({"row": row, "caption": caption, "group": group, "tensors": tensors})
        self.done.add(row)
        self._bytes += sum(values.nbytes for values in tensors.values())
        if self._bytes >= SHARD_BYTES:
            self.flush()

    def skip(self, row: int, what: str) -> None:
        """Leaves a row out, and says so."""
        self._problems[row] = what

    def flush(self) -> None:
        """Writes what waits. Raises TrainingError where the disk refuses."""
        while self._pending:
            key = next(iter(self._pending))
            rows = self._pending[key]
            about = {
                "group": rows[0]["group"],
                "rows": [row["row"] for row in rows],
                "captions": [row["caption"] for row in rows],
            }
            tensors = {name: torch.stack([row["tensors"][name] for row in rows]) for name in rows[0]["tensors"]}
            name = f"rows-{self._share:04d}-{self._files:06d}.safetensors"
            _save(self.folder / name, tensors, {"about": json.dumps(about)})
            del self._pending[key]
            self._files += 1
        self._bytes = 0
        if self._problems:
            told = json.dumps({str(row): what for row, what in self._problems.items()})
            _write_text(self.folder / f"problems-{self._share:04d}.json", told)

    def finish(self, empty: EmptyPrompt, rows: int | None = None) -> Cache:
        """Closes the folder, once all shares are filled. `rows`: how many there must be, those left out among them.

        Raises TrainingError where some are missing or none could be read, and where the disk refuses.
        """
        self.flush()
        shards: list[dict[str, Any]] = [
            {"file": path.name, "size": path.stat().st_size} | _rows_of(path) for path in sorted(self.folder.glob(ROWS))
        ]
        done = {row for shard in shards for row in shard["rows"]}
        told: dict[str, str] = {}
        for path in sorted(self.folder.glob(PROBLEMS)):
            told |= json.loads(path.read_text(encoding="utf-8"))
        left = {int(row): what for row, what in told.items() if int(row) not in done}
        if rows is not None and len(done | left.keys()) < rows:
            raise TrainingError(
                f"The cache '{self.folder}'",
                found=f"has {len(done | left.keys())} of {rows} rows",
                expected="those of all processes were expected",
                remedy="let every process prepare its share, then start this one again",
            )
        if not done:
            raise TrainingError(
                "The data set",
                found=f"has no row that could be read ({next(iter(left.values()), 'it is empty')})",
                expected="one at least was expected",
                remedy="look at its report",
            )
        held = {"context": empty.context.float()} | ({} if empty.pooled is None else {"pooled": empty.pooled.float()})
        _save(self.folder / EMPTY, {name: values.detach().cpu().contiguous() for name, values in held.items()}, {})
        tokens = math.lcm(empty.context.shape[1], *(shard["tokens"] for shard in shards))
        index = {
            "form": FORM,
            "fingerprint": self._about["fingerprint"],
            "condition": self._about["condition"],
            "parameters": self._parameters,
            "tokens": tokens,
            "problems": [what for _, what in sorted(left.items())],
            "shards": shards,
        }
        _write_text(self.folder / INDEX, json.dumps(index))
        for left_over in self.folder.glob(f"*{UNFINISHED}"):
            remove(left_over)
        return Cache.open(self.folder)

    def _begin(self, probe: dict[str, Tensor]) -> None:
        path = self.folder / BEGUN
        probe = {name: values.detach().float().cpu().contiguous() for name, values in probe.items()}
        if not path.is_file():
            _save(path, probe, self._about)
            return
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                before = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise self._other(f"cannot be read ({error})") from error
        if about != self._about:
            raise self._other("was begun for another data set or other settings of it")
        for name, values in probe.items():
            if not _alike(before.get(name), values):
                raise self._other(f"was begun with another {name}")

    def _other(self, found: str) -> TrainingError:
        return TrainingError(
            f"The cache '{self.folder}'",
            found=found,
            expected="one of the same data, made by the same networks, was expected",
            remedy="choose another folder, or delete this one to prepare the data anew",
        )


def _alike(before: Tensor | None, now: Tensor) -> bool:
    if before is None or before.shape != now.shape:
        return False
    return bool((before - now).norm() <= TOLERANCE * before.norm())


def _repeated(context: Tensor, tokens: int) -> Tensor:
    return context if context.shape[1] == tokens else context.repeat(1, tokens // context.shape[1], 1)


def _rows_of(path: Path) -> dict[str, Any]:
    """group, rows, captions and tokens of a shard."""
    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        return about | {"tokens": file.get_slice("context").get_shape()[1]}


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    write_whole(path, lambda beside: save_file(tensors, beside, metadata=metadata), "The prepared data")


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"), "The prepared data")
