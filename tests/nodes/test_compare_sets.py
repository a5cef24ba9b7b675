"""Compare Sets in the host: files, lists, prompts, and what is refused; its features are those of a small network in Inception's place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths
from safetensors.torch import save_file
from torch import Tensor, nn

from control_composer.checkpoints.errors import CheckpointError
from control_composer.evaluation.clip_score import clip_network, clip_score
from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.sets import INCEPTION, FeatureNetwork, set_distance
from control_composer.nodes import compare_sets
from control_composer.nodes.compare_sets import ControlComposerCompareSets
from control_composer.nodes.evaluation_files import FOLDER, clip_folders, feature_files, register_folder
from control_composer.preprocessors import PreprocessorError
from control_composer.tests.evaluation.narrow_clip import write_clip

WEIGHTS = {"weight": torch.rand(5, 3, generator=torch.Generator().manual_seed(7))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], set()))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def network_of(tensors: Mapping[str, Tensor], file: str, features: int = 5) -> FeatureNetwork:
    module = nn.Linear(3, 5, bias=False)
    module.load_state_dict(dict(tensors))

    def seen(pictures: Tensor) -> Tensor:
        found: Tensor = module(pictures.mean(dim=(1, 2)) + pictures.std(dim=(1, 2)))
        return found

    return FeatureNetwork(f"means, {features} ({file})", seen, module)


@pytest.fixture
def inception(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureNetwork:
    pytest.importorskip("torchmetrics")
    save_file(WEIGHTS, folder / "other.safetensors")
    monkeypatch.setattr(compare_sets, "inception", network_of)
    return network_of(WEIGHTS, "other.safetensors", 192)


def pictures(count: int, seed: int, side: int = 8) -> Tensor:
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(seed))


def run(real: list[Tensor], made: list[Tensor], **inputs: Any) -> Any:
    given = {"features_name": "other.safetensors", "features": "192", "clip_name": "none"} | inputs
    with torch.inference_mode():
        return ControlComposerCompareSets.execute(
            real, made, **{name: value if isinstance(value, list) else [value] for name, value in given.items()}
        ).result


def test_the_distance_is_the_sets(inception: FeatureNetwork) -> None:
    real, made = pictures(12, 0), pictures(9, 1) * 0.5
    expected = set_distance(real, made, inception)
    fid, kid, clip, report = run([real], [made])
    assert (fid, kid) == (pytest.approx(expected.fid), pytest.approx(expected.kid)) and math.isnan(clip)
    assert report == (
        f"FID {fid:.3f} (lower is better, from 0)\n"
        f"KID {kid:.5f} (lower is better, about 0 for sets of one kind), ± {expected.kid_spread:.5f} over 100 subsets of 9\n"
        "between 12 real and 9 made pictures, in the eyes of means, 192 (other.safetensors).\n"
        "FID is larger the fewer pictures there are: compare it only with one of as many pictures in the eyes of the same network."
    )
    assert run([real], [made], seed=3)[1] != kid == run([real], [made], seed=0)[1]


def test_lists_of_pictures_of_any_sizes_and_channels(inception: FeatureNetwork) -> None:
    real = [pictures(3, 0), pictures(1, 1, 5), pictures(2, 2, 9)]
    grey = pictures(4, 3)[..., :1]
    expected = set_distance(real, grey.expand(-1, -1, -1, 3), inception)
    assert run(real, [grey[:1], grey[1:]])[0] == pytest.approx(expected.fid)
    opaque = [torch.cat([one, torch.ones_like(one[..., :1])], dim=3) for one in real]
    assert run(opaque, [grey])[0] == pytest.approx(expected.fid)


def test_it_tells_its_progress_and_can_be_interrupted(
    inception: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def hear(value: int, total: int, *_: Any, **__: Any) -> None:
        told.append((value, total))
        comfy.model_management.interrupt_current_processing(value < total)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hear)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run([pictures(20, 0)], [pictures(9, 1)])
    assert told == [(16, 29)]


def test_pictures_that_are_none_are_refused(inception: FeatureNetwork) -> None:
    with pytest.raises(PreprocessorError, match=r"^made: found pixels that are NaN or infinite, but"):
        run([pictures(4, 0)], [pictures(4, 1) * math.nan])
    with pytest.raises(EvaluationError, match=r"^features: found 5 features of 1 pictures, but"):
        run([pictures(4, 0)], [pictures(1, 1)])


# ---- files ----


def test_what_can_be_chosen(folder: Path) -> None:
    assert feature_files() == [INCEPTION, "none"] and clip_folders() == ["none"]
    (folder / "openai" / "clip").mkdir(parents=True)
    for name in ("b.pth", INCEPTION, "notes.txt", "openai/clip/config.json", "openai/clip/model.safetensors"):
        (folder / name).write_bytes(b"x")
    folder_paths.filename_list_cache.clear()
    assert feature_files() == [INCEPTION, "b.pth", "none"] and clip_folders() == ["none", "openai/clip"]


def test_the_folder_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    folder_paths.folder_names_and_paths.pop(FOLDER, None)
    assert feature_files() == [INCEPTION, "none"]
    register_folder()
    assert folder_paths.get_folder_paths(FOLDER) == [str(Path(folder_paths.models_dir) / FOLDER)]


def test_what_is_missing_says_where_to_get_it(folder: Path) -> None:
    with pytest.raises(EvaluationError) as refusal:
        run([pictures(4, 0)], [pictures(4, 1)], features_name=INCEPTION)
    assert str(refusal.value) == (
        f"Compare Sets: found no file '{INCEPTION}' in models/evaluation, but the weights of the network whose features are compared were "
        "expected there (Inception-v3, 91 MiB, Apache 2.0); download "
        f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION} into {folder}."
    )
    with pytest.raises(EvaluationError) as refusal:
        run([pictures(4, 0)], [pictures(4, 1)], features_name="none", clip_name="clip-b", prompts="a star")
    assert str(refusal.value) == (
        "Compare Sets: found no folder 'clip-b' with a config.json in models/evaluation, but that of a published CLIP was expected; download all "
        f"files of one, as https://huggingface.co/openai/clip-vit-base-patch16, into {folder / 'clip-b'}."
    )
    with pytest.raises(EvaluationError) as refusal:
        run([pictures(4, 0)], [pictures(4, 1)], features_name="none")
    assert str(refusal.value) == (
        "Compare Sets: found neither a file of features nor a CLIP, but one of them was expected; choose features_name or clip_name."
    )


class Code:
    def __reduce__(self) -> Any:
        return (print, ("code that a file of weights holds was run",))


def test_code_in_a_file_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Code()}, folder / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        run([pictures(4, 0)], [pictures(4, 1)], features_name="evil.pth")
    assert capsys.readouterr().out == ""


# ---- CLIP ----


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("evaluation") / "clip-narrow").parent


def test_clip_scores_of_prompts(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(clips)], set()))
    made = torch.cat([pictures(2, 1), 1 - pictures(1, 2) * 0.2])
    lines = ["a red star", "a blue square", "x"]
    expected = clip_score(made, lines, clip_network(clips / "clip-narrow"))
    chosen = {"features_name": "none", "clip_name": "clip-narrow"}
    for prompts in ("a red star\n\n  a blue square \nx\n", lines, ["a red\nstar", *lines[1:]]):
        fid, kid, score, report = run([made], [made[:1], made[1:]], prompts=prompts, **chosen)
        assert score == pytest.approx(expected.mean, abs=1e-3) and math.isnan(fid) and math.isnan(kid)
    assert report == (
        f"CLIP score {score:.2f} (higher is better, 0 to 100), mean of 3 made pictures, in the eyes of clip-narrow."
    )
    one = clip_score(made, ["a red star"] * 3, clip_network(clips / "clip-narrow"))
    assert run([made], [made], prompts="a red star", **chosen)[2] == pytest.approx(one.mean, abs=1e-3)
    for wrong, count in (("", 0), ("a\nb", 2), (["a", "b", "c", "d"], 4)):
        with pytest.raises(EvaluationError) as refusal:
            run([made], [made], prompts=wrong, **chosen)
        assert str(refusal.value) == (
            f"Compare Sets: found {count} prompts for 3 made pictures, but one for each, or one for all, was expected; write one on each line, "
            "or connect a list of them."
        )
