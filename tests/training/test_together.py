"""Two processes under accelerate against one without it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("comfy")
pytest.importorskip("accelerate")
import comfy
import torch
from safetensors.torch import load_file

from .together import start_of_both, together


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the two processes are made by a fork")
def test_two_processes_learn_what_one_learns(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = str(Path(comfy.__path__[0]).parent)
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("together.py")), str(tmp_path / "two"), str(port)],
        env=os.environ | {"PYTHONPATH": host, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        alone = together(tmp_path / "one", None)
        _, said = script.communicate()
    assert script.returncode == 0, said
    tables = [(tmp_path / name / "losses.csv").read_text().splitlines()[1:] for name in ("one", "two")]
    assert len(tables[0]) == len(tables[1]) == len(alone) == 4
    for row, other in zip(*tables, strict=True):
        mine, theirs = ([float(value or "nan") for value in line.split(",")] for line in (row, other))
        assert theirs[1] == pytest.approx(mine[1], rel=1e-6)
        # The length of the gradient among them: to Adam, twice the gradient is the same.
        assert theirs == pytest.approx(mine, rel=1e-4, nan_ok=True)
    one, two = (load_file(tmp_path / name / "average.safetensors") for name in ("one", "two"))
    start = start_of_both().state_dict()
    # Adam makes whole steps of gradients that are nothing but rounding, so single numbers say little.
    apart, moved = (torch.cat([(one[name] - other[name]).flatten() for name in one]).norm() for other in (two, start))
    assert 0 < apart < 1e-2 * moved
