"""What training attends with, beside what the host does."""

import pytest
import torch

pytest.importorskip("comfy")
import comfy.ldm.modules.attention as host

from control_composer.training.copy import trainable_copy
from control_composer.training.forward import controlled

from .bases import SMALL, inputs, make_unet


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_host_may_attend_without_a_gradient(monkeypatch, checkpointing):
    unet = make_unet("sd1", **SMALL)
    made = inputs(unet)
    control = trainable_copy(unet, start="gaussian")
    control.gradient_checkpointing = checkpointing

    def computed():
        control.zero_grad()
        predicted = controlled(unet, control, **made, checkpointing=checkpointing)
        predicted.square().mean().backward()
        gradients = [parameter.grad.clone() for parameter in control.parameters()]
        with torch.no_grad():
            return [predicted.detach(), *gradients], controlled(unet, control, **made)

    plain, drawn = computed()

    @host.wrap_attn
    def without_gradient(q, k, v, heads, **_):
        return torch.zeros_like(q)

    monkeypatch.setattr(host, "optimized_attention", without_gradient)
    same, drawn_by_the_host = computed()
    assert all(torch.equal(one, other) for one, other in zip(plain, same, strict=True))
    assert not torch.allclose(drawn, drawn_by_the_host, atol=1e-3)
