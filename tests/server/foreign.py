"""Graphs of other packs on the demo world: the workflow as their users saved it, and a prompt of ours that means the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control_composer.tests.server.saved import Saved, Slot, prompt_node, subgraph

EDGES = "control_composer_demo_edges.safetensors"
WORDS = "a yellow star and a large red cross on a blue ground"
STEPS = 4
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
    latent = graph.node("EmptyLatentImage", [128, 128, batch], outputs=[("LATENT", "LATENT")])
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


# ---- what they mean, in our nodes or the host's ----


def ours(batch: int = 2, hint: dict[str, Any] | None = None, **more: dict[str, Any]) -> dict[str, Any]:
    """A prompt with the picture of the node "applied", which `more` has."""
    return {
        "world": prompt_node("ControlComposerDemoWorld"),
        "positive": prompt_node("ControlComposerDemoPrompt", world=("world", 2), text=WORDS),
        "negative": prompt_node("ControlComposerDemoPrompt", world=("world", 2), text=""),
        "latent": prompt_node("EmptyLatentImage", width=128, height=128, batch_size=batch),
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


def soft_weights_at_the_loader() -> Graph:
    """The most shared: soft weights to the loader, and a stock Apply node. The weights node of before May 2024 had two widgets."""
    graph = Saved()
    demo = begun(graph)
    weights = graph.node(
        "ScaledSoftControlNetWeights",
        [0.825, False],
        outputs=[("CN_WEIGHTS", "CONTROL_NET_WEIGHTS"), ("TK_SHORTCUT", "TIMESTEP_KEYFRAME")],
    )
    control_net = loader(graph, timestep_keyframe=(weights, 1))
    ends = apply(graph, demo, control_net, canny(graph, demo), [0.9, 0, 0.8], "ControlNetApplyAdvanced")
    return ended(graph, demo, *ends), ours(
        soft=prompt_node("ControlComposerSoftWeights", base=0.825, ladder="power"),
        applied=applied(strength=0.9, end_percent=0.8, weights=("soft", 0)),
    )


def two_strengths() -> Graph:
    """Keyframes with a switch as their last widget, as before May 2024, in a group."""
    graph = Saved()
    demo = begun(graph)
    first = keyframes(graph, [0, 1.2, 0, True, True])
    second = keyframes(graph, [0.4, 0.3, 0, True, True], prev_timestep_keyframe=first)
    graph.group("Keyframes")
    ends = apply(
        graph,
        demo,
        loader(graph),
        canny(graph, demo),
        [1, 0, 1],
        timestep_kf=("TIMESTEP_KEYFRAME", second),
    )
    return ended(graph, demo, *ends), ours(
        schedule=prompt_node(
            "ControlComposerStrengthKeyframes", keyframes="1.2@0, 0.3@0.4 hold", axis="percent", between="hold"
        ),
        applied=applied(schedule=("schedule", 0)),
    )


def strengths_of_pictures() -> Graph:
    """Latent keyframes in a chain, the other pictures at null_latent_kf_strength, through a reroute."""
    graph = Saved()
    demo = begun(graph, batch=3)
    latents: Slot | None = None
    for place, strength in ((0, 1.0), (-1, 0.4)):
        number = graph.node(
            "LatentKeyframe",
            [place, strength],
            {"prev_latent_keyframe": ("LATENT_KEYFRAME", latents)},
            [("LATENT_KF", "LATENT_KEYFRAME")],
        )
        latents = (number, 0)
    reroute = graph.node(
        "Reroute",
        [],
        {"": ("*", latents)},
        [("LATENT_KEYFRAME", "LATENT_KEYFRAME")],
        properties={"showOutputText": True, "horizontal": False},
    )
    frame = keyframes(graph, [0, 1, 0.1, True, 1], latent_keyframe=(reroute, 0))
    ends = apply(graph, demo, loader(graph), canny(graph, demo), [1, 0, 1], timestep_kf=("TIMESTEP_KEYFRAME", frame))
    return ended(graph, demo, *ends), ours(
        batch=3,
        strengths=prompt_node("ControlComposerImageStrengths", strengths="1, 0.1, 0.4", policy="error"),
        applied=applied(schedule=("strengths", 0)),
    )


def weights_and_a_mask() -> Graph:
    """Own weights of each block in place of all others, and a mask; the model goes through the Apply node."""
    graph = Saved()
    demo = begun(graph)
    numbers = [round(0.1 * index, 1) for index in range(13)]
    weights = graph.node(
        "CustomControlNetWeights",
        [*numbers, False],
        outputs=[("CN_WEIGHTS", "CONTROL_NET_WEIGHTS"), ("TK_SHORTCUT", "TIMESTEP_KEYFRAME")],
    )
    white, black = (graph.node("SolidMask", [value, 128, 128], outputs=[("MASK", "MASK")]) for value in (1.0, 0.0))
    half = graph.node(
        "MaskComposite",
        [64, 0, "add"],
        {"destination": ("MASK", (black, 0)), "source": ("MASK", (white, 0))},
        [("MASK", "MASK")],
    )
    ends = apply(
        graph,
        demo,
        loader(graph),
        canny(graph, demo),
        [1, 0, 1],
        mask_optional=("MASK", (half, 0)),
        weights_override=("CONTROL_NET_WEIGHTS", (weights, 0)),
    )
    return ended(graph, demo, *ends), ours(
        white=prompt_node("SolidMask", value=1.0, width=128, height=128),
        black=prompt_node("SolidMask", value=0.0, width=128, height=128),
        half=prompt_node("MaskComposite", destination=("black", 0), source=("white", 0), x=64, y=0, operation="add"),
        weights=prompt_node("ControlComposerBlockWeights", values=", ".join(map(str, numbers))),
        applied=applied(weights=("weights", 0), mask=("half", 0)),
    )


def the_conditional_branch_only() -> Graph:
    """The newer ids, of which the keyframe's schedule is a row of numbers from a list of strengths, and the unconditional branch left alone."""
    graph = Saved(old=False)
    demo = begun(graph)
    weights = graph.node(
        "ACN_ScaledSoftControlNetWeights",
        [0.7, 0],
        {"cn_extras": ("CN_WEIGHTS_EXTRAS", None)},
        outputs=[("CN_WEIGHTS", "CONTROL_NET_WEIGHTS"), ("TK_SHORTCUT", "TIMESTEP_KEYFRAME")],
    )
    control_net = loader(graph, "ACN_ControlNetLoaderAdvanced", _tk_opt=(weights, 1))
    ends = apply(graph, demo, control_net, canny(graph, demo), [1, 0, 1], "ACN_AdvancedControlNetApply_v2")
    return ended(graph, demo, *ends), ours(
        soft=prompt_node("ControlComposerSoftWeights", base=0.7, ladder="power"),
        applied=applied(uncond_strength=0.0, weights=("soft", 0)),
    )


