"""The hint network in training, beside its own layers one by one."""

import pytest
import torch
from torch import nn

from control_composer.training.hint_network import embed


def layers():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 12, 3, 2, padding=1),
        nn.SiLU(),
        nn.Conv2d(12, 6, 3, padding=1),
    )


def gradients(network, compute, precision):
    hint = torch.rand(2, 3, 10, 14, generator=torch.Generator().manual_seed(1))
    network.zero_grad()
    kept = []
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        out = compute(hint)
    (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return out, {name: p.grad for name, p in network.named_parameters()}, kept


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_gives_and_learns_what_its_layers_do_and_keeps_less(precision):
    network = layers()
    wanted, wanted_gradients, kept = gradients(network, network, precision)
    found, found_gradients, kept_less = gradients(network, lambda hint: embed(network, hint), precision)
    assert found.is_contiguous() and found.dtype == wanted.dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == "fp32" else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found, wanted, **tolerance)
    assert all(gradient.is_contiguous() for gradient in found_gradients.values())
    torch.testing.assert_close(found_gradients, wanted_gradients, **tolerance)
    sizes = [len({t.data_ptr() for t in tensors if t.ndim == 4 and len(t) == 2}) for tensors in (kept, kept_less)]
    # The hint, and what stands before each SiLU; not what stands behind.
    assert sizes == [5, 3]


def test_without_a_gradient_it_is_its_layers_to_the_last_bit():
    network = layers()
    hint = torch.rand(1, 3, 16, 8)
    with torch.no_grad():
        assert torch.equal(embed(network, hint), network(hint))
