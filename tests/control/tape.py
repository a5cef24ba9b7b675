"""Streams and graphs of CUDA for a CPU: what is recorded runs again in the memory that it was recorded in, so that a wrong address is seen."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOG: list[tuple[str, ...]] = []
"""What the streams were told."""


class Stream:
    def __init__(self, device: Any = "cpu", name: str = "own") -> None:
        self.device, self.name = torch.device(device), name

    def wait_stream(self, other: Stream) -> None:
        LOG.append((self.name, "waits for", other.name))

    def synchronize(self) -> None:
        LOG.append((self.name, "is waited for"))


DEFAULT = Stream(name="default")
CURRENT = [DEFAULT]


@contextmanager
def on(stream: Stream) -> Any:
    CURRENT.append(stream)
    try:
        yield
    finally:
        CURRENT.pop()


class Tape(TorchDispatchMode):
    """Every operation, with the tensors that it read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        self.operations.append((function, arguments, keywords or {}, result))
        return result

    def run(self) -> None:
        for function, arguments, keywords, result in self.operations:
            for before, now in zip(tree_leaves(result), tree_leaves(function(*arguments, **keywords)), strict=True):
                if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                    before.copy_(now)


class Graph:
    """For torch.cuda.CUDAGraph."""

    capturing = False

    def __init__(self) -> None:
        self.tape: Tape | None = None
        self.handle: Any = None
        self.ended = False

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        assert CURRENT[-1] is not DEFAULT and not Graph.capturing and capture_error_mode == "thread_local"
        self.handle, Graph.capturing = pool, True
        self.tape = Tape()
        self.tape.__enter__()

    def capture_end(self) -> None:
        assert Graph.capturing and self.tape is not None
        Graph.capturing = False
        self.tape.__exit__(None, None, None)
        self.ended = True

    def replay(self) -> None:
        assert self.tape is not None and not Graph.capturing
        LOG.append((CURRENT[-1].name, "replays"))
        with torch.inference_mode():
            self.tape.run()

    def reset(self) -> None:
        self.tape = None

    def pool(self) -> Any:
        return self.handle


def put_in_place(monkeypatch: Any) -> None:
    """In place of torch's, until the test is over."""
    LOG.clear()
    replacements = {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": on,
        "current_stream": lambda device=None: CURRENT[-1],
        "default_stream": lambda device=None: DEFAULT,
        "graph_pool_handle": object,
        "is_current_stream_capturing": lambda: Graph.capturing,
    }
    for name, value in replacements.items():
        monkeypatch.setattr(torch.cuda, name, value)
