"""The parts of the host's union network for its types of hint."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.cldm.cldm
import comfy.ops
from torch import Tensor

from .family import Built

PARTS = ("task_embedding", "transformer_layes", "spatial_ch_projs", "control_add_embedding")


def add_types(built: Built, control_types: int, tensors: Mapping[str, Tensor]) -> None:
    """Gives a plain ControlNet of the host the parts that the host's class makes for `control_types` types, with these weights.

    One of these classes is local to the host's constructor, so the parts are taken out of the smallest network that has them.
    """
    smallest = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=1,
        model_channels=built.module.model_channels,
        hint_channels=1,
        num_res_blocks=[1],
        channel_mult=[1],
        num_heads=1,
        use_spatial_transformer=True,
        transformer_depth=[0],
        transformer_depth_middle=-1,
        context_dim=1,
        legacy=False,
        union_controlnet_num_control_type=control_types,
        dtype=built.dtype,
        device=built.offload_device,
        operations=comfy.ops.pick_operations(built.dtype, built.manual_cast_dtype),
    )
    for part in PARTS:
        setattr(built.module, part, getattr(smallest, part))
    built.module.num_control_type = control_types
    found = built.module.load_state_dict(dict(tensors), strict=False)
    assert not found.unexpected_keys, "the shapes were compared before"
    built.module.requires_grad_(False).eval()
