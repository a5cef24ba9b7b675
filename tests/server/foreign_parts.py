"""What graphs of other packs on the demo world consist of, and the prompts of ours that mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_composer.tests.server.saved import Saved, Slot, prompt_node

EDGES = "control_composer_demo_edges.safetensors"
WORDS = "a yellow star and a large red cross on a blue ground"
STEPS = 4
SIDE = 64
"""Of the pictures. Hints and masks are twice as large."""
TITLE = "Picture"


@dataclass(frozen=True)
class Demo:
    """What every graph here begins with."""

    model: Slot
    vae: Slot
    positive: Slot
    negative: Slot
    latent: Slot
    scene: Slot


def begun(graph: Saved, batch: int = 2) -> Demo:
    world = graph.node(
        "ControlComposerDemoWorld", outputs=[("model", "MODEL"), ("vae", "VAE"), ("world", "DEMO_WORLD")]
    )

    def words(text: str) -> Slot:
        inputs = {"world": ("DEMO_WORLD", (world, 2))}
        return graph.node("ControlComposerDemoPrompt", [text], inputs, [("conditioning", "CONDITIONING")]), 0

    positive, negative = words(WORDS), words("")
    latent = graph.node("EmptyLatentImage", [SIDE, SIDE, batch], outputs=[("LATENT", "LATENT")])
    scene = graph.node("ControlComposerDemoScene", [19, "fixed"], outputs=[("image", "IMAGE"), ("caption", "STRING")])
    return Demo((world, 0), (world, 1), positive, negative, (latent, 0), (scene, 0))


def ended(graph: Saved, demo: Demo, positive: Slot, negative: Slot) -> dict[str, Any]:
    sampled = graph.node(
        "KSampler",
        [1, "fixed", STEPS, 4.0, "euler", "normal", 1.0],
        {
            "model": ("MODEL", demo.model),
            "positive": ("CONDITIONING", positive),
            "negative": ("CONDITIONING", negative),
            "latent_image": ("LATENT", demo.latent),
        },
        [("LATENT", "LATENT")],
    )
    decoded = graph.node(
        "VAEDecode", [], {"samples": ("LATENT", (sampled, 0)), "vae": ("VAE", demo.vae)}, [("IMAGE", "IMAGE")]
    )
    graph.node("SaveImage", ["foreign"], {"images": ("IMAGE", (decoded, 0))}, title=TITLE)
    return graph.json()


def canny(graph: Saved, demo: Demo) -> Slot:
    """The host's."""
    return graph.node("Canny", [0.4, 0.8], {"image": ("IMAGE", demo.scene)}, [("IMAGE", "IMAGE")]), 0


def keyframes(graph: Saved, widgets: list[Any], **sources: Slot) -> Slot:
    """A TimestepKeyframe with the names of the autumn of 2023."""
    types = {
        "prev_timestep_keyframe": "TIMESTEP_KEYFRAME",
        "control_net_weights": "CONTROL_NET_WEIGHTS",
        "latent_keyframe": "LATENT_KEYFRAME",
    }
    inputs = {name: (of_type, sources.get(name)) for name, of_type in types.items()}
    return graph.node("TimestepKeyframe", widgets, inputs, [("TIMESTEP_KF", "TIMESTEP_KEYFRAME")]), 0


def loader(graph: Saved, kind: str = "ControlNetLoaderAdvanced", **sources: Slot) -> Slot:
    inputs = {name: ("TIMESTEP_KEYFRAME", source) for name, source in sources.items()}
    return graph.node(kind, [EDGES], inputs, [("CONTROL_NET", "CONTROL_NET")]), 0


def apply(
    graph: Saved,
    demo: Demo,
    control_net: Slot,
    image: Slot,
    widgets: list[Any],
    kind: str = "ACN_AdvancedControlNetApply",
    **sources: tuple[str, Slot],
) -> tuple[Slot, Slot]:
    inputs: dict[str, tuple[str, Slot | None]] = {
        "positive": ("CONDITIONING", demo.positive),
        "negative": ("CONDITIONING", demo.negative),
        "control_net": ("CONTROL_NET", control_net),
        "image": ("IMAGE", image),
        **sources,
    }
    outputs = [("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    if kind == "ACN_AdvancedControlNetApply":
        inputs |= {"model_optional": ("MODEL", None)}
        outputs.append(("model_opt", "MODEL"))
    number = graph.node(kind, widgets, inputs, outputs)
    return (number, 0), (number, 1)


def ours(batch: int = 2, hint: dict[str, Any] | None = None, **more: dict[str, Any]) -> dict[str, Any]:
    """A prompt with the picture of the node "applied", which `more` has."""
    return {
        "world": prompt_node("ControlComposerDemoWorld"),
        "positive": prompt_node("ControlComposerDemoPrompt", world=("world", 2), text=WORDS),
        "negative": prompt_node("ControlComposerDemoPrompt", world=("world", 2), text=""),
        "latent": prompt_node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=batch),
        "scene": prompt_node("ControlComposerDemoScene", seed=19),
        "hint": hint or prompt_node("Canny", image=("scene", 0), low_threshold=0.4, high_threshold=0.8),
        "load": prompt_node("ControlComposerLoad", control_net_name=EDGES),
        **more,
        "sampled": prompt_node(
            "KSampler",
            model=("world", 0),
            positive=("applied", 0),
            negative=("applied", 1),
            latent_image=("latent", 0),
            seed=1,
            steps=STEPS,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "decoded": prompt_node("VAEDecode", samples=("sampled", 0), vae=("world", 1)),
        "saved": prompt_node("SaveImage", TITLE, images=("decoded", 0), filename_prefix="ours"),
    }


def applied(**inputs: Any) -> dict[str, Any]:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "uncond_strength": 1.0}
    conditions = {"positive": ("positive", 0), "negative": ("negative", 0)}
    sources = {"control_net": ("load", 0), "image": ("hint", 0)}
    return prompt_node("ControlComposerApply", **(settings | conditions | sources | inputs))


Graph = tuple[dict[str, Any], dict[str, Any]]
