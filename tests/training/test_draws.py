"""What a step sees, as a function of (seed, step, place in the batch)."""

import pytest
import torch

from control_composer.training.draws import draw, rows


@pytest.mark.parametrize(("length", "batch"), [(12, 4), (10, 4), (3, 7), (1, 2)])
@pytest.mark.parametrize("sizes", [1, 3])
def test_every_row_comes_once_in_an_epoch(length, batch, sizes):
    groups = [index % sizes for index in range(length)]
    seen = torch.cat([rows(5, step, batch, groups) for step in range(3 * length)])
    epochs = seen[: 3 * length].view(3, length)
    assert epochs.sort().values.tolist() == [list(range(length))] * 3
    if length > 3:
        assert epochs.unique(dim=0).shape[0] == 3
        assert not torch.equal(rows(5, 0, batch, groups), rows(6, 0, batch, groups))


def test_a_step_reads_one_group_while_they_last():
    groups = [0] * 21 + [1] * 18 + [2] * 2
    mixed = 0
    for step in range(41):  # four epochs
        own = {groups[row] for row in rows(1, step, 4, groups).tolist()}
        mixed += len(own) > 1
    # 21, 18 and 2 rows leave 1 + 2 + 2 behind whole fours: one or two steps of an epoch mix.
    assert 4 <= mixed <= 8


def test_a_batch_is_the_same_however_it_is_divided():
    whole = draw(3, 9, range(6), (4, 2, 3), 1000, 0.5)
    parts = [draw(3, 9, positions, (4, 2, 3), 1000, 0.5) for positions in ([0, 1], [2], [3, 4, 5])]
    for index in range(3):
        assert torch.equal(whole[index], torch.cat([part[index] for part in parts]))
    again, next_step, next_seed = (draw(*at, range(6), (4, 2, 3), 1000, 0.5) for at in ((3, 9), (3, 10), (4, 9)))
    assert torch.equal(whole[1], again[1])
    for other in (next_step, next_seed):
        assert not (whole[1] == other[1]).any()
    assert not (whole[1][0] == whole[1][1]).any()


def test_times_noise_and_dropped_prompts_are_spread_as_they_should():
    parts = [draw(0, step, range(8), (4, 4, 4), 1000, 0.25) for step in range(500)]
    times, noise, dropped = (torch.cat([part[index] for part in parts]) for index in range(3))
    counts = torch.histc(times.float(), bins=10, min=0, max=1000)
    assert times.min() >= 0 and times.max() < 1000
    assert (counts - 400).abs().max() < 5 * 400**0.5
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.035)
    assert abs(float(noise.mean())) < 0.01 and float(noise.std()) == pytest.approx(1, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([times.float(), dropped.float()]))[0, 1]) < 0.08
    assert not draw(0, 0, range(50), (1,), 10, 0.0)[2].any()
    assert draw(0, 0, range(50), (1,), 10, 1.0)[2].all()


def test_some_times_lie_in_the_middle():
    parts = [draw(0, step, range(8), (1,), 1000, 0.5, 0.5)[0] for step in range(500)]
    even = [draw(0, step, range(8), (1,), 1000, 0.5)[0] for step in range(500)]
    times, unchanged = torch.cat(parts), torch.cat(even)
    inner = ((times >= 314) & (times < 686)).float().mean()
    # Half of the logit-normal ones and 0.372 of the even ones lie there.
    assert float(inner) == pytest.approx(0.436, abs=0.03)
    assert times.min() >= 0 and times.max() < 1000
    assert float((times == unchanged).float().mean()) == pytest.approx(0.5, abs=0.03)
