"""Every kind of file that is known, in the order in which they are tried: the first whose condition holds is the answer."""

from ..family import Family
from .control_lora import CONTROL_LORA
from .controlnet import CONTROLNET_CLDM, CONTROLNET_DIFFUSERS
from .difference import DIFFERENCE
from .named import CONTROLS, OTHER_CONTROLS, OTHER_FILES
from .t2i_adapter import T2I_DIFFUSERS, T2I_FULL, T2I_LIGHT
from .union import UNION_CLDM, UNION_DIFFUSERS, UNION_TYPES

# ControlNet stands after the families that contain its keys, and before everything that a full checkpoint may hold beside a control.
FAMILIES: tuple[Family, ...] = (
    CONTROL_LORA,
    *CONTROLS,
    DIFFERENCE,
    UNION_DIFFUSERS,
    UNION_CLDM,
    CONTROLNET_DIFFUSERS,
    CONTROLNET_CLDM,
    T2I_DIFFUSERS,
    T2I_FULL,
    T2I_LIGHT,
    *OTHER_CONTROLS,
    *OTHER_FILES,
)

__all__ = ["CONTROLNET_CLDM", "CONTROLNET_DIFFUSERS", "FAMILIES", "UNION_TYPES"]