def interpolation_in_a_subgraph() -> Graph:
    """The newer format: loader, keyframes and Apply node in a subgraph."""
    inner = Saved(old=False)
    frames = inner.node(
        "ACN_TimestepKeyframeInterpolation",
        [0, 0.8, 1.5, 0.2, "ease-in", 3, 0, True, False],
        {"prev_timestep_kf": ("TIMESTEP_KEYFRAME", None)},
        [("TIMESTEP_KF", "TIMESTEP_KEYFRAME")],
    )
    control_net = loader(inner, "ACN_ControlNetLoaderAdvanced")
    number = inner.node(
        "ACN_AdvancedControlNetApply_v2",
        [1, 0, 1],
        {
            "positive": ("CONDITIONING", None),
            "negative": ("CONDITIONING", None),
            "control_net": ("CONTROL_NET", control_net),
            "image": ("IMAGE", None),
            "timestep_kf": ("TIMESTEP_KEYFRAME", (frames, 0)),
        },
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
    )
    graph = Saved(old=False)
    demo = begun(graph)
    hint = canny(graph, demo)
    definition = subgraph(
        "Keyframed control",
        inner,
        [
            ("positive", "CONDITIONING", (number, 0)),
            ("negative", "CONDITIONING", (number, 1)),
            ("image", "IMAGE", (number, 3)),
        ],
        [("positive", "CONDITIONING", (number, 0)), ("negative", "CONDITIONING", (number, 1))],
    )
    graph.subgraphs.append(definition)
    outer = graph.node(
        definition["id"],
        [],
        {
            "positive": ("CONDITIONING", demo.positive),
            "negative": ("CONDITIONING", demo.negative),
            "image": ("IMAGE", hint),
        },
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
    )
    return ended(graph, demo, (outer, 0), (outer, 1)), ours(
        # 1.5 - 1.3 · 0.5² halfway
        schedule=prompt_node(
            "ControlComposerStrengthKeyframes",
            keyframes="1.5@0, 1.175@0.4 hold, 0.2@0.8 hold",
            axis="percent",
            between="hold",
        ),
        applied=applied(schedule=("schedule", 0)),
    )


