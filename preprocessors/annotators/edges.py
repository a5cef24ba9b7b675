"""The networks of soft edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ..networks.hed import build_hed
from ..networks.pidinet import BASELINE, build_pidinet
from ..networks.teed import build_teed
from .annotator import Annotator, File


def _pidinet(
    identifier: str,
    file: str,
    size: int,
    sha256: str,
    values_per_pixel: int,
    build: Callable[..., nn.Module] = build_pidinet,
    address: str = "https://github.com/hellozhuo/pidinet/raw/master/trained_models/",
) -> Annotator:
    return Annotator(
        identifier,
        (File(file, size, sha256, address + file),),
        "for research (hellozhuo/pidinet)",
        "commercial use needs the authors' consent",
        build,
        values_per_pixel,
    )


_baseline = partial(build_pidinet, differences=BASELINE)

PIDINETS = (
    _pidinet(
        "PiDiNet",
        "table5_pidinet.pth",
        2_871_148,
        "80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
        360,
        address="https://huggingface.co/lllyasviel/Annotators/resolve/main/",
    ),
    _pidinet(
        "PiDiNet-L",
        "table5_pidinet-l.pth",
        2_462_360,
        "14ee1cc0d20f787e25bd4105a74cf14fd4dba28aec75ba77dfb7ba1bc5e6bd12",
        360,
    ),
    _pidinet(
        "PiDiNet-Small",
        "table5_pidinet-small.pth",
        765_036,
        "55740e3a0e6c4c3f82a921902851a86be6ad5a144db29add4ab57e1a22007f76",
        180,
    ),
    _pidinet(
        "PiDiNet-Small-L",
        "table5_pidinet-small-l.pth",
        652_568,
        "3063a52926f5bf7f02c09bfe3c7b20c2408f8cdfe64ef44a3eccb7510e317cf8",
        180,
    ),
    _pidinet(
        "PiDiNet-Tiny",
        "table5_pidinet-tiny.pth",
        368_492,
        "e32b23fff6c1cb9bd4385a1d615023346fc2e3f2f3a8db7f78cc4ce95a14730c",
        120,
    ),
    _pidinet(
        "PiDiNet-Tiny-L",
        "table5_pidinet-tiny-l.pth",
        310_808,
        "21b5a975737017676f240dcb7158f6874340f5541ce06ccdb900d8b353a9ab93",
        120,
    ),
    _pidinet(
        "PiDiNet-Baseline",
        "table5_baseline.pth",
        2_871_148,
        "aa103197722645487c7d670c0866e8a5537ab4501e610012bebec06dc559883a",
        360,
        _baseline,
    ),
    _pidinet(
        "PiDiNet-NYUD",
        "table6_pidinet.pth",
        2_871_148,
        "8ae827da53ca6807e44f83f4dacf214ed0839e149c3969c485908684c4522f3e",
        360,
    ),
    _pidinet(
        "PiDiNet-Multicue",
        "table7_pidinet.pth",
        2_871_148,
        "d065884ade7f69e0c90a2e376c502d742a935a932518f15b0eb087dbf22b455c",
        360,
    ),
)

HED = Annotator(
    "HED",
    (
        File(
            "ControlNetHED.pth",
            29_444_406,
            "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa",
            "https://huggingface.co/lllyasviel/Annotators/resolve/main/ControlNetHED.pth",
        ),
    ),
    "Apache-2.0 by the header of its code",
    "everyone may use it commercially",
    build_hed,
    400,
    # Its numbers start at 0..255 and grow: without the file nothing shows that half precision holds them.
    half=False,
)

TEED = Annotator(
    "TEED",
    (
        File(
            "7_model.pth",
            247_232,
            "b9037964149c55156c6adbffdfbd7e8ca7d2ef2a4d90573520efa7f3a1aacf06",
            "https://huggingface.co/bdsqlsz/qinglong_controlnet-lllite/resolve/main/Annotators/7_model.pth",
        ),
    ),
    "no licence known here",
    "ask its authors before commercial use",
    build_teed,
    200,
    half=False,
)

ANYLINE = Annotator(
    "AnyLine",
    (
        File(
            "MTEED.pth",
            248_298,
            "a3c2d8a8ce9422555c787160bd46362d761325a565333c0e3f6a53e0bae2abdb",
            "https://huggingface.co/TheMistoAI/MistoLine/resolve/main/Anyline/MTEED.pth",
        ),
    ),
    "no licence known here",
    "ask its authors before commercial use",
    build_teed,
    200,
    half=False,
)

EDGES: tuple[Annotator, ...] = (*PIDINETS, HED, TEED, ANYLINE)
