"""Menu section "evaluate", whether pictures obey their hints."""

from __future__ import annotations

from typing import Any, get_args

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..control.placing import SIZINGS, Placing, Sizing, Span, spans
from ..evaluation.errors import EvaluationError
from ..evaluation.fidelity import MEASURES, UNMEASURED, Fidelity, fidelity, measure_of, overlay
from ..evaluation.measures import POSES
from ..evaluation.table import joined, mean_of, summary, table
from ..preprocessors import PREPROCESSORS, Preprocessor
from ..preprocessors.pixels import as_rgb, check_picture
from ..preprocessors.pose import Pose
from ..preprocessors.pose_editing import cropped, on_canvas
from ..preprocessors.pose_keypoints import as_poses
from ..preprocessors.sizing import Size, resized_to
from ..residuals.batches import BatchPolicy, picture_of
from .pose import PoseKeypoint
from .preprocess import parameter_input, preprocess
from .text import show_text

MEASURED = {one.id: one for one in PREPROCESSORS if one.id in MEASURES}
CATEGORY = "Control Composer/evaluate"


class ControlComposerFidelity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerFidelity",
            display_name="Control Fidelity",
            category=CATEGORY,
            description="Does the picture obey its hint? Takes the hint of the picture again, by the preprocessor that made the hint, and compares the two: "
            "F1 of edges, IoU of classes, error of depth, angle of normals, similarity of poses, colour difference or SSIM, as fits the "
            f"preprocessor. {', '.join(UNMEASURED)} have no measure.",
            search_aliases=[
                "control fidelity",
                "controlnet accuracy",
                "does it follow the hint",
                "evaluate controlnet",
                "metric",
                "f1",
                "iou",
                "oks",
                "ssim",
                "delta e",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The pictures that were made with the control, of any size."),
                io.Image.Input(
                    "hint",
                    tooltip="The hint that steered them; one for all pictures, or several. Pictures are compared at its size.",
                ),
                io.DynamicCombo.Input(
                    "preprocessor",
                    options=[
                        io.DynamicCombo.Option(one.id, [parameter_input(parameter) for parameter in one.parameters])
                        for one in MEASURED.values()
                    ],
                    tooltip="What made the hint. Give it the settings that it had there.",
                ),
                PoseKeypoint.Input(
                    "pose",
                    optional=True,
                    tooltip="For DWPose, OpenPose and ViTPose: the people of the hint, from the node that made it. Other hints need none.",
                ),
                io.Combo.Input(
                    "sizing",
                    options=list(SIZINGS),
                    default="crop",
                    optional=True,
                    advanced=True,
                    tooltip="How the hint was laid on a picture of another aspect; choose what its layer had. Only what lies on the picture counts.",
                ),
                io.Combo.Input(
                    "batch",
                    options=list(get_args(BatchPolicy)),
                    default="cycle",
                    optional=True,
                    advanced=True,
                    tooltip="Which hint belongs to which picture when there are fewer hints; choose what the layer had.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Float.Output(
                    "score", display_name="score", tooltip="The mean score of the pictures; the text says of what."
                ),
                io.String.Output(
                    "numbers",
                    display_name="numbers",
                    tooltip="All numbers of each picture and their means as a table: the measure, its direction and its units.",
                ),
                io.Image.Output(
                    "overlay",
                    display_name="overlay",
                    tooltip="Where they obey. Lines and people: green where they agree, orange where one is missing, blue where one was added. "
                    "All else: the difference, from orange to yellow.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        hint: Tensor,
        preprocessor: dict[str, Any],
        pose: Any = None,
        sizing: Sizing = "crop",
        batch: BatchPolicy = "cycle",
    ) -> io.NodeOutput:
        parameters = dict(preprocessor)
        identifier = parameters.pop("preprocessor")
        measure_of(identifier)  # Raises where there is none.
        chosen = MEASURED[identifier]
        score, shown = measured(chosen, image, hint, pose, sizing, batch, parameters)
        show_text(cls, summary(score))
        return io.NodeOutput(mean_of(score.score), table(score, chosen.name), shown, ui=ui.PreviewImage(shown, cls=cls))


def measured(
    preprocessor: Preprocessor,
    image_bhwc: Tensor,
    hint_bhwc: Tensor,
    pose: Any,
    sizing: Sizing,
    policy: BatchPolicy,
    parameters: dict[str, Any],
) -> tuple[Fidelity, Tensor]:
    """The fidelity of pictures and its overlay, (B, H, W, 3) of the hint's size, one picture after the other."""
    management = comfy.model_management
    for name, pictures in (("image", image_bhwc), ("hint", hint_bhwc)):
        check_picture(as_rgb(pictures), name)
    count, hints = len(image_bhwc), len(hint_bhwc)
    if hints > count:
        raise EvaluationError(
            f"Control Fidelity: found {hints} hints for {count} picture{'' if count == 1 else 's'}, but at most one for each was expected; "
            "give those that the pictures were made with."
        )
    wanted_poses = poses_of(preprocessor, pose, hint_bhwc)
    rows, columns = spans(Size(*hint_bhwc.shape[1:3]), Size(*image_bhwc.shape[1:3]), Placing(sizing))
    hints_bhwc = as_rgb(part_of(hint_bhwc, rows.start, rows.length, columns.start, columns.length)).float().cpu()
    pictures = as_rgb(part_of(image_bhwc, rows.offset, rows.filled, columns.offset, columns.filled)).float()
    pictures = resized_to(pictures, Size(*hints_bhwc.shape[1:3]))
    again, found_poses = preprocess(preprocessor, pictures, 0, **parameters)
    shown = torch.empty(pictures.shape, device=management.intermediate_device(), dtype=management.intermediate_dtype())
    progress, scores = comfy.utils.ProgressBar(count), []
    for number in range(count):
        management.throw_exception_if_processing_interrupted()
        which = picture_of(number, hints, count, policy)
        hint, found, picture = (
            values[place : place + 1].float().cpu()
            for values, place in ((hints_bhwc, which), (again, number), (pictures, number))
        )
        poses = ([seen(wanted_poses[which], rows, columns)], [found_poses[number]]) if wanted_poses else None
        scores.append(fidelity(preprocessor.id, hint, found, poses))
        shown[number : number + 1] = overlay(preprocessor.id, hint, found, picture)
        progress.update(1)
    return joined(scores), shown


def part_of(image_bhwc: Tensor, top: int, height: int, left: int, width: int) -> Tensor:
    return image_bhwc[:, top : top + height, left : left + width]


def seen(pose: Pose, rows: Span, columns: Span) -> Pose:
    """What lies on the picture of a hint's pose."""
    return cropped(pose, rows.start, columns.start, rows.length, columns.length)


def poses_of(preprocessor: Preprocessor, pose: Any, hint_bhwc: Tensor) -> list[Pose]:
    """The poses of the hints where people are compared, none elsewhere."""
    if MEASURES[preprocessor.id] is not POSES:
        return []
    size = Size(*hint_bhwc.shape[1:3])
    if pose is None:
        raise EvaluationError(
            f"Control Fidelity: found nothing at the input pose, but the people of the hint were expected for {preprocessor.id}, which are compared "
            "by their points; connect the POSE_KEYPOINT output of the node that made the hint."
        )
    poses = [on_canvas(one, *size) for one in as_poses(pose, size)]
    if len(poses) != len(hint_bhwc):
        raise EvaluationError(
            f"Control Fidelity: found {len(poses)} pose{'' if len(poses) == 1 else 's'} for {len(hint_bhwc)} hint"
            f"{'' if len(hint_bhwc) == 1 else 's'}, but one of each was expected; connect hint and pose of one node."
        )
    return poses


NODES: list[type[io.ComfyNode]] = [ControlComposerFidelity]
