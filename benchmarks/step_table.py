"""What a step cost as numbers for a program, and as tables for a person."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .runs import Measured

MEBI = 2**20


class Compared(Protocol):
    """What a row says of a variant beside its numbers. `against` names another one, `equal` whether both must predict the same."""

    @property
    def name(self) -> str: ...
    @property
    def words(self) -> str: ...
    @property
    def against(self) -> str | None: ...
    @property
    def equal(self) -> bool: ...


def row(variant: Compared, measured: Mapping[str, Measured], none: str = "none") -> dict[str, Any]:
    """One variant's numbers; `none` is the one whose steps have no control."""
    own, bare, other = measured[variant.name], measured[none], measured.get(variant.against or "")
    added = None
    if other is not None:
        shares = [
            (mine - alone) / (theirs - alone)
            for mine, theirs, alone in zip(own.seconds, other.seconds, bare.seconds, strict=True)
            if theirs > alone
        ]
        added = {"beside": variant.against, **spread(shares)} if shares else None
    return {
        "name": variant.name,
        "words": variant.words,
        "seconds": own.seconds,
        "ratio": spread([mine / alone for mine, alone in zip(own.seconds, bare.seconds, strict=True)]),
        "run": sum(own.seconds) / sum(bare.seconds),
        "added": added,
        "memory": {"peak": own.peak, "first": own.first.peak, "kept": own.kept},
        "batches": list(own.batches),
        "differs": float((own.result - other.result).norm() / other.result.norm()) if variant.equal and other else None,
        "first_seconds": own.warm_up[0],
        "second_seconds": own.warm_up[1],
        "control_seconds": own.control_seconds,
        "launches": None if own.launches is None else own.launches.launched,
        "kernels": None if own.launches is None else own.launches.kernels,
        "over": none,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(report: dict[str, Any]) -> None:
    """The report as tables."""
    where = [
        f"{report['date']}, commit {report['commit']}, {report['hardware']}, torch {report['torch']}, ComfyUI {report['comfyui']}"
    ]
    where += [f"diffusers {report['diffusers']}"] if report["diffusers"] else []
    where += [report["attention"], report["patcher"], *([report["allocator"]] if report["allocator"] else [])]
    print(
        f"{', '.join(where)}; {report['width']}, {report['dtype']}, {report['rounds']} rounds, {report['clock']} time"
    )
    for sentence in report["skipped"]:
        print(sentence)
    for size in report["sizes"]:
        head = f"{size['pixels']} px, batch {size['batch']}"
        for rows, words in ((size["variants"], ""), (size["diffusers"], " (pipelines of diffusers, over its own)")):
            if rows:
                print(f"\n{head}{words}\n{TIMES}")
                print("\n".join(times(one) for one in rows))
                print(f"\n{head}{words}\n{COSTS}")
                print("\n".join(costs(one) for one in rows))
                print("".join(f"\n{line}" for one in rows for line in lanes(one)), end="")
    print()


NAME = 28
TIMES = f"{'':{NAME}}{'step s':26}{'ratio':21}{'run':>6}  {'added':21}differs"
COSTS = f"{'':{NAME}}{'peak':>9}{'first':>9}{'kept':>9}{'first s':>10}{'second s':>10}{'more s':>10}{'control s':>11}{'launches':>10}{'kernels':>9}  rows"


def times(one: dict[str, Any]) -> str:
    differs = "" if one["differs"] is None else f"{one['differs']:.1e}"
    return (
        f"{one['name']:{NAME}}{between(spread(one['seconds']), 4):26}{between(one['ratio']):21}{one['run']:6.3f}  "
        f"{between(one['added']):21}{differs}"
    ).rstrip()


def costs(one: dict[str, Any]) -> str:
    memory = "".join(f"{one['memory'][name] / MEBI:9.1f}" for name in ("peak", "first", "kept"))
    begun = [one["first_seconds"], one["second_seconds"]]
    first = "".join(f"{seconds:10.3f}" for seconds in (*begun, sum(begun) - 2 * statistics.mean(one["seconds"])))
    control = f"{statistics.mean(one['control_seconds']):11.4f}" if one["control_seconds"] else " " * 11
    counts = "".join(
        " " * wide if one[name] is None else f"{one[name]:{wide}.0f}"
        for name, wide in (("launches", 10), ("kernels", 9))
    )
    return f"{one['name']:{NAME}}{memory}{first}{control}{counts}  {one['batches']}"


def lanes(one: Mapping[str, Any]) -> list[str]:
    """Where the networks of a variant of ours really ran."""
    return [f"{one['name']:{NAME}}{count:4} × {words}" for words, count in one.get("lanes", {}).items()]


def between(values: dict[str, Any] | None, digits: int = 3) -> str:
    if values is None:
        return ""
    return f"{values['median']:.{digits}f} [{values['least']:.{digits - 1}f}..{values['most']:.{digits - 1}f}]"
