"""Which models are loaded again after a hint went through a VAE."""

import pytest

pytest.importorskip("comfy")

import comfy.model_management

from control_composer.control.in_use import models_in_use
from control_composer.tests import narrow


def test_a_patcher_that_is_gone_is_left_out():
    """The host lists None for it while its module is alive, and fails to load that."""
    comfy.model_management.unload_all_models()
    module = narrow.make_module("sd1")
    control, other = narrow.make_ours(module, "SD1"), narrow.make_ours(narrow.make_module("sd1", 2), "SD1")
    comfy.model_management.load_models_gpu([control.network.patcher, other.network.patcher])
    del control
    assert None in comfy.model_management.loaded_models(only_currently_used=True)
    found = models_in_use()
    assert other.network.patcher in found and None not in found
    comfy.model_management.load_models_gpu(found)
