"""What reuse costs in obedience: `python host.py python -m control_composer.demo.reuse` draws docs/speed/reuse.jpg and prints the table.

Held-out scenes under the demo world's edge control, KSampler with 20 steps of euler at CFG 4; each seed draws all scenes with other noise. The
difference is paired: the same scenes, seeds and noise with every step evaluated.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation.edges import edge_score
from ..preprocessors.canny import canny
from .measure import GUIDANCE, STEPS, Bench
from .panels import Row, save_page
from .train import use_cpu_without_cuda
from .world import CONTROLS, load_world

log = logging.getLogger("demo.reuse")

DOCS = Path(__file__).resolve().parents[1] / "docs" / "speed"
CHOICES: dict[str, dict[str, Any]] = {
    "every step": {},
    "every 2 steps": {"every": 2},
    "every 3 steps": {"every": 3},
    "every 4 steps": {"every": 4},
    "every 6 steps": {"every": 6},
    "every 2, extrapolated": {"every": 2, "extrapolate": True},
    "every 4, extrapolated": {"every": 4, "extrapolate": True},
    "sigma ratio 1.5": {"ratio": 1.5},
    "sigma ratio 2": {"ratio": 2.0},
}
SHOWN = 6


def drawn(bench: Bench, control: Any, seed: int, choice: dict[str, Any]) -> tuple[Tensor, int]:
    """Pictures of all scenes, and how often the network was evaluated in a run."""
    import comfy.sample
    import torch

    from ..control import compose_controls, layer_of
    from ..control.reuse import Reuse

    positive, negative = bench.world.encode(*bench.captions), bench.world.encode(*[""] * bench.count)
    layer = layer_of(control, bench.edges, reuse=Reuse(**choice))
    positive, negative = compose_controls(positive, negative, [layer])
    latent = torch.zeros(bench.count, 4, bench.truth.shape[1] // 8, bench.truth.shape[2] // 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    sampled = comfy.sample.sample(
        bench.world.model,
        noise,
        STEPS,
        GUIDANCE,
        "euler",
        "normal",
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=seed,
    )
    record = positive[0][1]["control"].record
    evaluations = len({entry.call for entry in record.steps if entry.ran and entry.held_from is None})
    return bench.world.vae.decode(sampled).detach().clamp(0, 1).cpu().float(), evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what reuse costs on the demo world.")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    use_cpu_without_cuda()
    from ..control import Control
    from ..nodes.load import load_source

    bench = Bench(load_world(), options.scenes)
    control = Control.unbound(load_source(CONTROLS / "control_composer_demo_edges.safetensors", None, "auto")[0])
    scores: dict[str, list[float]] = {}
    figures, rows = {}, [Row("hints", [("", hint) for hint in bench.edges[:SHOWN]])]
    for name, choice in CHOICES.items():
        for seed in range(options.seeds):
            pictures, evaluations = drawn(bench, control, seed, choice)
            found = edge_score(canny(pictures, low=100, high=200)[..., 0], bench.edges[..., 0]).f1
            scores.setdefault(name, []).append(float(found.mean()))
            if seed == 0:
                rows.append(Row(f"{name}: {evaluations} evaluations", [("", picture) for picture in pictures[:SHOWN]]))
        exact = scores["every step"]
        change = [100 * (own / plain - 1) for own, plain in zip(scores[name], exact, strict=True)]
        figures[name] = {
            "evaluations": evaluations,
            "edge F1": round(statistics.mean(scores[name]), 4),
            "change, percent": round(statistics.mean(change), 2),
            "change of each seed": [round(one, 2) for one in change],
        }
        log.info("%s: %s", name, figures[name])
    save_page(options.docs / "reuse.jpg", rows)
    about = {"scenes": options.scenes, "seeds": options.seeds, "steps": STEPS, "choices": figures}
    (options.docs / "reuse.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
