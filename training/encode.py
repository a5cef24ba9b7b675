"""Pictures and captions through the host's VAE and text encoder, once, into a cache (host side)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from comfy.model_sampling import EPS, V_PREDICTION, ModelSamplingDiscrete
from torch import Tensor

from .batch import EmptyPrompt
from .cache import Cache, CacheWriter
from .dataset.errors import DatasetError
from .errors import TrainingError
from .objective import Prediction, Schedule

if TYPE_CHECKING:
    from .dataset.dataset import ConditionDataset, Row

AT_ONCE = 8
"""Pictures that go through the VAE of an accelerator together; the host splits them where memory is short."""
SECTIONS = 4
"""Of 77 tokens: what stands behind is left out, or one long caption would make all rows long."""
CELL = 8
"""Pixels of a latent's cell."""


class TextEncoder(Protocol):
    """Texts -> context (B, tokens, width) and pooled (B, width), None where the base has none; float32 on any device."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]: ...


def of_clip(clip: Any) -> TextEncoder:
    """The host's CLIP. Captions are read as they are: round brackets do not weigh words. Of texts longer than 300 tokens the start is
    read, which the log says.
    """

    def encoded(text: str) -> tuple[Tensor, Tensor | None]:
        tokens: dict[str, Any] = clip.tokenize(text, disable_weights=True)
        longest = max(len(sections) for sections in tokens.values())
        if longest > SECTIONS:
            logging.warning("Control Composer: a caption is too long and its end is left out: '%s …'", text[:60])
        tokens = {name: sections[:SECTIONS] for name, sections in tokens.items()}
        context, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        return context, pooled

    def encode_all(texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        contexts, pooled = zip(*(encoded(text) for text in texts), strict=True)
        tokens = math.lcm(*(context.shape[1] for context in contexts))
        together = torch.cat([context.repeat(1, tokens // context.shape[1], 1) for context in contexts])
        return together, None if pooled[0] is None else torch.cat(pooled)

    return encode_all


def of_demo_world(world: Any) -> TextEncoder:
    """The demo world's words (`demo.world.World`). Raises ValueError for words that the world does not know."""

    def encode_all(texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        return world.encode(*texts)[0][0], None

    return encode_all


@torch.no_grad()
def encode(
    dataset: ConditionDataset,
    vae: Any,
    text: TextEncoder,
    model: Any,
    folder: Path,
    *,
    on_row: Callable[[int], None] | None = None,
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], None] | None = None,
) -> Cache:
    """All rows of the data set as the loop wants them, in `folder`; what is there already is kept, what cannot be read is listed.

    `vae` is the host's VAE, whose latents are its distributions' means; `model` the BaseModel or its patcher, which scales them and knows
    what y is. `on_row` is told after each part how many of this process's rows are done; what it raises ends the work, which goes on from
    there with the next call. `share`: number of this process and of all; `wait` returns once every process has called it.

    Raises TrainingError for networks that do not belong together, a folder of other data, and a disk that refuses.
    """
    networks = _Networks(vae, text, getattr(model, "model", model))
    empty, probe = networks.empty()
    with CacheWriter(
        folder, dataset.fingerprint, dataset.condition, probe, share[0], getattr(dataset, "parameters", None)
    ) as writer:
        # Rows of one size follow each other.
        order = torch.argsort(dataset.groups, stable=True).tolist()[share[0] :: share[1]]
        left = [row for row in order if row not in writer.done]
        groups = dataset.groups.tolist()
        while left:
            part = [row for row in left[: networks.at_once] if groups[row] == groups[left[0]]]
            left = left[len(part) :]
            _encode_rows(dataset, part, networks, writer, groups[part[0]])
            if on_row is not None and left:
                on_row(len(order) - len(left))
    if wait is not None:
        wait()
    if share[0] == 0:
        writer.finish(empty, len(dataset))
    if wait is not None:
        wait()
    if on_row is not None:
        on_row(len(order))
    return Cache.open(folder)


@torch.inference_mode(False)
def schedule_of(model: Any) -> Schedule:
    """What the base's own training saw: `model` is the BaseModel or its patcher, whose Model Sampling nodes count then.

    Raises TrainingError for a base that predicts neither noise nor velocity at each of a number of discrete times.
    """
    sampling = model.get_model_object("model_sampling") if hasattr(model, "get_model_object") else model.model_sampling
    kind = type(sampling)
    # Other ways of sampling are derived from these, so that the class alone tells nothing.
    predictions: dict[Any, Prediction] = {EPS.calculate_denoised: "eps", V_PREDICTION.calculate_denoised: "v"}
    prediction = predictions.get(kind.calculate_denoised)
    plain = isinstance(sampling, ModelSamplingDiscrete) and kind.timestep is ModelSamplingDiscrete.timestep
    if prediction is None or not plain or kind.calculate_input is not EPS.calculate_input or sampling.sigma_data != 1:
        names = [base.__name__ for base in kind.__bases__]
        raise TrainingError(
            "The connected model",
            found=f"is sampled by {' and '.join(names)}",
            expected="a base that predicts noise (eps) or velocity (v) at discrete times was expected, as SD1, SD2 and SDXL do",
            remedy="connect the base itself, not a distilled version of it or one with another sampling",
        )
    return Schedule.from_sigmas(sampling.sigmas.detach().cpu().clone(), prediction)


