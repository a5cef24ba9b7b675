"""The networks of lines."""

from __future__ import annotations

from ..networks.lineart import build_lineart
from ..networks.lineart_anime import build_lineart_anime
from ..networks.manga_line import build_manga_line
from ..networks.mlsd import build_mlsd
from .annotator import Annotator, File

_ANNOTATORS = "https://huggingface.co/lllyasviel/Annotators/resolve/main/"
_EVERYONE = "everyone may use it commercially"

MLSD_LARGE = Annotator(
    "MLSD-large",
    (
        File(
            "mlsd_large_512_fp32.pth",
            6_341_481,
            "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
            _ANNOTATORS + "mlsd_large_512_fp32.pth",
        ),
    ),
    "Apache-2.0 (navervision/mlsd, lhwcv/mlsd_pytorch)",
    _EVERYONE,
    build_mlsd,
    160,
    # It makes much of roundings: in float16 up to half of the pixels of MLSD-tiny's lines are elsewhere.
    half=False,
)

MLSD_TINY = Annotator(
    "MLSD-tiny",
    (
        File(
            "mlsd_tiny_512_fp32.pth",
            2_613_835,
            "3f2323cfb9faec5a0ef2454c4f68998da21a9f1b7918ce89b85886628b750b94",
            "https://github.com/lhwcv/mlsd_pytorch/raw/main/models/mlsd_tiny_512_fp32.pth",
        ),
    ),
    "Apache-2.0 (navervision/mlsd, lhwcv/mlsd_pytorch)",
    _EVERYONE,
    build_mlsd,
    120,
    half=False,
)

LINEART = Annotator(
    "Lineart",
    (
        File(
            "sk_model.pth",
            17_173_511,
            "c686ced2a666b4850b4bb6ccf0748031c3eda9f822de73a34b8979970d90f0c6",
            _ANNOTATORS + "sk_model.pth",
        ),
    ),
    "MIT (carolineec/informative-drawings)",
    _EVERYONE,
    build_lineart,
    320,
    half=False,
)

LINEART_COARSE = Annotator(
    "Lineart-coarse",
    (
        File(
            "sk_model2.pth",
            17_173_511,
            "30a534781061f34e83bb9406b4335da4ff2616c95d22a585c1245aa8363e74e0",
            _ANNOTATORS + "sk_model2.pth",
        ),
    ),
    "MIT (carolineec/informative-drawings)",
    _EVERYONE,
    build_lineart,
    320,
    half=False,
)

LINEART_ANIME = Annotator(
    "LineartAnime",
    (
        File(
            "netG.pth",
            217_631_959,
            "ccabdcc3f5cf3c07cf65d58776acb21df7dfda825cdc70c9766a93fd62bfc488",
            _ANNOTATORS + "netG.pth",
        ),
    ),
    "MIT (Mukosame/Anime2Sketch)",
    _EVERYONE,
    build_lineart_anime,
    160,
    half=False,
)

MANGA_LINE = Annotator(
    "MangaLine",
    (
        File(
            "erika.pth",
            172_789_563,
            "badbd6baf013cefbd98993307b02cc14a26c770d067416e4fdecc8720b88feeb",
            _ANNOTATORS + "erika.pth",
        ),
    ),
    "MIT (ljsabc/MangaLineExtraction_PyTorch)",
    _EVERYONE,
    build_manga_line,
    340,
    half=False,
)

LINES = (MLSD_LARGE, MLSD_TINY, LINEART, LINEART_COARSE, LINEART_ANIME, MANGA_LINE)