def aux_canny(kind: str = "CannyEdgePreprocessor") -> Graph:
    graph = Saved()
    demo = begun(graph)
    hint = graph.node(kind, [60, 120, 128], {"image": ("IMAGE", demo.scene)}, [("IMAGE", "IMAGE")])
    control_net = graph.node("ControlNetLoader", [EDGES], {}, [("CONTROL_NET", "CONTROL_NET")])
    ends = apply(graph, demo, (control_net, 0), (hint, 0), [1, 0, 0.7], "ControlNetApplyAdvanced")
    return ended(graph, demo, *ends), ours(
        hint=prompt_node(
            "ControlComposerCanny", image=("scene", 0), low=60, high=120, resolution=128, as_controlnet_aux=True
        ),
        applied=applied(end_percent=0.7),
    )


def aux_all_in_one() -> Graph:
    """AIO_Preprocessor as it was before it had a resolution, whose widget is fed by a primitive in the newer one of the two."""
    graph = Saved()
    demo = begun(graph)
    primitive = graph.node("PrimitiveNode", [128, "fixed"], {}, [("INT", "INT")], title="Resolution")
    first = graph.node("AIO_Preprocessor", ["none"], {"image": ("IMAGE", demo.scene)}, [("IMAGE", "IMAGE")])
    hint = graph.node(
        "AIO_Preprocessor",
        ["ScribblePreprocessor", 512],
        {"image": ("IMAGE", (first, 0)), "resolution": ("INT", (primitive, 0))},
        [("IMAGE", "IMAGE")],
        widget_inputs=["resolution"],
    )
    graph.nodes[primitive - 1]["outputs"][0]["widget"] = {"name": "resolution"}
    control_net = graph.node("ControlNetLoader", [EDGES], {}, [("CONTROL_NET", "CONTROL_NET")])
    ends = apply(graph, demo, (control_net, 0), (hint, 0), [0.8, 0, 1], "ControlNetApplyAdvanced")
    return ended(graph, demo, *ends), ours(
        hint=prompt_node("ControlComposerScribble", image=("scene", 0), resolution=128, as_controlnet_aux=True),
        applied=applied(strength=0.8),
    )


