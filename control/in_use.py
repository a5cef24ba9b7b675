"""The models that a run uses, for who must load another one in between."""

from __future__ import annotations

from typing import Any

import comfy.model_management


def models_in_use() -> list[Any]:
    """The host's patchers of this run, to be given to `load_models_gpu` afterwards.

    The host lists None for a patcher that is gone while its module is not, and cannot load that.
    """
    found = comfy.model_management.loaded_models(only_currently_used=True)
    return [patcher for patcher in found if patcher is not None]
