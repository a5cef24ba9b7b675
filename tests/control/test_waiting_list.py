"""Waiting lists by themselves: every way to read one waits first and then gives what a plain list gives; what waiting raises comes out."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.model_management
import torch
from torch import Tensor

from control_composer.control.waiting_list import WaitingList

LATE = float("nan")


class Arriving:
    """Three tensors that are NaN until somebody waits, as a waiting list and as a plain one; `error` is raised instead."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.waits, self.early = error, 0, 0
        self.tensors = [torch.full((2,), LATE) for _ in range(3)]
        self.plain: list[Tensor | None] = [self.tensors[0], None, *self.tensors[1:]]
        self.list = WaitingList(list(self.plain), self.wait, self.note)

    def wait(self) -> None:
        self.waits += 1
        if self.error is not None:
            raise self.error
        for number, tensor in enumerate(self.tensors):
            tensor.fill_(number)

    def note(self) -> None:
        self.early += 1


def flat(found: Any) -> Any:
    """What was read as plain values, read off at once."""
    if isinstance(found, Tensor):
        return found.tolist()
    if isinstance(found, (list, tuple)):
        return [flat(value) for value in list.__iter__(found)] if isinstance(found, list) else [*map(flat, found)]
    return found


def unpacked(values: Any) -> Any:
    first, *rest = values
    return [first, rest]


def looped(values: Any) -> Any:
    found = []
    for value in values:
        found.append(flat(value))
    return found


def extended(values: Any) -> Any:
    found: list[Any] = [1]
    found.extend(values)
    return found


def placed(values: Any) -> Any:
    found: list[Any] = [1, 2]
    found[1:] = values
    return found


def mean(value: Tensor | None) -> float:
    return -1.0 if value is None else float(value.mean())


def sorted_in_place(values: Any) -> Any:
    values.sort(key=mean, reverse=True)
    return values


POPS: dict[str, Callable[[Any], Any]] = {
    "pop()": lambda values: values.pop(),
    "pop(0)": lambda values: values.pop(0),
    "pop(-2)": lambda values: values.pop(-2),
    "pop until empty": lambda values: [flat(values.pop()) for _ in range(len(values))],
}
READS: dict[str, Callable[[Any], Any]] = {
    "[0]": lambda values: values[0],
    "[-1]": lambda values: values[-1],
    "[1:]": lambda values: values[1:],
    "[::-1]": lambda values: values[::-1],
    "for": looped,
    "comprehension": lambda values: [flat(value) for value in values],
    "list()": list,
    "tuple()": tuple,
    "star": lambda values: [*values],
    "arguments": lambda values: (lambda *given: given)(*values),
    "unpacking": unpacked,
    "sorted()": lambda values: sorted(values, key=mean),
    "sort": sorted_in_place,
    "reversed()": lambda values: list(reversed(values)),
    "reverse": lambda values: [values.reverse(), values[0]],
    "+ list": lambda values: operator.add(values, [1]),
    "list + ": lambda values: operator.add([1], values),
    "*": lambda values: values * 2,
    "* from the left": lambda values: 2 * values,
    "==": lambda values: values == [7],
    "!=": lambda values: values != [7],
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda values: pickle.loads(pickle.dumps(values)),
    "copy": lambda values: values.copy(),
    "in": lambda values: None in values,
    "index": lambda values: values[0:1] and values.index(None, 1),
    "count": lambda values: [None].count(values[1]),
    "enumerate": lambda values: [[number, flat(value)] for number, value in enumerate(values)],
    "zip": lambda values: [flat(pair) for pair in zip(values, "abcd", strict=True)],
    "map": lambda values: [*map(flat, values)],
    "filter": lambda values: [flat(value) for value in filter(lambda value: value is not None, values)],
    "any": lambda values: any(value is None for value in values),
    "extend": extended,
    "slice of another": placed,
    "repr": repr,
    "del": lambda values: [values.__delitem__(0), values[0]],
    "+=": lambda values: [values.__iadd__([1])[0], len(values)],
}


@pytest.mark.parametrize("read", POPS | READS)
def test_what_is_read_is_there(read: str) -> None:
    """As from a plain list of tensors that are there; and only what the UNet does is not told as early."""
    there, arriving = Arriving(), Arriving()
    there.wait()
    expected = flat((POPS | READS)[read](there.plain))
    assert flat((POPS | READS)[read](arriving.list)) == expected
    assert "nan" not in str(expected)
    assert arriving.waits > 0 and (arriving.early > 0) == (read in READS)


@pytest.mark.parametrize("method", ["index", "count", "remove"])
def test_what_compares_waits(method: str) -> None:
    arriving = Arriving()
    found = getattr(arriving.list, method)(None)
    assert found == {"index": 1, "count": 1, "remove": None}[method]
    assert arriving.waits == 1


def test_length_and_truth_do_not_wait() -> None:
    """The UNet asks for the length before it pops, the host's merge for that of what comes before."""
    arriving = Arriving()
    assert len(arriving.list) == 4 and bool(arriving.list) and isinstance(arriving.list, list)
    empty = WaitingList([], arriving.wait, arriving.note)
    assert len(empty) == 0 and not empty
    assert (arriving.waits, arriving.early) == (0, 0)


def test_the_very_tensors_are_given_out() -> None:
    arriving = Arriving()
    assert arriving.list.pop() is arriving.tensors[2] and len(arriving.list) == 3
    assert next(iter(arriving.list)) is arriving.tensors[0]


@pytest.mark.parametrize(
    "error", [ValueError("what went wrong"), comfy.model_management.InterruptProcessingException(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("read", ["pop()", "[0]", "for", "list()", "list + ", "copy.copy"])
def test_what_waiting_raises_comes_out_each_time(error: BaseException, read: str) -> None:
    arriving = Arriving(error)
    for _ in range(2):
        with pytest.raises(BaseException) as caught:
            (POPS | READS)[read](arriving.list)
        assert caught.value is error
        assert len(arriving.list) == 4, "nothing was taken out"


def test_the_hosts_own_uses() -> None:
    """`apply_control` of the UNet, and the merge of a stock control behind ours."""
    import comfy.controlnet
    from comfy.ldm.modules.diffusionmodules.openaimodel import apply_control

    arriving = Arriving()
    h = apply_control(torch.zeros(2), {"output": arriving.list}, "output")
    assert h.tolist() == [2.0, 2.0] and arriving.early == 0

    arriving = Arriving()
    control = comfy.controlnet.ControlBase()
    behind = {"output": [torch.ones(2)], "middle": [], "input": []}
    merged = control.control_merge(behind, {"output": arriving.list, "middle": [], "input": []}, None)
    assert flat(merged["output"]) == [[1.0, 1.0], None, [1.0, 1.0], [2.0, 2.0]]
    assert type(merged["output"]) is list and arriving.early > 0
