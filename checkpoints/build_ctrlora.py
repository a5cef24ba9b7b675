"""The host's ControlNet without its hint network, with the weights of a CtrLoRA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .build import build_encoder
from .ctrlora import merged_weights
from .family import Built, Match


def build_ctrlora(match: Match, tensors: Mapping[str, Tensor]) -> Built:
    """A `comfy.cldm.cldm.ControlNet` without `input_hint_block`, differences added to its weights."""
    return build_encoder(match, merged_weights(tensors), diffusers=False, hint_network=False)
