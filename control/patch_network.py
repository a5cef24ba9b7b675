"""Networks that act inside of the UNet, through the host's patches, where a ControlNet would give residuals."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ..residuals.blocks import Block
from ..residuals.rows import picked, runs_of, shares, views
from ..residuals.shaping import shaped_by
from .errors import ControlError
from .expected import BRANCHES
from .features import record_change
from .network import HINT_PIXELS_PER_CELL

if TYPE_CHECKING:
    from .hint import Embedding
    from .plan import Act
    from .step import Step

Patches = Mapping[str, Sequence[Callable[..., Any]]]
"""The host's name of a patch ("attn1_patch", "input_block_patch" …) -> functions as the host calls them."""


@dataclass(frozen=True, eq=False)
class PatchNetwork(ABC):
    """What changes features of the UNet as it runs. Its own scale is one: strength and all else that a layer says comes from `PatchCall.add`.

    `module` holds the weights and `patcher` puts it into the host's memory management; both are None for what has no weights. `name` (the file) and
    `base` (SD1, SD2, SDXL) are for messages.
    """

    module: Any
    patcher: Any
    name: str
    base: str
    manual_cast_dtype: torch.dtype | None = None

    pixels_per_cell: ClassVar[int] = HINT_PIXELS_PER_CELL
    """Pixels of the hint, as `embed_hint` gets it, per latent cell."""

    smooth: ClassVar[bool] = False
    """Whether its hints are pictures by themselves, and sized as such."""

    before_others: ClassVar[frozenset[str]] = frozenset()
    """Names of those of its patches that see a feature before the patches of other nodes."""

    @property
    @abstractmethod
    def hint_channels(self) -> int:
        """Channels of the hints that it reads."""

    @abstractmethod
    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        """Where it acts in a latent of `height` × `width` cells, in the order in which the UNet passes the places; each names its `part`."""

    @abstractmethod
    def check_model(self, model: Any) -> None:
        """Raises ControlError, naming both bases, for a `comfy.model_base.BaseModel` that it was not made for."""

    @abstractmethod
    def embed_hint(self, hint_bchw: Tensor) -> Embedding:
        """(N, hint channels, pixels) -> what of it does not depend on the timestep, in one tensor or several of N rows; kept through a run."""

    @abstractmethod
    def patches(self, call: PatchCall) -> Patches:
        """What is to be done in one call of the UNet. The functions may keep what they need of this call, and change no tensor that they get."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which it computes."""
        if self.manual_cast_dtype is not None:
            return self.manual_cast_dtype
        dtype: torch.dtype = next(self.module.parameters()).dtype
        return dtype

    @property
    def key(self) -> Hashable:
        """Equal for two networks that are one and the same module."""
        return id(self.module)

    @property
    def embedding_key(self) -> Hashable:
        """Equal for two networks that embed a hint alike."""
        return (self.key, self.dtype)

    def with_vae(self, vae: Any) -> PatchNetwork:
        """The same with the VAE that an Apply or Layer node was given. Raises ControlError where one is needed and there is none."""
        return self

    def memory_requirements(self, pictures: int, height: int, width: int, rows: int = BRANCHES) -> float:
        """Bytes that it keeps while the UNet runs on so many `rows`, for hints that are placed on this many pixels."""
        return 0.0

    def clone_to(self, device: torch.device) -> PatchNetwork:
        """A deep copy whose weights live on another device, for the host's multi-GPU work units."""
        if self.module is None:
            return self
        module = copy.deepcopy(self.module)
        patcher = comfy.model_patcher.ModelPatcher(
            module, load_device=device, offload_device=comfy.model_management.unet_offload_device()
        )
        return replace(self, module=module, patcher=patcher)


