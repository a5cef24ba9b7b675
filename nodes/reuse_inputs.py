"""The inputs that say how often the network of a layer is evaluated."""

from __future__ import annotations

from comfy_api.latest import io


def reuse_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "every",
            default=1,
            min=1,
            max=100,
            optional=True,
            advanced=True,
            tooltip="Runs the control's network at each step (1), each second (2) and so on, and adds its last residuals again in between: faster, but "
            "small details may change. In the demo world nothing was obeyed less; real models were not measured. The first and the last step always run. "
            "Not for controls that act inside of the model.",
        ),
        io.Float.Input(
            "sigma_ratio",
            default=1.0,
            min=1.0,
            max=10.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Runs the control's network again when the noise has fallen by this factor, for example 1.5, however many steps that takes; 1 switches "
            "it off. With every above 1, whichever comes first.",
        ),
        io.Boolean.Input(
            "extrapolate",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Where residuals are used again: continues their change from the last two evaluations, in place of holding the last ones.",
        ),
    ]
