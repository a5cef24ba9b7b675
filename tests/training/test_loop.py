"""The training loop on narrow networks."""

import csv

import pytest
import torch

pytest.importorskip("comfy")
from control_composer.training import loop
from control_composer.training.copy import trainable_copy
from control_composer.training.errors import TrainingError
from control_composer.training.forward import controlled
from control_composer.training.loop import train
from control_composer.training.objective import Schedule
from control_composer.training.settings import Settings

from .bases import SMALL, make_unet
from .rows import Rows

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
EPS = Schedule(ALPHAS, "eps")


@pytest.fixture(scope="module")
def unet():
    return make_unet("sd1", **SMALL)


def settings(**changes):
    plain = {"steps": 6, "batch": 4, "rate": 1e-3, "warm_up": 0, "log_every": 1, "save_every": 100, "validate_every": 0}
    return Settings(**(plain | changes))


class Run:
    def __init__(
        self, unet, folder, data=None, schedule=EPS, start="gaussian", stop_at=None, predict=controlled, **changes
    ):
        self.steps = []
        self.control = trainable_copy(unet, start=start)
        self.trained = train(
            unet,
            self.control,
            data or Rows(10, 24),
            schedule,
            settings(**changes),
            folder,
            predict=predict,
            on_step=self.steps.append,
            should_stop=lambda: stop_at is not None and len(self.steps) == stop_at,
        )
        self.losses = [step.loss for step in self.steps]


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_on_one_batch_and_the_unet_stays(unet, tmp_path, monkeypatch):
    before = weights(unet)
    drawn = loop.draw
    monkeypatch.setattr(loop, "draw", lambda seed, step, *rest: drawn(seed, 0, *rest))
    run = Run(unet, tmp_path, Rows(2, 24), start="zero", steps=30, batch=2, rate=3e-3)
    assert run.losses[-1] < 0.6 * run.losses[0]
    assert_equal(before, weights(unet))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in unet.parameters())


