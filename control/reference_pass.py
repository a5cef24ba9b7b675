"""The two passes of a reference: the model reads the reference picture, then its features steer the real pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..residuals.rows import picked, spread
from ..residuals.shaping import shaped_by
from .errors import ControlError
from .evaluate import whole_chunks
from .foreign import PER_CHUNK, pick
from .patch_network import OTHERS, PatchCall, place_patches
from .reference_places import ReferencePlace
from .upload import uploaded

VARIANCE_FLOOR = 1e-6
"""Of AdaIN, as published: a feature without variance is not divided by zero."""

Key = tuple[str, str, int, int]
"""Part, the place and index of the UNet's block, and the number of the transformer in it."""
Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel of each row, (B, C, 1, 1) float32."""


def key_of(place: ReferencePlace) -> Key:
    return place.part, place.place, place.index, place.number


def attention_key(options: Mapping[str, Any]) -> Key:
    """Of the self-attention that is at work."""
    place, index = options["block"][:2]
    return "attention", place, index, options["block_index"]


def alone(options: Mapping[str, Any]) -> bool:
    """Whether nothing but one reference changes self-attentions, so that what they give is what they give of themselves."""
    patches = options.get("patches", {})
    count = sum(len(patches.get(name, ())) for name in ("attn1_patch", "attn1_output_patch"))
    return count == 2 and not options.get("patches_replace", {}).get("attn1")


def moments(feature: Tensor) -> Moments:
    variance, mean = torch.var_mean(feature.float(), dim=(2, 3), keepdim=True, correction=0)
    return mean, variance


class FeaturePatches:
    """The host's patches at every place where a reference may act; each gives back what it got unless a subclass changes it."""

    def tokens(self, key: Key, n: Tensor) -> None:
        """The normed tokens (B, tokens, C) that a self-attention gets."""

    def feature(self, key: Key, h: Tensor) -> Tensor:
        """What a block of the UNet gives, (B, C, h, w)."""
        return h

    def patches(self) -> dict[str, list[Any]]:
        return {
            "attn1_patch": [self._attention],
            "input_block_patch": [self._input],
            "middle_block_after_patch": [self._middle],
            "output_block_patch": [self._output],
        }

    def _attention(self, n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, ...]:
        self.tokens(attention_key(options), n)
        return n, context, value

    def _input(self, h: Tensor, options: dict[str, Any]) -> Tensor:
        return self.feature(("norm", "input", options["block"][1], 0), h)

    def _middle(self, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "h": self.feature(("norm", "middle", 0, 0), found["h"])}

    def _output(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        # The host shows what goes into an output block: what the one before it gave.
        return self.feature(("norm", "output", options["block"][1] - 1, 0), h), skip


@dataclass(eq=False)
class Bank(FeaturePatches):
    """What the reference's pass leaves: one row for each acting row of the batch, at the places in `wanted`."""

    wanted: frozenset[Key]
    rows: Sequence[int]
    """Of the pass, whose batch may be larger."""
    kept: dict[Key, Tensor] = field(default_factory=dict)
    moments: dict[Key, Moments] = field(default_factory=dict)

    def tokens(self, key: Key, n: Tensor) -> None:
        if key in self.wanted:
            self.kept[key] = picked(n, self.rows, n.shape[0]).clone()  # the host may go on in place

    def feature(self, key: Key, h: Tensor) -> Tensor:
        if key in self.wanted:
            self.moments[key] = moments(picked(h, self.rows, h.shape[0]))
        return h


def write(call: PatchCall, rows: Sequence[int], places: Mapping[ReferencePlace, int], seed: int) -> Bank:
    """Lets the model read the reference for `rows` of the batch, with their own conditionings and without any control.

    The model's other patches work as in the real pass; wrappers do not, because those that cache would take it for the real one. Whole chunks are
    read, since patches of others know batches by chunks.
    """
    step, model = call.step, call.model
    check_device(call)
    batch = whole_chunks(rows, step)
    sigmas = picked(step.sigmas, batch, step.count)
    latents = reference_latents(call, batch)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    noise = torch.randn(latents.shape[1:], generator=generator)
    noise = uploaded(noise, latents.device, latents.dtype).expand_as(latents)
    bank = Bank(frozenset(key_of(place) for place in places), [batch.index(row) for row in rows])
    options = {name: value for name, value in step.options.items() if name != "wrappers"}
    options["patches"] = options.pop(OTHERS, options.get("patches", {}))
    chunks = [row // step.per_chunk for row in batch[:: step.per_chunk]]
    options |= {name: [options[name][chunk] for chunk in chunks] for name in PER_CHUNK if name in options}
    patches = bank.patches()
    place_patches(options, patches, before=patches)
    left_out = ("c_concat", "control", "transformer_options")
    cond = {name: pick(value, batch, step.count) for name, value in step.cond.items() if name not in left_out}
    model.apply_model(
        model.model_sampling.noise_scaling(sigmas, noise, latents),
        sigmas,
        c_concat=inpaint_channels(latents) if model.diffusion_model.in_channels > latents.shape[1] else None,
        control=None,
        transformer_options=options,
        **cond,
    )
    return bank


def reference_latents(call: PatchCall, batch: Sequence[int]) -> Tensor:
    """The reference of each row of `batch`, as the model's latents. Raises ControlError for a VAE of another kind of model."""
    embedding, x = call.embedding(), call.step.x_noisy
    assert isinstance(embedding, Tensor)
    if embedding.shape[1:] != x.shape[1:]:
        raise ControlError(
            f"vae of the node that applies {call.network.name} makes latents of {' × '.join(map(str, embedding.shape[1:]))}, but "
            f"{' × '.join(map(str, x.shape[1:]))} were expected by the model; connect the VAE of the model."
        )
    latents: Tensor = call.model.process_latent_in(embedding.to(x))
    # Rows in which the layer does not act go along in their chunk, whatever they show.
    rows = [call.rows.index(row) if row in call.rows else 0 for row in batch]
    if latents.shape[0] == 1:
        return latents.expand(len(rows), -1, -1, -1)
    return picked(latents, rows, latents.shape[0])


def inpaint_channels(latents: Tensor) -> Tensor:
    """What an inpaint model reads beside the latent, as published: nothing is masked, and the picture is the reference."""
    return torch.cat([torch.zeros_like(latents[:, :1]), latents], dim=1)


def check_device(call: PatchCall) -> None:
    """Raises ControlError where the batch is sampled on another GPU than that of the model that controls are told of."""
    device = call.step.options.get("multigpu_thread_device")
    if device is not None and device != call.model.current_patcher.load_device:
        raise ControlError(
            f"{call.network.name} runs the model itself, but this part of the batch is sampled on {device} and the model that it knows is on "
            f"{call.model.current_patcher.load_device}; sample on one GPU."
        )


@dataclass(eq=False)
class Reading(FeaturePatches):
    """The real pass: changes features towards the reference's, for the rows in `factors` and that much."""

    call: PatchCall
    bank: Bank
    places: Mapping[ReferencePlace, int]
    factors: Mapping[int, float]
    own: dict[Key, Tensor] = field(default_factory=dict)

    def patches(self) -> dict[str, list[Any]]:
        return {**super().patches(), "attn1_output_patch": [self._attended]}

    @cached_property
    def positions(self) -> dict[Key, int]:
        return {key_of(place): position for place, position in self.places.items()}

    def own_rows(self, values: Tensor) -> Tensor:
        return picked(values, tuple(self.factors), self.call.step.count)

    def tokens(self, key: Key, n: Tensor) -> None:
        if key in self.positions:
            self.call.check_rows(self.positions[key], n)
            self.own[key] = self.own_rows(n).clone()  # the host may go on in place

    def _attended(self, out: Tensor, options: dict[str, Any]) -> Tensor:
        """Self-attention with the reference's tokens beside the own ones, in place of without."""
        key = attention_key(options)
        if key not in self.positions:
            return out
        own = self.own.pop(key)
        attention = self.attention(key)
        both = torch.cat([own, self.bank.kept[key]], dim=1)
        without = self.own_rows(out) if alone(options) else attention(own, transformer_options=options)
        return self.add(key, out, attention(own, context=both, transformer_options=options) - without)

    def attention(self, key: Key) -> Any:
        _, place, index, number = key
        unet = self.call.model.diffusion_model
        block = unet.middle_block if place == "middle" else getattr(unet, f"{place}_blocks")[index]
        return next(part for part in block if hasattr(part, "transformer_blocks")).transformer_blocks[number].attn1

    def feature(self, key: Key, h: Tensor) -> Tensor:
        """AdaIN: the feature with the reference's mean and deviation of each channel."""
        if key not in self.positions:
            return h
        self.call.check_rows(self.positions[key], h)
        rows = self.own_rows(h).float()
        (mean, variance), (wanted_mean, wanted_variance) = moments(rows), self.bank.moments[key]
        scale = (wanted_variance.clamp(min=VARIANCE_FLOOR) / variance.clamp(min=VARIANCE_FLOOR)).sqrt()
        return self.add(key, h, (rows - mean) * scale + wanted_mean - rows)

    def add(self, key: Key, feature: Tensor, change: Tensor) -> Tensor:
        change = shaped_by(change, 1.0, 1.0, list(self.factors.values()))
        if len(self.factors) < len(self.call.rows):
            local = [self.call.rows.index(row) for row in self.factors]
            (change,) = spread([change], local, len(self.call.rows))
        return self.call.add(self.positions[key], feature, change)
