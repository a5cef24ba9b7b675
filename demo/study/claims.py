"""What the paper says, and whether the study's rows say so too. Nothing here knows how it comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from ...training.convergence import sudden_step
from .learn import PICTURES
from .measure import REDRAWN, SCENES
from .prompts import SETTINGS
from .rows import Rows
from .verdicts import BySeed, Difference, Spread, Verdict, alike, no_lower, ordered, together

HALF = 0.5
"""A system obeys where it goes at least half of the way from no control to the redrawn scenes in edge F1."""
TOLERANCE = 0.05
"""Up to which shares (edge F1, captions) count as the same; of FID, the part of it."""
COLOUR_TOLERANCE = 0.01
LOOKS = 20
"""Validations from which on a rise that is not found is not there: training/convergence.py says what it finds in 21."""
Curves = Mapping[str, Mapping[int, tuple[list[int], list[float]]]]
"""{system: {seed: (steps, edge F1)}}, of the runs with all pictures."""


@dataclass(frozen=True)
class Claim:
    paper: str
    verdict: Verdict
    figures: str


class Missing(LookupError):
    """A row that a claim needs is not there yet."""


@dataclass(frozen=True)
class Figures:
    rows: Rows
    scenes: int
    guided: int
    """Scenes that the host drew."""

    def of(self, measure: str, system: str, prompt: str, pictures: int = PICTURES[-1], way: str = "") -> BySeed:
        scenes = self.guided if way else self.scenes
        found = self.rows.by_seed(measure, system=system, prompt=prompt, pictures=pictures, way=way, scenes=scenes)
        if not found:
            raise Missing(f"{measure} of {system}")
        return found

    def reference(self, measure: str, name: str, guided: bool = False) -> float:
        found = self.rows.by_seed(measure, system=name, scenes=self.guided if guided else self.scenes)
        if not found:
            raise Missing(f"{measure} of {name}")
        return found[0]

    def share(self, system: str, prompt: str, pictures: int = PICTURES[-1]) -> dict[int, float]:
        """By seed, how much of the way from no control to the redrawn scenes a system goes in edge F1."""
        most = self.reference("edge F1", REDRAWN)
        least = self.of("edge F1", "no control", prompt)
        own = self.of("edge F1", system, prompt, pictures)
        return {seed: (own[seed] - least[seed]) / (most - least[seed]) for seed in own.keys() & least.keys()}

    def over_prompts(self, measure: str, system: str) -> dict[int, float]:
        each = [self.of(measure, system, setting) for setting in SETTINGS]
        seeds = set(each[0]).intersection(*each)
        return {seed: fmean(one[seed] for one in each) for seed in sorted(seeds)}


def claims(figures: Figures, curves: Curves) -> list[Claim]:
    """Those that can be judged from the rows there are."""
    judged = []
    for judge in _JUDGES:
        try:
            judged.append(judge(figures))
        except Missing:
            continue
    return judged + _sudden(curves)


def _obeys(shares: BySeed) -> Verdict:
    """Whether it goes at least half of the way, in all seeds or in none."""
    above = [share >= HALF for share in shares.values()]
    return "agrees" if all(above) else "not decided" if any(above) else "disagrees"


def _not(verdict: Verdict) -> Verdict:
    opposite: dict[Verdict, Verdict] = {"agrees": "disagrees", "disagrees": "agrees", "not decided": "not decided"}
    return opposite[verdict]


def _shares_told(shares: Mapping[Any, BySeed]) -> str:
    told = ", ".join(f"{name} {Spread.of(share).told(2)}" for name, share in shares.items())
    return f"Share of the way from no control to the redrawn scenes in edge F1: {told}"


def _four_prompts(figures: Figures) -> Claim:
    shares = {setting: figures.share("ControlNet", setting) for setting in SETTINGS}
    return Claim(
        "ControlNet succeeds under all four prompt settings (4.2)",
        together(*map(_obeys, shares.values())),
        _shares_told(shares),
    )


def _lite_fails(figures: Figures) -> Claim:
    shares = {setting: figures.share("ControlNet-lite", setting) for setting in ("none", "insufficient")}
    return Claim(
        "ControlNet-lite fails without a prompt and with an insufficient one (4.2)",
        together(*(_not(_obeys(share)) for share in shares.values())),
        _shares_told(shares),
    )


def _gaussian_drops(figures: Figures) -> Claim:
    whole, gaussian, lite = (
        figures.over_prompts("edge F1", system) for system in ("ControlNet", "Gaussian start", "ControlNet-lite")
    )
    drop, rest = Difference.between(whole, gaussian), Difference.between(gaussian, lite)
    verdict = ordered(drop)
    if verdict == "agrees" and abs(rest.mean) >= abs(drop.mean):
        verdict = "disagrees"  # It drops, but to somewhere else.
    return Claim(
        "With Gaussian in place of zero convolutions it drops to about ControlNet-lite (4.2)",
        verdict,
        f"Edge F1 over the four settings: ControlNet {Spread.of(whole).told()}, Gaussian start {Spread.of(gaussian).told()}, "
        f"ControlNet-lite {Spread.of(lite).told()}; ControlNet less Gaussian start {drop.told()}, Gaussian start less lite {rest.told()}",
    )


def _larger(
    paper: str, measure: str, first: str, second: str, prompt: str = "perfect", lower: bool = False
) -> Callable[[Figures], Claim]:
    """A claim that `first` is better than `second` under a prompt."""

    def judge(figures: Figures) -> Claim:
        one, other = figures.of(measure, first, prompt), figures.of(measure, second, prompt)
        difference = Difference.between(one, other)
        better = Difference(-difference.mean, difference.margin) if lower else difference
        return Claim(
            paper,
            ordered(better),
            f"{measure}, {prompt} prompts: {first} {Spread.of(one).told()}, {second} {Spread.of(other).told()}; "
            f"difference {difference.told()}",
        )

    return judge


def _same_text(figures: Figures) -> Claim:
    found = {
        system: figures.of("caption", system, "perfect") for system in ("no control", "ControlNet-lite", "ControlNet")
    }
    verdicts = [
        alike(Difference.between(found["ControlNet"], found[other]), TOLERANCE)
        for other in ("no control", "ControlNet-lite")
    ]
    return Claim(
        "A control costs nothing in how well the text is met: CLIP score 0.26 with and without (table 3)",
        together(*verdicts),
        "Caption accuracy, perfect prompts: "
        + ", ".join(f"{system} {Spread.of(values).told()}" for system, values in found.items()),
    )


def _told_apart(figures: Figures) -> Claim:
    parts, verdicts = [], []
    for measure in ("edge F1", "caption", "FID"):
        one, other = (figures.of(measure, system, "perfect") for system in ("ControlNet", "concatenation"))
        difference = Difference.between(one, other)
        verdicts.append(alike(difference, TOLERANCE * (Spread.of(one).mean if measure == "FID" else 1)))
        parts.append(f"{measure} {Spread.of(one).told()} and {Spread.of(other).told()}, difference {difference.told()}")
    return Claim(
        "A ControlNet cannot be told from a UNet that was trained anew with the hint as one more channel (4.3; its people: 0.52 ± 0.17)",
        together(*verdicts),
        "Perfect prompts, ControlNet and concatenation: " + "; ".join(parts),
    )


def _few_pictures(figures: Figures) -> Claim:
    shares = {
        f"{PICTURES[1]} pictures, {prompt}": figures.share("ControlNet", prompt, PICTURES[1])
        for prompt in ("none", "perfect")
    }
    return Claim(
        "Training does not collapse with 1 000 pictures (4.5)",
        together(*map(_obeys, shares.values())),
        _shares_told(shares),
    )


def _more_pictures(figures: Figures) -> Claim:
    found = {count: figures.of("edge F1", "ControlNet", "perfect", count) for count in PICTURES}
    steps = [Difference.between(found[more], found[fewer]) for fewer, more in pairwise(PICTURES)]
    whole = Difference.between(found[PICTURES[-1]], found[PICTURES[0]])
    verdict: Verdict = "disagrees" if any(step.sign < 0 for step in steps) else ordered(whole)
    return Claim(
        "It grows with more data (4.5)",
        verdict,
        "Edge F1, perfect prompts: "
        + ", ".join(f"{count} pictures {Spread.of(values).told()}" for count, values in found.items())
        + f"; the most less the fewest {whole.told()}",
    )


def _no_guidance(figures: Figures) -> Claim:
    # Of edges, the last bit can decide.
    measures = ("colour error", "contrast")
    apart = 0.0
    for measure in measures:
        both, alone = (
            figures.of(measure, "ControlNet", "none", way=way) for way in ("both branches", "both branches, CFG 1")
        )
        apart = max(apart, *(abs(both[seed] - alone[seed]) for seed in both.keys() & alone.keys()))
    return Claim(
        "Without a prompt, a hint in both branches removes guidance altogether (3.4)",
        "agrees" if apart < 1e-3 else "disagrees",
        f"Largest difference between CFG 4 and CFG 1 in {', '.join(measures)}: {apart:.5f}",
    )


def _strong_guidance(figures: Figures) -> Claim:
    both, alone = (
        figures.of("contrast", "ControlNet", "none", way=way) for way in ("both branches", "conditional only")
    )
    real = figures.reference("contrast", SCENES, guided=True)
    more = Difference.between(alone, both)
    above = Difference.between(alone, dict.fromkeys(alone, real))
    return Claim(
        "Without a prompt, a hint in the conditional branch alone makes guidance very strong (3.4)",
        together(ordered(more), ordered(above)),
        f"Contrast, no prompt: conditional only {Spread.of(alone).told()}, both branches {Spread.of(both).told()}, "
        f"the scenes themselves {real:.3f}; conditional only less both {more.told()}",
    )


def _resolution_weighting(way: str, about: str) -> Callable[[Figures], Claim]:
    def judge(figures: Figures) -> Claim:
        found = {
            one: figures.of("FID", "ControlNet", "none", way=one) for one in (way, "conditional only", "both branches")
        }
        verdicts = [
            ordered(Difference.between(found[other], found[way])) for other in ("conditional only", "both branches")
        ]
        follow = {one: figures.of("edge F1", "ControlNet", "none", way=one) for one in found}
        return Claim(
            f"CFG resolution weighting ({about}) gives better pictures than either (3.4, figure 5)",
            together(*verdicts),
            "FID, no prompt: "
            + ", ".join(f"{one} {Spread.of(values).told()}" for one, values in found.items())
            + "; edge F1: "
            + ", ".join(f"{one} {Spread.of(values).told()}" for one, values in follow.items()),
        )

    return judge


def _two_conditions(figures: Figures) -> Claim:
    f1 = {way: figures.of("edge F1", "ControlNet", "perfect", way=way) for way in ("both branches", "edges and colour")}
    error = {
        way: figures.of("colour error", "ControlNet", "perfect", way=way)
        for way in ("colour alone", "edges and colour")
    }
    edges = Difference.between(f1["edges and colour"], f1["both branches"])
    colours = Difference.between(error["edges and colour"], error["colour alone"])
    fewer_errors = Difference(-colours.mean, colours.margin)
    return Claim(
        "Controls are composed by adding them up, without weights (3.4): each is obeyed as if it were alone",
        together(no_lower(edges, TOLERANCE), no_lower(fewer_errors, COLOUR_TOLERANCE)),
        f"Perfect prompts: edge F1 {Spread.of(f1['edges and colour']).told()} with the colour control beside it, "
        f"{Spread.of(f1['both branches']).told()} alone, difference {edges.told()}; colour error "
        f"{Spread.of(error['edges and colour']).told(4)} with the edge control, {Spread.of(error['colour alone']).told(4)} alone, "
        f"difference {colours.told(4)}",
    )


def _sudden(curves: Curves) -> list[Claim]:
    own = curves.get("ControlNet")
    if not own:
        return []
    found = {seed: sudden_step(steps, scores, True) for seed, (steps, scores) in sorted(own.items())}
    at = [step for step in found.values() if step is not None]
    looks = min(len(steps) for steps, _ in own.values())
    verdict: Verdict = "agrees" if len(at) == len(found) else "not decided"
    if not at and looks >= LOOKS:
        verdict = "disagrees"
    told = ", ".join(f"seed {seed} {'none' if step is None else f'step {step}'}" for seed, step in found.items())
    return [
        Claim(
            "It learns to obey suddenly, before 10 000 steps; the figure shows step 6133 (3.3)",
            verdict,
            f"Sudden rise of edge F1 on the watched scenes, looked at {looks} times, by the rule of training/convergence.py: {told}",
        )
    ]


_JUDGES: tuple[Callable[[Figures], Claim], ...] = (
    _four_prompts,
    _lite_fails,
    _gaussian_drops,
    _larger(
        "ControlNet follows its condition better than ControlNet-lite: IoU 0.35 and 0.32 (table 2)",
        "edge F1",
        "ControlNet",
        "ControlNet-lite",
    ),
    _larger(
        "Its pictures are nearer to real ones than ControlNet-lite's: FID 15.27 and 17.92 (table 3)",
        "FID",
        "ControlNet",
        "ControlNet-lite",
        lower=True,
    ),
    _larger(
        "Without any condition they are nearest: FID 6.09 (table 3)", "FID", "no control", "ControlNet", lower=True
    ),
    _same_text,
    _told_apart,
    _few_pictures,
    _more_pictures,
    _no_guidance,
    _strong_guidance,
    _resolution_weighting("64/h", "64/h as printed"),
    _resolution_weighting("64/h, mean 1", "64/h with the mean 1"),
    _resolution_weighting("64/h, largest 1", "64/h with the largest 1"),
    _two_conditions,
)
