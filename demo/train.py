"""Trains the whole demo world from seeds: `python host.py python -m control_composer.demo.train`.

Stages: autoencoder, UNet with words, edge control, colour control. Each can be stopped and started again; what is finished is not repeated.
"""

from __future__ import annotations

import argparse
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..training.settings import Settings
from .autoencoder import Autoencoder
from .diffusion import alphas_cumprod
from .optimise import Plan
from .pairs import PairData, Pairs, make_pairs, pictures
from .scenes import sample_scenes
from .train_autoencoder import psnr, train_autoencoder
from .train_unet import train_unet
from .unet import METADATA, trainable_unet
from .watch import SEED as WATCH_SEED
from .watch import Watch
from .words import Words

log = logging.getLogger("demo.train")

HERE = Path(__file__).parent
_TRAINING_SEED = 1
ABOUT = {
    "edges": {"base": "the demo world", "condition": "Canny edges, 100 / 200"},
    "colour": {"base": "the demo world", "condition": "colour grid of 8 x 8 blocks"},
}
STAGES = ("autoencoder", "unet", "edges", "colour")


@dataclass(frozen=True)
class Scale:
    """Amounts that suit a device."""

    scenes: int
    autoencoder_batch: int
    unet_batch: int
    watched: int
    autoencoder: Plan
    unet: Plan
    edges: Settings
    colour: Settings

    def shortened(self, share: float) -> Scale:
        def cut(amount: int, least: int) -> int:
            return max(least, int(amount * share))

        def plan(of: Plan) -> Plan:
            return replace(of, steps=cut(of.steps, 10), save_every=cut(of.save_every, 5))

        def settings(of: Settings) -> Settings:
            validate_every, save_every = cut(of.validate_every, 5), cut(of.save_every, 5)
            return replace(of, steps=cut(of.steps, 10), save_every=save_every, validate_every=validate_every)

        return replace(
            self,
            autoencoder=plan(self.autoencoder),
            unet=plan(self.unet),
            edges=settings(self.edges),
            colour=settings(self.colour),
        )


def control_settings(steps: int, batch: int, **changes: Any) -> Settings:
    """How a control of the demo world learns; much faster than one of Stable Diffusion may."""
    usual = Settings(
        steps=steps,
        batch=batch,
        rate=1.5e-3,
        warm_up=100,
        decay=0.2,
        betas=(0.9, 0.99),
        # With 256 cells a picture, shapes form in the middle.
        middle_times=0.5,
        precision="bf16",
        seed=_TRAINING_SEED,
        save_every=100,
        validate_every=100,
    )
    return replace(usual, **changes)


SCALES = {
    "cuda": Scale(
        scenes=400_000,
        autoencoder_batch=128,
        unet_batch=512,
        watched=48,
        autoencoder=Plan("autoencoder", steps=10_000, rate=2e-3, save_every=2500, log_every=250),
        unet=Plan("unet", steps=20_000, rate=1e-3, save_every=5000, log_every=250, ema=0.9995, warm_up=500),
        edges=control_settings(6_000, 256, rate=1e-3, save_every=500, validate_every=250),
        colour=control_settings(6_000, 256, rate=1e-3, save_every=500, validate_every=250),
    ),
    "cpu": Scale(
        scenes=20_000,
        autoencoder_batch=16,
        unet_batch=32,
        watched=16,
        autoencoder=Plan("autoencoder", steps=3_000, rate=2e-3, save_every=500),
        unet=Plan("unet", steps=12_500, rate=1.5e-3, save_every=500, warm_up=300),
        edges=control_settings(1_600, 32),
        colour=control_settings(1_000, 32),
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
        pairs = self._pairs(self.scale.scenes, autoencoder)
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
        held_out = pictures(sample_scenes(256, WATCH_SEED), self.device).float() / 255
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
        # They need the host, which needs to know first whether there is CUDA.
        from ..training.copy import encoder_of, heads_of, trainable_copy
        from ..training.export import export
        from ..training.loop import train
        from ..training.objective import Schedule

        path = self.weights / "controlnet" / f"control_composer_demo_{name}.safetensors"
        control = trainable_copy(unet, seed=_TRAINING_SEED)
        if not path.exists():
            settings: Settings = getattr(self.scale, name)
            trained = train(
                unet,
                control,
                PairData(pairs, words, hints),
                Schedule(alphas_cumprod(), "v"),
                settings,
                self.runs / f"control_{name}",
                on_step=lambda row: log.info("%s: step %d of %d, loss %.5f", name, row.step, settings.steps, row.loss),
                on_validate=watch.control(name),
            )
            export(path, trained.average, encoder_of(unet, 3), heads_of(unet), about=ABOUT[name])
        control.load_state_dict(safetensors.torch.load_file(path))
        return control.to(self.device).eval().requires_grad_(False)


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
