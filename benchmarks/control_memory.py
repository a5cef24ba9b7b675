"""What controls need of memory over the model's own, against what they tell the host that they need.

    python host.py python benchmarks/control_memory.py [--width narrow|sd15] [--sizes 64 128] [--steps 3] [--cases one three-shared]

Random weights at the real widths, whole runs through the host's KSampler, on a CPU, by torch's allocator: the same numbers at every run. In MiB:

  peak      of a run, beside what stood before it
  over      the same less the peak of the run without a control
  waiting   what the control has there whenever the model begins a step: kept from step to step, and the sum that the model waits for
  told      `inference_memory_requirements` as the host asked it for this run
  told/need `told` over the larger one of the two: the model may have its own peak before it takes anything of the sum, or after

Own networks of sd15 need 1.4 GB each.

    python host.py python benchmarks/control_memory.py --layers

counts the tensors of one pass at real sizes, without weights or a device, in numbers for each channel and cell of the first level and each row.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.cli_args
import torch
from torch import Tensor

MIB = 1024 * 1024
MARK = "control_composer.unet"
STRENGTH = 0.8


@dataclass(frozen=True)
class Used:
    """Bytes of one run: its peak, those alive at each beginning of the UNet, and what its control told the host."""

    peak: int
    alive: tuple[int, ...]
    told: float

    def needed(self, plain: Used) -> int:
        """Over a run without a control."""
        return max(self.peak - plain.peak, self.waiting(plain))

    def waiting(self, plain: Used) -> int:
        # As many calls as the other where both branches are a batch; where they are two, that of a conditional one has the control.
        return max(self.alive) - max(plain.alive)


def used(model: Any, conditionings: tuple[Any, Any], latents: Tensor, steps: int) -> Used:
    """A run of the host's sampler, with reproducible noise."""
    import nodes  # ComfyUI's

    from .memory import alive_on_cpu

    def marked(apply_model: Any, call: dict[str, Any]) -> Any:
        with torch.profiler.record_function(MARK):
            return apply_model(call["input"], call["timestep"], **call["c"])

    positive, negative = conditionings
    told: list[float] = []
    control = positive[0][1].get("control")
    if control is not None:
        asked = control.inference_memory_requirements

        def heard(dtype: torch.dtype) -> float:
            told.append(asked(dtype))
            return told[-1]

        control.inference_memory_requirements = heard
    model = model.clone()
    model.set_model_unet_function_wrapper(marked)
    gc.collect()
    try:
        with torch.inference_mode():
            _, peak, alive = alive_on_cpu(
                lambda: nodes.common_ksampler(
                    model, 3, steps, 7.0, "euler", "normal", positive, negative, {"samples": latents}
                )[0]["samples"],
                MARK,
            )
    finally:
        if control is not None:
            del control.inference_memory_requirements
    return Used(peak, tuple(alive), max(told, default=0.0))


@dataclass(frozen=True)
class Case:
    """Conditionings with a control for so many latents."""

    latents: int
    attach: Callable[[Scene], tuple[Any, Any]]


@dataclass(frozen=True)
class Scene:
    """What cases share: networks (benchmarks/widths.py) and the side of the picture."""

    networks: Any
    pixels: int

    @property
    def plain(self) -> tuple[Any, Any]:
        return self.networks.width.conditioning(1), self.networks.width.conditioning(2)

    def pictures(self, seed: int, count: int = 1, times: float = 1) -> Tensor:
        side = int(self.pixels * times)
        return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(seed))

    def layer(self, number: int = 0, network: int = 0, count: int = 1, times: float = 1, **settings: Any) -> Any:
        from control_composer.control import layer_of

        return layer_of(
            self.networks.control_net(network), self.pictures(10 + number, count, times), STRENGTH, **settings
        )

    def ours(self, layers: Sequence[Any]) -> tuple[Any, Any]:
        from control_composer.control import compose_controls

        found: tuple[Any, Any] = compose_controls(*self.plain, layers)
        return found

    def stock(self, layers: int, networks: int = 1) -> tuple[Any, Any]:
        import nodes  # ComfyUI's

        found = self.plain
        for layer in range(layers):
            control_net = self.networks.control_net(layer % networks)
            found = nodes.ControlNetApplyAdvanced().apply_controlnet(
                *found, control_net, self.pictures(10 + layer), STRENGTH, 0.0, 1.0
            )
        return found

    @property
    def mask(self) -> Tensor:
        return torch.linspace(0, 1, self.pixels).expand(1, self.pixels, self.pixels).clone()


def reused(extrapolate: bool = False) -> Any:
    from control_composer.control.reuse import Reuse

    return Reuse(2, extrapolate=extrapolate)


LONG = 4

CASES: Mapping[str, Case] = {
    "stock": Case(1, lambda scene: scene.stock(1)),
    "stock-3": Case(1, lambda scene: scene.stock(3)),
    "stock-3-own": Case(1, lambda scene: scene.stock(3, 3)),
    "one": Case(1, lambda scene: scene.ours([scene.layer()])),
    "three-shared": Case(1, lambda scene: scene.ours([scene.layer(number) for number in range(3)])),
    "three-own": Case(1, lambda scene: scene.ours([scene.layer(number, number) for number in range(3)])),
    "cond-only": Case(1, lambda scene: scene.ours([scene.layer(uncond_strength=0.0)])),
    "masked": Case(1, lambda scene: scene.ours([scene.layer(mask=scene.mask)])),
    "every-2": Case(1, lambda scene: scene.ours([scene.layer(reuse=reused())])),
    "extrapolated": Case(1, lambda scene: scene.ours([scene.layer(reuse=reused(True))])),
    "every-2-own": Case(
        1, lambda scene: scene.ours([scene.layer(number, number, reuse=reused()) for number in range(3)])
    ),
    "one-of-two-reused": Case(1, lambda scene: scene.ours([scene.layer(0, reuse=reused()), scene.layer(1)])),
    "long": Case(LONG, lambda scene: scene.ours([scene.layer(count=LONG)])),
    "one-for-all": Case(LONG, lambda scene: scene.ours([scene.layer()])),
    "large-hint": Case(1, lambda scene: scene.ours([scene.layer(times=4)])),
    "small-hint": Case(1, lambda scene: scene.ours([scene.layer(times=0.25)])),
    "after-stock": Case(1, lambda scene: after_stock(scene)),
}


