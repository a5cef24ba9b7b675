"""The training target and sampler of the demo world, against the host's own schedule and v-prediction."""

import pytest
import torch

from control_composer.demo.diffusion import STEPS, alphas_cumprod, sample
from control_composer.training.objective import noised, target


def test_the_schedule_is_the_hosts():
    sampling = pytest.importorskip("comfy.model_sampling").ModelSamplingDiscrete()
    alphas = alphas_cumprod()
    torch.testing.assert_close(((1 - alphas) / alphas).sqrt(), sampling.sigmas, rtol=1e-4, atol=1e-5)


def test_the_host_reads_the_target_back_as_the_latent():
    model_sampling = pytest.importorskip("comfy.model_sampling")

    class Sampling(model_sampling.ModelSamplingDiscrete, model_sampling.V_PREDICTION):
        pass

    sampling = Sampling()
    torch.manual_seed(0)
    latent, noise = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    times = torch.tensor([0, 250, 500, 750, STEPS - 1])
    alpha = alphas_cumprod()[times]
    x, v = noised(latent, noise, alpha), target(latent, noise, alpha, "v")
    sigma = sampling.sigmas[times]
    in_host_units = x * (sigma**2 + 1).sqrt()[:, None, None, None]
    torch.testing.assert_close(sampling.calculate_input(sigma, in_host_units), x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sampling.calculate_denoised(sigma, v, in_host_units), latent, rtol=1e-3, atol=2e-3)


def test_a_perfect_velocity_is_sampled_to_its_latent():
    torch.manual_seed(0)
    latent, alphas = torch.randn(2, 4, 4, 4), alphas_cumprod()

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha = alphas[times][:, None, None, None]
        noise = (x - alpha.sqrt() * latent) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latent

    torch.testing.assert_close(sample(velocity, torch.randn(2, 4, 4, 4)), latent, rtol=0, atol=1e-3)
