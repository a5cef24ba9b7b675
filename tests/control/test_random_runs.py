"""Two hundred short runs in a row on the same models and controls, whatever happens between and in them: sizes, settings, LoRAs, hooks, offloads,
interruptions and memory that does not suffice. Each picture that is finished is the plain path's, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")

import comfy.hooks
import comfy.model_management
import comfy.ops
import comfy.supported_models
import torch
from torch import Tensor

from control_composer.control import Layer, compose_controls
from control_composer.control.network import EncoderNetwork
from control_composer.control.reuse import Reuse
from control_composer.tests import narrow
from control_composer.tests.control.late_lane import LateLane, choose

RUNS = 200
CPU = torch.device("cpu")
NETWORKS = 2

TINY = narrow.SD1 | {
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "channel_mult": [1, 2],
}


class TinySD1(comfy.supported_models.SD15):
    unet_config: ClassVar = TINY
    unet_extra_config: ClassVar = {}


@dataclass(frozen=True)
class LayerDraw:
    network: int
    picture: int
    strength: float = 1.0
    uncond_strength: float = 1.0
    every: int = 1
    extrapolate: bool = False
    masked: bool = False


@dataclass(frozen=True)
class Draw:
    """All that a picture depends on."""

    layers: tuple[LayerDraw, ...]
    size: tuple[int, int, int]
    steps: int
    model_lora: bool
    control_loras: tuple[bool, ...]
    hooked: bool


def draw(chance: random.Random) -> Draw:
    """Few values of each, so that runs come back to what was there before."""
    layers = tuple(
        LayerDraw(
            network=chance.randrange(NETWORKS),
            picture=chance.randrange(2),
            strength=chance.choice((1.0, 0.6)),
            uncond_strength=chance.choice((1.0, 1.0, 0.0)),
            every=chance.choice((1, 1, 2)),
            extrapolate=chance.random() < 0.3,
            masked=chance.random() < 0.3,
        )
        for _ in range(chance.choice((1, 1, 2, 3)))
    )
    return Draw(
        layers,
        size=chance.choice(((1, 8, 8), (2, 8, 8), (1, 8, 12))),
        steps=chance.choice((2, 3, 4)),
        model_lora=chance.random() < 0.3,
        control_loras=tuple(chance.random() < 0.3 for _ in range(NETWORKS)),
        hooked=chance.random() < 0.2,
    )


def change_of(module: torch.nn.Module, prefix: str, seed: int) -> dict[str, tuple[Tensor]]:
    """A patch of a few weights, as a LoRA makes it."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: weight for name, weight in module.state_dict().items() if name.endswith("in_layers.2.weight")}
    assert weights
    return {
        f"{prefix}{name}": (torch.randn(weight.shape, generator=generator) * float(weight.std()),)
        for name, weight in weights.items()
    }


def change_hook(module: torch.nn.Module) -> Any:
    """A LoRA as a hook of a conditioning, which the host switches on and off while it samples."""
    hook = comfy.hooks.WeightHook(strength_model=0.3)
    hook.weights, hook.need_weight_init = change_of(module, "diffusion_model.", 12), False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


MASK = (torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.5).float()
PICTURES = [narrow.picture(1, 64, 64, seed=seed).movedim(-1, 1) for seed in range(2)]


