"""Controls that are not ours as layers, and the calls of the UNet that they reach."""

import comfy.controlnet
import comfy.t2i_adapter.adapter
import torch

from control_composer.control import compose_controls
from control_composer.tests import narrow

SIZE = (2, 8, 16)
IMAGE = narrow.picture(1, 64, 128)
CPU = torch.device("cpu")


def adapter():
    """The host's control for a T2I-Adapter of the narrow model's widths; its residuals depend on the hint alone."""
    network = comfy.t2i_adapter.adapter.Adapter(
        channels=[32, 64, 128, 128], nums_rb=2, cin=192, ksize=1, sk=True, use_conv=False, xl=False
    )
    narrow.fill(network, 4)
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


def ladder(module):
    """A ControlNet whose strength the host raises to the power of the block: the arithmetic must stay the host's."""
    return narrow.make_stock(module, strength_type=comfy.controlnet.StrengthType.LINEAR_UP)


def start():
    return narrow.conditioning("sd1", 10), narrow.conditioning("sd1", 11)


def reached(model, conditionings, size=SIZE, **changes):
    """The calls of the UNet with what reached it."""
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, size, **{"steps": 1} | changes)
    return spy.calls


def compose(*layers, strength=1.0):
    return compose_controls(*start(), layers, strength)


def by_row(kinds, latents, uncond=1.0):
    """A factor per row from one per latent."""
    return torch.tensor([s * (1.0 if kind == 0 else uncond) for kind in kinds for s in latents])
