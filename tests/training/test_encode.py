"""Pictures and captions through the host's own VAE and text encoders."""

import logging
from dataclasses import dataclass, field

import pytest

pytest.importorskip("comfy")
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingFlux

from control_composer.demo.diffusion import alphas_cumprod as demo_alphas
from control_composer.demo.scenes import render, sample_scenes
from control_composer.demo.world import load_world
from control_composer.tests import narrow
from control_composer.tests.control.case_ctrlora import make_vae
from control_composer.training.dataset.errors import DatasetError
from control_composer.training.encode import encode, of_clip, of_demo_world, schedule_of
from control_composer.training.errors import TrainingError

SIZES = ((64, 64), (64, 128), (128, 64))


@dataclass(frozen=True)
class Row:
    picture: torch.Tensor
    caption: str
    hint: torch.Tensor


@dataclass
class Dataset:
    """As many random rows as captions, of `SIZES` in turn."""

    captions: list[str]
    broken: tuple[int, ...] = ()
    fingerprint: str = "f"
    condition: str = "Canny"
    parameters: dict = field(default_factory=lambda: {"low": 1})
    asked: list[int] = field(default_factory=list)

    def __len__(self):
        return len(self.captions)

    @property
    def groups(self):
        return torch.arange(len(self)) % len(SIZES)

    def row(self, number):
        self.asked.append(number)
        if number in self.broken:
            raise DatasetError(f"'{number}'", found="is broken", expected="a picture was expected", remedy="mend it")
        generator = torch.Generator().manual_seed(number)
        size = SIZES[number % len(SIZES)]
        picture, hint = torch.randint(0, 256, (2, *size, 3), generator=generator).to(torch.uint8)
        return Row(picture, self.captions[number], hint)


@pytest.fixture(autouse=True)
def no_grad():
    """The networks were loaded as in a graph, so nothing may be learned from them."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def world():
    with torch.inference_mode():
        return load_world()


@pytest.fixture(scope="module")
def clip():
    """The host's CLIP of SD1 with two narrow layers of random weights."""
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    config = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    made = comfy.sd.CLIP(target, model_options={"clip_l_model_config": config})
    narrow.fill(made.cond_stage_model, 4)
    return made


@pytest.fixture(scope="module")
def vae():
    return make_vae()


def plain(texts):
    """A text encoder of the narrow SDXL."""
    values = [float(len(text)) for text in texts]
    return torch.tensor(values)[:, None, None].expand(-1, 77, 40), torch.tensor(values)[:, None].expand(-1, 1280)


