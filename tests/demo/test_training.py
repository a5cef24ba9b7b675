"""Training of the demo world: a stage learns and goes on exactly where it was stopped; controls are trained by the pack's own loop."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from control_composer.demo.optimise import Plan, optimise

pytest.importorskip("comfy")

CPU = torch.device("cpu")


def test_a_control_is_trained_by_the_loop_and_written_as_a_file(tmp_path):
    import shutil

    from control_composer.demo.train import SCALES, Training
    from control_composer.demo.world import WEIGHTS

    for name in ("autoencoder", "unet", "words"):
        shutil.copy(WEIGHTS / f"{name}.safetensors", tmp_path)
    tiny = replace(SCALES["cpu"], scenes=64, watched=2)
    few = replace(tiny.edges, steps=2, batch=4, validate_every=2, save_every=2)
    Training(replace(tiny, edges=few), tmp_path, tmp_path, CPU).run(["edges"])
    assert (tmp_path / "control_edges" / "losses.csv").read_text().splitlines()[-1].startswith("2,")
    assert [row.split(",")[0] for row in (tmp_path / "watch_edges.csv").read_text().splitlines()] == ["0", "2"]
    with safe_open(tmp_path / "controlnet" / "control_composer_demo_edges.safetensors", "pt") as file:
        assert file.metadata()["num_head_channels"] == "64" and "Canny" in file.metadata()["condition"]
        assert file.get_tensor("zero_convs.0.0.weight").abs().max() > 0


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
