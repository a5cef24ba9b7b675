"""Trains the whole demo world from seeds: `python host.py python -m control_composer.demo.train`.

Stages: autoencoder, UNet with words, edge control, colour control. Each can be stopped and started again; what is finished is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ..evaluation.colour import block_colour_error
from ..evaluation.edges import edge_score
from ..preprocessors.canny import canny
from .autoencoder import Autoencoder
from .diffusion import sample
from .optimise import Plan
from .pairs import Pairs, make_pairs, pictures
from .scenes import sample_scenes
from .sheets import save_sheet
from .train_autoencoder import psnr, train_autoencoder
from .train_control import controlled, train_control
from .train_unet import train_unet
from .unet import METADATA, trainable_copy, trainable_unet
from .words import Words, token_batch

log = logging.getLogger("demo.train")

HERE = Path(__file__).parent
GUIDANCE = 4.0
_TRAINING_SEED, _WATCH_SEED = 1, 2
STAGES = ("autoencoder", "unet", "edges", "colour")


@dataclass(frozen=True)
class Scale:
    """Amounts that suit a device."""

    scenes: int
    autoencoder_batch: int
    unet_batch: int
    control_batch: int
    watched: int
    autoencoder: Plan
    unet: Plan
    edges: Plan
    colour: Plan

    def shortened(self, share: float) -> Scale:
        def cut(plan: Plan) -> Plan:
            return replace(
                plan, steps=max(10, int(plan.steps * share)), save_every=max(5, int(plan.save_every * share))
            )

        return replace(
            self,
            autoencoder=cut(self.autoencoder),
            unet=cut(self.unet),
            edges=cut(self.edges),
            colour=cut(self.colour),
        )


SCALES = {
    "cuda": Scale(
        scenes=400_000,
        autoencoder_batch=128,
        unet_batch=512,
        control_batch=256,
        watched=48,
        autoencoder=Plan("autoencoder", steps=10_000, rate=2e-3, save_every=2500, log_every=250),
        unet=Plan("unet", steps=20_000, rate=1e-3, save_every=5000, log_every=250, ema=0.9995, warm_up=500),
        edges=Plan("control_edges", steps=6_000, rate=1e-3, save_every=250, log_every=50),
        colour=Plan("control_colour", steps=6_000, rate=1e-3, save_every=250, log_every=50),
    ),
    "cpu": Scale(
        scenes=20_000,
        autoencoder_batch=16,
        unet_batch=32,
        control_batch=32,
        watched=16,
        autoencoder=Plan("autoencoder", steps=3_000, rate=2e-3, save_every=500),
        unet=Plan("unet", steps=12_500, rate=1.5e-3, save_every=500, warm_up=300),
        edges=Plan("control_edges", steps=1_600, rate=1.5e-3, save_every=100, warm_up=100),
        colour=Plan("control_colour", steps=1_000, rate=1.5e-3, save_every=100, warm_up=100),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demo world; run it again to continue.")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where unfinished stages, logs and sheets go")
    parser.add_argument("--weights", type=Path, default=HERE / "weights", help="where the finished files go")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--share", type=float, default=1.0, help="train for this share of the steps, to try things out")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=STAGES,
        help="all, or some whose forerunners are finished; two may train at once",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.runs.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    scale = SCALES[device.type].shortened(options.share) if options.share != 1 else SCALES[device.type]
    log.info("training on %s, torch %s", _device_name(device), torch.__version__)
    use_cpu_without_cuda()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    Training(scale, options.runs, options.weights, device).run(options.stages)


class Training:
    """The stages in order; a stage whose file exists is loaded instead of trained."""

    def __init__(self, scale: Scale, runs: Path, weights: Path, device: torch.device) -> None:
        self.scale, self.runs, self.weights, self.device = scale, runs, weights, device

    def run(self, stages: Sequence[str]) -> None:
        autoencoder = self._autoencoder()
        if set(stages) <= {"autoencoder"}:
            return
        started = time.monotonic()
        pairs = self._pairs(max(2048, self.scale.scenes), autoencoder)
        log.info(
            "%d pairs ready in %.1f s; latents' deviation %.3f",
            len(pairs),
            time.monotonic() - started,
            pairs.latents.float().std(),
        )
        unet, words = self._unet(pairs)
        watch = Watch(self.scale.watched, autoencoder, unet, words, self.runs, self.device)
        if "unet" in stages:
            watch.plain()
        hints = {"edges": pairs.edge_hints, "colour": pairs.colour_hints}
        controls = {
            name: self._control(name, unet, words, pairs, hint, watch) for name, hint in hints.items() if name in stages
        }
        if len(controls) == len(hints):
            watch.both(**controls)

    def _autoencoder(self) -> Autoencoder:
        path = self.weights / "autoencoder.safetensors"
        autoencoder = Autoencoder().to(self.device).eval().requires_grad_(False)
        if not path.exists():
            count = min(self.scale.scenes, 8_000 if self.device.type == "cpu" else 100_000)
            plan = replace(self.scale.autoencoder, seed=_TRAINING_SEED)
            trained = train_autoencoder(plan, count, self.scale.autoencoder_batch, self.runs, self.device)
            _save(path, trained.state_dict(), {})
        autoencoder.load_state_dict(safetensors.torch.load_file(path, device=str(self.device)))
        held_out = pictures(sample_scenes(256, _WATCH_SEED), self.device).float() / 255
        log.info("autoencoder: %.2f dB on scenes not seen", psnr(autoencoder, held_out))
        return autoencoder

    def _pairs(self, count: int, autoencoder: Autoencoder) -> Pairs:
        path = self.runs / f"pairs_{count}.safetensors"
        if not path.exists():
            pairs = make_pairs(count, _TRAINING_SEED, autoencoder, self.device)
            unfinished = path.with_suffix(".unfinished")
            safetensors.torch.save_file(
                {name: tensor.cpu().contiguous() for name, tensor in vars(pairs).items()}, unfinished
            )
            unfinished.replace(path)
        return Pairs(**safetensors.torch.load_file(path, device=str(self.device)))

    def _unet(self, pairs: Pairs) -> tuple[nn.Module, Words]:
        unet_path, words_path = self.weights / "unet.safetensors", self.weights / "words.safetensors"
        if not (unet_path.exists() and words_path.exists()):
            plan = replace(self.scale.unet, seed=_TRAINING_SEED)
            unet, words = train_unet(plan, pairs, self.scale.unet_batch, self.runs, self.device)
            _save(words_path, words.state_dict(), {})
            _save(unet_path, unet.state_dict(), METADATA)
        unet, words = trainable_unet(), Words()
        unet.load_state_dict(safetensors.torch.load_file(unet_path))
        words.load_state_dict(safetensors.torch.load_file(words_path))
        return (
            unet.to(self.device).eval().requires_grad_(False),
            words.to(self.device).eval().requires_grad_(False),
        )

    def _control(
        self, name: str, unet: nn.Module, words: Words, pairs: Pairs, hints: Callable[[Tensor], Tensor], watch: Watch
    ) -> nn.Module:
        path = self.weights / "controlnet" / f"control_composer_demo_{name}.safetensors"
        if not path.exists():
            plan = replace(getattr(self.scale, name), seed=_TRAINING_SEED)
            trained = train_control(
                plan, unet, words, pairs, hints, self.scale.control_batch, self.runs, self.device, watch.control(name)
            )
            _save(path, trained.state_dict(), METADATA)
        control = trainable_copy(unet)
        control.load_state_dict(safetensors.torch.load_file(path))
        return control.to(self.device).eval().requires_grad_(False)


class Watch:
    """Draws the same held-out scenes again and again, so that progress can be seen and measured."""

    def __init__(
        self, count: int, autoencoder: Autoencoder, unet: nn.Module, words: Words, runs: Path, device: torch.device
    ) -> None:
        self.autoencoder, self.unet, self.words, self.runs, self.device = autoencoder, unet, words, runs, device
        scenes = sample_scenes(count, _WATCH_SEED)
        self.truth = pictures(scenes, device).float().movedim(1, -1) / 255
        self.pairs = make_pairs(count, _WATCH_SEED, autoencoder, device)
        self.noise = torch.randn(self.pairs.latents.shape, generator=torch.Generator().manual_seed(_WATCH_SEED)).to(
            device
        )
        rows = torch.arange(count, device=device)
        self.hints = {"edges": self.pairs.edge_hints(rows), "colour": self.pairs.colour_hints(rows)}

    @torch.no_grad()
    def draw(self, controls: dict[str, nn.Module]) -> Tensor:
        """Pictures (N, 128, 128, 3) of the watched captions under the controls, both branches controlled."""
        count = len(self.noise)
        tokens = torch.cat([self.pairs.words, token_batch([""] * count).to(self.device)])
        context = self.words(tokens)
        hints = [self.hints[name].repeat(2, 1, 1, 1) for name in controls]

        def velocity(x: Tensor, times: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                both = controlled(
                    self.unet, list(controls.values()), hints, x.repeat(2, 1, 1, 1), times.float().repeat(2), context
                )
            cond, uncond = both.float().chunk(2)
            return uncond + GUIDANCE * (cond - uncond)

        return self.autoencoder.decode(sample(velocity, self.noise)).clamp(0, 1).movedim(1, -1).float()

    def scores(self, drawn: Tensor) -> tuple[float, float]:
        """Mean edge F1 at 2 pixels and mean colour error per block."""
        found = canny(drawn.cpu(), low=100, high=200)[..., 0].to(self.device)
        f1 = edge_score(found, self.hints["edges"][:, 0]).f1.mean()
        return float(f1), float(block_colour_error(drawn, self.truth).mean())

    def plain(self) -> None:
        drawn = self.draw({})
        redrawn = self.autoencoder.decode(self.pairs.latents.float()).clamp(0, 1).movedim(1, -1)
        log.info("no control: F1 %.3f, colour error %.3f", *self.scores(drawn))
        log.info("redrawn by the autoencoder: F1 %.3f, colour error %.4f", *self.scores(redrawn))
        save_sheet(self.runs / "sheets" / "plain.jpg", [("drawn from captions alone", drawn[:48])], across=8)

    def control(self, name: str) -> Callable[[nn.Module, int], None]:
        def watch(control: nn.Module, step: int) -> None:
            drawn = self.draw({name: control.eval()})
            control.train()
            f1, colour = self.scores(drawn)
            log.info("%s at step %d: F1 %.3f, colour error %.4f", name, step, f1, colour)
            with (self.runs / f"watch_{name}.csv").open("a", newline="") as file:
                csv.writer(file).writerow([step, f"{f1:.4f}", f"{colour:.4f}"])
            save_sheet(
                self.runs / "steps" / f"{name}_{step:06d}.png", [(f"step {step}, F1 {f1:.2f}", drawn[:8])], across=8
            )

        return watch

    def both(self, edges: nn.Module, colour: nn.Module) -> None:
        columns = [("scene", self.truth[:12]), ("edges", self.hints["edges"][:12].movedim(1, -1))]
        chosen: dict[str, dict[str, nn.Module]] = {
            "no control": {}, "edge control": {"edges": edges}, "colour control": {"colour": colour},
            "both": {"edges": edges, "colour": colour},
        }  # fmt: skip
        for title, controls in chosen.items():
            drawn = self.draw(controls)
            log.info("%s: F1 %.3f, colour error %.4f", title, *self.scores(drawn))
            columns.append((title, drawn[:12]))
        columns.insert(2, ("colours", self.hints["colour"][:12].movedim(1, -1)))
        save_sheet(self.runs / "sheets" / "controls.jpg", columns)


def use_cpu_without_cuda() -> None:
    """Tells the host, before its other modules are imported, what `--cpu` would: it looks for CUDA otherwise."""
    import comfy.cli_args

    comfy.cli_args.args.cpu = comfy.cli_args.args.cpu or not torch.cuda.is_available()


def _save(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    half = {key: tensor.detach().half().cpu().contiguous() for key, tensor in state.items()}
    safetensors.torch.save_file(half, unfinished, metadata=metadata)
    unfinished.replace(path)


def _device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
