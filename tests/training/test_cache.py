"""Prepared rows on disk: what comes back, and what a stop, a full disk or another data set do."""

import errno
import json

import pytest
import torch

from control_composer.training import cache as cache_module
from control_composer.training.batch import EmptyPrompt
from control_composer.training.cache import Cache, CacheWriter
from control_composer.training.errors import TrainingError

EMPTY = EmptyPrompt(torch.full((1, 3, 5), 0.5), None)
PROBE = {"VAE": torch.linspace(-1, 1, 50)}


def row(number, size=(2, 3), tokens=3, y=None):
    generator = torch.Generator().manual_seed(number)
    height, width = size
    return {
        "latent": torch.randn(4, height, width, generator=generator),
        "context": torch.randn(tokens, 5, generator=generator),
        "y": None if y is None else torch.randn(y, generator=generator),
        "hint": torch.randint(0, 256, (3, 8 * height, 8 * width), generator=generator).to(torch.uint8),
        "caption": f"a büst, number {number}",
    }


def fill(writer, numbers, group=0, **form):
    for number in numbers:
        writer.add(group, **row(number, **form), row=number)


def same(batch, number, times=1, **form):
    wanted = row(number, **form)
    assert torch.equal(batch.latent[0], wanted["latent"])
    assert torch.equal(batch.context[0], wanted["context"].repeat(times, 1))
    assert torch.equal(batch.hint[0], wanted["hint"]) and batch.hint.dtype == torch.uint8
    assert (batch.y is None) if wanted["y"] is None else torch.equal(batch.y[0], wanted["y"])


@pytest.fixture
def small_shards(monkeypatch):
    """Two rows of this size each."""
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 2 * (4 * 6 * 4 + 3 * 5 * 4 + 3 * 64 * 6) - 1)


def test_rows_come_back_in_the_order_of_the_data_set_with_their_groups_and_captions(tmp_path):
    tall = {"size": (4, 1), "y": 7}
    with CacheWriter(tmp_path / "c", "f", "Canny", PROBE, parameters={"low": 100}) as writer:
        fill(writer, [0, 3], y=7)
        fill(writer, [2, 1], group=1, **tall)
        made = writer.finish(EmptyPrompt(EMPTY.context, torch.ones(1, 4)), 4)
    for cache in (made, Cache.open(tmp_path / "c")):
        assert len(cache) == 4
        assert cache.groups.tolist() == [0, 1, 1, 0] and cache.groups.dtype == torch.int64
        assert cache.captions[2] == "a büst, number 2"
        assert (cache.condition, cache.fingerprint, cache.parameters) == ("Canny", "f", {"low": 100})
        assert cache.hint_channels == 3 and cache.problems == []
        assert torch.equal(cache.empty.context, EMPTY.context) and torch.equal(cache.empty.pooled, torch.ones(1, 4))
        for number, form in ((0, {"y": 7}), (1, tall), (2, tall), (3, {"y": 7})):
            same(cache.batch(torch.tensor([number])), number, **form)
        both = cache.batch(torch.tensor([2, 1]))
        assert torch.equal(both.latent, torch.stack([row(2, **tall)["latent"], row(1, **tall)["latent"]]))
    assert not list((tmp_path / "c").glob("*.unfinished"))


def test_texts_of_different_lengths_are_repeated_to_one(tmp_path):
    with CacheWriter(tmp_path, "f", "") as writer:
        fill(writer, [0], tokens=6)
        fill(writer, [1], tokens=9)
        fill(writer, [2])
        cache = writer.finish(EMPTY)
    assert torch.equal(cache.empty.context, EMPTY.context.repeat(1, 6, 1))
    for number, times, tokens in ((0, 3, 6), (1, 2, 9), (2, 6, 3)):
        same(cache.batch(torch.tensor([number])), number, times, tokens=tokens)
    assert cache.batch(torch.tensor([0, 1, 2])).context.shape == (3, 18, 5)


def test_the_next_number_is_given_where_none_is_told(tmp_path):
    with CacheWriter(tmp_path, "f", "") as writer:
        for number in range(2):
            writer.add(0, **row(number))
        cache = writer.finish(EMPTY)
    same(cache.batch(torch.tensor([1])), 1)


def test_a_kill_leaves_whole_shards_and_the_rest_is_made_again(tmp_path, small_shards):
    killed = CacheWriter(tmp_path, "f", "")
    fill(killed, range(5))  # no flush: the fifth is in memory only
    (tmp_path / "rows-0000-000002.safetensors.ab.unfinished").write_bytes(b"half")
    again = CacheWriter(tmp_path, "f", "")
    assert again.done == {0, 1, 2, 3}
    with again:
        fill(again, [4, 5, 6])
        cache = again.finish(EMPTY, 7)
    for number in range(7):
        same(cache.batch(torch.tensor([number])), number)
    assert not list(tmp_path.glob("*.unfinished"))


def test_an_interruption_keeps_what_was_made(tmp_path):
    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path, "f", "") as writer:
        fill(writer, range(3))
        writer.skip(3, "'x' is broken")
        raise KeyboardInterrupt
    again = CacheWriter(tmp_path, "f", "")
    assert again.done == {0, 1, 2}
    assert again.finish(EMPTY, 4).problems == ["'x' is broken"]


def test_shares_fill_one_folder(tmp_path, small_shards):
    writers = [CacheWriter(tmp_path, "f", "", PROBE, share) for share in range(2)]
    for share, writer in enumerate(writers):
        with writer:
            fill(writer, range(share, 7, 2))
    cache = writers[0].finish(EMPTY, 7)
    for number in range(7):
        same(cache.batch(torch.tensor([number])), number)


