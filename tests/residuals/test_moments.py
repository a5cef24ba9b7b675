"""Where in the sampling a sigma is, with the host's own model samplings, schedulers and samplers."""

import copy

import pytest

pytest.importorskip("comfy")

import torch
from comfy import model_sampling, samplers
from comfy.k_diffusion import sampling as k_diffusion
from comfy_extras.nodes_model_advanced import ModelSamplingDiscreteDistilled
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals.moments import Moment, Moments, percent_of, percents_of, step_of
from control_composer.residuals.schedules import Keyframe, Keyframes, ListSchedule

STEPS = 8


class Config:
    def __init__(self, **settings):
        self.sampling_settings = settings


class Discrete(model_sampling.ModelSamplingDiscrete, model_sampling.EPS):
    """As the host puts it together for SD1 and SDXL."""


SAMPLINGS = {
    "discrete": Discrete(),
    "discrete, zero terminal SNR": model_sampling.ModelSamplingDiscrete(zsnr=True),
    "continuous EDM": model_sampling.ModelSamplingContinuousEDM(),
    "continuous v": model_sampling.ModelSamplingContinuousV(Config(sigma_min=0.03, sigma_max=500.0)),
    "SD3": model_sampling.ModelSamplingDiscreteFlow(Config(shift=3.0)),
    "Flux": model_sampling.ModelSamplingFlux(Config(shift=1.15)),
    "Cosmos": model_sampling.ModelSamplingCosmosRFlow(Config(sigma_min=0.002, sigma_max=80.0)),
}
LEVEL_IN_PARTS = {  # the same sigma for a range of percents, so the percent is not to be had back
    "LCM": ModelSamplingDiscreteDistilled(),
    "Stable Cascade": model_sampling.StableCascadeSampling(Config(shift=2.0)),
}
DISCRETE = SAMPLINGS["discrete"]


@pytest.mark.parametrize("name", SAMPLINGS)
@settings(max_examples=40, derandomize=True)
@given(percent=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.001, 0.25, 0.5, 0.999, 1.0])))
def test_the_percent_of_a_percents_sigma_is_that_percent(name, percent):
    percent_to_sigma = SAMPLINGS[name].percent_to_sigma
    sigma = float(percent_to_sigma(percent))
    assert percent_of(sigma, percent_to_sigma) == pytest.approx(percent, abs=2e-6)
    as_sampled = torch.tensor(sigma, dtype=torch.float32).item()
    assert percent_of(as_sampled, percent_to_sigma) == pytest.approx(percent, abs=1e-5)


@pytest.mark.parametrize("name", LEVEL_IN_PARTS)
def test_where_many_percents_share_a_sigma_it_is_the_last_of_them_as_the_hosts_own_ranges_have_it(name):
    """The host lets a control act from start_percent on where sigma <= percent_to_sigma(start_percent)."""
    percent_to_sigma = LEVEL_IN_PARTS[name].percent_to_sigma
    for start in (0.005, 0.01, 0.3, 0.7, 0.985):
        sigma = float(percent_to_sigma(start))
        found = percent_of(sigma, percent_to_sigma)
        assert found >= start - 2e-6
        assert float(percent_to_sigma(found)) == pytest.approx(sigma, rel=1e-4)
        assert percent_of(sigma * 1.1, percent_to_sigma) <= start


@pytest.mark.parametrize("name", [*SAMPLINGS, *LEVEL_IN_PARTS])
def test_the_ends(name):
    sampling = {**SAMPLINGS, **LEVEL_IN_PARTS}[name]
    assert percent_of(0.0, sampling.percent_to_sigma) == 1.0
    assert percent_of(float(sampling.sigma_max) * 1.5, sampling.percent_to_sigma) == 0.0
    assert percent_of(float(sampling.sigma_min) / 2, sampling.percent_to_sigma) == pytest.approx(1.0, abs=1e-3)


