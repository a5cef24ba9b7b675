"""Prompts in API format with Advanced-ControlNet's ids, as scripts of 2023 send them: without titles, and without what was optional."""

from typing import Any

import numpy as np
import pytest

from control_composer.tests.server.foreign_parts import EDGES, TITLE, applied, ours
from control_composer.tests.server.saved import prompt_node

pytestmark = pytest.mark.server


def untitled(prompt: dict[str, Any]) -> dict[str, Any]:
    """Only what is ours or the host's keeps its title, by which the test finds the picture."""
    known = ("ControlComposer", "SaveImage", "KSampler")
    return {
        key: node if node["class_type"].startswith(known) else {name: node[name] for name in ("class_type", "inputs")}
        for key, node in prompt.items()
    }


def same(server: Any, old: dict[str, Any], meant: dict[str, Any]) -> None:
    found, wanted = (server.run(prompt).pictures[TITLE] for prompt in (untitled(old), meant))
    assert np.array_equal(found, wanted)


def acn_apply(**inputs: Any) -> dict[str, Any]:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    sources = {
        "positive": ("positive", 0),
        "negative": ("negative", 0),
        "control_net": ("load", 0),
        "image": ("hint", 0),
    }
    return prompt_node("ACN_AdvancedControlNetApply", **(settings | sources | inputs))


LOADER = prompt_node("ControlNetLoaderAdvanced", control_net_name=EDGES)


def test_keyframes_with_weights_masks_and_strengths_of_pictures(server: Any) -> None:
    """Settings that change together: until 40 % soft weights and half of the picture, then the second picture only."""
    mask = {
        "white": prompt_node("SolidMask", value=1.0, width=64, height=128),
        "black": prompt_node("SolidMask", value=0.0, width=128, height=128),
        "half": prompt_node("MaskComposite", destination=("black", 0), source=("white", 0), x=64, y=0, operation="add"),
    }
    old = ours(
        **mask,
        load=LOADER,
        soft=prompt_node("ScaledSoftControlNetWeights", base_multiplier=0.6, flip_weights=False),
        first=prompt_node(
            "TimestepKeyframe", start_percent=0.0, control_net_weights=("soft", 0), mask_optional=("half", 0)
        ),
        second_picture=prompt_node("LatentKeyframe", batch_index=1, strength=0.5),
        second=prompt_node(
            "TimestepKeyframe",
            start_percent=0.4,
            strength=0.8,
            inherit_missing=False,
            latent_keyframe=("second_picture", 0),
            prev_timestep_keyframe=("first", 0),
        ),
        applied=acn_apply(timestep_kf=("second", 0)),
    )
    layer = {
        "image": ("hint", 0),
        "control_net": ("load", 0),
        "start_percent": 0.0,
        "end_percent": 1.0,
        "uncond_strength": 1.0,
    }
    meant = ours(
        **mask,
        soft=prompt_node("ControlComposerSoftWeights", base=0.6, ladder="power"),
        before=prompt_node(
            "ControlComposerStrengthKeyframes", keyframes="1@0, 0@0.4 hold", axis="percent", between="hold"
        ),
        after=prompt_node(
            "ControlComposerStrengthKeyframes", keyframes="0@0, 0.8@0.4 hold", axis="percent", between="hold"
        ),
        pictures=prompt_node(
            "ControlComposerImageStrengths", strengths="0, 0.5", policy="error", schedule=("after", 0)
        ),
        one=prompt_node(
            "ControlComposerLayer", strength=1.0, weights=("soft", 0), mask=("half", 0), schedule=("before", 0), **layer
        ),
        two=prompt_node("ControlComposerLayer", strength=1.0, schedule=("pictures", 0), **layer),
        applied=prompt_node(
            "ControlComposerCompose",
            positive=("positive", 0),
            negative=("negative", 0),
            strength=1.0,
            **{"layers.layer0": ("one", 0), "layers.layer1": ("two", 0)},
        ),
    )
    same(server, old, meant)


