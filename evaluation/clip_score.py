"""How well pictures fit their texts, in the eyes of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..preprocessors.errors import PreprocessorError
from ..preprocessors.networks.transformer import build_transformer
from .errors import EvaluationError
from .pairs import check_pictures
from .sets import needed


@dataclass(frozen=True, eq=False)
class ClipNetwork:
    name: str
    """Of the folder: scores in the eyes of two networks cannot be compared."""
    model: Any
    """transformers' CLIPModel"""
    tokenizer: Any
    pictures: Any
    """The image processor that brings pictures to the model's size and numbers."""


@dataclass(frozen=True)
class ClipScore:
    per_picture: Tensor
    """(B) float32, 0..100"""
    network: str
    """The name of the network."""

    @property
    def mean(self) -> float:
        return float(self.per_picture.mean())


def clip_network(folder: Path) -> ClipNetwork:
    """From a folder on this machine with the files of a published CLIP (config.json, model.safetensors, tokenizer, preprocessor_config.json).

    Nothing is asked of the network, no code in the folder runs. Raises EvaluationError where something is missing or other than that.
    """
    transformers = needed("transformers", "transformers")
    try:
        model = build_transformer(folder, architecture="CLIPModel")
    except PreprocessorError as problem:
        raise EvaluationError(f"CLIP score: {problem}") from problem
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        pictures = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise EvaluationError(
            f"CLIP score: '{folder.name}': found no tokenizer or picture settings that transformers can read "
            f"({str(problem).strip().splitlines()[0]}), but those of a CLIP were expected; put all files of the published repository there."
        ) from problem
    return ClipNetwork(folder.name, model, tokenizer, pictures)


def clip_score(pictures: Tensor, texts: Sequence[str], network: ClipNetwork, batch: int = 8) -> ClipScore:
    """100 times the cosine between picture and text, at least 0: (B, H, W, 3) float 0..1 and B texts.

    Hessel et al., "CLIPScore", 2021, equation in section 3, with the factor 100 that is in use since, not 2.5. Texts are cut to what CLIP reads.
    Raises EvaluationError for another number of texts and for anything but finite RGB pictures.
    """
    check_pictures("CLIP score", pictures, pictures)
    if len(texts) != len(pictures):
        raise EvaluationError(
            f"CLIP score: found {len(texts)} texts for {len(pictures)} pictures, but one for each was expected; give each picture its own."
        )
    device = next(network.model.parameters()).device
    scores = []
    for start in range(0, len(pictures), batch):
        part = (pictures[start : start + batch].clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        words = network.tokenizer(
            list(texts[start : start + batch]),
            padding=True,
            truncation=True,
            max_length=_longest(network),
            return_tensors="pt",
        )
        seen = network.pictures(images=[picture.numpy() for picture in part], return_tensors="pt")
        with torch.no_grad():
            found = network.model(
                input_ids=words["input_ids"].to(device),
                attention_mask=words["attention_mask"].to(device),
                pixel_values=seen["pixel_values"].to(device, network.model.dtype),
            )
        cosine = torch.nn.functional.cosine_similarity(found.image_embeds.float(), found.text_embeds.float())
        scores.append(cosine.clamp(min=0).cpu() * 100)
    return ClipScore(torch.cat(scores), network.name)


def _longest(network: ClipNetwork) -> int:
    return int(network.model.config.text_config.max_position_embeddings)
