"""Graphs of Advanced-ControlNet on the demo world, as their users saved them, and prompts of ours that mean the same."""

from __future__ import annotations

from control_composer.tests.server.foreign_parts import (
    Graph,
    applied,
    apply,
    begun,
    canny,
    ended,
    keyframes,
    loader,
    ours,
)
from control_composer.tests.server.saved import Saved, Slot, prompt_node, subgraph


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