def test_keyframes_closer_than_steps_have_a_step_each(server: Any) -> None:
    old = ours(
        load=LOADER,
        first=prompt_node("TimestepKeyframe", start_percent=0.02, strength=1.5),
        second=prompt_node("TimestepKeyframe", start_percent=0.03, strength=0.5, prev_timestep_kf=("first", 0)),
        third=prompt_node("TimestepKeyframe", start_percent=0.04, strength=0.0, prev_timestep_kf=("second", 0)),
        applied=acn_apply(timestep_kf=("third", 0)),
    )
    meant = ours(
        schedule=prompt_node(
            "ControlComposerStrengthKeyframes", keyframes="1, 1.5, 0.5, 0", axis="step", between="hold"
        ),
        applied=applied(schedule=("schedule", 0)),
    )
    same(server, old, meant)


def test_weights_that_get_their_base_from_a_mask(server: Any) -> None:
    """On an even mask they are Scaled Soft Weights; and the middle has a factor of its own."""
    old = ours(
        load=LOADER,
        even=prompt_node("SolidMask", value=0.3, width=128, height=128),
        middle=prompt_node("ACN_ExtrasMiddleMult", middle_mult=0.5),
        soft=prompt_node(
            "ScaledSoftMaskedUniversalWeights",
            mask=("even", 0),
            min_base_multiplier=0.2,
            max_base_multiplier=0.75,
            uncond_multiplier=0.5,
            cn_extras=("middle", 0),
        ),
        applied=acn_apply(weights_override=("soft", 0)),
    )
    meant = ours(
        soft=prompt_node("ControlComposerSoftWeights", base=0.75, ladder="power"),
        middle=prompt_node("ControlComposerBlockWeights", values='{"middle": 0.5}', weights=("soft", 0)),
        applied=applied(uncond_strength=0.5, weights=("middle", 0)),
    )
    found, wanted = (server.run(prompt).pictures[TITLE] for prompt in (untitled(old), meant))
    # 13 layers whose mask is the power of a number, against one: the last bit may differ.
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_the_single_apply_node_steers_both_branches(server: Any) -> None:
    single = {
        key: ("positive", 0) if key == "conditioning" else value
        for key, value in acn_apply()["inputs"].items()
        if key not in ("positive", "negative")
    }
    old = ours(
        load=LOADER, applied=prompt_node("ACN_AdvancedControlNetApplySingle", conditioning=("positive", 0), **single)
    )
    old["sampled"]["inputs"]["negative"] = ["negative", 0]
    same(server, old, ours(applied=applied()))


def test_what_cannot_be_is_said(server: Any) -> None:
    wrong = ours(
        load=LOADER,
        adapter=prompt_node(
            "SoftT2IAdapterWeights", weight_00=0.25, weight_01=0.62, weight_02=0.825, weight_03=1.0, flip_weights=False
        ),
        applied=acn_apply(weights_override=("adapter", 0)),
    )
    with pytest.raises(
        server.Failed, match=r"weights for a T2I-Adapter \(four numbers\) are connected, but this control has 13 blocks"
    ):
        server.run(untitled(wrong))
    reference = ours(
        load=prompt_node(
            "ACN_ReferenceControlNet", reference_type="reference_attn", style_fidelity=0.5, ref_weight=1.0
        ),
        applied=acn_apply(vae_optional=("world", 1)),
    )
    with pytest.raises(server.Failed, match="a Reference ControlNet that knows no model"):
        server.run(untitled(reference))
    carried = ours(
        tk=prompt_node("TimestepKeyframe", start_percent=0.0, strength=0.5),
        load=prompt_node("ControlNetLoaderAdvanced", control_net_name=EDGES, timestep_keyframe=("tk", 0)),
        applied=applied(),
    )
    with pytest.raises(server.Failed, match="control_net has timestep keyframes from its Load node"):
        server.run(untitled(carried))


def test_a_reference_learns_its_model_from_the_apply_node(server: Any) -> None:
    old = ours(
        load=prompt_node(
            "ACN_ReferenceControlNet", reference_type="reference_attn+adain", style_fidelity=0.5, ref_weight=1.0
        ),
        hint=prompt_node("ACN_ReferencePreprocessor", image=("scene", 0), vae=("world", 1), latent_size=("latent", 0)),
        applied=acn_apply(model_optional=("world", 0)),
    )
    old["sampled"]["inputs"]["model"] = ["applied", 2]
    meant = ours(
        load=prompt_node("ControlComposerReference", model=("world", 0), mode="attention + adain", style_fidelity=0.5),
        hint=prompt_node(
            "ImageScale", image=("scene", 0), upscale_method="nearest-exact", width=128, height=128, crop="disabled"
        ),
        applied=applied(vae=("world", 1)),
    )
    same(server, old, meant)