class Rig:
    """A model and networks, with and without LoRAs, and the controls that were made of them."""

    def __init__(self, beside: str) -> None:
        self.beside = beside
        model = narrow.make_model("tiny")
        patched = model.clone()
        inside = model.model.diffusion_model
        patched.add_patches(change_of(inside, "diffusion_model.", 10), 0.5)
        self.models = (model, patched)
        self.hooks = change_hook(inside)
        self.networks: list[tuple[EncoderNetwork, EncoderNetwork]] = []
        for seed in range(NETWORKS):
            module = narrow.make_module("tiny", seed + 1)
            network = EncoderNetwork.from_module(module, name=f"{seed}.safetensors", base="SD1")
            changed = network.patcher.clone()
            changed.add_patches(change_of(module, "", 20 + seed), 0.5)
            self.networks.append((network, replace(network, patcher=changed)))
        self._controls: dict[Any, Any] = {}

    def layer(self, one: LayerDraw, draw: Draw) -> Layer:
        return Layer(
            self.networks[one.network][draw.control_loras[one.network]],
            PICTURES[one.picture],
            one.strength,
            uncond_strength=one.uncond_strength,
            reuse=Reuse(one.every, extrapolate=one.extrapolate and one.every > 1),
            mask=MASK if one.masked else None,
            beside=self.beside,  # type: ignore[arg-type]
        )

    def conds(self, draw: Draw, fresh: bool) -> Any:
        key = (draw.layers, draw.control_loras)
        if fresh or key not in self._controls:
            start = narrow.conditioning("tiny", 10), narrow.conditioning("tiny", 11)
            self._controls[key] = compose_controls(*start, [self.layer(one, draw) for one in draw.layers])
        positive, negative = self._controls[key]
        if draw.hooked:
            positive = [[text, values | {"hooks": self.hooks}] for text, values in positive]
        return positive, negative

    def sample(self, draw: Draw, fresh: bool = False) -> Tensor:
        return narrow.sample(self.models[draw.model_lora], *self.conds(draw, fresh), draw.size, steps=draw.steps)

    def offload(self, chance: random.Random) -> str:
        """One of the ways in which weights leave the device between runs."""
        patchers = [*self.models, *(network.patcher for pair in self.networks for network in pair)]
        one = chance.choice(patchers)
        ways: dict[str, Callable[[], Any]] = {
            "detach": one.detach,
            "everything": comfy.model_management.unload_all_models,
            "a part": lambda: one.partially_unload(CPU, one.model_size() // 2),
            "free": lambda: comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device()),
        }
        name = chance.choice(list(ways))
        ways[name]()
        return name


@dataclass
class Clock:
    """Interrupts the host at its n-th operation."""

    stop: int = 0
    operations: int = 0

    def tick(self) -> None:
        self.operations += 1
        if self.operations == self.stop:
            comfy.model_management.interrupt_current_processing()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock, host = Clock(), comfy.ops.run_every_op

    def run_every_op() -> None:
        clock.tick()
        host()

    monkeypatch.setattr(comfy.ops, "run_every_op", run_every_op)
    yield clock
    comfy.model_management.interrupt_current_processing(False)


@dataclass
class Seen:
    finished: int = 0
    interrupted: int = 0
    offloads: set[str] = field(default_factory=set)


def check_runs(runs: int, seed: int, clock: Clock, tested: Rig, trouble: Callable[[random.Random], None]) -> Seen:
    """`trouble` may make a run go wrong in a way of its own."""
    chance, plain, seen = random.Random(seed), Rig("off"), Seen()

    @cache
    def expected(draw: Draw) -> Tensor:
        return plain.sample(draw, fresh=True)

    last = draw(chance)
    for number in range(runs):
        if chance.random() < 0.3:
            seen.offloads.add(tested.offload(chance))
        now = last if chance.random() < 0.4 else draw(chance)
        last = now
        interrupted = chance.random() < 0.35
        clock.operations, clock.stop = 0, chance.randrange(1, 500) if interrupted else 0
        trouble(chance)
        try:
            found = tested.sample(now)
        except comfy.model_management.InterruptProcessingException:
            assert interrupted
            seen.interrupted += 1
            continue
        finally:
            comfy.model_management.interrupt_current_processing(False)
            clock.stop = 0
        seen.finished += 1
        assert torch.equal(found, expected(now)), f"run {number} of seed {seed}: {now}"
    return seen


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(narrow.CONFIGS, "tiny", TinySD1)


def test_on_a_device_that_computes_later(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = LateLane()
    choose(monkeypatch, lane)

    def trouble(chance: random.Random) -> None:
        lane.memory.failures.clear()
        if chance.random() < 0.1:
            lane.fail(torch.OutOfMemoryError("out of memory"), chance.randrange(1, 3), chance.randrange(1, 200))

    seen = check_runs(RUNS, 1, clock, Rig("on"), trouble)
    assert seen.finished > RUNS / 2 and seen.interrupted > RUNS / 8 and len(seen.offloads) == 4
    assert lane.given_up > RUNS / 40 and lane.waits > RUNS
    assert lane.memory.alive() == [] and lane.memory.written == []


@pytest.mark.gpu
def test_on_cuda(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane beside the model, with CUDA graphs where they apply."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    tested = Rig("on")
    seen = check_runs(RUNS, 1, clock, tested, lambda _: None)
    assert seen.finished > RUNS / 2 and seen.interrupted > RUNS / 8
    steps = [entry for conds in tested._controls.values() for entry in conds[0][0][1]["control"].record.steps]
    assert any(entry.beside for entry in steps)
    assert any("graph" in entry.lane for entry in steps)
