"""Poses of people's bodies by networks that everyone may use: RT-DETR finds the people, ViTPose their points."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .pixels import check_picture
from .pose import Person, Pose
from .pose_drawing import THICK_STICKS, all_drawn
from .pose_editing import on_canvas
from .preprocessor import Parameter, Preprocessor
from .rtdetr_boxes import SIDE, boxes_of_people
from .sizing import Size, size_at
from .top_down import bodies_in_boxes

NETWORKS = ("ViTPose-Base", "ViTPose-Plus-Small", "ViTPose-Plus-Base", "ViTPose-Plus-Large", "ViTPose-Plus-Huge")
DETECTORS = ("RT-DETR-R18", "RT-DETR-R50", "RT-DETR-R101")


def vitpose(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    network: str = NETWORKS[0],
    detector: str = DETECTORS[1],
    threshold: float = 0.3,
    least_score: float = 0.3,
    or_whole_picture: bool = True,
    thick_sticks: bool = False,
    resolution: int = 0,
) -> tuple[Tensor, list[Pose]]:
    """(B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1 on the image's device, the shorter side at `resolution` (0: its own), and the poses.

    The networks see the pictures at their own size; what they find is drawn at the size of the hint. The poses have the points under
    `least_score` too. Raises PreprocessorError for anything but finite RGB pictures.
    """
    check_picture(image_bhwc, "image")
    pictures = image_bhwc.clamp(0, 1).float().movedim(-1, 1).contiguous()
    height, width = pictures.shape[2:]
    size = size_at(Size(height, width), resolution)
    boxes = boxes_of_people(pictures, networks[detector], threshold)
    if or_whole_picture:
        whole = pictures.new_tensor([[0, 0, width, height]])
        boxes = [of_one if len(of_one) else whole for of_one in boxes]
    found = bodies_in_boxes(pictures, [of_one.to(pictures) for of_one in boxes], networks[network])
    poses = [
        on_canvas(Pose(height, width, tuple(Person(body) for body in of_one if body.any())), size.height, size.width)
        for of_one in found
    ]
    hints = all_drawn(poses, thick_sticks=thick_sticks, least_score=least_score)
    return hints.to(image_bhwc.device), poses


VITPOSE = Preprocessor(
    id="ViTPose",
    name="ViTPose",
    function=vitpose,
    parameters=(
        Parameter("network", NETWORKS[0], "Larger ones are surer of the points and slower.", options=NETWORKS),
        Parameter("detector", DETECTORS[1], "The network that finds the people.", options=DETECTORS),
        Parameter("threshold", 0.3, "How sure it has to be that somebody is there.", 0.0, 1.0, 0.01),
        Parameter("least_score", 0.3, "Points that are less sure are not drawn.", 0.0, 1.0, 0.01),
        Parameter(
            "or_whole_picture",
            True,
            "Where nobody is found, as happens with drawings, take the whole picture as one person. Off: such a hint is black.",
        ),
        Parameter("thick_sticks", False, THICK_STICKS),
    ),
    annotators=(*NETWORKS, *DETECTORS),
    chosen_by=("network", "detector"),
    data="pose",
    looks_at=lambda size, parameters: Size(SIDE, SIDE),
    output="bodies as coloured sticks on black",
    description="The poses of all people without hands and faces, by two networks that everyone may use: for the openpose ControlNets.",
    aliases=("openpose", "vit pose", "rtdetr", "rt-detr", "body pose", "pose keypoints", "skeleton"),
)