@pytest.mark.parametrize("changes", [{}, {"log_every": 4, "ema": 0.9, "min_snr": 5.0}])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(unet, tmp_path, changes):
    whole = Run(unet, tmp_path / "whole", steps=8, **changes)
    stopped = Run(unet, tmp_path / "parts", steps=8, stop_at=1 if changes else 3, **changes)
    assert stopped.trained.step == (4 if changes else 3)
    rest = Run(unet, tmp_path / "parts", steps=8, **changes)
    assert stopped.losses + rest.losses == whole.losses
    assert rest.trained.step == 8
    assert_equal(weights(rest.control), weights(whole.control))
    assert_equal(rest.trained.average, whole.trained.average)
    tables = [(tmp_path / name / "losses.csv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]
    assert len(list(csv.DictReader(tables[0].splitlines()))) == len(whole.losses)


def test_a_run_cut_off_between_two_states_repeats_the_steps_behind_the_first(unet, tmp_path):
    class Cut(Exception):
        pass

    whole = Run(unet, tmp_path / "whole", log_every=2)
    seen = []

    def cut(row):
        seen.append(row.loss)
        if row.step == 4:
            raise Cut

    control = trainable_copy(unet, start="gaussian")
    with pytest.raises(Cut):
        # The state of step 3 lies within a row of the log.
        train(unet, control, Rows(10, 24), EPS, settings(log_every=2, save_every=3), tmp_path / "cut", on_step=cut)
    rest = Run(unet, tmp_path / "cut", log_every=2)
    assert seen[:1] + rest.losses == whole.losses
    tables = [(tmp_path / name / "losses.csv").read_text() for name in ("whole", "cut")]
    assert tables[0] == tables[1]


def test_accumulated_parts_are_one_large_batch(unet, tmp_path):
    # Sizes mixed too: a step whose rows are of several is computed in as many parts.
    data = Rows(10, 24, sizes=(8, 4))
    whole, parts = (Run(unet, tmp_path / str(n), data, batch=8, steps=3, accumulation=n) for n in (1, 4))
    assert whole.losses == pytest.approx(parts.losses, rel=1e-6)
    first = [[value or 0.0 for value in run.steps[0].by_time] for run in (whole, parts)]
    assert any(first[0]) and first[0] == pytest.approx(first[1], rel=1e-5)
    assert whole.steps[0].gradient == pytest.approx(parts.steps[0].gradient, rel=1e-5)


def test_gradient_checkpointing_changes_nothing(unet, tmp_path):
    plain, again = (Run(unet, tmp_path / str(on), steps=3, checkpointing=on) for on in (False, True))
    assert plain.losses == pytest.approx(again.losses, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16"])
def test_lower_precision_computes_nearly_the_same_with_weights_in_full(unet, tmp_path, precision):
    full, lower = (Run(unet, tmp_path / name, steps=3, precision=name) for name in ("fp32", precision))
    assert lower.losses != full.losses
    assert lower.losses == pytest.approx(full.losses, rel=0.03)
    assert all(parameter.dtype == torch.float32 for parameter in lower.control.parameters())


def test_velocity_and_vectors_of_sdxl(tmp_path):
    unet = make_unet("sdxl", model_channels=32, channel_mult=[1, 1, 1])
    run = Run(unet, tmp_path, Rows(3, 40, pooled=48), Schedule(ALPHAS, "v"), steps=2, batch=2)
    assert all(loss > 0 for loss in run.losses)


def test_validation_sees_the_average_and_leaves_no_trace(unet, tmp_path):
    plain = Run(unet, tmp_path / "plain", steps=4)
    control = trainable_copy(unet, start="gaussian")
    start, seen, losses = weights(control), {}, []

    def look(step, network):
        assert not torch.is_grad_enabled() and not network.training
        seen[step] = weights(network)
        torch.randn(5)

    train(
        unet,
        control,
        Rows(10, 24),
        EPS,
        settings(steps=4, validate_every=3),
        tmp_path / "watched",
        on_step=lambda row: losses.append(row.loss),
        on_validate=look,
    )
    assert list(seen) == [0, 3, 4]
    assert_equal(seen[0], start)
    assert_equal(seen[4], plain.trained.average)
    assert losses == plain.losses
    assert_equal(weights(control), weights(plain.control))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_dropped_prompts_become_the_empty_one(unet, tmp_path, share):
    seen = []

    def spy(base, control, x, hint, times, context, y, **options):
        seen.append(context)
        assert hint.min() >= 0 and 0.5 < hint.max() <= 1
        return controlled(base, control, x, hint, times, context, y, **options)

    Run(unet, tmp_path, steps=1, empty_prompts=share, predict=spy)
    assert bool((seen[0] == 0).all()) == (share == 1.0)


def test_of_y_only_the_text_is_dropped(tmp_path):
    unet = make_unet("sdxl", model_channels=32, channel_mult=[1, 1, 1])
    seen = []

    def spy(*arguments, **options):
        seen.append(arguments[6])
        return controlled(*arguments, **options)

    Run(unet, tmp_path, Rows(2, 40, pooled=48), steps=1, batch=2, empty_prompts=1.0, predict=spy)
    assert (seen[0][:, :46] == 0).all() and (seen[0][:, 46:] != 0).all()


def test_other_settings_do_not_continue_a_training(unet, tmp_path):
    Run(unet, tmp_path, steps=1)
    with pytest.raises(TrainingError) as caught:
        Run(unet, tmp_path, steps=2, seed=1)
    assert str(caught.value) == (
        f"The training in '{tmp_path}' was begun with seed 0, but 1 was expected, as it is now; "
        "choose another folder to begin anew, or take back the change to continue."
    )
    assert Run(unet, tmp_path, steps=2, rate=1e-4).trained.step == 2


def test_a_loss_that_is_no_number_ends_the_training_and_is_not_saved(unet, tmp_path):
    data = Rows(4, 24)
    data._rows[0].latent.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss at step 1 is nan, but a finite number was expected; start again"):
        Run(unet, tmp_path, data, steps=1)
    assert not (tmp_path / "training.pt").exists()


def test_without_an_average_the_last_weights_are_what_is_used(unet, tmp_path):
    seen = []
    control = trainable_copy(unet, start="gaussian")
    start = weights(control)
    plain = settings(steps=2, ema=0.0)
    trained = train(
        unet, control, Rows(4, 24), EPS, plain, tmp_path, on_validate=lambda step, net: seen.append(weights(net))
    )
    assert_equal(seen[0], start)
    assert_equal(seen[-1], weights(control))
    assert_equal(seen[-1], trained.average)
    assert not torch.equal(seen[-1]["middle_block_out.0.weight"], start["middle_block_out.0.weight"])
    assert_equal(weights(Run(unet, tmp_path, Rows(4, 24), steps=2, ema=0.0).control), seen[-1])


def test_no_data_is_refused(unet, tmp_path):
    with pytest.raises(TrainingError, match="The data has no rows, but one at least was expected; give it pictures"):
        Run(unet, tmp_path, data=_Nothing(), steps=1)


class _Nothing(Rows):
    def __init__(self):
        super().__init__(1, 24)
        self._rows = []

    def __bool__(self):
        return True


def test_8_bits_without_the_package_are_told(unet, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match="is 'adamw8bit', which is a part of bitsandbytes, but that package was"):
        Run(unet, tmp_path, steps=1, optimiser="adamw8bit")
