"""What the nodes in place of those of Advanced-ControlNet hand to one another, and how all of them look."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

CATEGORY = "Control Composer/apply/from Advanced-ControlNet"
PREFIX = "ControlComposerAcn"

Timesteps = io.Custom("CONTROL_COMPOSER_TIMESTEP_KEYFRAMES")
Latents = io.Custom("CONTROL_COMPOSER_LATENT_KEYFRAMES")
KeyframedWeights = io.Custom("CONTROL_COMPOSER_KEYFRAME_WEIGHTS")
Extras = io.Custom("CONTROL_COMPOSER_WEIGHT_EXTRAS")
SparseMethod = io.Custom("CONTROL_COMPOSER_SPARSE_METHOD")


def schema(
    name: str, was: str, instead: str, inputs: list[io.Input], outputs: list[io.Output], aliases: tuple[str, ...] = ()
) -> io.Schema:
    """`was` is the old node's name as people know it, `instead` what takes its place in new workflows."""
    return io.Schema(
        node_id=PREFIX + name,
        display_name=f"{was} (Control Composer)",
        category=CATEGORY,
        description=f"{was} of ComfyUI-Advanced-ControlNet with its settings and their meaning, for workflows that were made with it. In new ones take "
        f"{instead}.",
        search_aliases=[was.lower(), *aliases],
        is_deprecated=True,
        inputs=inputs,
        outputs=outputs,
    )


def number(
    name: str, default: float, tooltip: str, *, most: float = 10.0, step: float = 0.001, optional: bool = True
) -> io.Input:
    return io.Float.Input(name, default=default, min=0.0, max=most, step=step, optional=optional, tooltip=tooltip)


def percent(name: str, default: float, tooltip: str, optional: bool = False) -> io.Input:
    return number(
        name,
        default,
        f"{tooltip} 0 is the beginning of the sampling, all noise, 1 its end.",
        most=1.0,
        optional=optional,
    )


def timesteps_input(name: str = "timestep_kf") -> io.Input:
    return Timesteps.Input(name, optional=True, tooltip="From when on which settings act: from a Timestep Keyframe.")


def timesteps_output() -> io.Output:
    return Timesteps.Output(
        "TIMESTEP_KF", display_name="TIMESTEP_KF", tooltip="These keyframes, with those before them."
    )


def latents_output() -> io.Output:
    return Latents.Output(
        "LATENT_KF", display_name="LATENT_KF", tooltip="The strengths of pictures, with those before them."
    )


def printing() -> io.Input:
    return io.Boolean.Input(
        "print_keyframes",
        default=False,
        optional=True,
        advanced=True,
        tooltip="Without effect here; it wrote them into the log.",
    )


def list_of(values: Any, name: str) -> tuple[float, ...]:
    """A number or a list of them, as nodes for schedules hand them out. Raises ValueError."""
    values = values if isinstance(values, (list, tuple)) or hasattr(values, "__iter__") else [values]
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} got {str(values)[:60]}, but a number or a list of numbers was expected; connect a node that makes one."
        ) from None