def test_a_row_that_could_be_read_after_all_is_no_problem(tmp_path):
    with CacheWriter(tmp_path, "f", "") as writer:
        fill(writer, [0])
        writer.skip(1, "'b' is broken")
        writer.skip(2, "'c' is broken")
    with CacheWriter(tmp_path, "f", "", share=1) as writer:
        fill(writer, [1])
        cache = writer.finish(EMPTY, 3)
    assert cache.problems == ["'c' is broken"]
    assert len(cache) == 2
    same(cache.batch(torch.tensor([1])), 1)


def test_missing_rows_are_said(tmp_path):
    writer = CacheWriter(tmp_path, "f", "")
    fill(writer, [0, 1])
    with pytest.raises(TrainingError) as raised:
        writer.finish(EMPTY, 5)
    assert str(raised.value) == (
        f"The cache '{tmp_path}' has 2 of 5 rows, but those of all processes were expected; let every process prepare its share, then start this "
        "one again."
    )


def test_a_data_set_without_a_readable_row_is_refused(tmp_path):
    writer = CacheWriter(tmp_path, "f", "")
    writer.skip(0, "'a' is broken")
    with pytest.raises(TrainingError) as raised:
        writer.finish(EMPTY, 1)
    assert str(raised.value) == (
        "The data set has no row that could be read ('a' is broken), but one at least was expected; look at its report."
    )


def test_a_folder_of_other_data_is_refused(tmp_path):
    CacheWriter(tmp_path, "f", "Canny", PROBE)
    with pytest.raises(TrainingError) as raised:
        CacheWriter(tmp_path, "g", "Canny", PROBE)
    assert str(raised.value) == (
        f"The cache '{tmp_path}' was begun for another data set or other settings of it, but one of the same data, made by the same networks, was "
        "expected; choose another folder, or delete this one to prepare the data anew."
    )
    with pytest.raises(TrainingError, match="was begun for another data set"):
        CacheWriter(tmp_path, "f", "HED", PROBE)


def test_a_folder_of_other_networks_is_refused_and_rounding_is_not(tmp_path):
    CacheWriter(tmp_path, "f", "", PROBE)
    CacheWriter(tmp_path, "f", "", {"VAE": PROBE["VAE"].half()})
    for other in (PROBE["VAE"] * 1.05, PROBE["VAE"][:-1], PROBE["VAE"] * float("nan")):
        with pytest.raises(TrainingError, match="was begun with another VAE, but one of the same data"):
            CacheWriter(tmp_path, "f", "", {"VAE": other})
    with pytest.raises(TrainingError, match="was begun with another text encoder"):
        CacheWriter(tmp_path, "f", "", PROBE | {"text encoder": PROBE["VAE"]})


def test_a_broken_beginning_is_said(tmp_path):
    (tmp_path / "begun.safetensors").write_bytes(b"no")
    with pytest.raises(TrainingError, match=r"cannot be read \(.+\), but one of the same data"):
        CacheWriter(tmp_path, "f", "")


@pytest.mark.parametrize("damage", ["cut", "gone", "no index", "another form"])
def test_a_cache_that_is_not_whole_is_refused(tmp_path, damage):
    with CacheWriter(tmp_path, "f", "") as writer:
        fill(writer, [0])
        writer.finish(EMPTY)
    shard, index = tmp_path / "rows-0000-000000.safetensors", tmp_path / "index.json"
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-10])
        found = "'rows-0000-000000.safetensors' is not whole"
    elif damage == "gone":
        shard.unlink()
        found = "No such file"
    elif damage == "no index":
        index.unlink()
        found = "No such file"
    else:
        index.write_text(json.dumps(json.loads(index.read_text()) | {"form": 99}))
        found = "its form is 99"
    with pytest.raises(TrainingError) as raised:
        Cache.open(tmp_path)
    assert str(raised.value).startswith(f"The cache '{tmp_path}' cannot be read (")
    assert found in str(raised.value)
    assert str(raised.value).endswith(
        "), but a finished folder of prepared rows was expected; prepare the data set again, in an empty folder."
    )


def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path, small_shards, monkeypatch):
    real = cache_module.save_file
    full = OSError(errno.ENOSPC, "No space left on device")

    def refusing(tensors, path, metadata):
        if "000001" in str(path):
            path.write_bytes(b"half")
            raise full
        real(tensors, path, metadata=metadata)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "save_file", refusing)
        with pytest.raises(TrainingError) as raised, CacheWriter(tmp_path, "f", "") as writer:
            fill(writer, range(5))
    assert str(raised.value) == (
        f"The prepared data could not be written to '{tmp_path / 'rows-0000-000001.safetensors'}' ({full}), but room and permission for it were "
        "expected; free some room, or choose another folder, and start again."
    )
    assert {path.name for path in tmp_path.iterdir()} == {"begun.safetensors", "rows-0000-000000.safetensors"}
    with CacheWriter(tmp_path, "f", "") as writer:
        assert writer.done == {0, 1}
        fill(writer, range(2, 5))
        assert len(writer.finish(EMPTY, 5)) == 5


def test_what_was_opened_for_inference_can_be_learned_from(tmp_path):
    with torch.inference_mode():
        with CacheWriter(tmp_path, "f", "") as writer:
            fill(writer, [0])
            cache = writer.finish(EMPTY)
        batch = cache.batch(torch.tensor([0]))
    tensors = [batch.latent, batch.context, batch.hint, cache.empty.context, cache.groups]
    assert not any(values.is_inference() for values in tensors)
