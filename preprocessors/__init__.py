"""Picture -> hint: one pure function per file, and the explicit list of all of them."""

from __future__ import annotations

from .binary import BINARY
from .blur import BLUR
from .canny import CANNY, canny
from .colour_grid import COLOUR_GRID
from .depth_anything import DEPTH_ANYTHING
from .depth_normalised import DEPTH_NORMALISED
from .depth_pro import DEPTH_PRO
from .dwpose import DWPOSE
from .errors import PreprocessorError
from .hed import HED, SCRIBBLE_HED
from .invert import INVERT
from .lineart import LINEART
from .lineart_anime import LINEART_ANIME
from .lineart_standard import LINEART_STANDARD
from .manga_line import MANGA_LINE
from .mask2former import MASK2FORMER
from .midas import MIDAS
from .midas_normal import MIDAS_NORMAL
from .mlsd import MLSD
from .normal_from_depth import NORMAL_FROM_DEPTH
from .normalbae import NORMAL_BAE
from .oneformer import ONEFORMER
from .openpose import OPENPOSE
from .pidinet import PIDINET, SCRIBBLE_PIDINET, SKETCH_PIDINET
from .preprocessor import Parameter, Preprocessor
from .pyramid_canny import PYRAMID_CANNY
from .recolor import RECOLOR_INTENSITY, RECOLOR_LUMINANCE
from .sam import SAM
from .scribble import SCRIBBLE
from .segformer import SEGFORMER
from .shuffle import SHUFFLE
from .teed import ANYLINE, TEED
from .threshold import THRESHOLD
from .tile import TILE
from .tile_guided import TILE_GUIDED
from .tile_simple import TILE_SIMPLE
from .upernet import UPERNET
from .vitpose import VITPOSE
from .xdog import XDOG
from .zoe_depth import ZOE_DEPTH

PREPROCESSORS: tuple[Preprocessor, ...] = (
    CANNY,
    PYRAMID_CANNY,
    LINEART_STANDARD,
    SCRIBBLE,
    XDOG,
    BINARY,
    THRESHOLD,
    INVERT,
    COLOUR_GRID,
    SHUFFLE,
    TILE,
    TILE_SIMPLE,
    TILE_GUIDED,
    BLUR,
    RECOLOR_LUMINANCE,
    RECOLOR_INTENSITY,
    DEPTH_NORMALISED,
    NORMAL_FROM_DEPTH,
    PIDINET,
    SCRIBBLE_PIDINET,
    SKETCH_PIDINET,
    HED,
    SCRIBBLE_HED,
    TEED,
    ANYLINE,
    MLSD,
    LINEART,
    LINEART_ANIME,
    MANGA_LINE,
    DEPTH_ANYTHING,
    MIDAS,
    MIDAS_NORMAL,
    ZOE_DEPTH,
    DEPTH_PRO,
    DWPOSE,
    OPENPOSE,
    VITPOSE,
    NORMAL_BAE,
    ONEFORMER,
    MASK2FORMER,
    UPERNET,
    SEGFORMER,
    SAM,
)

__all__ = ["CANNY", "PREPROCESSORS", "Parameter", "Preprocessor", "PreprocessorError", "canny"]
