"""Public files, by their names and shapes alone (published/*.json, which make_published.py and make_published_xs.py write): each is known by its own family and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from control_composer.checkpoints.base import ConnectedBase
from control_composer.checkpoints.canonical import canonical
from control_composer.checkpoints.detect import detect
from control_composer.checkpoints.errors import BaseMismatchError
from control_composer.checkpoints.families import FAMILIES
from control_composer.checkpoints.tensors import Checkpoint, TensorInfo

FOLDER = Path(__file__).parent / "published"

CLDM = "a ControlNet (cldm layout)"
DIFFUSERS = "a ControlNet (diffusers layout)"
UNION = "a Union ControlNet (diffusers layout)"
LORA = "a Control-LoRA"
LLLITE = "a ControlNet-LLLite"
FULL = "a T2I-Adapter (full)"
RGB, SCRIBBLE = "a SparseCtrl (RGB)", "a SparseCtrl (scribble)"
XS = "a ControlNet-XS (diffusers layout)"
XS_MODEL = "a ControlNet-XS (layout of diffusers 0.25 to 0.27)"
XS_ORIGINAL = "a ControlNet-XS (vislearn layout)"
EXPECTED = {
    "UmerHA_Testing-ConrolNetXS-SD2.1-canny": (XS, "SD2"),
    "UmerHA_Testing-ConrolNetXS-SDXL-canny": (XS, "SDXL"),
    "UmerHA_ConrolNetXS-SD2.1-canny": (XS_MODEL, "SD2"),
    "UmerHA_ConrolNetXS-SDXL-canny": (XS_MODEL, "SDXL"),
    "sd21_encD_canny_14m": (XS_ORIGINAL, "SD2"),
    "sd15_encD_canny_53m": (XS_ORIGINAL, "SD1"),
    "control_v11p_sd15_canny_fp16": (CLDM, "SD1"),
    "control_v11p_sd15_canny": (CLDM, "SD1"),
    "lllyasviel_control_v11p_sd15_canny_diffusers": (DIFFUSERS, "SD1"),
    "temporalnetversion2": (CLDM, "SD1"),
    "control_v11p_sd21_canny": (CLDM, "SD2"),
    "diff_control_sd15_canny_fp16": ("a difference ControlNet, which is added to its model", "SD1"),
    "diffusers_controlnet-canny-sdxl-1.0": (DIFFUSERS, "SDXL"),
    "diffusers_controlnet-canny-sdxl-1.0-small": (DIFFUSERS, "SDXL"),
    "xinsir_controlnet-union-sdxl-1.0": (UNION, "SDXL"),
    "xinsir_controlnet-union-sdxl-1.0_promax": (UNION, "SDXL"),
    "control-lora-canny-rank256": (LORA, "SDXL"),
    "control-lora-canny-rank128": (LORA, "SDXL"),
    "control_lora_rank128_v11p_sd15_canny_fp16": (LORA, "SD1"),
    "ctrlora_sd15_basecn700k": ("a CtrLoRA base", "SD1"),
    "ctrlora_sd15_basecn700k_lineart_rank128_1kimgs_1ksteps": ("a LoRA file of CtrLoRA", "SD1"),
    "controllllite_v01032064e_sdxl_canny": (LLLITE, "SDXL"),
    "controllllite_v01008016e_sdxl_depth_anime": (LLLITE, "SDXL"),
    "bdsqlsz_controlllite_xl_canny": (LLLITE, "SDXL"),
    "ControlNeXt-SD1.5_deepfashion_caption_controlnet": ("a ControlNeXt", "SD1"),
    "ControlNeXt-SDXL_vidit_depth_controlnet_July_2024": ("a ControlNeXt", "SDXL"),
    "ControlNeXt-SDXL_anime_canny_controlnet": ("a ControlNeXt", "SD1 or SDXL"),
    "t2iadapter_depth_sd14v1": (FULL, "SD1 or SD2"),
    "t2iadapter_canny_sd14v1": (FULL, "SD1 or SD2"),
    "t2iadapter_color_sd14v1": ("a T2I-Adapter (light)", "SD1 or SD2"),
    "t2i-adapter-lineart-sdxl-1.0": ("a T2I-Adapter (diffusers layout)", "SDXL"),
    "t2i-adapter_xl_canny": (FULL, "SDXL"),
    "v3_sd15_sparsectrl_rgb": (RGB, "SD1"),
    "v3_sd15_sparsectrl_scribble": (SCRIBBLE, "SD1"),
    "guoyww_animatediff-sparsectrl-rgb": (RGB, "SD1"),
    "guoyww_animatediff-sparsectrl-scribble": (SCRIBBLE, "SD1"),
}
HINT_CHANNELS = {"t2iadapter_canny_sd14v1": 1, "temporalnetversion2": 6}
MODELS = {
    "SD1": ConnectedBase("SD1", 320, (1, 2, 4, 4), (2, 2, 2, 2), 768, None, 8, -1),
    "SD2": ConnectedBase("SD2", 320, (1, 2, 4, 4), (2, 2, 2, 2), 1024, None, -1, 64),
    "SDXL": ConnectedBase("SDXL", 320, (1, 2, 4), (2, 2, 2), 2048, 2816, -1, 64),
}


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    for name, inside in tree.items():
        if isinstance(inside, dict):
            yield from leaves(inside, f"{prefix}{name}.")
        else:
            yield prefix + name, inside


def published(name: str) -> tuple[Checkpoint, dict[str, Any]]:
    content = json.loads((FOLDER / f"{name}.json").read_text())
    dtype = getattr(torch, content["dtype"])
    tensors = {key: TensorInfo(key, tuple(shape), dtype) for key, shape in leaves(content["tensors"])}

    def nothing(*_: Any) -> Any:
        raise AssertionError("detection reads no weights")

    return Checkpoint(Path(content["file"]), tensors, {}, nothing), content


def header_size(checkpoint: Checkpoint) -> int:
    """Bytes before the data of a safetensors file: much of one with many small tensors."""
    if checkpoint.path.suffix != ".safetensors":
        return 0
    end, header = 0, {}
    for name, info in checkpoint.tensors.items():
        header[name] = {"dtype": "F16", "shape": info.shape, "data_offsets": (end, end + info.nbytes)}
        end += info.nbytes
    return 8 + len(json.dumps(header, separators=(",", ":")))


def test_every_file_is_expected() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_its_own_family_and_no_other(name: str) -> None:
    checkpoint, content = published(name)
    file = canonical(checkpoint)
    assert [family.name for family in FAMILIES if family.condition.holds(file.tensors)] == [EXPECTED[name][0]]
    match = detect(file)
    assert (match.family.name, match.base) == EXPECTED[name]
    assert match.hyperparameters.hint_channels == HINT_CHANNELS.get(name, 3)
    size = sum(info.nbytes for info in checkpoint.tensors.values()) + header_size(checkpoint)
    assert content["megabytes"] is None or size / 1e6 == pytest.approx(content["megabytes"], rel=0.005)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_model_that_it_was_made_for_and_no_other(name: str) -> None:
    file = canonical(published(name)[0])
    bases = EXPECTED[name][1].split(" or ")
    for base, model in MODELS.items():
        if base in bases:
            detect(file, model)
        else:
            with pytest.raises(BaseMismatchError, match=f"but the connected model is of the base {base}; "):
                detect(file, model)


def test_what_the_descriptions_add() -> None:
    def notes(name: str) -> tuple[str, ...]:
        return detect(canonical(published(name)[0])).notes

    assert notes("xinsir_controlnet-union-sdxl-1.0")[0].endswith(", normal, segment")
    assert notes("xinsir_controlnet-union-sdxl-1.0_promax")[0].endswith(", segment, tile, repaint")
    assert notes("control-lora-canny-rank256")[0] == "ranks: 36 to 256"
    assert notes("control_v11p_sd15_canny") == ()
    small = "control stream: 4-8-16-16 channels; heads 1-1-2-2 (convention)"
    for name in ("UmerHA_Testing-ConrolNetXS-SD2.1-canny", "UmerHA_ConrolNetXS-SD2.1-canny", "sd21_encD_canny_14m"):
        assert notes(name) == (small, "time embedding: its own, mix 1")
    for name, mix in (("UmerHA_Testing-ConrolNetXS-SDXL-canny", "1"), ("UmerHA_ConrolNetXS-SDXL-canny", "0.95")):
        large = "control stream: 32-64-128 channels; heads 1-1-2 (convention)"
        assert notes(name) == (large, f"time embedding: its own, mix {mix}")
    assert notes("sd15_encD_canny_53m") == (
        "control stream: 64-128-256-256 channels; heads 8-8-8-8 (convention)",
        "time embedding: the model's",
    )
