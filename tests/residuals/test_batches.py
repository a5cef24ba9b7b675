"""Which picture serves which latent, under each policy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_composer.residuals.batches import BATCH_POLICIES, BatchError, picture_of

few = settings(max_examples=60, derandomize=True, deadline=None)
policies = st.sampled_from(BATCH_POLICIES)
short = st.sampled_from([policy for policy in BATCH_POLICIES if policy != "error"])
batches = st.integers(1, 70).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total)))


def mapping(pictures, total, policy):
    return [picture_of(position, pictures, total, policy) for position in range(total)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("cycle", [0, 1, 0, 1, 0]), ("repeat", [0, 0, 0, 1, 1]), ("hold last", [0, 1, 1, 1, 1])],
)
def test_two_pictures_for_five_latents(policy, expected):
    assert mapping(2, 5, policy) == expected


@few
@given(st.integers(1, 70), policies)
def test_one_picture_for_each_latent_or_one_for_all(total, policy):
    assert mapping(total, total, policy) == list(range(total))
    assert mapping(1, total, policy) == [0] * total


@few
@given(batches, short)
def test_every_picture_is_used_first_in_order(batch, policy):
    pictures, total = batch
    found = mapping(pictures, total, policy)
    assert list(dict.fromkeys(found)) == list(range(pictures))


@few
@given(batches)
def test_repeat_holds_each_picture_equally_long(batch):
    pictures, total = batch
    found = mapping(pictures, total, "repeat")
    assert found == sorted(found)
    lengths = [found.count(picture) for picture in range(pictures)]
    assert max(lengths) - min(lengths) <= 1


@few
@given(batches)
def test_cycle_starts_over_and_hold_last_stays(batch):
    pictures, total = batch
    assert mapping(pictures, total, "cycle") == (list(range(pictures)) * total)[:total]
    assert mapping(pictures, total, "hold last") == [*range(pictures), *[pictures - 1] * (total - pictures)]


@few
@given(st.integers(2, 70).flatmap(lambda total: st.tuples(st.integers(2, total), st.just(total))))
def test_error_refuses_a_short_batch(batch):
    pictures, total = batch
    if pictures == total:
        return
    with pytest.raises(BatchError) as refused:
        picture_of(0, pictures, total, "error")
    assert str(refused.value) == (
        f"there are {pictures} pictures for {total} latents, but one for each, or a single one, was expected by the batch policy "
        f'"error"; give {total} pictures, or choose cycle, repeat, hold last.'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (0, 3, 1, "cycle"),
            "there are 3 pictures for 1 latent, but at most one for each was expected; take 1 of them, or make the latent batch 3 long.",
        ),
        (
            (0, 3, 2, "hold last"),
            "there are 3 pictures for 2 latents, but at most one for each was expected; take 2 of them, or make the latent batch 3 long.",
        ),
        ((0, 0, 2, "cycle"), "there are 0 pictures, but at least one was expected; check the node that makes them."),
        (
            (0, 1, 2, "loop"),
            'the batch policy is "loop", but one of cycle, repeat, hold last, error was expected; choose one of them.',
        ),
        (
            (5, 2, 5, "repeat"),
            "latent 5 was asked for, but the batch has 5, counted from 0; give the length of the whole batch.",
        ),
        (
            (-1, 2, 5, "cycle"),
            "latent -1 was asked for, but the batch has 5, counted from 0; give the length of the whole batch.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(BatchError) as refused:
        picture_of(*arguments)
    assert str(refused.value) == message
