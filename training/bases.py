"""What a control is trained for, loaded without a graph: the demo world, or a checkpoint file of the host (host side)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd

from ..demo.world import load_world
from .encode import TextEncoder, of_clip, of_demo_world
from .errors import TrainingError

DEMO = "demo"


@dataclass(frozen=True, eq=False)
class Base:
    """A base and what prepares its data."""

    name: str
    """For the file of the control."""
    model: Any
    """The host's ModelPatcher."""
    vae: Any | None
    """The host's VAE; None where the file has none."""
    text: TextEncoder | None
    """None where the file has none."""


def load_base(name: str) -> Base:
    """`name`: "demo", or the path of a checkpoint file. Raises TrainingError for one that is not there or cannot be read."""
    if name == DEMO:
        world = load_world()
        return Base("the demo world", world.model, world.vae, of_demo_world(world))
    path = Path(name)
    if not path.is_file():
        raise TrainingError(
            f"The base '{name}'",
            found="is not there",
            expected="'demo' or the path of a checkpoint file was expected",
            remedy="correct 'base'",
        )
    try:
        # Not in the parts in which a running host holds models: the UNet is copied, the others are used as they are.
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), disable_dynamic=True)
    # The host raises whatever its readers raise.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"The base '{name}'",
            found=f"cannot be read ({reason})",
            expected="a checkpoint file of Stable Diffusion 1, 2 or XL was expected",
            remedy="choose another file",
        ) from error
    # Of a file without them the host makes a VAE that fails when it is used, and no CLIP.
    with_vae = vae is not None and vae.first_stage_model is not None
    return Base(path.stem, model, vae if with_vae else None, None if clip is None else of_clip(clip))
