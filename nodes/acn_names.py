"""Advanced-ControlNet's nodes (1.5.8 and the versions before it since August 2023): their widgets in the order in which workflows save them, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "ControlComposerAcn"
OUTPUTS = tuple(f"output_{index}" for index in range(12))
OLD_WEIGHTS = tuple(f"weight_{index:02}" for index in range(13))
FEATURES = tuple(f"input_{index}" for index in range(4))
RANGE = ("strength", "start_percent", "end_percent")
TIMESTEPS = {"prev_timestep_kf": "prev_timestep_kf", "prev_timestep_keyframe": "prev_timestep_kf"}
LATENTS = {"prev_latent_kf": "prev_latent_kf", "prev_latent_keyframe": "prev_latent_kf"}
FILE = {"cnet": "control_net_name", "control_net_name": "control_net_name"}
LOADER_TIMESTEPS = {"_tk_opt": "timestep_kf", "tk_optional": "timestep_kf", "timestep_keyframe": "timestep_kf"}
EXTRAS = {"cn_extras": "cn_extras"}
KEYFRAME = {
    **TIMESTEPS,
    "cn_weights": "cn_weights",
    "control_net_weights": "cn_weights",
    "t2i_adapter_weights": "cn_weights",
    "latent_keyframe": "latent_keyframe",
    "mask_optional": "mask_optional",
}
APPLY = {
    name: name
    for name in (
        "control_net",
        "image",
        "mask_optional",
        "timestep_kf",
        "latent_kf_override",
        "weights_override",
        "model_optional",
        "vae_optional",
    )
}


@dataclass(frozen=True)
class Old:
    """`id` becomes our node `new`, output by output.

    `widgets` are the old settings in the order of `widgets_values`; `sockets` the other inputs by their names then: ours, with those that versions
    of the pack named differently. `renamed` are the settings that have another name here; None for those that nothing here depends on.
    """

    id: str
    new: str
    widgets: tuple[str, ...] = ()
    sockets: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str | None] = field(default_factory=dict)
    outputs: int = 1

    @property
    def inputs(self) -> dict[str, str]:
        """Every old input that goes over: ours."""
        named = {name: self.renamed.get(name, name) for name in self.widgets}
        return {**self.sockets, **{old: ours for old, ours in named.items() if ours is not None}}


def acn(name: str) -> str:
    return PREFIX + name


def both(old: str, prefixed: str, new: str, widgets: tuple[str, ...], sockets: Mapping[str, str]) -> tuple[Old, Old]:
    """A loader with its old and its new id."""
    renamed = {"cnet": "control_net_name"}
    return (
        Old(old, acn(new), tuple("control_net_name" if name == "cnet" else name for name in widgets), sockets),
        Old(prefixed, acn(new), widgets, sockets, renamed),
    )


NODES: tuple[Old, ...] = (
    *both("ControlNetLoaderAdvanced", "ACN_ControlNetLoaderAdvanced", "Loader", ("cnet",), LOADER_TIMESTEPS),
    *both(
        "DiffControlNetLoaderAdvanced",
        "ACN_DiffControlNetLoaderAdvanced",
        "DiffLoader",
        ("cnet",),
        {"model": "model", **LOADER_TIMESTEPS},
    ),
    *(
        Old(
            name,
            acn("Apply"),
            RANGE,
            {"positive": "positive", "negative": "negative", **APPLY},
            outputs=3,
        )
        for name in ("ACN_AdvancedControlNetApply", "ACN_AdvancedControlNetApply_v2")
    ),
    *(
        Old(name, acn("ApplySingle"), RANGE, {"conditioning": "conditioning", **APPLY}, outputs=2)
        for name in ("ACN_AdvancedControlNetApplySingle", "ACN_AdvancedControlNetApplySingle_v2")
    ),
    Old("ACN_DefaultUniversalWeights", acn("DefaultWeights"), (), EXTRAS, outputs=2),
    Old(
        "ScaledSoftControlNetWeights",
        acn("ScaledSoftWeights"),
        ("base_multiplier", "flip_weights", "uncond_multiplier"),
        EXTRAS,
        outputs=2,
    ),
    Old(
        "ACN_ScaledSoftControlNetWeights",
        acn("ScaledSoftWeights"),
        ("base_multiplier", "uncond_multiplier"),
        EXTRAS,
        outputs=2,
    ),
    Old(
        "ScaledSoftMaskedUniversalWeights",
        acn("ScaledSoftMaskedWeights"),
        ("min_base_multiplier", "max_base_multiplier", "uncond_multiplier"),
        {"mask": "mask", **EXTRAS},
        outputs=2,
    ),
    *(
        Old(
            f"{kind}ControlNetWeights",
            acn(f"{kind}ControlNetWeights"),
            (*OLD_WEIGHTS, "flip_weights", "uncond_multiplier"),
            EXTRAS,
            dict(zip(OLD_WEIGHTS, (*OUTPUTS, "middle_0"), strict=True)),
            outputs=2,
        )
        for kind in ("Soft", "Custom")
    ),
    *(
        Old(
            f"ACN_{kind}ControlNetWeightsSD15",
            acn(f"{kind}ControlNetWeights"),
            (*OUTPUTS, "middle_0", "uncond_multiplier"),
            EXTRAS,
            outputs=2,
        )
        for kind in ("Soft", "Custom")
    ),
    *(
        Old(
            f"{kind}T2IAdapterWeights",
            acn(f"{kind}AdapterWeights"),
            (*OLD_WEIGHTS[:4], "flip_weights", "uncond_multiplier"),
            EXTRAS,
            dict(zip(OLD_WEIGHTS[:4], FEATURES, strict=True)),
            outputs=2,
        )
        for kind in ("Soft", "Custom")
    ),
    *(
        Old(
            f"ACN_{kind}T2IAdapterWeights",
            acn(f"{kind}AdapterWeights"),
            (*FEATURES, "uncond_multiplier"),
            EXTRAS,
            outputs=2,
        )
        for kind in ("Soft", "Custom")
    ),
    Old("ACN_ExtrasMiddleMult", acn("MiddleExtras"), ("middle_mult",), EXTRAS),
    Old(
        "TimestepKeyframe",
        acn("TimestepKeyframe"),
        # Before May 2024 the last was guarantee_usage, a switch; on and off are 1 and 0 steps.
        ("start_percent", "strength", "null_latent_kf_strength", "inherit_missing", "guarantee_steps"),
        KEYFRAME,
    ),
    Old(
        "ACN_TimestepKeyframeInterpolation",
        acn("TimestepInterpolation"),
        (
            "start_percent",
            "end_percent",
            "strength_start",
            "strength_end",
            "interpolation",
            "intervals",
            "null_latent_kf_strength",
            "inherit_missing",
            "print_keyframes",
        ),
        KEYFRAME,
    ),
    Old(
        "ACN_TimestepKeyframeFromStrengthList",
        acn("TimestepList"),
        ("start_percent", "end_percent", "null_latent_kf_strength", "inherit_missing", "print_keyframes"),
        {"float_strengths": "float_strengths", **KEYFRAME},
    ),
    Old("LatentKeyframe", acn("LatentKeyframe"), ("batch_index", "strength"), LATENTS),
    Old(
        "LatentKeyframeGroup",
        acn("LatentGroup"),
        ("index_strengths", "print_keyframes"),
        {**LATENTS, "latent_optional": "latent_optional", "latent_image_opt": "latent_optional"},
    ),
    Old(
        "LatentKeyframeTiming",
        acn("LatentInterpolation"),
        ("batch_index_from", "batch_index_to_excl", "strength_from", "strength_to", "interpolation", "print_keyframes"),
        LATENTS,
    ),
    Old(
        "LatentKeyframeBatchedGroup",
        acn("LatentList"),
        ("print_keyframes",),
        {"float_strengths": "float_strengths", "strengths": "float_strengths", **LATENTS},
    ),
    Old("ACN_ReferenceControlNet", acn("Reference"), ("reference_type", "style_fidelity", "ref_weight")),
    Old(
        "ACN_ReferenceControlNetFinetune",
        acn("ReferenceFinetune"),
        tuple(f"{part}_{name}" for part in ("attn", "adain") for name in ("style_fidelity", "ref_weight", "strength")),
    ),
    Old(
        "ACN_ReferencePreprocessor",
        acn("ReferencePreprocessor"),
        (),
        {name: name for name in ("image", "vae", "latent_size")},
    ),
    Old(
        "ACN_SparseCtrlRGBPreprocessor", acn("RGBSparse"), (), {name: name for name in ("image", "vae", "latent_size")}
    ),
    Old(
        "ACN_SparseCtrlLoaderAdvanced",
        acn("SparseLoader"),
        (
            "sparsectrl_name",
            "use_motion",
            "motion_strength",
            "motion_scale",
            "context_aware",
            "sparse_hint_mult",
            "sparse_nonhint_mult",
            "sparse_mask_mult",
        ),
        {"sparse_method": "sparse_method", "tk_optional": "timestep_kf"},
        {"sparsectrl_name": "control_net_name"},
    ),
    Old("ACN_SparseCtrlIndexMethodNode", acn("SparseIndex"), ("indexes",)),
    Old("ACN_SparseCtrlSpreadMethodNode", acn("SparseSpread"), ("spread",)),
    Old(
        "ACN_ControlNet++LoaderSingle",
        acn("UnionLoader"),
        ("name", "control_type"),
        renamed={"name": "control_net_name"},
    ),
    Old(
        "ACN_CtrLoRALoader",
        "ControlComposerLoad",
        ("base", "lora"),
        renamed={"base": "base_name", "lora": "control_net_name"},
    ),
)

WITHOUT: Mapping[str, str] = {
    "ACN_ControlNet++LoaderAdvanced": "several typed pictures: take Union Control Layer",
    "ACN_ControlNet++InputNode": "several typed pictures: take Union Hint",
    "ACN_SparseCtrlMergedLoaderAdvanced": "a SparseCtrl's motion modules in another control",
    "ACN_SparseCtrlWeightExtras": "factors inside of SparseCtrl, which runs here as it was trained",
    "ACN_CustomControlNetWeightsFlux": "weights for the 19 blocks of Flux: take Block Weights",
    "ACN_CustomControlNetWeightsAnima": "weights for the 28 blocks of Anima",
    "ACN_AnimaLLLiteLoaderAdvanced": "LLLite for Anima, which the host loads as a model patch",
    "ACN_AnimaLLLiteExtras": "LLLite for Anima",
    "LoadImagesFromDirectory": "no control: take the host's folder loader",
}
"""Its nodes that nothing here takes the place of, and what they are or what to take."""
