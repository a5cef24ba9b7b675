"""What has been measured: one JSON row for each cell of the study, on the disk as soon as it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "measures.jsonl"
Measures = Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One set of pictures."""

    system: str
    """One of SYSTEMS, or what stands beside them, such as "the scenes themselves"."""
    prompt: str = ""
    """One of SETTINGS."""
    seed: int = 0
    pictures: int = 0
    """How many the system learned from."""
    way: str = ""
    """One of WAYS or CONDITIONS where the host drew it; empty where the study's own sampler did."""
    scenes: int = 48
    steps: int = 20

    @property
    def key(self) -> str:
        parts = (self.system, self.pictures, self.seed, self.prompt, self.way, self.scenes, self.steps)
        return "_".join(str(part) for part in parts if part != "").replace(" ", "-").replace("/", "-").lower()


class Rows:
    """Those in a folder's file. A last line that a stop left unfinished is dropped."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._measures: dict[Cell, Measures] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            self._measures[Cell(**row["cell"])] = row["measures"]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")

    def __contains__(self, cell: object) -> bool:
        return cell in self._measures

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._measures)

    def __getitem__(self, cell: Cell) -> Measures:
        return self._measures[cell]

    def add(self, cell: Cell, measures: Measures) -> None:
        rounded = {name: round(value, 6) for name, value in measures.items()}
        line = json.dumps({"cell": asdict(cell), "measures": rounded})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._measures[cell] = rounded

    def by_seed(self, measure: str, **wanted: object) -> dict[int, float]:
        """{seed: measure} of the cells with these fields; those without the measure are left out.

        Raises ValueError where two cells of one seed have them.
        """
        found: dict[int, float] = {}
        for cell, measures in self._measures.items():
            if measure in measures and all(getattr(cell, name) == value for name, value in wanted.items()):
                if cell.seed in found:
                    raise ValueError(
                        f"{self.path.name}: found several rows of seed {cell.seed} with {wanted}, but one was expected; "
                        "measure with one number of scenes and steps in one folder."
                    )
                found[cell.seed] = measures[measure]
        return dict(sorted(found.items()))
