"""Advanced-ControlNet's own nodes beside those that take their place: latents of the demo world from the same graphs.

    python host.py python benchmarks/advanced_controlnet.py FOLDER

FOLDER is a checkout of github.com/Kosinkadink/ComfyUI-Advanced-ControlNet. Each graph is written once, in that pack's ids, and run by its nodes and by ours.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.cli_args
import torch
from torch import Tensor

# In single precision and on the CPU wherever it runs: numbers are compared here, not speed. Before the host's other modules.
comfy.cli_args.args.cpu = True

import comfy.sample  # noqa: E402
import folder_paths  # noqa: E402

from control_composer.benchmarks.residual_widths import TOLERANCE, relative  # noqa: E402
from control_composer.benchmarks.surroundings import commit, hardware  # noqa: E402
from control_composer.demo.scenes import render, sample_scenes  # noqa: E402
from control_composer.demo.world import World, load_world  # noqa: E402
from control_composer.nodes import acn_apply, acn_keyframes, acn_latents, acn_load, acn_weights  # noqa: E402
from control_composer.nodes.acn_names import NODES as OLD  # noqa: E402

CONTROLS = Path(__file__).parents[1] / "demo" / "weights" / "controlnet"
EDGES = "control_composer_demo_edges.safetensors"
WORDS = "a yellow star and a large red cross on a blue ground"
PICTURES, STEPS, CFG, SEED = 4, 8, 4.0, 1

Run = Callable[..., Any]
"""(id of that pack, inputs by its names) -> the node's outputs."""

WEIGHTS = {f"output_{index}": 0.1 * index for index in range(12)} | {"middle_0": 0.7}


def theirs(folder: Path) -> Run:
    """That pack's nodes."""
    spec = importlib.util.spec_from_file_location(
        "advanced_controlnet", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["advanced_controlnet"] = module
    spec.loader.exec_module(module)
    listed = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
    nodes = {node.define_schema().node_id: node for node in listed}
    return lambda kind, **inputs: nodes[kind].execute(**inputs).args


def ours() -> Run:
    """The nodes in their place, fed as the host feeds them after it replaced those."""
    sections = (acn_apply, acn_keyframes, acn_latents, acn_load, acn_weights)
    nodes = {node.define_schema().node_id: node for section in sections for node in section.NODES}
    old = {one.id: one for one in OLD}

    def run(kind: str, **inputs: Any) -> Any:
        names = old[kind].inputs
        return nodes[old[kind].new].execute(**{names[name]: value for name, value in inputs.items()}).args

    return run


def half() -> Tensor:
    """White on the left."""
    mask = torch.zeros(1, 128, 128)
    mask[..., :64] = 1
    return mask


def soft(run: Run, **more: Any) -> Any:
    return run("ACN_ScaledSoftControlNetWeights", base_multiplier=0.825, **more)


def keyframe(run: Run, start: float, strength: float = 1.0, before: Any = None, **more: Any) -> Any:
    return run("TimestepKeyframe", start_percent=start, strength=strength, prev_timestep_kf=before, **more)[0]


def two_settings(run: Run) -> Any:
    first = keyframe(run, 0.0, cn_weights=soft(run)[0], mask_optional=half())
    return keyframe(run, 0.5, 0.6, first, inherit_missing=True)


def close_together(run: Run) -> Any:
    frames = None
    for start, strength in ((0.02, 1.4), (0.03, 0.2), (0.04, 0.9)):
        frames = keyframe(run, start, strength, frames, guarantee_steps=2)
    return frames


def pictures(run: Run) -> Any:
    latents = run("LatentKeyframe", batch_index=0, strength=1.0)[0]
    return run("LatentKeyframe", batch_index=-1, strength=0.4, prev_latent_kf=latents)[0]


def interpolated(run: Run) -> Any:
    return run(
        "LatentKeyframeTiming",
        batch_index_from=1,
        batch_index_to_excl=4,
        strength_from=0.2,
        strength_to=1.5,
        interpolation="ease-in-out",
        prev_latent_kf=run("LatentKeyframeGroup", index_strengths="1=0.9")[0],
    )[0]


GRAPHS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "strength and range": lambda run: {"strength": 0.8, "start_percent": 0.1, "end_percent": 0.7},
    "soft weights": lambda run: {"timestep_kf": soft(run)[1]},
    "soft weights, the conditional branch only": lambda run: {"weights_override": soft(run, uncond_multiplier=0.0)[0]},
    "a number for each block": lambda run: {"weights_override": run("ACN_CustomControlNetWeightsSD15", **WEIGHTS)[0]},
    "a factor for the middle": lambda run: {
        "weights_override": soft(run, cn_extras=run("ACN_ExtrasMiddleMult", middle_mult=0.3)[0])[0]
    },
    "a mask": lambda run: {"mask_optional": half()},
    "two keyframes, weights and mask inherited": lambda run: {"timestep_kf": two_settings(run)},
    "keyframes closer than steps": lambda run: {"timestep_kf": close_together(run)},
    "interpolated keyframes": lambda run: {
        "timestep_kf": run(
            "ACN_TimestepKeyframeInterpolation",
            start_percent=0.1,
            end_percent=0.9,
            strength_start=1.5,
            strength_end=0.1,
            interpolation="ease-out",
            intervals=20,
        )[0]
    },
    "keyframes from a list": lambda run: {
        "timestep_kf": run(
            "ACN_TimestepKeyframeFromStrengthList", float_strengths=[1.0, 0.2, 0.7], start_percent=0.0, end_percent=0.8
        )[0]
    },
    "strengths of pictures, the others at 0.1": lambda run: {
        "timestep_kf": keyframe(run, 0.0, latent_keyframe=pictures(run), null_latent_kf_strength=0.1)
    },
    "strengths of pictures in place of all": lambda run: {"latent_kf_override": interpolated(run)},
    "a base of the ladder for each pixel": lambda run: {
        "weights_override": run(
            "ScaledSoftMaskedUniversalWeights", mask=half(), min_base_multiplier=0.4, max_base_multiplier=0.9
        )[0]
    },
}


