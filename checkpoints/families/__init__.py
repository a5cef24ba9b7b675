"""Every kind of file that is known, in the order in which they are tried: the first whose condition holds is the answer."""

from ..family import Family
from .control_lora import CONTROL_LORA
from .controlnet import CONTROLNET_CLDM, CONTROLNET_DIFFUSERS
from .controlnext import CONTROLNEXT, CONTROLNEXT_VIDEO, UNET_WEIGHTS
from .ctrlora import CTRLORA, CTRLORA_BASE
from .difference import DIFFERENCE
from .host import HOST_CONTROLS
from .lllite import LLLITE
from .named import CONTROLS, OTHER_CONTROLS, OTHER_FILES
from .sparsectrl import SPARSE_RGB, SPARSE_SCRIBBLE
from .t2i_adapter import T2I_DIFFUSERS, T2I_FULL, T2I_LIGHT
from .union import UNION_CLDM, UNION_DIFFUSERS, UNION_TYPES
from .xs import XS_ADAPTER, XS_MODEL, XS_ORIGINAL, XS_WHOLE

# ControlNet stands after the families that contain its keys, and before everything that a full checkpoint may hold beside a control.
FAMILIES: tuple[Family, ...] = (
    CONTROL_LORA,
    CTRLORA,
    CTRLORA_BASE,
    *CONTROLS,
    CONTROLNEXT,
    CONTROLNEXT_VIDEO,
    XS_WHOLE,
    XS_ADAPTER,
    XS_MODEL,
    XS_ORIGINAL,
    LLLITE,
    SPARSE_RGB,
    SPARSE_SCRIBBLE,
    DIFFERENCE,
    UNION_DIFFUSERS,
    UNION_CLDM,
    CONTROLNET_DIFFUSERS,
    CONTROLNET_CLDM,
    T2I_DIFFUSERS,
    T2I_FULL,
    T2I_LIGHT,
    *HOST_CONTROLS,
    *OTHER_CONTROLS,
    UNET_WEIGHTS,
    *OTHER_FILES,
)

__all__ = ["CONTROLNET_CLDM", "CONTROLNET_DIFFUSERS", "CTRLORA", "CTRLORA_BASE", "FAMILIES", "UNION_TYPES"]
