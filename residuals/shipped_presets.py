"""The presets that come with the pack: numbers that others have published, each with who says so.

A name stands in saved workflows: a name and its numbers stay as they are, and what changes gets a new name.
"""

from __future__ import annotations

from .block_values import ListedWeights
from .layer_preset import ANY, LayerPreset, Settings
from .presets import PRESETS
from .schedules import Keyframe, Keyframes
from .weights import SoftWeights

KRITA = "krita-ai-diffusion, presets/control.json"
STOPS = {"loose": "the first", "middle": "the middle one, its default,", "strict": "the last"}
WEBUI = "sd-webui-controlnet"
INVOKE = "InvokeAI, control mode"
GUESS = SoftWeights(ladder="logspace")
SOFT, PAPER = PRESETS["My prompt is more important"], PRESETS["CFG resolution weighting"]


def krita(
    condition: str, strength: float = 1.0, end: float = 0.8, base: str = ANY, stop: str = "middle"
) -> LayerPreset:
    """A stop of krita's slider; "loose" and "strict" are our words for its ends."""
    words = [condition if condition != ANY else "any control", *([base] if base != ANY else ())]
    return LayerPreset(
        f"krita: {', '.join((*words, *([stop] if stop != 'middle' else ())))}",
        Settings(strength, end_percent=end),
        condition,
        base,
        f"{KRITA}, {STOPS[stop]} of the three stops of its slider",
    )


SHIPPED: tuple[LayerPreset, ...] = (
    *(
        krita(condition)
        for condition in ("canny", "depth", "pose", "soft edge", "normal", "blur", "segmentation", "hands")
    ),
    krita("scribble", base="SD1.5"),
    krita("scribble", 0.7, 0.7, "SDXL"),
    krita("scribble", 0.4, 0.5, "SDXL", "loose"),
    krita("scribble", 1.0, 0.8, "SDXL", "strict"),
    krita("line art", base="SD1.5"),
    krita("line art", 0.7, 0.8, "SDXL"),
    krita("line art", 0.5, 0.5, "SDXL", "loose"),
    krita("line art", 1.0, 1.0, "SDXL", "strict"),
    krita(ANY, 0.7, 0.5, stop="loose"),
    krita(ANY, 1.0, 1.0, stop="strict"),
    LayerPreset("krita: inpaint", condition="inpaint", source="krita-ai-diffusion, workflow.py, inpaint_control"),
    LayerPreset("A1111: Balanced", source=f"{WEBUI}, control mode"),
    LayerPreset(
        "A1111: My prompt is more important",
        Settings(weights=SOFT.weights),
        source=f"{WEBUI}, control mode; the ladder 0.825 is that of the guess mode of lllyasviel/ControlNet",
    ),
    LayerPreset(
        "A1111: My prompt is more important, T2I-Adapter",
        Settings(weights=ListedWeights((0.25, 0.62, 0.825, 1.0))),
        base="SD1.5",
        source=f"{WEBUI}, control mode, for the four features of a T2I-Adapter (its issue 269)",
    ),
    LayerPreset("A1111: ControlNet is more important", Settings(uncond_strength=0.0), source=f"{WEBUI}, control mode"),
    *(
        LayerPreset(
            f"A1111: {condition}, second pass",
            Settings(weights=SOFT.weights),
            condition,
            source=f"{WEBUI}, which makes this condition soft in a hires pass",
        )
        for condition in ("canny", "straight lines")
    ),
    LayerPreset("InvokeAI: more prompt", Settings(weights=GUESS), source=INVOKE),
    LayerPreset("InvokeAI: more control", Settings(uncond_strength=0.0, weights=GUESS), source=INVOKE),
    LayerPreset("InvokeAI: unbalanced", Settings(uncond_strength=0.0), source=INVOKE),
    LayerPreset(
        "diffusers: guess mode",
        Settings(uncond_strength=0.0, weights=GUESS),
        source="diffusers, guess_mode of the ControlNet pipelines",
    ),
    *(
        LayerPreset(
            f"diffusers: {condition}, SDXL",
            Settings(0.5),
            condition,
            "SDXL",
            f'diffusers, example of controlnet-{condition}-sdxl-1.0: "recommended for good generalization"',
        )
        for condition in ("canny", "depth")
    ),
    LayerPreset(
        "diffusers: depth from Marigold, SDXL",
        # diffusers counts the end in steps.
        Settings(0.7, schedule=Keyframes((Keyframe(0.0, 1.0), Keyframe(0.7, 0.0, "hold")), "step")),
        "depth",
        "SDXL",
        "diffusers, documentation of Marigold: conditioning scale 0.7, until 0.7 of the steps",
    ),
    LayerPreset(
        "diffusers: T2I-Adapter, one of two, SDXL",
        Settings(0.7),
        base="SDXL",
        source="diffusers, documentation of T2I-Adapter, canny and depth together",
    ),
    LayerPreset(
        "diffusers: T2I-Adapter with LCM, SDXL",
        Settings(0.8),
        base="SDXL",
        source="diffusers, documentation of LCM, canny T2I-Adapter",
    ),
    LayerPreset("xinsir: tile, SDXL", condition="tile", base="SDXL", source="card of xinsir/controlnet-tile-sdxl-1.0"),
    LayerPreset(
        "paper: CFG resolution weighting",
        Settings(uncond_strength=PAPER.uncond_strength, weights=PAPER.weights),
        source="arXiv 2302.05543, section 3.4: conditional branch only, 64 / h; divided by the largest here",
    ),
)

BY_NAME = {preset.name: preset for preset in SHIPPED}
