"""Controls of several layers, the chains of stock nodes that they equal, and what a run of them leaves to be seen."""

import comfy.hooks

from control_composer.control import layer_of
from control_composer.tests import narrow

SIZE = (2, 8, 12)
PICTURES = (narrow.picture(1, 64, 96, seed=1), narrow.picture(2, 70, 50, seed=2), narrow.picture(1, 96, 96, seed=3))
SETTINGS = ((0.8, 0.0, 1.0), (0.5, 0.2, 0.9), (1.3, 0.0, 0.6))


def start(kind="sd1"):
    return narrow.conditioning(kind, 10), narrow.conditioning(kind, 11)


def stock_chain(conds, controls, pictures=PICTURES, settings=SETTINGS):
    for control, image, values in zip(controls, pictures, settings, strict=False):
        conds = narrow.stock_apply(*conds, control, image, *values)
    return conds


def layers_of(controls, pictures=PICTURES, settings=SETTINGS, **changes):
    return [
        layer_of(control, image, *values, **changes)
        for control, image, values in zip(controls, pictures, settings, strict=False)
    ]


def control_of(conditionings):
    return conditionings[0][0][1]["control"]


class Work:
    """Rows of each pass of some networks and of each of their embeddings, in order."""

    def __init__(self, modules):
        self.passes, self.embeddings = [], []
        self.hooks = []
        for module in modules:
            self.hooks += [
                module.middle_block.register_forward_hook(lambda _, given, __: self.passes.append(len(given[0]))),
                module.input_hint_block.register_forward_hook(
                    lambda _, given, __: self.embeddings.append(len(given[0]))
                ),
            ]


def reached(model, conditionings, steps=1, size=SIZE, **changes):
    """The residuals that reach the UNet at each of its calls."""
    spy = narrow.Spy(model)
    narrow.sample(spy.model, *conditionings, size, steps=steps, **changes)
    return [None if call.control is None else call.control["output"] + call.control["middle"] for call in spy.calls]


def with_hook(control):
    control = control.copy()
    control.extra_hooks = comfy.hooks.HookGroup()
    control.extra_hooks = group_of(comfy.hooks.Hook(hook_type=comfy.hooks.EnumHookType.Weight))
    return control


def group_of(hook):
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group