def scheduled(scheduler, steps=STEPS, denoise=1.0, sampling=DISCRETE):
    """As KSampler.set_steps does it."""
    if denoise == 1.0:
        return samplers.calculate_sigmas(sampling, scheduler, steps)
    return samplers.calculate_sigmas(sampling, scheduler, int(steps / denoise))[-(steps + 1) :]


@pytest.mark.parametrize("scheduler", samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("denoise", [1.0, 0.4])
def test_step_i_of_n_is_at_i_over_n_with_every_scheduler_of_the_host(scheduler, denoise):
    sigmas = scheduled(scheduler, denoise=denoise).tolist()
    count = len(sigmas) - 1  # some schedulers leave out steps that fall together
    moments = Moments(DISCRETE.percent_to_sigma, sigmas)
    assert [moments.at(sigma).step for sigma in sigmas] == [step / count for step in range(count + 1)]
    percents = [moments.at(sigma).percent for sigma in sigmas]
    assert percents == sorted(percents) and percents[-1] == 1.0


def test_the_percents_of_the_normal_scheduler_are_even_and_those_of_karras_are_not():
    """`normal` is linear in the timestep, from 999 to 0 in 8 steps, of which the percents are the share that is done."""
    percents = [percent_of(sigma, DISCRETE.percent_to_sigma) for sigma in scheduled("normal").tolist()]
    assert percents[:STEPS] == pytest.approx([step / (STEPS - 1) for step in range(STEPS)], abs=1e-5)
    karras = [percent_of(sigma, DISCRETE.percent_to_sigma) for sigma in scheduled("karras").tolist()]
    assert karras[0] == pytest.approx(0, abs=1e-4) and karras[STEPS // 2] > 0.55


def test_image_to_image_begins_late_in_percent_and_at_step_0():
    moments = Moments(DISCRETE.percent_to_sigma, sigmas := scheduled("normal", denoise=0.4).tolist())
    first = moments.at(sigmas[0])
    assert first.step == 0.0 and first.percent == pytest.approx(12 / 19, abs=1e-5), "step 12 of 0 … 19 of the full run"
    assert moments.at(0.0) == Moment(1.0, 1.0)


def test_between_two_sigmas_the_step_is_interpolated_in_log_sigma():
    sigmas = [16.0, 4.0, 1.0, 0.0]
    assert step_of(8.0, sigmas) == pytest.approx(0.5 / 3)
    assert step_of(2.0, sigmas) == pytest.approx(1.5 / 3)
    assert step_of(0.25, sigmas) == pytest.approx(2.75 / 3), "0 has no logarithm"


def test_beyond_the_list_the_step_is_that_of_the_nearer_end():
    assert step_of(20.0, [16.0, 4.0, 1.0]) == 0.0 and step_of(0.5, [16.0, 4.0, 1.0]) == 1.0
    assert step_of(20.0, [0.0, 4.0, 16.0]) == 1.0


def test_lists_that_rise_or_turn_have_the_first_place_that_fits():
    rising = [0.0, 1.0, 4.0, 16.0]
    assert [step_of(sigma, rising) for sigma in rising] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert step_of(2.0, rising) == pytest.approx(0.5)
    turning = [16.0, 4.0, 1.0, 8.0, 2.0, 0.0]
    assert [step_of(sigma, turning) for sigma in turning] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert step_of(2.5, turning) == pytest.approx(0.2 + 0.2 * 0.339036, abs=1e-6)


@pytest.mark.parametrize("sigmas", [None, [], [0.0]])
def test_without_the_runs_sigmas_the_step_is_the_percent(sigmas):
    moment = Moments(DISCRETE.percent_to_sigma, sigmas).at(3.0)
    assert moment.step == moment.percent and 0 < moment.percent < 1


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=12), st.randoms())
def test_the_moment_depends_on_sigma_alone(asked, random):
    sigmas = scheduled("karras").tolist()
    first = Moments(DISCRETE.percent_to_sigma, sigmas)
    expected = {sigma: first.at(sigma) for sigma in asked}
    random.shuffle(asked)
    second = Moments(DISCRETE.percent_to_sigma, sigmas)
    for sigma in asked + asked:
        assert second.at(sigma) == expected[sigma] == first.at(sigma)
        assert 0 <= expected[sigma].percent <= 1 and 0 <= expected[sigma].step <= 1