def after_stock(scene: Scene) -> tuple[Any, Any]:
    from control_composer.control import apply_control

    found: tuple[Any, Any] = apply_control(*scene.stock(1), scene.networks.control_net(), scene.pictures(11), STRENGTH)
    return found


def measured(
    networks: Any, pixels: int, steps: int, cases: Mapping[str, Case], tell: Callable[[str], None] = lambda line: None
) -> dict[str, tuple[Used, Used]]:
    """Each case, and the run without a control beside it."""
    scene, plain, found = Scene(networks, pixels), {}, {}
    for name, case in cases.items():
        tell(f"{pixels} px, {name}")
        latents = torch.zeros(case.latents, 4, pixels // 8, pixels // 8)
        if case.latents not in plain:
            used(networks.model, scene.plain, latents, 1)  # what is made once
            plain[case.latents] = used(networks.model, scene.plain, latents, steps)
        found[name] = used(networks.model, case.attach(scene), latents, steps), plain[case.latents]
    return found


def show(found: Mapping[str, tuple[Used, Used]]) -> None:
    print(f"{'':18} {'peak':>8} {'over':>8} {'waiting':>8} {'told':>8} {'told/need':>9}")
    for name, (one, plain) in found.items():
        numbers = one.peak, one.peak - plain.peak, one.waiting(plain), one.told
        ratio = one.told / one.needed(plain)
        print(f"{name:18} " + " ".join(f"{number / MIB:8.3f}" for number in numbers) + f" {ratio:9.2f}")


@dataclass(frozen=True)
class Layers:
    """Bytes of tensors that are alive at the peak of a pass: of the network, of the UNet, of the hint network; and what control/memory.py says."""

    network: int
    unet: int
    hint: int
    told: int
    told_hint: int


def layers_of(width: Any, cells: int, rows: int = 2, dtype: torch.dtype = torch.float16) -> Layers:
    """Both models of a width (benchmarks/widths.py) on square latents, without weights. Attention is taken to need nothing, as where it keeps no scores."""
    import comfy.ldm.modules.attention as attention

    from control_composer.control import EncoderNetwork
    from control_composer.control.memory import hint_bytes, layer_bytes

    from .memory import Tensors
    from .widths import TOKENS

    def made(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def peak(module: torch.nn.Module, call: Callable[..., Any], *inputs: Tensor | None) -> int:
        known = [*module.parameters(), *module.buffers(), *(one for one in inputs if one is not None)]
        with torch.inference_mode(), Tensors(known) as tensors:
            call(*inputs)
        found: int = tensors.peak
        return found

    module, unet = width.encoder(dtype, "meta"), width.model(dtype, "meta").diffusion_model
    network = EncoderNetwork.from_module(module, name="test", base="SD1", load_device=torch.device("cpu"))
    x, context, times = made(rows, 4, cells, cells), made(rows, TOKENS, width.unet["context_dim"]), made(rows)
    y = None if width.unet["adm_in_channels"] is None else made(rows, width.unet["adm_in_channels"])
    embedding, picture = made(1, network.model_channels, cells, cells), made(1, 3, 8 * cells, 8 * cells)
    before = attention.optimized_attention, attention.optimized_attention_masked
    attention.optimized_attention = attention.optimized_attention_masked = lambda q, *_, **__: torch.empty_like(q)
    try:
        return Layers(
            peak(module, network.residuals, x, embedding, times, context, y),
            peak(unet, unet, x, times, context, y),
            peak(module, network.embed_hint, picture) + picture.nbytes,
            layer_bytes(network, rows, cells, cells),
            hint_bytes(network, 1, cells, cells),
        )
    finally:
        attention.optimized_attention, attention.optimized_attention_masked = before


def show_layers() -> None:
    from .widths import WIDTHS

    print(f"{'':12} {'network':>8} {'told':>8} {'UNet':>8} {'hint':>8} {'told':>8}")
    for name, cells, channels in (("sd15", 64, 320), ("sd15", 96, 320), ("sdxl", 128, 320), ("narrow", 16, 32)):
        found, rows, size = layers_of(WIDTHS[name], cells), 2, torch.float16.itemsize
        unit = rows * channels * cells * cells * size
        numbers = (found.network, found.told, found.unet, found.hint * rows, found.told_hint * rows)
        print(f"{name:6} {cells:5} " + " ".join(f"{number / unit:8.2f}" for number in numbers))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", choices=("narrow", "sd15"), default="narrow")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], metavar="PIXELS")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--layers", action="store_true")
    chosen = parser.parse_args(arguments)
    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.use_pytorch_cross_attention = (
        True  # as on a GPU: that of a CPU keeps as many scores as free memory allows
    )
    if chosen.layers:
        show_layers()
        return
    from .widths import WIDTHS, Networks

    networks = Networks(WIDTHS[chosen.width], torch.float32)
    for pixels in chosen.sizes:
        found = measured(networks, pixels, chosen.steps, {name: CASES[name] for name in chosen.cases}, print)
        print(f"\n{chosen.width}, {pixels} px, float32, {chosen.steps} steps")
        show(found)


if __name__ == "__main__":
    main()
