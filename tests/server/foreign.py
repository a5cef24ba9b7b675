"""Graphs of other packs on the demo world: the workflow as their users saved it, and a prompt of ours that means the same."""

from __future__ import annotations

from collections.abc import Callable

from control_composer.tests.server.foreign_acn import (
    interpolation_in_a_subgraph,
    soft_weights_at_the_loader,
    strengths_of_pictures,
    the_conditional_branch_only,
    two_strengths,
    weights_and_a_mask,
)
from control_composer.tests.server.foreign_parts import EDGES, Graph, applied, apply, begun, canny, ended, ours
from control_composer.tests.server.saved import Saved, prompt_node


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