def test_the_demo_world_in_a_graph(world, tmp_path):
    captions = sample_scenes(5, 3).captions()
    told = []
    dataset = Dataset(captions)
    with torch.inference_mode():
        cache = encode(dataset, world.vae, of_demo_world(world), world.model.model, tmp_path, on_row=told.append)
    assert told == [1, 2, 3, 4, 5]
    assert sorted(dataset.asked) == [0, 1, 2, 3, 4]
    assert cache.captions == captions and cache.groups.tolist() == [0, 1, 2, 0, 1]
    assert (cache.fingerprint, cache.condition, cache.parameters) == ("f", "Canny", {"low": 1})
    assert cache.empty.pooled is None
    assert torch.equal(cache.empty.context, world.encode("")[0][0])
    for number in range(5):
        row, batch = dataset.row(number), cache.batch(torch.tensor([number]))
        latent = world.vae.encode(row.picture[None].float() / 255)
        torch.testing.assert_close(batch.latent, latent, rtol=0, atol=1e-6)
        assert batch.latent.shape[2:] == (row.picture.shape[0] // 8, row.picture.shape[1] // 8)
        assert torch.equal(batch.context, world.encode(captions[number])[0][0])
        assert torch.equal(batch.hint[0], row.hint.permute(2, 0, 1))
        assert batch.y is None


def test_a_picture_comes_back_from_its_latent(world, tmp_path):
    scenes = sample_scenes(1, 3)
    picture = (render(scenes)[0] * 255).round().byte()

    class One(Dataset):
        groups = torch.zeros(1, dtype=torch.int64)

        def row(self, number):
            return Row(picture, self.captions[number], picture)

    cache = encode(One(scenes.captions()), world.vae, of_demo_world(world), world.model, tmp_path)
    latent = world.model.model.process_latent_out(cache.batch(torch.tensor([0])).latent)
    again = world.vae.decode(latent)[0]
    assert (again - picture.float() / 255).abs().mean() < 0.03


def test_sd1_scales_its_latents_and_reads_texts_of_any_length(clip, vae, tmp_path):
    dataset = Dataset(["a cat", "cat, " * 60 + "dog", "a (blurry:1.4) cat"])
    model = narrow.make_model("sd1")
    with torch.inference_mode():
        cache = encode(dataset, vae, of_clip(clip), model, tmp_path)

    def stock(text):
        return clip.encode_from_tokens(clip.tokenize(text))

    row = dataset.row(1)
    latent = vae.encode(row.picture[None].float() / 255) * 0.18215
    batch = cache.batch(torch.tensor([1]))
    torch.testing.assert_close(batch.latent, latent, rtol=0, atol=1e-6)
    # Two parts of 77 tokens; the others are repeated.
    torch.testing.assert_close(batch.context, stock(dataset.captions[1]), rtol=0, atol=1e-5)
    assert batch.context.shape == (1, 154, 24)
    short = cache.batch(torch.tensor([0])).context
    torch.testing.assert_close(short, stock("a cat").repeat(1, 2, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(cache.empty.context, stock("").repeat(1, 2, 1), rtol=0, atol=1e-5)
    # Brackets are words in a caption.
    bracketed = cache.batch(torch.tensor([2])).context[:, :77]
    torch.testing.assert_close(bracketed, stock("a \\(blurry:1.4\\) cat"), rtol=0, atol=1e-5)


def test_of_a_very_long_caption_the_start_is_read_and_the_log_says_it(clip, caplog):
    long = "cat dog " * 200
    with caplog.at_level(logging.WARNING):
        context, pooled = of_clip(clip)([long, "a cat"])
    assert context.shape == (2, 4 * 77, 24) and pooled.shape == (2, 24)
    torch.testing.assert_close(context[1], of_clip(clip)(["a cat"])[0][0].repeat(4, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(context[0], clip.encode_from_tokens(clip.tokenize(long))[0, : 4 * 77], rtol=0, atol=1e-5)
    assert [record.message[:66] for record in caplog.records] == [
        "Control Composer: a caption is too long and its end is left out: '"
    ]


def test_sdxl_reads_the_summary_of_the_text_and_the_sizes(vae, tmp_path):
    dataset = Dataset(["one", "three"])
    cache = encode(dataset, vae, plain, narrow.make_model("sdxl"), tmp_path)
    assert torch.equal(cache.empty.pooled, torch.zeros(1, 1280))
    y = cache.batch(torch.tensor([1])).y
    assert torch.equal(y[0, :1280], torch.full((1280,), 5.0))
    height, width, nothing = (Timestep(256)(torch.tensor([float(value)]))[0] for value in (64, 128, 0))
    torch.testing.assert_close(y[0, 1280:], torch.cat([height, width, nothing, nothing, height, width]))
    torch.testing.assert_close(
        cache.batch(torch.tensor([1])).latent, vae.encode(dataset.row(1).picture[None].float() / 255) * 0.13025
    )


def test_what_cannot_be_read_is_listed_and_left_out(world, tmp_path):
    dataset = Dataset(["a red circle"] * 4, broken=(1, 2))
    cache = encode(dataset, world.vae, of_demo_world(world), world.model, tmp_path)
    assert len(cache) == 2 and cache.groups.tolist() == [0, 0]
    assert cache.problems == [f"'{number}' is broken, but a picture was expected; mend it." for number in (1, 2)]
    assert torch.equal(cache.batch(torch.tensor([1])).hint[0], Dataset(["", "", "", ""]).row(3).hint.permute(2, 0, 1))


def test_a_caption_that_cannot_be_read_is_listed_and_left_out(world, tmp_path):
    dataset = Dataset(["a red circle", "a purple elephant"])
    cache = encode(dataset, world.vae, of_demo_world(world), world.model, tmp_path)
    assert cache.captions == ["a red circle"]
    assert len(cache.problems) == 1 and "'a purple elephant' has 'elephant'" in cache.problems[0]


def test_an_interruption_goes_on_where_it_was(world, tmp_path):
    first, second, third = (Dataset(["a red circle"] * 5) for _ in range(3))
    text = of_demo_world(world)

    def interrupt(done):
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        encode(first, world.vae, text, world.model, tmp_path, on_row=interrupt)
    told = []
    cache = encode(second, world.vae, text, world.model, tmp_path, on_row=told.append)
    assert sorted(first.asked + second.asked) == [0, 1, 2, 3, 4]
    assert told == [4, 5]
    assert encode(third, world.vae, text, world.model, tmp_path, on_row=told.append).captions == cache.captions
    assert third.asked == [] and told == [4, 5, 5]


def test_two_shares_make_what_one_makes(world, tmp_path):
    captions = sample_scenes(5, 3).captions()
    text = of_demo_world(world)
    one = encode(Dataset(captions), world.vae, text, world.model, tmp_path / "one")
    both = [Dataset(captions), Dataset(captions)]
    with pytest.raises(TrainingError, match="has 3 of 5 rows, but those of all processes were expected"):
        encode(both[0], world.vae, text, world.model, tmp_path / "two", share=(0, 2))
    with pytest.raises(TrainingError, match="cannot be read"):  # not closed yet
        encode(both[1], world.vae, text, world.model, tmp_path / "two", share=(1, 2))
    waited = []
    two = encode(both[0], world.vae, text, world.model, tmp_path / "two", share=(0, 2), wait=lambda: waited.append(1))
    assert len(waited) == 2
    assert sorted(both[0].asked + both[1].asked) == [0, 1, 2, 3, 4]
    assert two.captions == one.captions and two.groups.tolist() == one.groups.tolist()
    for number in range(5):
        ours, theirs = (cache.batch(torch.tensor([number])) for cache in (one, two))
        assert torch.equal(ours.latent, theirs.latent) and torch.equal(ours.hint, theirs.hint)


def test_a_cache_of_other_networks_is_not_continued(world, clip, vae, tmp_path):
    dataset, text = Dataset(["a red circle"]), of_demo_world(world)
    encode(dataset, world.vae, text, world.model, tmp_path)

    def other(texts):
        context, _ = text(texts)
        return context + 1, None

    with pytest.raises(TrainingError, match="was begun with another text encoder"):
        encode(dataset, world.vae, other, world.model, tmp_path)

    class OtherVAE:
        device = world.vae.device

        def encode(self, pixels):
            return world.vae.encode(pixels) + 1

    with pytest.raises(TrainingError, match="was begun with another VAE"):
        encode(dataset, OtherVAE(), text, world.model, tmp_path)


def test_networks_that_do_not_belong_together_are_refused(world, clip, vae, tmp_path):
    dataset = Dataset(["a"])
    sd1, sdxl = narrow.make_model("sd1"), narrow.make_model("sdxl")
    with pytest.raises(TrainingError) as raised:
        encode(dataset, vae, of_clip(clip), sdxl, tmp_path)
    assert str(raised.value) == (
        "The connected text encoder gives 24 numbers for each word, but 40 were expected, which the model reads; connect the CLIP of the model."
    )
    with pytest.raises(TrainingError) as raised:
        encode(dataset, vae, lambda texts: (plain(texts)[0], None), sdxl, tmp_path)
    assert str(raised.value) == (
        "The connected text encoder gives no summary of a text, but one was expected, which the model reads; connect the CLIP of the model."
    )
    with pytest.raises(TrainingError) as raised:
        encode(dataset, make_vae(channels=16), of_clip(clip), sd1, tmp_path)
    assert str(raised.value) == (
        "The connected VAE makes (16, 8, 8) of a picture of 64 x 64 pixels, but (4, 8, 8) was expected; connect the VAE of the model, and pictures "
        "with sides at multiples of 8."
    )


def test_schedules_are_those_of_the_bases(world):
    sd1 = narrow.make_model("sd1")
    with torch.inference_mode():
        demo, stable = schedule_of(world.model), schedule_of(sd1.model)
    assert (demo.prediction, stable.prediction) == ("v", "eps")
    # SD's own numbers: betas linear in their root (arXiv 2112.10752).
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    torch.testing.assert_close(stable.alphas_cumprod, (1 - betas).cumprod(0).float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(demo.alphas_cumprod, demo_alphas(), rtol=1e-4, atol=1e-6)
    assert not demo.alphas_cumprod.is_inference()
    (patched,) = ModelSamplingDiscrete().patch(sd1, "v_prediction", zsnr=True)
    zero = schedule_of(patched)
    assert zero.prediction == "v" and zero.alphas_cumprod[-1] < 1e-6


def test_other_ways_of_sampling_are_refused():
    sd1 = narrow.make_model("sd1")
    (lcm,) = ModelSamplingDiscrete().patch(sd1, "lcm", zsnr=False)
    with pytest.raises(TrainingError) as raised:
        schedule_of(lcm)
    assert str(raised.value) == (
        "The connected model is sampled by ModelSamplingDiscreteDistilled and LCM, but a base that predicts noise (eps) or velocity (v) at discrete "
        "times was expected, as SD1, SD2 and SDXL do; connect the base itself, not a distilled version of it or one with another sampling."
    )
    (x0,) = ModelSamplingDiscrete().patch(sd1, "x0", zsnr=False)
    (flow,) = ModelSamplingFlux().patch(sd1, 1.15, 0.5, 512, 512)
    for other in (x0, flow):
        with pytest.raises(TrainingError, match="is sampled by"):
            schedule_of(other)
