"""Training: the copy changes nothing at first, learns, and goes on exactly where it was stopped."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from control_composer.demo.optimise import Plan, optimise

pytest.importorskip("comfy")

CPU = torch.device("cpu")


def test_at_step_zero_the_controlled_model_is_the_base_bit_for_bit():
    from control_composer.demo.train_control import controlled
    from control_composer.demo.unet import trainable_copy, trainable_unet

    torch.manual_seed(0)
    unet = trainable_unet().requires_grad_(False)
    nn.init.normal_(unet.out[-1].weight)
    control = trainable_copy(unet)
    x, times, context = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 700.0]), torch.randn(2, 24, 64)
    plain = controlled(unet, [], [], x, times, context)
    assert torch.equal(controlled(unet, [control], [torch.rand(2, 3, 128, 128)], x, times, context), plain)

    # The first gradient reaches the zero convolutions, the second also the layers behind them (paper, 3.1).
    optimiser = torch.optim.SGD(control.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        controlled(unet, [control], [torch.rand(2, 3, 128, 128)], x, times, context).square().mean().backward()
        optimiser.step()
    assert control.zero_convs[0][0].weight.grad.abs().max() > 0
    assert control.input_blocks[1][0].in_layers[2].weight.grad.abs().max() > 0


def stage(folder: Path, steps: int, save_every: int) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn((16, 3), generator=generator),)

    def loss(x: Tensor) -> Tensor:
        return ((module(x).float() - x.sum(dim=1, keepdim=True)) ** 2).mean()

    plan = Plan("line", steps=steps, rate=0.05, warm_up=2, save_every=save_every, log_every=5, seed=1)
    optimise(plan, [module], draw, loss, folder, CPU)
    return module


def test_a_stage_continued_equals_one_that_never_stopped(tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    unbroken = stage(whole, 20, 10)

    class Killed(Exception):
        pass

    import control_composer.demo.optimise as optimise_module

    append = optimise_module._append

    def kill(path: Path, step: int, value: float) -> None:
        append(path, step, value)
        if step == 15:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(optimise_module, "_append", kill)
        stage(halves, 20, 10)
    continued = stage(halves, 20, 10)
    assert torch.equal(unbroken.weight, continued.weight) and torch.equal(unbroken.bias, continued.bias)


def test_a_stage_learns(tmp_path):
    module = stage(tmp_path, 300, 300)
    torch.testing.assert_close(module.weight, torch.ones(1, 3), rtol=0, atol=0.1)
