"""Runs of a layer of which every call of the UNet is kept: what reached it, and what the network itself gave."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from control_composer.control import compose_controls, layer_of
from control_composer.tests import narrow

SIZE = (2, 8, 16)
IMAGE = narrow.picture(2, 64, 128)


def start(kind="sd1"):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


class Seen:
    """One call: its sigma, its kinds, what reached the UNet, and what the network gave in it, both with the middle last."""

    def __init__(self, call):
        control = call["c"].get("control")
        self.reached = None if control is None else [x.clone() for x in control["output"] + control["middle"]]
        self.kinds = list(call["cond_or_uncond"])
        self.sigma = float(call["timestep"][0])
        self.raw = []


def watch(model, modules, conditionings, size=SIZE, **changes):
    """Every call of the UNet in a run."""
    raw, calls = [], []
    hooks = [
        part.register_forward_hook(lambda _, __, out: raw.append(out.clone()))
        for module in modules
        for part in (*module.zero_convs, module.middle_block_out)
    ]

    def record(apply_model, call):
        calls.append(Seen(call))
        calls[-1].raw, raw[:] = list(raw), []
        return apply_model(call["input"], call["timestep"], **call["c"])

    spied = model.clone()
    spied.set_model_unet_function_wrapper(record)
    narrow.sample(spied, *conditionings, size, **{"steps": 1} | changes)
    for hook in hooks:
        hook.remove()
    return calls


def rows(values, kinds):
    """(latents, …) -> (latents of every branch, …)."""
    return torch.cat([values] * len(kinds))


def soft_mask(count=1, seed=1, height=64, width=128):
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))


def averaged(mask, block):
    """The mask (n, H, W) as a factor for a block, where its size divides the mask's."""
    assert mask.shape[-2] % block.shape[-2] == 0 and mask.shape[-1] % block.shape[-1] == 0
    return adaptive_avg_pool2d(mask.unsqueeze(1).double(), tuple(block.shape[-2:])).float()


def apply(control, image=IMAGE, **settings):
    return compose_controls(*start(), [layer_of(control, image, **settings)])
