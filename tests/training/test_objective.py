"""Noise, target and weights against diffusers'."""

import warnings

import pytest
import torch

from control_composer.training.objective import (
    BUCKETS,
    Schedule,
    bucket_sums,
    noised,
    row_losses,
    target,
    weights,
)

TIMES = torch.tensor([0, 1, 250, 600, 998, 999])


@pytest.fixture(scope="module")
def scheduler():
    pytest.importorskip("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.schedulers import DDPMScheduler
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def random_rows():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(len(TIMES), 4, 3, 5, generator=generator) for _ in range(2))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_noise_and_target_are_those_of_diffusers(scheduler, prediction):
    latent, noise = random_rows()
    alpha = scheduler.alphas_cumprod[TIMES]
    wanted = noise if prediction == "eps" else scheduler.get_velocity(latent, noise, TIMES)
    torch.testing.assert_close(noised(latent, noise, alpha), scheduler.add_noise(latent, noise, TIMES))
    torch.testing.assert_close(target(latent, noise, alpha, prediction), wanted)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_diffusers_scripts(scheduler, prediction, gamma):
    # As diffusers.training_utils.compute_snr, which takes 20 s to import.
    alpha = scheduler.alphas_cumprod[TIMES]
    snr = (alpha**0.5 / (1 - alpha) ** 0.5) ** 2
    wanted = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr if prediction == "eps" else snr + 1)
    torch.testing.assert_close(weights(scheduler.alphas_cumprod[TIMES], prediction, gamma), wanted)


def test_without_min_snr_all_rows_count_alike_and_pure_noise_has_a_weight():
    alpha = torch.tensor([0.9, 0.5, 0.0])
    assert weights(alpha, "eps", None).tolist() == [1, 1, 1]
    assert weights(alpha, "eps", 5.0).tolist() == pytest.approx([5 / 9, 1, 1])
    assert weights(alpha, "v", 5.0).tolist() == pytest.approx([0.5, 0.5, 0])


def test_the_schedule_of_the_hosts_sigmas(scheduler):
    sampling = pytest.importorskip("comfy.model_sampling")
    schedule = Schedule.from_sigmas(sampling.ModelSamplingDiscrete().sigmas, "eps")
    assert len(schedule) == 1000
    torch.testing.assert_close(schedule.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-5, atol=1e-6)


def test_losses_by_row_and_by_time():
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None].expand(4, 4, 2, 2)
    losses = row_losses(predicted, torch.zeros(4, 4, 2, 2))
    assert losses.tolist() == [1, 4, 9, 16]
    sums = bucket_sums(losses, torch.tensor([0, 99, 100, 999]), 1000)
    assert sums[0].tolist() == [5, 9, 0, 0, 0, 0, 0, 0, 0, 16]
    assert sums[1].tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    # A schedule whose length is no multiple of the buckets.
    assert bucket_sums(losses, torch.tensor([0, 2, 3, 24]), 25)[1].sum() == 4
    assert BUCKETS == 10
