"""A folder as a published CLIP's, with a narrow network of random weights."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

SIDE = 8
"""Of the pictures that it sees."""


def write_clip(place: Path) -> Path:
    comfy = find_spec("comfy")  # Not imported: of the host, only its file of words is needed.
    if comfy is None or not comfy.submodule_search_locations:
        pytest.skip("no ComfyUI here")
    transformers = pytest.importorskip("transformers")
    narrow = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=narrow | {"max_position_embeddings": 77},
        vision_config=narrow | {"image_size": SIDE, "patch_size": 4},
        projection_dim=6,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(place)
    for file in (Path(comfy.submodule_search_locations[0]) / "sd1_tokenizer").iterdir():
        shutil.copy(file, place)
    transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(place)
    return place
