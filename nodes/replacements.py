"""Workflows made with comfyui_controlnet_aux open where that pack is missing: the host puts our nodes in place of its."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import ComfyAPI, io

from . import acn_replacements, hint_size, old_prompts, pose, pose_files, preprocess
from .aux_names import COUNTERPARTS, IN_ONE, OF_THE_HOST, SIZE_OF_LATENT, Counterpart, Value, Widget
from .preprocess import IMAGE_TOOLTIP, resolution_input

CATEGORY = "Control Composer/preprocess/from controlnet_aux"
WRAPPED: list[type[io.ComfyNode]] = [
    *preprocess.NODES,
    *hint_size.NODES,
    pose.ControlComposerDrawPose,
    pose_files.ControlComposerSavePose,
]
OURS = {node.define_schema().node_id: node for node in WRAPPED}
HERE = tuple(counterpart for counterpart in COUNTERPARTS if counterpart.new in OURS)


def widget_input(counterpart: Counterpart, widget: Widget) -> Any:
    """The old node's setting as it was."""
    tooltip = f"As in {counterpart.old}."
    if isinstance(widget.default, bool):
        return io.Boolean.Input(widget.id, default=widget.default, optional=True, tooltip=tooltip)
    if widget.values:
        options = [str(value) for value in widget.values]
        return io.Combo.Input(widget.id, options=options, default=str(widget.default), optional=True, tooltip=tooltip)
    kind = io.Int if isinstance(widget.default, int) else io.Float
    return kind.Input(
        widget.id, default=widget.default, min=widget.low, max=widget.high, optional=True, tooltip=tooltip
    )


def shown(counterpart: Counterpart) -> list[Widget]:
    """The settings on which something depends here."""
    return [widget for widget in counterpart.widgets if widget.ours or widget.values]


def as_it_was(counterpart: Counterpart) -> type[io.ComfyNode]:
    """A node with the old one's own settings, for those whose values ours does not take: the host cannot turn "disable" into off."""
    node = OURS[counterpart.new]
    inputs, outputs = node.define_schema().inputs, node.define_schema().outputs
    sockets = {entry.id: entry for entry in inputs if entry.id in counterpart.sockets}

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=own_id(counterpart.old),
                display_name=f"{counterpart.old} (Control Composer)",
                category=CATEGORY,
                description=f"{counterpart.old} of comfyui_controlnet_aux with its settings and its pixels, for workflows that were made with it. In new "
                f"ones take {node.define_schema().display_name}.",
                search_aliases=[counterpart.old],
                is_deprecated=True,
                inputs=[
                    *(
                        type(sockets[ours])(old, tooltip=sockets[ours].tooltip)
                        for ours, old in counterpart.sockets.items()
                    ),
                    *(widget_input(counterpart, widget) for widget in shown(counterpart)),
                ],
                outputs=outputs,
            )

        @classmethod
        def execute(cls, **values: Any) -> io.NodeOutput:
            fed = {ours: values[old] for ours, old in counterpart.sockets.items()}
            return node.execute(**fed, **translated(counterpart, values), **counterpart.fixed)

    Node.__name__ = Node.__qualname__ = own_id(counterpart.old)
    return Node


def translated(counterpart: Counterpart, values: dict[str, Any]) -> dict[str, Value]:
    """Our node's settings out of the old one's; what is not set has the old default."""
    return {
        widget.ours: widget.as_ours(values.get(widget.id, widget.default))
        for widget in counterpart.widgets
        if widget.ours
    }


def own_id(old: str) -> str:
    return "ControlComposerAux" + re.sub(r"[^0-9A-Za-z]", "", old)


class ControlComposerAuxAIOPreprocessor(io.ComfyNode):
    """All of that pack's preprocessors that have a counterpart, with their default settings."""

    CHOICES = {"none": None} | {one.old: one for one in HERE if one.in_one}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=own_id(IN_ONE),
            display_name=f"{IN_ONE} (Control Composer)",
            category=CATEGORY,
            description="AIO_Preprocessor of comfyui_controlnet_aux with its names and its pixels, for workflows that were made with it. In new ones "
            "take Preprocess.",
            search_aliases=[IN_ONE],
            is_deprecated=True,
            inputs=[
                io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
                io.Combo.Input(
                    "preprocessor",
                    options=list(cls.CHOICES),
                    default="none",
                    optional=True,
                    tooltip="By that pack's names, with that pack's default settings.",
                ),
                resolution_input(),
            ],
            outputs=[io.Image.Output("hint", display_name="hint", tooltip="The hint; with none the picture itself.")],
        )

    @classmethod
    def execute(cls, image: Any, preprocessor: str = "none", resolution: int = 512) -> io.NodeOutput:
        counterpart = cls.CHOICES[preprocessor]
        if counterpart is None:
            return io.NodeOutput(image)
        settings = translated(counterpart, {}) | counterpart.fixed
        if "resolution" in settings:
            settings["resolution"] = resolution
        found = OURS[counterpart.new].execute(image=image, **settings)
        return io.NodeOutput(found.result[0])


class ControlComposerAuxImageGenResolutionFromLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=own_id(SIZE_OF_LATENT),
            display_name=f"{SIZE_OF_LATENT} (Control Composer)",
            category=CATEGORY,
            description=f"{SIZE_OF_LATENT} of comfyui_controlnet_aux, for workflows that were made with it. In new ones connect the latent to Size Hint.",
            search_aliases=[SIZE_OF_LATENT],
            is_deprecated=True,
            inputs=[io.Latent.Input("latent", tooltip="What will be sampled.")],
            outputs=[
                io.Int.Output("width", display_name="width", tooltip="In pixels."),
                io.Int.Output("height", display_name="height", tooltip="In pixels."),
            ],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any]) -> io.NodeOutput:
        canvas = hint_size.canvas_size(latent, 0, 0)
        return io.NodeOutput(canvas.width, canvas.height)


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAuxAIOPreprocessor,
    ControlComposerAuxImageGenResolutionFromLatent,
    *(as_it_was(counterpart) for counterpart in HERE if not counterpart.goes_over),
]


def replacement(counterpart: Counterpart) -> io.NodeReplace:
    """What the host has to know. `old_widget_ids` are in the order in which a workflow's `widgets_values` are."""
    count = len(OURS[counterpart.new].define_schema().outputs)
    if counterpart.goes_over:
        new = counterpart.new
        fed = {**counterpart.sockets, **{widget.ours: widget.id for widget in counterpart.widgets if widget.ours}}
        fixed = required(OURS[new], fed) | counterpart.fixed
    else:
        new, fixed = own_id(counterpart.old), {}
        same = [*counterpart.sockets.values(), *(widget.id for widget in shown(counterpart))]
        fed = dict(zip(same, same, strict=True))
    return replace(counterpart.old, new, [widget.id for widget in counterpart.widgets], fed, fixed, count)


def required(node: type[io.ComfyNode], fed: dict[str, str]) -> dict[str, Value]:
    """The defaults of what our node must have and the old one did not: the host takes no defaults for prompts that come without the page."""
    return {
        entry.id: entry.default
        for entry in node.define_schema().inputs
        if not entry.optional and entry.id not in fed and getattr(entry, "default", None) is not None
    }


def replace(
    old: str, new: str, widgets: Sequence[str], fed: dict[str, str], fixed: dict[str, Value], outputs: int
) -> io.NodeReplace:
    return io.NodeReplace(
        new_node_id=new,
        old_node_id=old,
        old_widget_ids=list(widgets),
        input_mapping=[
            *({"new_id": ours, "old_id": theirs} for ours, theirs in fed.items()),
            *({"new_id": ours, "set_value": value} for ours, value in fixed.items()),
        ],
        output_mapping=[{"new_idx": index, "old_idx": index} for index in range(outputs)],
    )


def replacements() -> list[io.NodeReplace]:
    same = {name: name for name in ("image", "preprocessor", "resolution")}
    in_one = replace(IN_ONE, own_id(IN_ONE), ["preprocessor", "resolution"], same, {}, 1)
    of_latent = replace(SIZE_OF_LATENT, own_id(SIZE_OF_LATENT), [], {"latent": "latent"}, {}, 2)
    of_the_host = [replace(old, new, [], {"image": "image"}, {}, 2) for old, new in OF_THE_HOST.items()]
    return [in_one, of_latent, *of_the_host, *(replacement(counterpart) for counterpart in HERE)]


async def register() -> None:
    """Tell the host; it replaces only nodes that nobody has installed."""
    api = ComfyAPI()
    ours = [*replacements(), *acn_replacements.replacements()]
    for one in ours:
        await api.node_replacement.register(one)
    old_prompts.register(ours)
