"""FSDP: weights and the optimiser's state in parts on two processes, on CPUs, through accelerate's own version 2."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("comfy")
pytest.importorskip("accelerate")
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file, save_file

from control_composer.training.checkpoint import load
from control_composer.training.copy import trainable_copy
from control_composer.training.errors import TrainingError
from control_composer.training.loop import train
from control_composer.training.objective import Schedule
from control_composer.training.processes import Processes
from control_composer.training.settings import Settings

from .bases import SMALL, make_unet
from .launched import launch
from .rows import Rows


def learn(folder, accelerator=None, stops=(2, 4), sizes=(8,)):
    """Losses, the averaged weights, and what the validation saw of them."""
    unet = make_unet("sd1", **SMALL)
    first = accelerator is None or accelerator.is_main_process
    settings = Settings(steps=4, batch=4, rate=1e-4, warm_up=0, log_every=1, validate_every=2, ema=0.9)
    losses, seen = [], []
    for stop in stops:
        control = trainable_copy(unet, start="gaussian")
        trained = train(
            unet,
            control,
            Rows(6, 24, sizes=sizes),
            Schedule(torch.linspace(0.999, 0.005, 1000), "eps"),
            settings,
            folder,
            accelerator=accelerator,
            on_step=lambda row: losses.append(row.loss),
            on_validate=lambda step, shown: seen.append((step, shown.zero_convs[0][0].weight.detach().clone())),
            should_stop=lambda stop=stop: first and len(losses) == stop,
        )
        assert trained.step == stop
    return losses, trained.average, seen


def in_parts(folder):
    """One of the two processes."""
    folder = Path(folder)
    accelerator = Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP", cpu_ram_efficient_loading=False)
    # Asked for FSDP on CPUs, accelerate silently does without. Both, since the one is copied into the other ever again.
    PartialState._shared_state["distributed_type"] = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    _, average, seen = learn(folder, accelerator)
    if accelerator.is_main_process:
        save_file(average, folder / "average.safetensors")
        save_file({str(step): weight for step, weight in seen}, folder / "seen.safetensors")
    else:
        assert not any(values.numel() for values in average.values())
    with pytest.raises(TrainingError) as raised:
        learn(folder / "sizes", accelerator, sizes=(8, 4))
    assert str(raised.value) == (
        "The data has pictures of several sizes, but one size was expected, since with FSDP all processes have to make the same calls; prepare squares "
        "('widest' 1), or train without FSDP."
    )
    accelerator.end_training()


def test_weights_in_parts_learn_and_go_on_as_whole_ones_do(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = "control_composer.tests.training.test_parts:in_parts"
    started = [launch(own, tmp_path / "parts", port=port, rank=rank, count=2) for rank in range(2)]
    losses, average, seen = learn(tmp_path / "whole", stops=(4,))
    assert [process.wait(300) for process in started] == [0, 0]
    both = [float(line.split(",")[1]) for line in (tmp_path / "parts" / "losses.csv").read_text().splitlines()[1:]]
    assert len(both) == len(losses) == 4
    assert both == pytest.approx(losses, rel=1e-6)
    start = trainable_copy(make_unet("sd1", **SMALL), start="gaussian").state_dict()
    other = load_file(tmp_path / "parts" / "average.safetensors")
    apart, moved = (
        torch.cat([(average[name] - one[name]).flatten() for name in average]).norm() for one in (other, start)
    )
    # Adam makes steps of full length of gradients that are nothing but rounding.
    assert moved > 0 and apart < 1e-2 * moved
    shown = load_file(tmp_path / "parts" / "seen.safetensors")
    assert sorted(shown) == ["0", "2", "4"]
    for step, weight in seen:
        far = (seen[-1][1] - seen[0][1]).norm()
        assert (shown[str(step)] - weight).norm() <= 1e-2 * far
    # A state is whole, so a training may go on with another number of processes.
    states = [load(tmp_path / name, torch.device("cpu")) for name in ("parts", "whole")]
    shapes = [
        {number: {name: value.shape for name, value in own.items()} for number, own in state.optimiser["state"].items()}
        for state in states
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("kind", "version", "found"),
    [
        (DistributedType.DEEPSPEED, 2, "asks for DEEPSPEED"),
        (DistributedType.MEGATRON_LM, 2, "asks for MEGATRON_LM"),
        (DistributedType.FSDP, 1, "asks for version 1 of FSDP"),
    ],
)
def test_other_ways_to_split_weights_are_refused(kind, version, found):
    accelerator = SimpleNamespace(distributed_type=kind, is_fsdp2=version == 2)
    with pytest.raises(TrainingError) as raised:
        Processes(accelerator, torch.nn.Linear(1, 1))
    assert str(raised.value) == (
        f"The configuration of accelerate {found}, but version 2 of FSDP was expected, which does what ZeRO 2 and 3 do, or plain processes; choose it in "
        "'accelerate config' (fsdp_version: 2)."
    )
