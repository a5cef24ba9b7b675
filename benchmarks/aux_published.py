"""Our pixels "as controlnet aux", and Resize Hint, beside comfyui_controlnet_aux's own code, where no network is needed.

    python host.py python -m control_composer.benchmarks.aux_published COMFYUI_CONTROLNET_AUX PHOTOGRAPHS

The first folder is a checkout of Fannovel16/comfyui_controlnet_aux, the second one of pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..preprocessors import PREPROCESSORS
from ..preprocessors.aux_mode import as_controlnet_aux
from ..preprocessors.careful_resize import placed
from ..preprocessors.hint_size import Mode
from ..preprocessors.sizing import Size

RESOLUTIONS = (512, 200, 96)
WIDEST = 384
BY_ID = {one.id: one for one in PREPROCESSORS}
Settings = dict[str, Any]
# Ours, their module and class, their settings, ours.
RECIPES: list[tuple[str, str, str, Settings, Settings]] = [
    ("Canny", "canny", "CannyDetector", {"low_threshold": 60, "high_threshold": 120}, {"low": 60, "high": 120}),
    ("PyramidCanny", "pyracanny", "PyraCannyDetector", {"low_threshold": 64, "high_threshold": 128}, {}),
    ("Binary", "binary", "BinaryDetector", {"bin_threshold": 100}, {}),
    ("Binary", "binary", "BinaryDetector", {"bin_threshold": 0}, {"threshold": 0}),
    ("Scribble", "scribble", "ScribbleDetector", {}, {}),
    ("XDoG", "scribble", "ScribbleXDog_Detector", {"thr_a": 20}, {"threshold": 20}),
    ("LineartStandard", "lineart_standard", "LineartStandardDetector", {}, {}),
    ("ColorGrid", "color", "ColorDetector", {}, {}),
    ("Shuffle", "shuffle", "ContentShuffleDetector", {"seed": 7}, {"seed": 7}),
    ("Tile", "tile", "TileDetector", {"pyrUp_iters": 3}, {}),
    (
        "TileSimple",
        "tile",
        "TTPLanet_Tile_Detector_Simple",
        {"scale_factor": 2.0, "blur_strength": 3.0},
        {"scale": 2.0, "blur": 3.0},
    ),
    (
        "TileGuided",
        "tile",
        "TTPlanet_Tile_Detector_GF",
        {"scale_factor": 1.0, "blur_strength": 2.0, "radius": 7, "eps": 0.01},
        {},
    ),
    (
        "TileGuided",
        "tile",
        "TTPlanet_Tile_Detector_GF",
        {"scale_factor": 2.0, "blur_strength": 4.0, "radius": 5, "eps": 0.02},
        {"scale": 2.0, "blur": 4.0, "radius": 5, "epsilon": 0.02},
    ),
    ("RecolorLuminance", "recolor", "Recolorizer", {"mode": "luminance", "gamma_correction": 0.7}, {"gamma": 0.7}),
    ("RecolorIntensity", "recolor", "Recolorizer", {"mode": "intensity", "gamma_correction": 1.3}, {"gamma": 1.3}),
]
MODES: dict[str, Mode] = {"Just Resize": "stretch", "Crop and Resize": "crop", "Resize and Fill": "fit"}
HINTS: dict[str, Callable[[Tensor], Tensor]] = {
    "of Canny": lambda image: BY_ID["Canny"](image),
    "of Binary": lambda image: BY_ID["Binary"](image),
    "of Color Grid": lambda image: BY_ID["ColorGrid"](image, cell=48),
    "of photographs": lambda image: image,
}


def pictures(folder: Path) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB, at most `WIDEST` pixels wide."""
    import cv2

    for path in sorted(folder.glob("*.png")) + sorted(folder.glob("*.jpg")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert picture is not None, path
        scale = min(1.0, WIDEST / picture.shape[1])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def told(name: str, differences: list[np.ndarray]) -> None:
    worst = max(float(one.max()) for one in differences)
    share = float(np.mean([(one > 0.01).mean() for one in differences]))
    print(f"{name:28} differs by at most {worst:.2f} of 255, more than 0.01 in {share:.4%} of the numbers", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("photographs", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(given.original / "src"))
    whole = types.ModuleType("controlnet_aux_original")
    whole.__path__ = [str(given.original)]
    sys.modules[whole.__name__] = whole
    photographs = list(pictures(given.photographs))
    for name, module, kind, theirs, ours in RECIPES:
        with contextlib.redirect_stdout(io.StringIO()):
            detector = getattr(importlib.import_module(f"custom_controlnet_aux.{module}"), kind)()
        differences = []
        for photograph in photographs:
            # Numbers between 8-bit steps, so that cutting them off shows.
            image = torch.from_numpy(photograph).float() / 255 * 0.997 + 0.001
            eight = np.asarray(image * 255.0, dtype=np.uint8)
            for resolution in RESOLUTIONS:
                with contextlib.redirect_stdout(io.StringIO()):
                    wanted = detector(eight, output_type="np", detect_resolution=resolution, **theirs)
                found, _ = as_controlnet_aux(BY_ID[name], image[None], resolution, **ours)
                differences.append(np.abs(found[0].numpy() * 255 - wanted))
        told(name, differences)
    resizer = importlib.import_module(f"{whole.__name__}.hint_image_enchance").HintImageEnchance()
    for name, make in HINTS.items():
        differences = []
        for photograph in photographs[:4]:
            hint = make(torch.from_numpy(photograph)[None].float() / 255)
            # A little more than 8-bit steps, so that cutting them off gives them back.
            stepped = ((hint * 255).round() / 255 + 1e-4).clamp(0, 1)
            for width, height in ((512, 768), (768, 512), (256, 256)):
                for old, mode in MODES.items():
                    (wanted,) = resizer.execute(stepped, width, height, old)
                    differences.append(np.abs((placed(hint, Size(height, width), mode) - wanted).numpy() * 255))
        told(f"Resize Hint {name}", differences)


if __name__ == "__main__":
    main()