@settings(max_examples=40, derandomize=True)
@given(st.floats(0, 20), st.floats(0, 20))
def test_less_noise_is_later_on_both_axes(one, other):
    moments = Moments(DISCRETE.percent_to_sigma, scheduled("karras").tolist())
    later, earlier = moments.at(min(one, other)), moments.at(max(one, other))
    assert later.percent >= earlier.percent and later.step >= earlier.step


def test_each_sigma_is_searched_once_and_a_deep_copy_does_not_take_the_model_along():
    calls = []
    moments = Moments(lambda percent: calls.append(percent) or 1 - percent, [1.0, 0.5, 0.0])
    moments.at(0.3)
    count = len(calls)
    assert moments.at(0.3) == moments.at(0.3) and len(calls) == count
    assert copy.deepcopy({"moments": moments})["moments"] is moments


def run(sampler, sigmas, **options):
    """Runs a sampler of the host on a toy denoiser and returns the sigmas at which it asked the model."""
    asked = []

    def denoiser(x, sigma, **_):
        asked.append(sigma[0].item())
        return x / (1 + sigma[0] ** 2)

    denoiser.inner_model = type("Guider", (), {})()
    denoiser.inner_model.inner_model = type("Model", (), {"model_sampling": DISCRETE})()
    denoiser.inner_model.model_patcher = type(
        "Patcher", (), {"get_model_object": staticmethod(lambda name: DISCRETE)}
    )()
    torch.manual_seed(0)
    sampler(denoiser, torch.randn(1, 4, 2, 2) * sigmas[0], sigmas, extra_args={"seed": 0}, disable=True, **options)
    return asked


SECOND_ORDER = {  # how many times a sampler asks in 8 steps: twice a step, once in the last one, which goes to 0
    "sample_heun": 15,
    "sample_dpm_2": 15,
    "sample_dpm_2_ancestral": 15,
    "sample_dpmpp_2s_ancestral": 15,
    "sample_dpmpp_sde": 15,
}


@pytest.mark.parametrize("scheduler", ["karras", "normal"])
@pytest.mark.parametrize("name", SECOND_ORDER)
def test_samplers_of_second_order_ask_at_every_step_and_between(name, scheduler):
    sigmas = scheduled(scheduler)
    asked = run(getattr(k_diffusion, name), sigmas)
    assert len(asked) == SECOND_ORDER[name]
    moments = Moments(DISCRETE.percent_to_sigma, sigmas.tolist())
    steps = [moments.at(sigma).step for sigma in asked]
    assert steps[0::2] == [step / STEPS for step in range(STEPS)], "each step begins exactly at its place"
    for step, middle in enumerate(steps[1::2]):
        if name == "sample_heun":  # asks again at the next sigma
            assert middle == (step + 1) / STEPS
        elif name == "sample_dpm_2":  # in the middle of the logarithms
            assert middle == pytest.approx((step + 0.5) / STEPS, abs=1e-6)
        else:  # in the middle of an ancestral step, which goes further down than the list
            assert step / STEPS < middle <= (step + 1.001) / STEPS
    each = ListSchedule(tuple(range(STEPS)), "step")
    assert [each(moments.at(sigma)) for sigma in asked[0::2]] == list(range(STEPS))


