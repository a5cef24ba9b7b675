"""Menu section "preprocess": how many pixels a hint needs, and finished hints at another size."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..preprocessors import PreprocessorError
from ..preprocessors.batches import in_chunks
from ..preprocessors.careful_resize import placed
from ..preprocessors.hint_size import MODES, Mode, pixel_perfect
from ..preprocessors.pixels import as_rgb, check_picture
from ..preprocessors.sizing import Size

PIXELS_PER_CELL = 8
"""Of latents that do not say how many."""
LARGEST = 16384

MODE = io.Combo.Input(
    "mode",
    options=list(MODES),
    default="crop",
    tooltip="How the picture comes onto the canvas: crop fills it and cuts off what is over, fit shows all of it, stretch pulls it. Take what "
    "the control's layer has as its sizing.",
)
LATENT = io.Latent.Input(
    "latent",
    optional=True,
    tooltip="The latent that will be sampled: its size is taken in place of width and height.",
)


def side(name: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=512,
        min=1,
        max=LARGEST,
        step=8,
        tooltip=f"The {name} of what will be made, in pixels; not read where a latent is connected.",
    )


def canvas_size(latent: dict[str, Any] | None, width: int, height: int) -> Size:
    """The pixels of what will be made. Raises PreprocessorError for latents without a height and width."""
    if latent is None:
        return Size(height, width)
    samples = latent["samples"]
    # Video with sound is two latents in one, the pictures first.
    samples = samples.unbind()[0] if samples.is_nested else samples
    if samples.ndim not in (4, 5):
        raise PreprocessorError(
            f"latent: found a tensor of shape {tuple(samples.shape)}, but a latent of pictures or of a video with a height and width was expected; "
            "connect one, or set width and height."
        )
    cells = latent.get("downscale_ratio_spacial", PIXELS_PER_CELL)
    return Size(round(samples.shape[-2] * cells), round(samples.shape[-1] * cells))


class ControlComposerHintSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerHintSize",
            display_name="Size Hint (Control Composer)",
            category="Control Composer/preprocess",
            description="The resolution at which a hint of this picture has a pixel for each pixel of what will be made (pixel perfect): connect it "
            "to a preprocessor's resolution.",
            search_aliases=[
                "PixelPerfectResolution",
                "pixel perfect resolution",
                "pixel perfect",
                "hint resolution",
                "controlnet",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture that the hint will be made of."),
                MODE,
                side("width"),
                side("height"),
                LATENT,
            ],
            outputs=[
                io.Int.Output(
                    "resolution", display_name="resolution", tooltip="Pixels of the shorter side, for a preprocessor."
                ),
                io.Int.Output("width", display_name="width", tooltip="Of what will be made, in pixels."),
                io.Int.Output("height", display_name="height", tooltip="Of what will be made, in pixels."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, mode: Mode, width: int, height: int, latent: dict[str, Any] | None = None
    ) -> io.NodeOutput:
        check_picture(as_rgb(image), "image")
        canvas = canvas_size(latent, width, height)
        return io.NodeOutput(pixel_perfect(Size(*image.shape[1:3]), canvas, mode), canvas.width, canvas.height)


class ControlComposerResizeHint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerResizeHint",
            display_name="Resize Hint (Control Composer)",
            category="Control Composer/preprocess",
            description="A finished hint at another size without harm: lines of one pixel stay lines of one pixel, black and white stays black and "
            "white, the colours of a segmentation stay its colours, and what is marked for inpainting stays marked.",
            search_aliases=[
                "HintImageEnchance",
                "enhance and resize hint images",
                "high quality resize",
                "resize hint",
                "controlnet",
            ],
            inputs=[
                io.Image.Input("hint", tooltip="The hint, or the hints of all frames; each is looked at by itself."),
                MODE,
                side("width"),
                side("height"),
                LATENT,
            ],
            outputs=[io.Image.Output("hint", display_name="hint", tooltip="The hint at its new size.")],
        )

    @classmethod
    def execute(
        cls, hint: Tensor, mode: Mode, width: int, height: int, latent: dict[str, Any] | None = None
    ) -> io.NodeOutput:
        management, canvas = comfy.model_management, canvas_size(latent, width, height)
        progress = comfy.utils.ProgressBar(hint.shape[0])

        def before_frame(done: int) -> None:
            management.throw_exception_if_processing_interrupted()
            progress.update_absolute(done)

        def one(frame_bhwc: Tensor) -> Tensor:
            return placed(frame_bhwc, canvas, mode).to(
                management.intermediate_device(), management.intermediate_dtype()
            )

        return io.NodeOutput(in_chunks(one, hint, 1, before_frame))


NODES: list[type[io.ComfyNode]] = [ControlComposerHintSize, ControlComposerResizeHint]
