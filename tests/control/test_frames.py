"""Which frames of the batch the rows of a call are, through the host's own context windows and sampler."""

import pytest

pytest.importorskip("comfy")

import comfy.context_windows
import torch
from comfy.context_windows import ContextSchedules, IndexListContextWindow

from control_composer.control.areas import KEY, AreaAware, Call
from control_composer.control.errors import ControlError
from control_composer.control.frames import frames_of
from control_composer.tests import narrow

FRAMES = 11


class SpyControl(AreaAware):
    """A control that adds nothing and writes down which frames it is told and which latents it gets."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def pre_run(self, model, percent_to_timestep_function):
        pass

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        per_chunk = x_noisy.shape[0] // batched_number
        frames, total = frames_of(transformer_options, per_chunk)
        for chunk in x_noisy.chunk(batched_number):
            self.seen.append((frames, total, chunk.clone()))
        return None


@pytest.fixture(scope="module")
def model():
    return narrow.make_model("sd1")


def run(model, frames=FRAMES, **settings):
    """Windows of a one-step run. Latents that are equal to those of the whole batch tell which frames they really are."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    arguments = {
        "context_length": 4,
        "context_overlap": 1,
        "context_schedule": ContextSchedules.STATIC_STANDARD,
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": comfy.context_windows.ContextFuseMethods.PYRAMID,
        "dim": 0,
        "freenoise": False,
    } | settings
    windowed = ContextWindowsManualNode.execute(model, **arguments).result[0]

    def sampled(patcher):
        control = SpyControl()
        conds = [[[e[0], {**e[1], "control": control}]] for (e,) in (narrow.conditioning("sd1", n) for n in (1, 2))]
        narrow.sample(patcher, *conds, (frames, 8, 8), steps=1)
        return control.seen

    whole = sampled(model)[0][2]
    seen = sampled(windowed)
    assert seen
    for told, total, latents in seen:
        assert total == frames and len(told) == len(latents)
        for frame, latent in zip(told, latents, strict=True):
            assert torch.equal(latent, whole[frame])
    return [told for told, _, _ in seen]


def test_without_windows_all_frames_in_order(model):
    assert set(run(model, frames=3)) == {(0, 1, 2)}
    assert frames_of({}, 5) == ((0, 1, 2, 3, 4), 5)


def test_windows_that_overlap(model):
    told = run(model, causal_window_fix=False)
    assert set(told) == {(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9), (7, 8, 9, 10)}


def test_windows_that_begin_with_the_frame_before_them(model):
    told = run(model)
    assert set(told) == {(0, 1, 2, 3), (2, 3, 4, 5, 6), (5, 6, 7, 8, 9), (6, 7, 8, 9, 10)}


def test_windows_that_wrap_around_the_end(model):
    told = run(
        model,
        context_schedule=ContextSchedules.UNIFORM_LOOPED,
        context_stride=2,
        closed_loop=True,
        causal_window_fix=False,
    )
    assert any(list(window) != sorted(window) for window in told)
    assert {frame for window in told for frame in window} == set(range(FRAMES))


def test_frames_that_every_window_retains(model):
    told = run(model, latent_retain_index_list="0")
    assert all(window[0] == 0 for window in told) and len(set(told)) > 2
    assert all(window[-1] == FRAMES - 1 for window in run(model, latent_retain_index_list="0, -1"))


def test_frames_are_batched_with_their_conditionings(model):
    told = run(model, context_schedule=ContextSchedules.BATCHED, causal_window_fix=False)
    assert [told.count(window) for window in sorted(set(told))] == [2] * len(set(told))  # positive and negative


def test_windows_over_the_time_of_a_video_leave_the_batch_alone():
    window = IndexListContextWindow([4, 5, 6], dim=2, total_frames=9)
    assert frames_of({"context_window": window}, 2) == ((0, 1), 2)


def test_a_window_does_not_change():
    window = IndexListContextWindow([3, 4, 5], dim=0, total_frames=9)
    window.causal_anchor_index = 2
    options = {"context_window": window, KEY: Call((8, 8), {}, (0, -1))}
    assert frames_of(options, 4) == ((0, 3, 4, 8), 9) == frames_of(options, 4)
    assert window.index_list == [3, 4, 5]


def test_windows_of_another_kind_are_refused():
    with pytest.raises(ControlError) as refused:
        frames_of({"context_window": [1, 2]}, 2)
    assert str(refused.value) == (
        "The context window is list, but one of the host's windows, which list their frames, was expected, so the hints cannot stay with their "
        "frames; use the host's Context Windows node."
    )


def test_a_window_of_another_length_is_refused():
    with pytest.raises(ControlError) as refused:
        frames_of({"context_window": IndexListContextWindow([0, 1, 2], total_frames=5)}, 4)
    assert str(refused.value) == (
        "The context window has 3 frames, but the latent of this call 4 and as many were expected, so the hints cannot stay with their frames; "
        "remove the node that changes the batch inside of the windows."
    )


def test_the_windows_that_animatediff_evolved_shows_to_other_packs():
    shown = {"ad_params": {"full_length": 20, "context_length": 4, "sub_idxs": [16, 17, 18, 19]}}
    assert frames_of(shown, 4) == ((16, 17, 18, 19), 20)
    for other in (
        {"full_length": 20, "context_length": None, "sub_idxs": None},  # no windows
        {"full_length": 20, "context_length": 4, "sub_idxs": [1, 2]},  # not of this batch
    ):
        assert frames_of({"ad_params": other}, 4) == ((0, 1, 2, 3), 4)