def _encode_rows(
    dataset: ConditionDataset, part: Sequence[int], networks: _Networks, writer: CacheWriter, group: int
) -> None:
    read: list[tuple[int, Row]] = []
    for number in part:
        try:
            read.append((number, dataset.row(number)))
        except DatasetError as error:
            writer.skip(number, str(error))
    if not read:
        return
    pictures = torch.stack([row.picture for _, row in read])
    for (number, row), latent in zip(read, networks.latents(pictures), strict=True):
        try:
            context, y = networks.texts(row.caption, row.picture.shape[0], row.picture.shape[1])
        except TrainingError:
            raise
        except ValueError as error:
            # The demo world does not know every word.
            writer.skip(number, str(error))
            continue
        hint = row.hint.permute(2, 0, 1)
        writer.add(group, latent, context[0], None if y is None else y[0], hint, row.caption, row=number)


class _Networks:
    def __init__(self, vae: Any, text: TextEncoder, model: Any) -> None:
        self._vae, self._text, self._model = vae, text, model
        self.at_once = 1 if torch.device(vae.device).type == "cpu" else AT_ONCE
        self._last: tuple[str, tuple[Tensor, Tensor | None]] | None = None

    def latents(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 4, H / 8, W / 8), as the UNet sees them."""
        height, width = pictures.shape[1:3]
        latents: Tensor = self._vae.encode(pictures.float() / 255)
        expected = (len(pictures), 4, height // CELL, width // CELL)
        if tuple(latents.shape) != expected:
            raise TrainingError(
                "The connected VAE",
                found=f"makes {tuple(latents.shape)[1:]} of a picture of {width} x {height} pixels",
                expected=f"{expected[1:]} was expected",
                remedy="connect the VAE of the model, and pictures with sides at multiples of 8",
            )
        scaled: Tensor = self._model.process_latent_in(latents.float())
        return scaled

    def texts(self, caption: str, height: int, width: int) -> tuple[Tensor, Tensor | None]:
        """Context (1, tokens, width) and y (1, width) or None, for a picture that was not cropped from a larger one."""
        # Crops and flips of a picture follow each other.
        if self._last is None or self._last[0] != caption:
            self._last = caption, self._text([caption])
        context, pooled = self._last[1]
        return context, self._y(pooled, height, width)

    def empty(self) -> tuple[EmptyPrompt, dict[str, Tensor]]:
        """The empty prompt, and by what the networks are known again."""
        context, pooled = self._text([""])
        reads = self._model.model_config.unet_config.get("context_dim")
        if reads is not None and context.shape[2] != reads:
            raise TrainingError(
                "The connected text encoder",
                found=f"gives {context.shape[2]} numbers for each word",
                expected=f"{reads} were expected, which the model reads",
                remedy="connect the CLIP of the model",
            )
        y = self._y(pooled, 64, 64)
        # Only where the text itself is a part of y can an empty one take its place.
        leads = (
            y is not None and pooled is not None and torch.equal(y[:, : pooled.shape[1]].cpu(), pooled.float().cpu())
        )
        probe = {"text encoder": context, "VAE": self.latents(_test_picture())}
        if y is not None:
            probe["base"] = y
        return EmptyPrompt(context, pooled if leads else None), probe

    def _y(self, pooled: Tensor | None, height: int, width: int) -> Tensor | None:
        if not self._model.model_config.unet_config.get("adm_in_channels"):
            return None
        sizes = {
            "height": height,
            "width": width,
            "target_height": height,
            "target_width": width,
            "crop_h": 0,
            "crop_w": 0,
        }
        try:
            y: Tensor | None = self._model.encode_adm(
                pooled_output=pooled, device=torch.device("cpu") if pooled is None else pooled.device, **sizes
            )
        except (AttributeError, TypeError):
            if pooled is not None:
                raise
            raise TrainingError(
                "The connected text encoder",
                found="gives no summary of a text",
                expected="one was expected, which the model reads",
                remedy="connect the CLIP of the model",
            ) from None
        return y


def _test_picture() -> Tensor:
    """(1, 64, 64, 3) uint8: colours and edges, always the same."""
    digest = b"".join(hashlib.sha256(bytes([index])).digest() for index in range(6))
    cells = torch.frombuffer(bytearray(digest), dtype=torch.uint8).reshape(1, 8, 8, 3)
    return cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
