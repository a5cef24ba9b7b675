"""Menu section "inspect": what controls did in the last sampling run, and whether a result followed its hint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..control import Control, ControlError
from ..control.heatmap import heatmap
from ..control.overlay import COLOURS, MODES, Mode, overlay
from ..control.placing import SIZINGS, Sizing
from ..control.record import Record
from ..control.report import report_json, report_text
from ..control.report_table import report_table
from ..residuals.batches import BatchPolicy

Conditioning = list[list[Any]]


def positive_input() -> io.Conditioning.Input:
    return io.Conditioning.Input(
        "positive",
        tooltip="The conditioning that goes into the sampler: it holds the control, and the control remembers its last run. If two samplers "
        "share it, the later run is shown.",
    )


def samples_input() -> io.Latent.Input:
    return io.Latent.Input("samples", tooltip="From the sampler, so that this node waits until it is done.")


def records_in(positive: Conditioning, node: str) -> list[Record]:
    """The last run of each Control of ours in a conditioning, on each device. Raises ControlError if there is none."""
    controls = list(dict.fromkeys(control for entry in positive for control in chain(entry[1].get("control"))))
    if not controls:
        found = any(entry[1].get("control") is not None for entry in positive)
        raise ControlError(
            f"positive of {node} holds {'only controls of other nodes' if found else 'no control'}, but one of Control Composer was expected; "
            "connect the positive that comes from Apply Control or Compose Controls and goes into the sampler."
        )
    devices = [on for control in controls for on in (control, *getattr(control, "multigpu_clones", {}).values())]
    records = [record for record in (getattr(control, "record", None) for control in devices) if record is not None]
    if not records:
        raise ControlError(
            f"positive of {node} holds a control that was never sampled, but a run to look at was expected; connect the very positive that "
            "goes into the sampler, and that sampler's LATENT to samples."
        )
    return [record for record in records if record.steps] or records[:1]


def chain(control: Any) -> Iterator[Control]:
    """Controls of ours in a chain, the earliest first."""
    if control is not None:
        yield from chain(getattr(control, "previous_controlnet", None))
        if isinstance(control, Control):
            yield control


class ControlComposerReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerReport",
            display_name="Control Report",
            category="Control Composer/inspect",
            description="What every layer did while sampling: at which steps it ran and why not at others, the multiplier of each block, which "
            "hint steered which latent, sizes, time and memory. The first place to look when a control seems to do nothing.",
            search_aliases=[
                "control report",
                "controlnet does nothing",
                "debug controlnet",
                "control info",
                "inspect control",
            ],
            inputs=[positive_input(), samples_input()],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The report for people."),
                io.String.Output(
                    "json",
                    display_name="json",
                    tooltip="All that is known, for programs: a list with an object for each control.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, positive: Conditioning, samples: dict[str, Any]) -> io.NodeOutput:
        records = records_in(positive, "Control Report")
        text = "\n\n".join(report_text(record) for record in records)
        # The page makes a table of it (web/inspect.js); the text is for those who have only the API.
        shown = {"text": (text,), "control_report": [report_table(record) for record in records]}
        return io.NodeOutput(text, f"[{', '.join(report_json(record) for record in records)}]", ui=shown)


class ControlComposerHeatmap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerHeatmap",
            display_name="Residual Heatmap",
            category="Control Composer/inspect",
            description="How strong the control was, block by block and step by step: the norm of what it added in per cent of the norm of what it "
            "was added to. Needs inspect switched on at Compose Controls.",
            search_aliases=[
                "residual heatmap",
                "control strength plot",
                "plot controlnet",
                "debug controlnet",
                "inspect control",
            ],
            inputs=[positive_input(), samples_input()],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The picture, one for each control.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, positive: Conditioning, samples: dict[str, Any]) -> io.NodeOutput:
        image = one_batch([heatmap(record) for record in records_in(positive, "Residual Heatmap")])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def one_batch(images: list[Tensor]) -> Tensor:
    """Pictures (1, H, W, 3) of several sizes as one batch, white below and beside the smaller ones."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.ones(len(images), height, width, 3)
    for page, image in zip(batch, images, strict=True):
        page[: image.shape[1], : image.shape[2]] = image[0]
    return batch


class ControlComposerHintOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerHintOverlay",
            display_name="Hint Overlay",
            category="Control Composer/inspect",
            description="Draws the hint over the result, so that one sees where it was followed.",
            search_aliases=[
                "hint overlay",
                "overlay controlnet image",
                "compare hint",
                "draw edges over image",
                "inspect control",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The result, or several."),
                io.Image.Input(
                    "hint", tooltip="The hint that steered it, at any size; one for all pictures, or several."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="lines over",
                    tooltip="lines over draws the bright parts of the hint in the colour. blend mixes hint and picture everywhere, for depth or "
                    "segmentation. compare edges finds the picture's own edges: green where they follow the hint, red where a line of "
                    "the hint has none, blue where only the picture has one.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much the hint covers: 0 shows the picture alone, 1 the hint at full strength.",
                ),
                io.Combo.Input(
                    "colour",
                    options=list(COLOURS),
                    default="magenta",
                    tooltip="Colour of the hint; as it is keeps its own. compare edges has colours of its own.",
                ),
                io.Combo.Input(
                    "sizing",
                    options=list(SIZINGS),
                    default="crop",
                    tooltip="How the hint is laid on a picture of another aspect; choose what its layer had.",
                ),
                io.Combo.Input(
                    "batch",
                    options=list(get_args(BatchPolicy)),
                    default="cycle",
                    tooltip="Which hint belongs to which picture when there are fewer hints; choose what the layer had.",
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The pictures with their hints.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        hint: Tensor,
        mode: Mode = "lines over",
        opacity: float = 0.8,
        colour: str = "magenta",
        sizing: Sizing = "crop",
        batch: BatchPolicy = "cycle",
    ) -> io.NodeOutput:
        drawn = overlay(image, hint, mode=mode, opacity=opacity, colour=colour, sizing=sizing, policy=batch)
        drawn = drawn.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())
        return io.NodeOutput(drawn, ui=ui.PreviewImage(drawn, cls=cls))


NODES: list[type[io.ComfyNode]] = [ControlComposerReport, ControlComposerHeatmap, ControlComposerHintOverlay]