def sampled(world: World, run: Run, hint: Tensor, inputs: dict[str, Any]) -> Tensor:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0} | inputs
    loaded = run("ACN_ControlNetLoaderAdvanced", cnet=EDGES)[0]
    positive, negative, *_ = run(
        "ACN_AdvancedControlNetApply_v2",
        positive=world.encode(WORDS),
        negative=world.encode(""),
        control_net=loaded,
        image=hint,
        **settings,
    )
    latent = torch.zeros(PICTURES, 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, SEED)
    result: Tensor = comfy.sample.sample(
        world.model, noise, STEPS, CFG, "euler", "normal", positive, negative, latent, seed=SEED, disable_pbar=True
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(f"{datetime.date.today()}, commit {commit()}, {hardware()}, torch {torch.__version__}, fp32")
    folder_paths.add_model_folder_path("controlnet", str(CONTROLS))
    with torch.inference_mode():
        world = load_world()
        scenes = [render(sample_scenes(1, seed)) for seed in (19, 20)]
        hints = torch.cat([(scene - scene.mean(dim=(1, 2), keepdim=True)).abs().clamp(0, 1) for scene in scenes])
        before, after = theirs(options.folder), ours()
        graphs = [(name, hints[:1], graph) for name, graph in GRAPHS.items()]
        graphs.append(("two hints for four pictures", hints, lambda run: {}))
        plain = sampled(world, after, hints[:1], {"strength": 0.0})
        worst = 0.0
        for name, hint, graph in graphs:
            wanted = sampled(world, before, hint, graph(before))
            found = sampled(world, after, hint, graph(after))
            difference, effect = relative(found, wanted), relative(plain, wanted)
            worst = max(worst, difference)
            print(f"{name}: {difference:.1e} (the control changes {effect:.2f})", flush=True)
    print(f"largest: {worst:.1e}, allowed {TOLERANCE:g}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
