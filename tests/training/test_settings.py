"""Settings, and what cannot be."""

import pytest

from control_composer.training.errors import TrainingError
from control_composer.training.settings import Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "The setting 'steps' is 0, but a whole number from 1 was expected; change it."),
        ({"batch": 2.5}, "The setting 'batch' is 2.5, but a whole number from 1 was expected; change it."),
        ({"seed": -1}, "The setting 'seed' is -1, but a whole number from 0 was expected; change it."),
        ({"seed": 2**63}, f"The setting 'seed' is {2**63}, but a whole number below 2^63 was expected; change it."),
        ({"rate": float("nan")}, "The setting 'rate' is nan, but a number above 0 was expected; change it."),
        ({"ema": 1.0}, "The setting 'ema' is 1.0, but a number from 0 to below 1 was expected; change it."),
        ({"empty_prompts": 50}, "The setting 'empty_prompts' is 50, but a share from 0 to 1 was expected; change it."),
        ({"min_snr": 0}, "The setting 'min_snr' is 0, but a number above 0, or none was expected; change it."),
        ({"precision": "fp8"}, "The setting 'precision' is 'fp8', but fp32, bf16 or fp16 was expected; change it."),
        ({"optimiser": "sgd"}, "The setting 'optimiser' is 'sgd', but adamw or adamw8bit was expected; change it."),
        ({"betas": (0.9, 1.0)}, "The setting 'betas' is (0.9, 1.0), but two numbers from 0 to below 1 was expected"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(TrainingError) as caught:
        Settings(**({"steps": 10, "batch": 4} | changes))
    assert str(caught.value).startswith(message)


def test_a_batch_that_does_not_divide_is_refused():
    settings = Settings(steps=1, batch=10, accumulation=2)
    assert settings.part(1) == 5
    with pytest.raises(TrainingError) as caught:
        settings.part(4)
    assert str(caught.value) == (
        "The batch has 10 rows, but a multiple of 8 was expected, since 4 processes each take it in 2 parts; "
        "use 16 rows or another accumulation."
    )


def test_the_rate_warms_up_stays_and_falls():
    settings = Settings(steps=100, batch=1, rate=2.0, warm_up=4, decay=0.2)
    rates = [settings.rate_at(step) for step in range(100)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0] and rates[80] == 2.0
    assert rates[90] == pytest.approx(1.0) and rates[99] == pytest.approx(0.1)
    assert Settings(steps=5, batch=1, rate=2.0, warm_up=0).rate_at(4) == 2.0