@dataclass(frozen=True, eq=False)
class PatchCall:
    """One layer in one call of the UNet, for its patch network."""

    act: Act
    number: int
    """Of the call, in the run."""
    step: Step
    blocks: tuple[Block, ...]
    weights: tuple[float, ...]
    """The block weight of each of `blocks`."""

    @property
    def network(self) -> PatchNetwork:
        source = self.act.layer.source
        assert isinstance(source, PatchNetwork)
        return source

    @property
    def model(self) -> Any:
        """The `comfy.model_base.BaseModel` that is sampled."""
        return self.step.run.model

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The rows of the batch in which the layer acts."""
        return tuple(self.act.rows)

    def embedding(self) -> Embedding:
        """The hint's embedding for each of `rows`, or a single row where all have the same picture."""
        from .evaluate import pictures_of  # here, because evaluation knows patch networks

        layer, step = self.act.layer, self.step
        wanted = pictures_of(layer, self.rows, step)
        return step.run.embeddings.get(
            self.network, layer.hint_bchw, layer.placing, wanted, step.canvas, step.x_noisy.device
        )

    def pick(self, values: Tensor) -> Tensor:
        """The layer's `rows` of a tensor of the whole batch."""
        return picked(values, self.rows, self.step.count)

    def acts_at(self, position: int) -> bool:
        """Whether it may add anything at `blocks[position]`."""
        return self.weights[position] != 0

    def check_rows(self, position: int, feature: Tensor) -> None:
        """Raises ControlError unless `feature` has the rows of this call."""
        if feature.shape[0] != self.step.count:
            raise ControlError(
                f"{self.blocks[position].name} of the model has {feature.shape[0]} rows, but the {self.step.count} of this call were expected by "
                f"{self.network.name}; remove the node that changes the batch inside of the model."
            )

    def add(self, position: int, feature: Tensor, change: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """`feature` plus `change`, shaped as the layer says, at `blocks[position]`: a new tensor.

        `feature` is (B, C, h, w) or (B, tokens, C) of the whole batch, `change` the same for `rows` or one row for all. `size` is the height and
        width of the tokens where they are not the block's. Raises ControlError where another node has changed the sizes inside of the model.
        """
        if not self.acts_at(position):
            return feature
        self.check_rows(position, feature)
        block, layer = self.blocks[position], self.act.layer
        factors = [self.act.factors[row] for row in self.rows]
        shaped = shaped_by(change.to(feature.dtype), self.act.gain, self.weights[position], factors)
        if layer.mask is not None:
            shaped = self._masked(shaped, size or (block.height, block.width), block)
        if self.step.run.record.inspect:
            record_change(
                self.step.run.record,
                self.number,
                block,
                feature,
                shaped,
                self.act.number + 1,
                self.rows,
            )
        if len(self.rows) == self.step.count:
            return feature + shaped
        whole, runs = feature.clone(), runs_of(self.rows)
        torch._foreach_add_(views([whole], runs), shares([shaped], runs))
        return whole

    def _masked(self, shaped: Tensor, size: tuple[int, int], block: Block) -> Tensor:
        """Times the layer's mask; tokens are laid out as the picture that they are."""
        step, layer = self.step, self.act.layer
        if shaped.ndim == 4:
            return shaped * step.run.masks.rows(layer, step, self.rows, shaped)
        height, width = size
        if height * width != shaped.shape[1]:
            raise ControlError(
                f"{block.name} of the model has {shaped.shape[1]} tokens, but {height} × {width} were expected by the mask of {self.network.name}; "
                "remove the node that changes the sizes inside of the model, or the mask."
            )
        picture = shaped.transpose(1, 2).unflatten(2, size)
        masked: Tensor = picture * step.run.masks.rows(layer, step, self.rows, picture)
        return masked.flatten(2).transpose(1, 2)


OTHERS = "control_composer_patches_of_others"
"""The entry of the options of one call with its patches before the first of ours."""


def place_patches(options: dict[str, Any], patches: Patches, before: Container[str] = ()) -> None:
    """Puts patches into the `transformer_options` that the host made for one call; only the entry "patches" is replaced.

    They come after those that are there, and those whose names are in `before` come before them. `OTHERS` keeps those of other nodes.
    """
    options.setdefault(OTHERS, options.get("patches", {}))
    there = dict(options.get("patches", {}))
    for name, functions in patches.items():
        others = there.get(name, ())
        there[name] = [*functions, *others] if name in before else [*others, *functions]
    options["patches"] = there


def is_compiled(options: Mapping[str, Any]) -> bool:
    """Whether one of the host's own nodes compiles the model (comfy_api/torch_helpers/torch_compile.py)."""
    return "torch.compile" in options.get("wrappers", {}).get("apply_model", {})


def check_not_compiled(options: Mapping[str, Any], name: str) -> None:
    """Raises ControlError for a compiled model: it keeps what its first call found inside, and would not see the patches of the next.

    The host's own nodes for compiling drop all guards on `transformer_options` (comfy_api/torch_helpers/torch_compile.py).
    """
    if is_compiled(options):
        raise ControlError(
            f"{name} acts inside of the model, but the model is compiled and keeps what it was at its first call, and one that is not compiled was "
            "expected; remove the node that compiles it."
        )
