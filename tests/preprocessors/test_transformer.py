"""Networks of the transformers library from folders, and what folders that hold something else are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import transformers

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.transformer import build_transformer

ARCHITECTURE = "SegformerForSemanticSegmentation"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        num_labels=5,
    )
    path = tmp_path / "segformer-of-five"
    transformers.SegformerForSemanticSegmentation(settings).save_pretrained(path)
    return path


def test_the_network_of_a_folder(folder: Path) -> None:
    picture = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    network = build_transformer(folder, architecture=ARCHITECTURE)
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    expected = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(network(picture).logits, expected(picture).logits)
    half = build_transformer(folder, architecture=ARCHITECTURE, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(PreprocessorError) as refused:
        build_transformer(tmp_path, architecture=ARCHITECTURE)
    assert str(refused.value) == (
        f"'{tmp_path.name}': found an empty folder, but config.json and model.safetensors of a SegformerForSemanticSegmentation were expected; "
        "put all files of the published repository there."
    )


def test_another_network(folder: Path) -> None:
    with pytest.raises(PreprocessorError) as refused:
        build_transformer(folder, architecture="DPTForDepthEstimation")
    assert str(refused.value) == (
        "'segformer-of-five/config.json': found a 'segformer', but a 'dpt' for DPTForDepthEstimation was expected; "
        "put the published folder there, or choose the network that this one is."
    )


def test_a_network_that_this_version_of_the_library_lacks(folder: Path) -> None:
    with pytest.raises(PreprocessorError, match=r"found transformers [\d.]+ without NextYearsNetwork, but a version"):
        build_transformer(folder, architecture="NextYearsNetwork")


def test_weights_of_which_one_is_missing(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["decode_head.classifier.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PreprocessorError) as refused:
        build_transformer(folder, architecture=ARCHITECTURE)
    assert str(refused.value) == (
        "'segformer-of-five': found no tensor 'decode_head.classifier.bias', but all weights of SegformerForSemanticSegmentation were expected; "
        "download the folder anew."
    )


def test_settings_that_cannot_be_read(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(PreprocessorError, match=r"^'segformer-of-five/config.json': found settings that transformers"):
        build_transformer(folder, architecture=ARCHITECTURE)


def test_no_code_of_a_folder_runs(folder: Path, tmp_path: Path) -> None:
    """Neither a pickle's nor a Python file's that the settings name."""
    ran = tmp_path / "ran"
    (folder / "model.safetensors").unlink()

    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(ran)!r}, 'w')",)

    torch.save({"weight": Planted()}, folder / "pytorch_model.bin")
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "planted.Planted"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "planted.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(PreprocessorError) as refused:
        build_transformer(folder, architecture=ARCHITECTURE)
    assert str(refused.value) == (
        "'segformer-of-five/pytorch_model.bin': found a file that holds or asks for more than tensors, but weights of "
        "SegformerForSemanticSegmentation were expected; do not load it elsewhere either, and take the model.safetensors of the published repository."
    )
    assert not ran.exists()