def aux_sized_hint() -> Graph:
    """PixelPerfectResolution and HintImageEnchance around Canny, in a group; the preprocessor has a setting that our node calls differently."""
    graph = Saved()
    demo = begun(graph)
    sized = graph.node(
        "HintImageEnchance",
        [128, 128, "Resize and Fill"],
        {"hint_image": ("IMAGE", demo.scene)},
        [("IMAGE", "IMAGE")],
    )
    resolution = graph.node(
        "PixelPerfectResolution",
        [128, 128, "Just Resize"],
        {"original_image": ("IMAGE", (sized, 0))},
        [("RESOLUTION (INT)", "INT")],
    )
    hint = graph.node(
        "Scribble_XDoG_Preprocessor",
        [24, 512],
        {"image": ("IMAGE", (sized, 0)), "resolution": ("INT", (resolution, 0))},
        [("IMAGE", "IMAGE")],
        widget_inputs=["resolution"],
    )
    graph.group("Hint")
    control_net = graph.node("ControlNetLoader", [EDGES], {}, [("CONTROL_NET", "CONTROL_NET")])
    ends = apply(graph, demo, (control_net, 0), (hint, 0), [1, 0, 1], "ControlNetApplyAdvanced")
    return ended(graph, demo, *ends), ours(
        hint=prompt_node(
            "ControlComposerXDoG", image=("scene", 0), threshold=24, resolution=128, as_controlnet_aux=True
        ),
        applied=applied(),
    )


def stock_single() -> Graph:
    """The old stock Apply node on the positive conditioning only: the host gives the control to the negative one too."""
    graph = Saved()
    demo = begun(graph)
    control_net = graph.node("ControlNetLoader", [EDGES], {}, [("CONTROL_NET", "CONTROL_NET")])
    number = graph.node(
        "ControlNetApply",
        [0.8],
        {
            "conditioning": ("CONDITIONING", demo.positive),
            "control_net": ("CONTROL_NET", (control_net, 0)),
            "image": ("IMAGE", canny(graph, demo)),
        },
        [("CONDITIONING", "CONDITIONING")],
    )
    return ended(graph, demo, (number, 0), demo.negative), ours(applied=applied(strength=0.8))


def stock_in_a_row() -> Graph:
    """Two stock Apply nodes around one of ours, with a stock and with our loader."""
    graph = Saved(old=False)
    demo = begun(graph)
    hint = canny(graph, demo)
    stock = graph.node("ControlNetLoader", [EDGES], {}, [("CONTROL_NET", "CONTROL_NET")])
    load = graph.node(
        "ControlComposerLoad", [EDGES, "auto"], {}, [("control_net", "CONTROL_NET"), ("description", "STRING")]
    )
    ends = demo.positive, demo.negative
    for kind, source, widgets in (
        ("ControlNetApplyAdvanced", load, [0.4, 0, 1]),
        ("ControlComposerApply", stock, [0.3, 0, 1, 1]),
        ("ControlNetApplyAdvanced", load, [0.2, 0.25, 1]),
    ):
        number = graph.node(
            kind,
            widgets,
            {
                "positive": ("CONDITIONING", ends[0]),
                "negative": ("CONDITIONING", ends[1]),
                "control_net": ("CONTROL_NET", (source, 0)),
                "image": ("IMAGE", hint),
            },
            [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
        )
        ends = (number, 0), (number, 1)
    return ended(graph, demo, *ends), ours(
        stock=prompt_node("ControlNetLoader", control_net_name=EDGES),
        first=applied(strength=0.4),
        second=applied(strength=0.3, control_net=("stock", 0), positive=("first", 0), negative=("first", 1)),
        applied=applied(strength=0.2, start_percent=0.25, positive=("second", 0), negative=("second", 1)),
    )


FOREIGN: dict[str, Callable[[], Graph]] = {
    build.__name__: build
    for build in (
        soft_weights_at_the_loader,
        two_strengths,
        strengths_of_pictures,
        weights_and_a_mask,
        the_conditional_branch_only,
        interpolation_in_a_subgraph,
        aux_canny,
        aux_all_in_one,
        aux_sized_hint,
        stock_single,
        stock_in_a_row,
    )
}
REPLACES = [name for name in FOREIGN if not name.startswith("stock")]
"""Those with nodes that this host has not."""
