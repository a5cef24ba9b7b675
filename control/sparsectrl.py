"""SparseCtrl as a control of the host: pictures for a few frames, residuals for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from .areas import Area
from .compatibility import check_base
from .errors import ControlError
from .expected import expected_for
from .foreign import SelfPlacing
from .frame_indices import FrameIndices
from .in_use import models_in_use
from .memory import embedding_bytes, hint_bytes, residual_bytes
from .network import HINT_PIXELS_PER_CELL, EncoderNetwork
from .placing import place_hint

if TYPE_CHECKING:
    from .layer import Layer
    from .step import Step

USUAL_FRAMES = 16
"""AnimateDiff's length of a video, for the estimate of memory, which the host asks for before it tells the batch."""


class SparseControl(SelfPlacing):
    """A control around the network of `checkpoints.build_sparsectrl`, for a layer: it has no predecessor and no range of its own.

    The network never sees the noisy latent, only which frames have a picture. Its motion modules look at all frames of a chunk, in their order.
    """

    multigpu_clones: dict[torch.device, Any]
    vae: Any

    def __init__(
        self,
        patcher: Any,
        name: str,
        base: str,
        manual_cast_dtype: torch.dtype | None = None,
        indices: FrameIndices | None = None,
    ) -> None:
        super().__init__()
        self.patcher = patcher
        self.name = name
        self.base = base
        self.manual_cast_dtype = manual_cast_dtype
        self.indices = indices or FrameIndices()
        self._model: Any = None
        self._wanted: list[Hashable] = []
        self._embedded: dict[Hashable, Tensor] = {}

    @property
    def module(self) -> Any:
        return self.patcher.model

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes."""
        dtype: torch.dtype = self.manual_cast_dtype or self.module.dtype
        return dtype

    @property
    def encoder(self) -> EncoderNetwork:
        """The network without its motion modules, for what concerns only its blocks."""
        return EncoderNetwork(self.module, self.patcher, self.name, self.base, manual_cast_dtype=self.manual_cast_dtype)

    # -- in the graph ------------------------------------------------------------------------------------------------------------------

    def copy(self) -> SparseControl:
        return self.at(self.indices)

    def at(self, indices: FrameIndices) -> SparseControl:
        """The same control with its pictures on other frames."""
        return self._twin(self.patcher, indices)

    def _twin(self, patcher: Any, indices: FrameIndices) -> SparseControl:
        twin = SparseControl(patcher, self.name, self.base, self.manual_cast_dtype, indices)
        self.copy_to(twin)
        return twin

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: Any = (),
    ) -> SparseControl:
        """Raises ControlError where pictures and frames do not go together, or where the network reads latents and there is no VAE."""
        super().set_cond_hint(cond_hint, strength, timestep_percent_range, vae, list(extra_concat))
        self.indices.check(len(cond_hint), self.name)
        if self.module.latent_hint and vae is None:
            raise ControlError(
                f"{self.name} reads the latents of its pictures, but no VAE is connected to the Apply node and the model's own was expected; "
                "connect the VAE of the checkpoint to its vae input."
            )
        self.vae = vae if self.module.latent_hint else None
        return self

    def get_models(self) -> list[Any]:
        models: list[Any] = super().get_models()
        return [*models, self.patcher]

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> SparseControl:
        """A copy whose network lives on another device."""
        patcher = comfy.model_patcher.ModelPatcher(
            copy.deepcopy(self.module),
            load_device=load_device,
            offload_device=comfy.model_management.unet_offload_device(),
        )
        twin = self._twin(patcher, self.indices)
        if autoregister:
            self.multigpu_clones[load_device] = twin
        return twin

    # -- around a run ------------------------------------------------------------------------------------------------------------------

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        memory: float = super().inference_memory_requirements(dtype)
        if self.cond_hint_original is None:
            return memory
        expected = expected_for(self, [self.cond_hint_original[:1].expand(USUAL_FRAMES, -1, -1, -1)])
        rows, pictures, size = expected.rows, len(self.cond_hint_original) + 1, expected.largest
        # The pictures and the blank one are kept, and put together for the rows of a call.
        memory += embedding_bytes(self.encoder, pictures + rows, *size) + hint_bytes(self.encoder, 1, *size)
        return memory + residual_bytes(self.encoder, rows, *size)

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], Any]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        check_base(self.encoder, model)
        self._model = model
        self._embedded = {}  # after an interrupted run the host calls no `cleanup`

    def cleanup(self) -> None:
        super().cleanup()
        self._model, self._embedded, self._wanted = None, {}, []

    # -- while sampling ----------------------------------------------------------------------------------------------------------------

    def place(self, layer: Layer, step: Step, area: Area | None) -> None:
        """Embeds the hint of every frame that the next call shows. Raises ControlError where pictures and frames do not go together."""
        if step.per_chunk > self.module.frames:
            raise ControlError(
                f"{self.name} knows places for {self.module.frames} frames, but {step.per_chunk} are sampled at a time; sample in context windows "
                f"of at most {self.module.frames} frames, for example with the host's node Context Windows (Manual), or make the batch shorter."
            )
        frames = self.indices.frames(len(layer.hint_bchw), step.total, self.name)
        picture_on = {frame: picture for picture, frame in enumerate(frames)}
        same = (layer.placing, step.canvas, area, step.x_noisy.device)
        if (None, same) not in self._embedded:
            pictures = (None, *range(len(frames)))
            hints = self._hints(layer, step, area)
            self._embedded |= {
                (picture, same): self.module.input_hint_block(hint, None, None)
                for picture, hint in zip(pictures, hints, strict=True)
            }
        self._wanted = [(picture_on.get(frame), same) for frame in step.frames]

    def _hints(self, layer: Layer, step: Step, area: Area | None) -> Iterator[Tensor]:
        """What the network reads, (1, channels, h, w): zeros for frames without a picture, then each picture with a mask of ones as last channel."""
        net = self.module
        cells = 1 if net.latent_hint else HINT_PIXELS_PER_CELL
        channels, height, width = net.input_hint_block[0].in_channels, *(size * cells for size in step.size)
        blank = torch.zeros(1, channels, height, width, dtype=self.dtype, device=step.x_noisy.device)
        yield blank
        values = place_hint(layer.hint_bchw, *step.canvas, layer.placing, area, HINT_PIXELS_PER_CELL)
        if net.latent_hint:
            values = self._encode(values, (channels - 1, height, width))
        for value in values.split(1):
            yield torch.cat([value.to(blank), torch.ones_like(blank[:, :1])], dim=1)

    def _encode(self, pixels: Tensor, expected: tuple[int, ...]) -> Tensor:
        """(N, 3, 8h, 8w) in 0..1 -> (N, 4, h, w), the latents that the model knows; as the host's ControlNets make them. Raises ControlError."""
        loaded = models_in_use()
        latents = self.vae.encode(pixels.movedim(1, -1))
        comfy.model_management.load_models_gpu(loaded)
        if latents.shape[1:] != expected:
            raise ControlError(
                f"The VAE of {self.name} makes latents of {' × '.join(map(str, latents.shape[1:]))} of a picture, but "
                f"{' × '.join(map(str, expected))} were expected, as {self.base} has them; connect the VAE of the checkpoint."
            )
        scaled: Tensor = self._model.latent_format.process_in(latents)
        return scaled

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Mapping[str, Any], batched_number: int, transformer_options: Any
    ) -> Any:
        """The host's dict of residuals for whole chunks, whose frames `place` was told."""
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        hint = torch.cat([self._embedded[key] for key in self._wanted] * batched_number)
        residuals = self.residuals(
            hint,
            self._model.model_sampling.timestep(t),
            comfy.model_management.cast_to_device(context, x_noisy.device, self.dtype),
            len(self._wanted),
        )
        return self.control_merge(residuals, None, output_dtype=None)

    def residuals(self, hint: Tensor, timesteps: Tensor, context: Tensor, frames: int) -> dict[str, list[Tensor]]:
        """What the network gives for chunks of `frames` rows, (B, channels, h, w) for each encoder block and the middle.

        `hint` (B, model channels, h, w) is embedded, `timesteps` is (B,), `context` (B, tokens, width).
        """
        net, dtype = self.module, self.dtype
        emb = net.time_embed(timestep_embedding(timesteps.to(dtype), net.model_channels, repeat_only=False).to(dtype))
        motion = iter(net.motion_modules)
        output = []
        # In place of the noisy latent the network gets zeros.
        h = hint.new_zeros(len(hint), net.input_blocks[0][0].in_channels, *hint.shape[2:])
        for index, (block, zero_convolution) in enumerate(zip(net.input_blocks, net.zero_convs, strict=True)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            h = block(h, emb, context)
            if index == 0:
                h = h + hint
            elif isinstance(block[0], ResBlock):
                h = next(motion)(h, frames)
            output.append(zero_convolution(h, emb, context))
        h = net.middle_block(h, emb, context)
        return {"middle": [net.middle_block_out(h, emb, context)], "output": output}
