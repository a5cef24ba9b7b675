"""Annotator networks with random weights, in files for our nodes and in the classes of controlnet-aux, which other packs use in copies."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Detector = Callable[[np.ndarray], np.ndarray]
"""One 8-bit picture -> its hint, at the picture's size."""


@dataclass(frozen=True)
class PeerNetwork:
    """One network of controlnet-aux 0.0.10. `build(module)` makes it from the named module."""

    module: str
    build: Callable[[Any], nn.Module]
    detector: str
    file: str
    """Where our node looks for its weights."""
    options: tuple[str, ...] = ("detect_resolution", "image_resolution")
    """Settings of the detector that take the shorter side."""
    boxed: str = ""
    """The name under which the file holds the weights, empty where they are at its top."""

    def detect(self, network: nn.Module, device: torch.device) -> Detector:
        """What the published class makes of one picture."""
        detector_class = getattr(_imported(self.module), self.detector)
        networks = [network] * (2 if self.detector == "LineartDetector" else 1)
        detector = detector_class(*networks).to(device)
        return lambda picture: np.asarray(
            detector(picture, **dict.fromkeys(self.options, min(picture.shape[:2])), output_type="np")
        )


def _imported(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"controlnet_aux.{name}")


def _normal_bae(module: Any) -> nn.Module:
    settings = SimpleNamespace(
        mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
    )
    return module.NNET(settings)  # type: ignore[no-any-return]


def _lineart_anime(module: Any) -> nn.Module:
    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return module.UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)  # type: ignore[no-any-return]


PEER_NETWORKS: dict[str, PeerNetwork] = {
    "HED": PeerNetwork("hed", lambda module: module.ControlNetHED_Apache2(), "HEDdetector", "ControlNetHED.pth"),
    "PiDiNet": PeerNetwork(
        "pidi", lambda module: module.pidinet(), "PidiNetDetector", "table5_pidinet.pth", boxed="state_dict"
    ),
    "TEED": PeerNetwork("teed", lambda module: module.TED(), "TEEDdetector", "7_model.pth", ("detect_resolution",)),
    "MLSD": PeerNetwork("mlsd", lambda module: module.MobileV2_MLSD_Large(), "MLSDdetector", "mlsd_large_512_fp32.pth"),
    "Lineart": PeerNetwork("lineart", lambda module: module.Generator(3, 1, 3), "LineartDetector", "sk_model.pth"),
    "LineartAnime": PeerNetwork("lineart_anime", _lineart_anime, "LineartAnimeDetector", "netG.pth"),
    "NormalBAE": PeerNetwork("normalbae", _normal_bae, "NormalBaeDetector", "scannet.pt", boxed="model"),
}
"""By the ids of our preprocessors."""


def written(name: str, folder: Path) -> nn.Module:
    """The published network with random weights, which are put into our file's name in `folder`. Raises ImportError without controlnet-aux."""
    peer = PEER_NETWORKS[name]
    module = _imported(peer.module)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = peer.build(module).eval()
    weights: dict[str, Any] = {key: value for key, value in network.state_dict().items() if isinstance(value, Tensor)}
    torch.save({peer.boxed: weights} if peer.boxed else weights, folder / peer.file)
    return network
