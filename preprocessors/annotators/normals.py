"""The networks of surface normals."""

from __future__ import annotations

from ..networks.normalbae import build_normalbae
from .annotator import HUGGING_FACE, Annotator, File

NORMALS = (
    Annotator(
        "NormalBAE",
        (
            File(
                "scannet.pt",
                sha256="03dbf1600c51ee3d45c29f77b77bf1a3b7a24c3452dba62a4ae658f37330c209",
                address=f"{HUGGING_FACE}lllyasviel/Annotators/resolve/main/scannet.pt",
            ),
        ),
        "MIT by its code (baegwangbin/surface_normal_uncertainty), trained on ScanNet",
        "ask its authors before commercial use",
        build_normalbae,
        # 330 numbers are alive at once, counted at the published widths.
        660,
        # Without the file nothing shows that half precision holds its features.
        half=False,
    ),
)
