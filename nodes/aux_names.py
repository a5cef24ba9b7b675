"""What each node of comfyui_controlnet_aux is here: its settings as that pack (1.1.5) has them, in its order, and what they become."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str


@dataclass(frozen=True)
class Widget:
    """A setting of the old node. Where its values go over as they are, it has neither `values` nor `converted`."""

    id: str
    default: Value
    ours: str = ""
    """The input of our node; empty where nothing here depends on it."""
    low: float | None = None
    high: float | None = None
    values: Mapping[Value, Value] = field(default_factory=dict)
    """What its choices become."""
    converted: Callable[[Any], Value] | None = None

    @property
    def goes_over(self) -> bool:
        return not self.values and self.converted is None

    def as_ours(self, value: Any) -> Value:
        if self.converted is not None:
            return self.converted(value)
        found: Value = self.values.get(value, value)
        return found


@dataclass(frozen=True)
class Counterpart:
    """`old` is `ControlComposer<node>` with `settings`, fed through `sockets` (by our input: the old one) and `widgets` (all of the old node's)."""

    old: str
    node: str
    widgets: tuple[Widget, ...] = ()
    settings: Mapping[str, Value] = field(default_factory=dict)
    sockets: Mapping[str, str] = field(default_factory=lambda: {"image": "image"})
    is_preprocessor: bool = True
    in_one: bool = True
    """Whether AIO_Preprocessor offers it."""

    @property
    def new(self) -> str:
        return f"ControlComposer{self.node}"

    @property
    def goes_over(self) -> bool:
        """Whether our own node takes all values of the old one as they are."""
        return all(widget.goes_over for widget in self.widgets)

    @property
    def fixed(self) -> dict[str, Value]:
        return dict(self.settings) | ({"as_controlnet_aux": True} if self.is_preprocessor else {})


def whole(identifier: str, default: int, ours: str, low: int, high: int) -> Widget:
    return Widget(identifier, default, ours, low, high)


def number(identifier: str, default: float, ours: str, low: float, high: float) -> Widget:
    return Widget(identifier, default, ours, low, high)


def switch(identifier: str, default: str, ours: str) -> Widget:
    return Widget(identifier, default, ours, values={"enable": True, "disable": False})


RESOLUTION = whole("resolution", 512, "resolution", 64, 16384)
SAFE = switch("safe", "enable", "safe")
GAMMA = number("gamma_correction", 1.0, "gamma", 0.1, 2.0)
POSE = (
    switch("detect_hand", "enable", "hands"),
    switch("detect_body", "enable", "body"),
    switch("detect_face", "enable", "face"),
    RESOLUTION,
)
STICKS = switch("scale_stick_for_xinsr_cn", "disable", "thick_sticks")
MODE = Widget(
    "resize_mode",
    "Just Resize",
    "mode",
    values={"Just Resize": "stretch", "Crop and Resize": "crop", "Resize and Fill": "fit"},
)
CANVAS = (
    whole("image_gen_width", 512, "width", 64, 8192),
    whole("image_gen_height", 512, "height", 64, 8192),
    MODE,
)
TURNED = number("a", 2 * math.pi, "a", 0.0, 5 * math.pi)
BACKGROUND = number("bg_threshold", 0.1, "background", 0.0, 1.0)
UNREAD = {"a": Widget("a", 2 * math.pi), "bg_threshold": Widget("bg_threshold", 0.1)}
"""Of the depth node, which computes no normals."""
DEPTH_ANYTHING = {"vits": "Small", "vitb": "Base", "vitl": "Large"}


def depth_anything(version: str, files: str, order: tuple[str, ...]) -> Widget:
    values: dict[Value, Value] = {
        f"{files}_{width}{'14' if version == 'V1' else ''}.pth": f"Depth-Anything-{version}-{DEPTH_ANYTHING[width]}"
        for width in order
    }
    largest = next(name for name in values if "vitl" in str(name))
    return Widget("ckpt_name", largest, "network", values=values)


COUNTERPARTS: tuple[Counterpart, ...] = (
    Counterpart(
        "CannyEdgePreprocessor",
        "Canny",
        (whole("low_threshold", 100, "low", 0, 255), whole("high_threshold", 200, "high", 0, 255), RESOLUTION),
    ),
    Counterpart(
        "PyraCannyPreprocessor",
        "PyramidCanny",
        (whole("low_threshold", 64, "low", 0, 255), whole("high_threshold", 128, "high", 0, 255), RESOLUTION),
    ),
    Counterpart("BinaryPreprocessor", "Binary", (whole("bin_threshold", 100, "threshold", 0, 255), RESOLUTION)),
    Counterpart("ScribblePreprocessor", "Scribble", (RESOLUTION,)),
    Counterpart("Scribble_XDoG_Preprocessor", "XDoG", (whole("threshold", 32, "threshold", 1, 64), RESOLUTION)),
    Counterpart(
        "LineartStandardPreprocessor",
        "LineartStandard",
        (
            number("guassian_sigma", 6.0, "sigma", 0.0, 100.0),
            whole("intensity_threshold", 8, "intensity_threshold", 0, 16),
            RESOLUTION,
        ),
    ),
    Counterpart("HEDPreprocessor", "HED", (SAFE, RESOLUTION)),
    Counterpart("FakeScribblePreprocessor", "ScribbleHED", (SAFE, RESOLUTION)),
    Counterpart("PiDiNetPreprocessor", "PiDiNet", (SAFE, RESOLUTION)),
    Counterpart("Scribble_PiDiNet_Preprocessor", "ScribblePiDiNet", (SAFE, RESOLUTION)),
    Counterpart("TEEDPreprocessor", "TEED", (whole("safe_steps", 2, "safe_steps", 0, 10), RESOLUTION)),
    Counterpart(
        "AnyLineArtPreprocessor_aux",
        "AnyLine",
        (
            # The other three it has are not here; a choice of one says so to who wants them.
            Widget("merge_with_lineart", "lineart_standard", values={"lineart_standard": "lineart_standard"}),
            whole("resolution", 1280, "resolution", 64, 16384),
            number("lineart_lower_bound", 0.0, "lower", 0.0, 1.0),
            number("lineart_upper_bound", 1.0, "upper", 0.0, 1.0),
            # It counts each pixel once for each of three channels.
            Widget("object_min_size", 36, "smallest", 1, 16384, converted=lambda voxels: -(-int(voxels) // 3)),
            Widget("object_connectivity", 1),
        ),
    ),
    Counterpart(
        "LineArtPreprocessor",
        "Lineart",
        (
            Widget("coarse", "disable", "network", values={"disable": "Lineart", "enable": "Lineart-coarse"}),
            RESOLUTION,
        ),
    ),
    Counterpart("AnimeLineArtPreprocessor", "LineartAnime", (RESOLUTION,)),
    Counterpart("Manga2Anime_LineArt_Preprocessor", "MangaLine", (RESOLUTION,)),
    Counterpart(
        "M-LSDPreprocessor",
        "MLSD",
        (
            number("score_threshold", 0.1, "score", 0.01, 2.0),
            number("dist_threshold", 0.1, "distance", 0.01, 20.0),
            RESOLUTION,
        ),
        settings={"network": "MLSD-large"},
    ),
    Counterpart(
        "MiDaS-DepthMapPreprocessor",
        "MiDaS",
        (UNREAD["a"], UNREAD["bg_threshold"], RESOLUTION),
        settings={"network": "DPT-Hybrid-MiDaS"},
    ),
    Counterpart("MiDaS-NormalMapPreprocessor", "MiDaSNormal", (TURNED, BACKGROUND, RESOLUTION)),
    Counterpart("Zoe-DepthMapPreprocessor", "ZoeDepth", (RESOLUTION,), settings={"network": "ZoeDepth-NYU-KITTI"}),
    # It loads the same network whatever is chosen.
    Counterpart(
        "Zoe_DepthAnythingPreprocessor",
        "ZoeDepth",
        (Widget("environment", "indoor"), RESOLUTION),
        settings={"network": "ZoeDepth-NYU-KITTI"},
    ),
    Counterpart(
        "DepthAnythingPreprocessor",
        "DepthAnything",
        (depth_anything("V1", "depth_anything", ("vitl", "vitb", "vits")), RESOLUTION),
    ),
    Counterpart(
        "DepthAnythingV2Preprocessor",
        "DepthAnything",
        (depth_anything("V2", "depth_anything_v2", ("vitl", "vitb", "vits")), RESOLUTION),
    ),
    Counterpart("BAE-NormalMapPreprocessor", "NormalBAE", (RESOLUTION,)),
    Counterpart(
        "OneFormer-ADE20K-SemSegPreprocessor",
        "OneFormer",
        (RESOLUTION,),
        settings={"network": "oneformer_ade20k_swin_large"},
    ),
    Counterpart(
        "OneFormer-COCO-SemSegPreprocessor",
        "OneFormer",
        (RESOLUTION,),
        settings={"network": "oneformer_coco_swin_large"},
    ),
    Counterpart("SAMPreprocessor", "SAM", (RESOLUTION,), settings={"network": "sam-vit-base"}),
    Counterpart("OpenposePreprocessor", "OpenPose", (*POSE, STICKS)),
    Counterpart(
        "DWPreprocessor",
        "DWPose",
        (
            *POSE,
            Widget(
                "bbox_detector",
                "yolox_l.onnx",
                "find_people",
                values={
                    "None": False,
                    "yolox_l.torchscript.pt": True,
                    "yolox_l.onnx": True,
                    "yolo_nas_l_fp16.onnx": True,
                    "yolo_nas_m_fp16.onnx": True,
                    "yolo_nas_s_fp16.onnx": True,
                },
            ),
            Widget("pose_estimator", "dw-ll_ucoco_384_bs5.torchscript.pt"),
            STICKS,
        ),
    ),
    Counterpart("ColorPreprocessor", "ColorGrid", (RESOLUTION,)),
    Counterpart("ShufflePreprocessor", "Shuffle", (RESOLUTION, whole("seed", 0, "seed", 0, 2**64 - 1))),
    Counterpart("TilePreprocessor", "Tile", (whole("pyrUp_iters", 3, "halvings", 1, 10), RESOLUTION)),
    Counterpart(
        "TTPlanet_TileGF_Preprocessor",
        "TileGuided",
        (
            number("scale_factor", 1.0, "scale", 1.0, 8.0),
            number("blur_strength", 2.0, "blur", 1.0, 10.0),
            whole("radius", 7, "radius", 1, 20),
            number("eps", 0.01, "epsilon", 0.001, 0.1),
            RESOLUTION,
        ),
    ),
    Counterpart(
        "TTPlanet_TileSimple_Preprocessor",
        "TileSimple",
        (number("scale_factor", 1.0, "scale", 1.0, 8.0), number("blur_strength", 2.0, "blur", 1.0, 10.0)),
    ),
    Counterpart("ImageLuminanceDetector", "RecolorLuminance", (GAMMA, RESOLUTION)),
    Counterpart("ImageIntensityDetector", "RecolorIntensity", (GAMMA, RESOLUTION)),
    Counterpart(
        "InpaintPreprocessor",
        "Inpaint",
        (Widget("black_pixel_for_xinsir_cn", False, "masked", values={False: "-1", True: "black"}),),
        sockets={"image": "image", "mask": "mask"},
        is_preprocessor=False,
        in_one=False,
    ),
    Counterpart(
        "PixelPerfectResolution",
        "HintSize",
        CANVAS,
        sockets={"image": "original_image"},
        is_preprocessor=False,
        in_one=False,
    ),
    Counterpart(
        "HintImageEnchance", "ResizeHint", CANVAS, sockets={"hint": "hint_image"}, is_preprocessor=False, in_one=False
    ),
    Counterpart(
        "RenderPeopleKps",
        "DrawPose",
        (
            Widget("render_body", True, "body"),
            Widget("render_hand", True, "hands"),
            Widget("render_face", True, "face"),
        ),
        sockets={"pose": "kps"},
        is_preprocessor=False,
        in_one=False,
    ),
    Counterpart(
        "SavePoseKpsAsJsonFile",
        "SavePose",
        (Widget("filename_prefix", "PoseKeypoint", "filename_prefix"),),
        sockets={"pose": "pose_kps"},
        is_preprocessor=False,
        in_one=False,
    ),
)

IN_ONE = "AIO_Preprocessor"
SIZE_OF_LATENT = "ImageGenResolutionFromLatent"
OF_THE_HOST: Mapping[str, str] = {"ImageGenResolutionFromImage": "GetImageSize"}
"""What the host itself has, with an `image` and the outputs width and height."""

WITHOUT: Mapping[str, str] = {
    "UniFormer-SemSegPreprocessor": "UniFormer; take SegFormer, UperNet or OneFormer",
    "SemSegPreprocessor": "the same under an older name",
    "AnimeFace_SemSegPreprocessor": "the parts of anime faces",
    "LeReS-DepthMapPreprocessor": "LeReS; take Depth Anything",
    "Metric3D-DepthMapPreprocessor": "Metric3D; take Depth Pro or the host's MoGe",
    "Metric3D-NormalMapPreprocessor": "Metric3D; take NormalBAE or the host's MoGe",
    "DSINE-NormalMapPreprocessor": "DSINE; take NormalBAE",
    "DiffusionEdge_Preprocessor": "DiffusionEdge; take TEED",
    "MeshGraphormer-DepthMapPreprocessor": "hands as meshes",
    "MeshGraphormer+ImpactDetector-DepthMapPreprocessor": "hands as meshes",
    "AnimalPosePreprocessor": "the poses of animals",
    "RenderAnimalKps": "the poses of animals",
    "DensePosePreprocessor": "DensePose",
    "MediaPipe-FaceMeshPreprocessor": "the host has MediaPipe's face landmarks",
    "Unimatch_OptFlowPreprocessor": "optical flow is no hint",
    "MaskOptFlow": "optical flow is no hint",
    "FacialPartColoringFromPoseKps": "faces as coloured parts",
    "UpperBodyTrackingFromPoseKps": "boxes for InstanceDiffusion",
    "ControlNetPreprocessorSelector": "a menu for AIO_Preprocessor: choose there",
    "ExecuteAllControlNetPreprocessors": "all preprocessors at once",
    "ControlNetAuxSimpleAddText": "text on pictures",
}
"""Its nodes that nothing here takes the place of, and what they are or what to take."""