@pytest.mark.parametrize(
    "name", ["sample_euler", "sample_euler_ancestral", "sample_dpmpp_2m", "sample_dpmpp_3m_sde", "sample_lcm"]
)
def test_samplers_that_ask_once_per_step_resolve_to_these_steps(name):
    sigmas = scheduled("karras")
    moments = Moments(DISCRETE.percent_to_sigma, sigmas.tolist())
    asked = run(getattr(k_diffusion, name), sigmas)
    assert [moments.at(sigma).step for sigma in asked] == [step / STEPS for step in range(STEPS)]
    half = Keyframes((Keyframe(0, 1), Keyframe(0.5, 0, "hold")), "step")
    assert [half(moments.at(sigma)) for sigma in asked] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_a_restarting_sampler_gets_the_earlier_strength_again_when_it_goes_back():
    """Restart sampling: down to sigmas[6], back up to sigmas[3], and down to the end."""
    sigmas = scheduled("karras")
    moments = Moments(DISCRETE.percent_to_sigma, sigmas.tolist())
    asked = run(k_diffusion.sample_heun, sigmas[:7]) + run(k_diffusion.sample_heun, sigmas[3:])
    late = Keyframes((Keyframe(0, 0), Keyframe(0.625, 1, "hold")), "step")  # from step 5 of 8 on
    acting = [late(moments.at(sigma)) for sigma in asked]
    assert acting[:12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1], "heun: steps 0 1, 1 2, 2 3, 3 4, 4 5, 5 6"
    assert acting[12:] == [0, 0, 0, 1, 1, 1, 1, 1, 1], "3 4, 4 5, 5 6, 6 7, 7"


def test_an_adaptive_sampler_stays_within_its_run():
    sigmas = scheduled("karras")
    asked = run(
        lambda model, x, s, **kw: k_diffusion.sample_dpm_adaptive(model, x, float(s[-2]), float(s[0]), **kw), sigmas
    )
    moments = Moments(DISCRETE.percent_to_sigma, sigmas.tolist())
    steps = [moments.at(sigma).step for sigma in asked]
    assert len(asked) > STEPS and steps[0] == 0.0 and max(steps) <= 7 / 8 + 1e-6


@pytest.mark.parametrize("steps", [3, 7, 20, 50, 1000])
@pytest.mark.parametrize("scheduler", ["normal", "karras", "simple"])
def test_a_keyframe_at_a_steps_place_acts_at_that_step(scheduler, steps):
    sigmas = scheduled(scheduler, steps).tolist()
    moments = Moments(DISCRETE.percent_to_sigma, sigmas)
    for step in {0, 1, steps // 3, steps // 2, steps - 1}:
        moment = moments.at(sigmas[step])
        on_step = Keyframes((Keyframe(0, 0), Keyframe(round(step / steps, 3), 1, "hold")), "step")
        assert on_step(moment) == 1 and (step == 0 or on_step(moments.at(sigmas[step - 1])) == 0)
        position = min(1.0, round(moment.percent, 6))  # as a person reads it from a report
        assert Keyframes((Keyframe(0, 0), Keyframe(position, 1, "hold")), "percent")(moment) == 1


def test_percents_of_many_sigmas_at_once_are_near_the_exact_ones(
    sampling_percents=(0.0, 0.013, 0.2, 0.5, 0.77, 0.99, 1.0),
):
    """On Stable Diffusion's own schedule, with the host's open ends."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    log_sigmas = (((1 - alphas) / alphas) ** 0.5).log()

    def percent_to_sigma(percent):
        if percent <= 0:
            return 999999999.9
        if percent >= 1:
            return 0.0
        place = (1 - percent) * 999
        low = int(place)
        high = min(low + 1, 999)
        return float((log_sigmas[low] * (low + 1 - place) + log_sigmas[high] * (place - low)).exp())

    sigmas = [float(log_sigmas[-1].exp()), *(percent_to_sigma(percent) for percent in sampling_percents[1:])]
    found = percents_of(sigmas, percent_to_sigma)
    assert found == pytest.approx(sampling_percents, abs=2e-3)
    assert found[0] < 0.01 and found[-1] == 1.0
