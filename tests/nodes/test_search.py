"""What people type into the search box, names of other tools included, finds the node that does it."""

from typing import Any

import pytest

TYPED = {
    # comfyui_controlnet_aux: ids of its nodes, of which old advice speaks, and the titles that they show.
    "CannyEdgePreprocessor": "Canny",
    "canny edge": "Canny",
    "PyraCannyPreprocessor": "PyramidCanny",
    "LineartStandardPreprocessor": "LineartStandard",
    "LineArtPreprocessor": "Lineart",
    "realistic lineart": "Lineart",
    "AnimeLineArtPreprocessor": "LineartAnime",
    "Manga2Anime_LineArt_Preprocessor": "MangaLine",
    "AnyLineArtPreprocessor_aux": "AnyLine",
    "HEDPreprocessor": "HED",
    "soft-edge lines": "HED",
    "FakeScribblePreprocessor": "ScribbleHED",
    "PiDiNetPreprocessor": "PiDiNet",
    "Scribble_PiDiNet_Preprocessor": "ScribblePiDiNet",
    "ScribblePreprocessor": "Scribble",
    "Scribble_XDoG_Preprocessor": "XDoG",
    "TEEDPreprocessor": "TEED",
    "M-LSDPreprocessor": "MLSD",
    "DWPreprocessor": "DWPose",
    "dwpose estimator": "DWPose",
    "OpenposePreprocessor": "OpenPose",
    "DepthAnythingV2Preprocessor": "DepthAnything",
    "DepthAnythingPreprocessor": "DepthAnything",
    "Zoe-DepthMapPreprocessor": "ZoeDepth",
    "MiDaS-DepthMapPreprocessor": "MiDaS",
    "MiDaS-NormalMapPreprocessor": "MiDaSNormal",
    "BAE-NormalMapPreprocessor": "NormalBAE",
    "OneFormer-ADE20K-SemSegPreprocessor": "OneFormer",
    "UniFormer-SemSegPreprocessor": "UperNet",
    "SAMPreprocessor": "SAM",
    "MediaPipe-FaceMeshPreprocessor": "DrawFaces",
    "ColorPreprocessor": "ColorGrid",
    "ShufflePreprocessor": "Shuffle",
    "TilePreprocessor": "Tile",
    "TTPlanet_TileGF_Preprocessor": "TileGuided",
    "TTPlanet_TileSimple_Preprocessor": "TileSimple",
    "ImageLuminanceDetector": "RecolorLuminance",
    "ImageIntensityDetector": "RecolorIntensity",
    "InpaintPreprocessor": "Inpaint",
    "BinaryPreprocessor": "Binary",
    "AIO_Preprocessor": "Preprocess",
    "PixelPerfectResolution": "HintSize",
    "HintImageEnchance": "ResizeHint",
    "RenderPeopleKps": "DrawPose",
    "SavePoseKpsAsJsonFile": "SavePose",
    # sd-webui-controlnet.
    "canny": "Canny",
    "depth_midas": "MiDaS",
    "depth_zoe": "ZoeDepth",
    "depth_anything_v2": "DepthAnything",
    "normal_bae": "NormalBAE",
    "openpose_full": "OpenPose",
    "dw_openpose_full": "DWPose",
    "mlsd": "MLSD",
    "lineart_realistic": "Lineart",
    "lineart_coarse": "Lineart",
    "lineart_anime": "LineartAnime",
    "lineart_anime_denoise": "MangaLine",
    "lineart_standard": "LineartStandard",
    "softedge_hed": "HED",
    "softedge_pidinet": "PiDiNet",
    "softedge_teed": "TEED",
    "softedge_anyline": "AnyLine",
    "scribble_hed": "ScribbleHED",
    "scribble_pidinet": "ScribblePiDiNet",
    "scribble_xdog": "XDoG",
    "seg_ofade20k": "OneFormer",
    "seg_ufade20k": "UperNet",
    "mobile_sam": "SAM",
    "tile_resample": "Tile",
    "blur_gaussian": "Blur",
    "recolor_luminance": "RecolorLuminance",
    "inpaint_global_harmonious": "Inpaint",
    "t2ia_color_grid": "ColorGrid",
    "t2ia_sketch_pidi": "SketchPiDiNet",
    "reference_only": "Reference",
    "reference_adain": "Reference",
    "pixel perfect": "HintSize",
    "control weight": "Apply",
    "control mode": "WeightPreset",
    "my prompt is more important": "SoftWeights",
    "controlnet is more important": "Apply",
    # ComfyUI-Advanced-ControlNet and the host's own.
    "ControlNetLoader": "Load",
    "ControlNetLoaderAdvanced": "Load",
    "DiffControlNetLoader": "Load",
    "ControlNetApplyAdvanced": "Apply",
    "ACN_AdvancedControlNetApply": "Apply",
    "SetUnionControlNetType": "UnionHint",
    "ScaledSoftControlNetWeights": "SoftWeights",
    "SoftControlNetWeights": "SoftWeights",
    "CustomControlNetWeights": "BlockWeights",
    "TimestepKeyframe": "StrengthKeyframes",
    "timestep keyframe": "StrengthCurve",
    "LatentKeyframe": "ImageStrengths",
    "LatentKeyframeTiming": "ImageStrengths",
    "LatentKeyframeBatchedGroup": "ImageStrengths",
    "ACN_SparseCtrlIndexMethodNode": "SparseFrames",
    "ACN_ReferenceControlNet": "Reference",
    # Words.
    "edge detection": "Canny",
    "soft edge": "PiDiNet",
    "line art": "LineartStandard",
    "sketch": "Scribble",
    "depth map": "DepthAnything",
    "normal map": "NormalBAE",
    "pose": "DWPose",
    "skeleton": "OpenPose",
    "segmentation": "SegFormer",
    "upscale": "Tile",
    "outpaint": "Inpaint",
    "colorize": "RecolorLuminance",
    "lllite": "Load",
    "control lora": "Load",
    "t2i adapter": "Load",
    "sparsectrl": "SparseFrames",
    "multi controlnet": "Compose",
    "controlnet stack": "Layer",
    "regional": "Compose",
    "guess mode": "Apply",
    "block weights": "BlockWeights",
    "schedule": "StrengthCurve",
    "controlnet does nothing": "Report",
    "train controlnet": "Train",
    "download models": "DownloadAnnotators",
}


@pytest.fixture(scope="module")
def found_by(every_node: list[Any]) -> dict[str, str]:
    """All that the search looks at, of nodes that it shows: what is deprecated is hidden."""
    schemas = (node.define_schema() for node in every_node)
    return {
        schema.node_id: " · ".join((schema.node_id, schema.display_name, *schema.search_aliases)).lower()
        for schema in schemas
        if not schema.is_deprecated
    }


@pytest.mark.parametrize("words", TYPED)
def test_what_people_type_finds_the_node(found_by: dict[str, str], words: str) -> None:
    assert words.lower() in found_by[f"ControlComposer{TYPED[words]}"]


def test_no_word_is_there_twice(every_node: list[Any]) -> None:
    for node in every_node:
        aliases = [alias.lower() for alias in node.define_schema().search_aliases]
        assert sorted(set(aliases)) == sorted(aliases), node.define_schema().node_id
