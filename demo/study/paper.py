"""Figures that the paper prints (arXiv 2302.05543, tables 1 to 3, sections 3.3, 3.4, 4.2, 4.3 and 4.5).

Compared with two translations of the whole paper by other people, which agree with each other in every figure.
"""

from __future__ import annotations

from collections.abc import Mapping

RANKING: Mapping[str, tuple[str, str]] = {
    "PITI (sketch)": ("1.10 ± 0.05", "1.02 ± 0.01"),
    "Sketch-Guided (β = 1.6)": ("3.21 ± 0.62", "2.31 ± 0.57"),
    "Sketch-Guided (β = 3.2)": ("2.52 ± 0.44", "3.28 ± 0.72"),
    "ControlNet-lite": ("3.93 ± 0.59", "4.09 ± 0.46"),
    "ControlNet": ("4.22 ± 0.43", "4.28 ± 0.45"),
}
"""Table 1: average human rank of 1 to 5, of quality and of fidelity to the condition."""
RECONSTRUCTION: Mapping[str, str] = {
    "ADE20K itself": "0.58 ± 0.10",
    "VQGAN": "0.21 ± 0.15",
    "LDM": "0.31 ± 0.09",
    "PITI": "0.26 ± 0.16",
    "ControlNet-lite": "0.32 ± 0.12",
    "ControlNet": "0.35 ± 0.14",
}
"""Table 2: IoU of segmentation found again."""
DISTRIBUTION: Mapping[str, tuple[str, str, str]] = {
    "Stable Diffusion": ("6.09", "0.26", "6.32"),
    "VQGAN": ("26.28", "0.17", "5.14"),
    "LDM": ("25.35", "0.18", "5.15"),
    "PITI": ("19.74", "0.20", "5.77"),
    "ControlNet-lite": ("17.92", "0.26", "6.30"),
    "ControlNet": ("15.27", "0.26", "6.31"),
}
"""Table 3: FID, CLIP score, CLIP aesthetic score."""
TOLD_APART = "0.52 ± 0.17"
"""How often people knew SD2's depth-to-image from a ControlNet; 0.5 is chance."""
SUDDEN_STEP = 6133
