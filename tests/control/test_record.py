"""Records as data: times, calls, the sampler's steps."""

import math
import time

import pytest

pytest.importorskip("comfy")

import torch

from control_composer.control.norms import Norm, read_norms, strength_of
from control_composer.control.record import LayerStep, Record, Stopwatch


def step(call, fraction, sigma=1.0, layer=1):
    return LayerStep(call, layer, sigma, fraction, fraction, True)


def test_a_stopwatch_measures_the_time_between_start_and_stop():
    watch = Stopwatch(torch.device("cpu"))
    assert math.isnan(watch.seconds)
    watch.start()
    assert math.isnan(watch.seconds)
    begin = time.perf_counter()
    time.sleep(0.02)
    watch.stop()
    around = time.perf_counter() - begin
    assert 0.02 <= watch.seconds <= around + 0.01
    assert watch.seconds == watch.seconds


def test_a_stopwatch_that_starts_again_forgets_its_first_time():
    watch = Stopwatch(torch.device("cpu")).start()
    time.sleep(0.03)
    assert watch.stop().seconds >= 0.03
    begin = time.perf_counter()
    watch.start().stop()
    assert watch.seconds <= time.perf_counter() - begin


@pytest.mark.gpu
def test_a_stopwatch_on_cuda_measures_the_work_and_does_not_wait_for_it():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    work = torch.randn(4096, 4096, device=device)
    (work @ work).sum().item()
    begin = time.perf_counter()
    torch.cuda.set_sync_debug_mode("error")
    try:
        watch = Stopwatch(device).start()
        for _ in range(50):
            work = torch.nn.functional.normalize(work @ work)
        watch.stop()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    whole = time.perf_counter() - begin
    assert 50 * 2 * 4096**3 / 2e15 < watch.seconds <= 1.01 * whole  # no device does two thousand fp32 teraflops


def test_calls_are_numbered_from_zero():
    record = Record()
    assert [record.next_call() for _ in range(3)] == [0, 1, 2]
    assert record.calls == 3


def test_calls_between_two_steps_belong_to_the_step_that_began():
    """Heun on four steps: each but the last is evaluated at its beginning and at its end."""
    fractions = [0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    record = Record(sampler_steps=4, steps=[step(call, fraction) for call, fraction in enumerate(fractions)])
    assert record.step_numbers() == {0: 1, 1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 4}
    between = Record(sampler_steps=10, steps=[step(0, 0.349), step(1, 0.3), step(2, 0.29999999), step(3, 1.0)])
    assert between.step_numbers() == {0: 4, 1: 4, 2: 4, 3: 10}  # a rounded 0.3 is 0.3, and the end belongs to the last
    assert between.step_count == 10


def test_without_a_list_of_sigmas_each_sigma_is_a_step():
    sigmas = [14.0, 14.0, 7.0, 3.0, 7.0]
    record = Record(steps=[step(call, 0.0, sigma) for call, sigma in enumerate(sigmas)])
    assert record.step_numbers() == {0: 1, 1: 1, 2: 2, 3: 3, 4: 2}
    assert record.step_count == 3
    assert Record().step_count == 0


def test_strength_is_taken_over_the_rows_that_get_something():
    """3-4-5: two rows of 3 and 4 on features of 30 and 40; a row left alone has a huge feature and does not count."""
    norm = Norm(0, None, "middle", (3.0, 4.0, 0.0), (30.0, 40.0, 1e6))
    assert strength_of([norm]) == pytest.approx((12.5**0.5, 0.1))
    assert strength_of([norm, norm]) == pytest.approx((12.5**0.5, 0.1))
    assert strength_of([Norm(0, None, "middle", (0.0, 0.0), (1.0, 1.0))]) == (0.0, 0.0)
    assert strength_of([Norm(0, None, "middle", (3.0,), None)]) == (3.0, None)
    assert strength_of([norm, Norm(1, None, "middle", (0.0,), None)]) == pytest.approx((12.5**0.5, 0.1))
    assert math.isnan(strength_of([Norm(0, None, "middle", (math.nan,), (1.0,))])[1])


def test_norms_of_one_row_serve_all_and_of_another_batch_are_not_compared():
    record = Record(
        residual_norms={(0, None, "a"): torch.tensor([2.0]), (0, 1, "b"): torch.tensor([1.0, 2.0, 3.0])},
        feature_norms={(0, "a"): torch.tensor([4.0, 8.0]), (0, "b"): torch.tensor([1.0, 1.0])},
    )
    assert read_norms(record) == [
        Norm(0, None, "a", (2.0, 2.0), (4.0, 8.0)),
        Norm(0, 1, "b", (1.0, 2.0, 3.0), None),
    ]
