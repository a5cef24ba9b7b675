"""The study's tables, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .claims import Claim, Figures, Missing
from .guiding import CONDITIONS, WAYS
from .learn import PICTURES
from .measure import REFERENCES
from .paper import DISTRIBUTION, RANKING, RECONSTRUCTION
from .prompts import SETTINGS
from .systems import SYSTEMS
from .verdicts import Spread

PLACES = {"colour error": 4, "FID": 2}
NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def architectures(figures: Figures, measure: str) -> str:
    """A system in each row, a prompt setting in each column."""
    rows = [[system, *(_told(figures, measure, system, setting) for setting in SETTINGS)] for system in SYSTEMS]
    return table([measure, *SETTINGS], rows)


def conflict(figures: Figures) -> str:
    """Under conflicting prompts: who wins, the hint or the words."""
    columns = {
        "shapes": "shapes of the hint",
        "prompted shapes": "shapes of the prompt",
        "prompted caption": "prompt, whole",
    }
    rows = [[system, *(_told(figures, measure, system, "conflicting") for measure in columns)] for system in SYSTEMS]
    return table(["conflicting prompts", *columns.values()], rows)


def references(figures: Figures, guided: bool = False) -> str:
    """What stands beside the systems; of all scenes, or of those that the host draws."""
    columns = ("edge F1", "colour error", "caption", "shapes", "contrast", "FID")
    rows = []
    for name in REFERENCES:
        try:
            rows.append([name, *(_number(figures.reference(measure, name, guided), measure) for measure in columns)])
        except Missing:
            continue
    return table(["", *columns], rows)


def amounts(figures: Figures) -> str:
    columns = [("edge F1", "none"), ("edge F1", "perfect"), ("caption", "perfect"), ("FID", "perfect")]
    rows = [
        [
            f"{count:,}".replace(",", " "),
            *(_told(figures, measure, "ControlNet", prompt, count) for measure, prompt in columns),
        ]
        for count in PICTURES
    ]
    return table(["training pictures", *(f"{measure}, {prompt}" for measure, prompt in columns)], rows)


def guidance(figures: Figures, prompt: str) -> str:
    columns = ("edge F1", "colour error", "caption", "shapes", "contrast", "FID")
    rows = [
        [way, about.about, *(_told(figures, measure, "ControlNet", prompt, way=way) for measure in columns)]
        for way, about in WAYS.items()
    ]
    return table([f"{prompt} prompts", "weights of the blocks", *columns], rows)


def conditions(figures: Figures) -> str:
    names = {"both branches": "edges alone"} | {name: name for name in CONDITIONS}
    columns = [(measure, prompt) for prompt in ("perfect", "none") for measure in ("edge F1", "colour error")]
    rows = [
        [name, *(_told(figures, measure, "ControlNet", prompt, way=way) for measure, prompt in columns)]
        for way, name in names.items()
    ]
    return table(["", *(f"{measure}, {prompt}" for measure, prompt in columns)], rows)


def verdicts(judged: Sequence[Claim]) -> str:
    return table(
        ["the paper", "here", "figures"], [[claim.paper, f"**{claim.verdict}**", claim.figures] for claim in judged]
    )


def published() -> str:
    """The paper's three tables."""
    return "\n\n".join(
        (
            table(
                ["table 1: mean rank of 1 (worst) to 5, twelve people", "quality", "fidelity"],
                [[name, *values] for name, values in RANKING.items()],
            ),
            table(
                ["table 2: ADE20K, IoU of what is found again", "IoU"],
                [[name, value] for name, value in RECONSTRUCTION.items()],
            ),
            table(
                ["table 3: ADE20K", "FID", "CLIP score", "CLIP aesthetic score"],
                [[name, *values] for name, values in DISTRIBUTION.items()],
            ),
        )
    )


def _told(figures: Figures, measure: str, system: str, prompt: str, pictures: int = PICTURES[-1], way: str = "") -> str:
    try:
        return Spread.of(figures.of(measure, system, prompt, pictures, way)).told(PLACES.get(measure, 3))
    except Missing:
        return NOTHING


def _number(value: float, measure: str) -> str:
    return f"{value:.{PLACES.get(measure, 3)}f}"
