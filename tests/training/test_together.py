"""Several processes under accelerate against one without it."""

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

from .together import together


def test_two_processes_learn_what_one_learns(tmp_path):
    alone = together(tmp_path / "one", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += ["--main_process_port", str(port), str(Path(__file__).with_name("together.py")), str(tmp_path / "two")]
    host = str(Path(comfy.__path__[0]).parent)
    done = subprocess.run(
        launch, env=os.environ | {"PYTHONPATH": host}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "two" / "losses.csv").read_text().splitlines()
    both = [float(line.split(",")[1]) for line in lines[1:]]
    assert len(both) == len(alone) == 4
    assert both == pytest.approx(alone, rel=1e-6)
    averages = [load_file(tmp_path / name / "average.safetensors") for name in ("one", "two")]
    torch.testing.assert_close(averages[0], averages[1], rtol=0, atol=2e-5)
