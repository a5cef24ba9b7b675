"""CLIP scores of a narrow CLIP with random weights from a folder, against its embeddings taken one by one."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from control_composer.evaluation.clip_score import ClipNetwork, clip_network, clip_score
from control_composer.evaluation.errors import EvaluationError
from control_composer.tests.evaluation.narrow_clip import SIDE, write_clip

TEXTS = ["a red star", "a blue square on a green ground", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip-narrow")


@pytest.fixture(scope="module")
def network(folder: Path) -> ClipNetwork:
    return clip_network(folder)


def pictures() -> torch.Tensor:
    shade = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    return (
        (torch.rand(3, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1)) * 0.5 + shade * 0.5) * 255 // 1 / 255
    )


def cosines(network: ClipNetwork) -> list[float]:
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    found = []
    for picture, text in zip(pictures(), TEXTS, strict=True):
        ids = torch.tensor([network.tokenizer(text)["input_ids"]])
        pixels = ((picture - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)).permute(2, 0, 1)[None]
        words = network.model.text_projection(network.model.text_model(ids).pooler_output)[0]
        seen = network.model.visual_projection(network.model.vision_model(pixels).pooler_output)[0]
        found.append(float(words @ seen / words.norm() / seen.norm()))
    return found


def test_it_is_a_hundred_cosines_and_at_least_nothing(network: ClipNetwork):
    expected = cosines(network)
    assert min(expected) < -0.05 and max(expected) > 0.05, expected
    for batch in (2, 8):
        score = clip_score(pictures(), TEXTS, network, batch)
        assert score.per_picture.tolist() == pytest.approx([max(0, 100 * one) for one in expected], abs=1e-3)
    assert score.mean == pytest.approx(score.per_picture.mean().item()) and score.network == "clip-narrow"


def test_long_texts_are_cut(network: ClipNetwork):
    score = clip_score(pictures(), ["star " * 200] * 3, network)
    assert torch.isfinite(score.per_picture).all()


def test_folders_without_a_clip_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(
        EvaluationError, match=r"^CLIP score: 'nothing': found no folder, but config.json .*; put all files"
    ):
        clip_network(tmp_path / "nothing")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare)
    with pytest.raises(
        EvaluationError, match=r"^CLIP score: 'bare': found no tokenizer or picture .*, but those .*; put all"
    ):
        clip_network(bare)


def test_another_number_of_texts_is_refused(network: ClipNetwork):
    with pytest.raises(EvaluationError, match=r"^CLIP score: found 2 texts for 3 pictures, but one .*; give each"):
        clip_score(pictures(), TEXTS[:2], network)


def test_without_transformers_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EvaluationError, match=r"found no package 'transformers' .*; install it with: pip install tr"):
        clip_network(folder)
