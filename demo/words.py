"""The demo world's words: a vocabulary, and the small network that turns a prompt into CONDITIONING."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .scenes import COLOURS, SHAPES

VOCABULARY = ("", "a", "and", "on", ",", "ground", "small", "large", "graded", "striped", *COLOURS, *SHAPES)
LENGTH = 24  # the longest caption has 19 words and commas
WIDTH = 64

_INDEX = {word: index for index, word in enumerate(VOCABULARY)}
_INDEX["an"] = _INDEX["a"]


def tokens(prompt: str) -> list[int]:
    """Word indices of a prompt, padded with 0 to 24; the empty prompt is all padding.

    Raises ValueError for words outside the vocabulary and for prompts that are too long.
    """
    words = re.findall(r"[^\s,.]+|,", prompt.lower())
    unknown = sorted({word for word in words if word not in _INDEX})
    if unknown:
        raise ValueError(
            f"Demo Prompt: the prompt {prompt!r} has {_listed(unknown)}, but the demo world only knows "
            f"{_listed([word for word in VOCABULARY if word])}; write a prompt such as "
            '"a red circle and a blue star on a green ground".'
        )
    if len(words) > LENGTH:
        raise ValueError(
            f"Demo Prompt: the prompt has {len(words)} words, but the demo world reads at most {LENGTH}; "
            "name up to three shapes and a ground."
        )
    return [_INDEX[word] for word in words] + [0] * (LENGTH - len(words))


def token_batch(prompts: Sequence[str]) -> Tensor:
    """Word indices of several prompts: int64 (N, 24)."""
    return torch.tensor([tokens(prompt) for prompt in prompts])


class Words(nn.Module):
    """Embeds words, their places and their neighbours: int64 (N, 24) -> float (N, 24, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(len(VOCABULARY), WIDTH)
        self.place = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        # An adjective stands up to two words before its noun; two convolutions of three words bind them.
        self.first = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.second = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.word(words) + self.place
        near = self.second(nn.functional.gelu(self.first(x.transpose(1, 2)))).transpose(1, 2)
        normed: Tensor = self.norm(x + near)
        return normed


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)
