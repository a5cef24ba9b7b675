"""The logspace ladder against diffusers' own ControlNetModel in guess mode."""

import pytest
import torch

from control_composer.residuals import Layout, SoftWeights

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize(("levels", "connections"), [(4, 13), (3, 10), (2, 7)])
def test_guess_mode(levels, connections):
    """The residuals in guess mode are those without it times our weights."""
    torch.manual_seed(0)
    net = diffusers.ControlNetModel(
        block_out_channels=(4, 8, 8, 8)[:levels],
        down_block_types=("DownBlock2D",) * levels,
        mid_block_type="UNetMidBlock2D",
        layers_per_block=2,
        norm_num_groups=2,
        cross_attention_dim=8,
        conditioning_embedding_out_channels=(4, 4),
    ).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3)
        arguments = (torch.randn(1, 4, 16, 16), 10, torch.randn(1, 3, 8), torch.rand(1, 3, 32, 32), 0.7)
        down, middle = net(*arguments, guess_mode=False, return_dict=False)
        guessed, guessed_middle = net(*arguments, guess_mode=True, return_dict=False)
    layout = Layout(tuple((0, x.shape[1]) for x in down), (0, middle.shape[1]))
    assert layout.connections == connections
    for flat, weight, expected in zip(
        [*down, middle], SoftWeights(ladder="logspace")(layout.blocks(16, 16)), [*guessed, guessed_middle], strict=True
    ):
        assert flat.abs().max() > 1e-4
        torch.testing.assert_close(flat * weight, expected, rtol=1e-5, atol=1e-7)
