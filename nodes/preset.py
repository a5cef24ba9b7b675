"""Menu section "apply", for presets that travel: settings of a layer as a JSON text, read and written."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..control.layer import Layer
from ..preprocessors.downloads import is_plain
from ..residuals.layer_preset import (
    ANY,
    BASES,
    CONDITIONS,
    LayerPreset,
    Settings,
    described,
    parse_preset,
    preset_text,
)
from ..residuals.preset_error import PresetError
from ..residuals.schedules import Schedule
from ..residuals.weights import BlockWeights, Flat
from .apply import ControlLayer
from .preset_inputs import CURVES, ControlPreset
from .schedule import StrengthSchedule
from .text import show_text
from .weight import Weights

EXAMPLE = LayerPreset(
    "loose scribble",
    Settings(0.6, end_percent=0.6),
    "scribble",
    "SDXL",
    "an example: the words of who found the numbers, and where",
)
SUFFIX = ".json"


class ControlComposerLayerPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerLayerPreset",
            display_name="Layer Preset",
            category="Control Composer/apply",
            description="Strength, range, balance, block weights and schedule of a layer under one name, as a JSON text that travels in the workflow: "
            "paste one, import a file, or write it by hand. Connect it to own_preset of Control Layer or Apply Control.",
            search_aliases=[
                "controlnet preset",
                "control preset",
                "import preset",
                "load preset",
                "settings preset",
                "recommended strength",
            ],
            inputs=[
                io.String.Input(
                    "preset",
                    default=preset_text(EXAMPLE),
                    multiline=True,
                    tooltip='The preset. "condition" and "base" say what it is for; "strength", "start_percent", "end_percent" and "uncond_strength" are '
                    'those of a layer. "weights": a number, a list, {"resolution": "normalised"}, {"soft": 0.825} or {"levels": [1, 1, 0.5, 0.5]}. '
                    '"schedule": {"keyframes": "1@0, 0@0.7", "axis": "percent"}. "source": who says so. What is left out is neutral.',
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                ControlPreset.Output(
                    "own_preset",
                    display_name="own_preset",
                    tooltip="For own_preset of Control Layer, Union Control Layer or Apply Control.",
                ),
                io.String.Output(
                    "description", display_name="description", tooltip="The preset in words, as the node shows it."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, preset: str | None) -> bool | str:
        """What is wrong is told before anything runs. A text that is linked (None) is read when it comes."""
        try:
            if preset is not None:
                parse_preset(preset, CURVES)
        except PresetError as refusal:
            return str(refusal)
        return True

    @classmethod
    def execute(cls, preset: str) -> io.NodeOutput:
        found = parse_preset(preset, CURVES)
        show_text(cls, described(found))
        return io.NodeOutput(found, described(found))


def percent_input(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


class ControlComposerSavePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSavePreset",
            display_name="Save Preset",
            category="Control Composer/apply",
            description="Makes a preset of settings that were found to work: typed here, connected, or taken from a layer; what is given in several "
            "ways is multiplied. The preset goes on as a JSON text, and into a file where a filename is given.",
            search_aliases=["export preset", "controlnet preset", "control preset", "write preset", "share settings"],
            inputs=[
                io.String.Input("name", default="my preset", tooltip="What the preset is called."),
                io.Combo.Input(
                    "condition", options=list(CONDITIONS), default=ANY, tooltip="The kind of hint that it is for."
                ),
                io.Combo.Input("base", options=list(BASES), default=ANY, tooltip="The kind of model that it is for."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="Multiplies what the control adds."
                ),
                percent_input("start_percent", 0.0, "From where in the sampling the control acts."),
                percent_input("end_percent", 1.0, "Until where in the sampling the control acts."),
                io.Float.Input(
                    "uncond_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Balance: factor for the unconditional branch; 1 steers both branches alike, 0 the conditional one only.",
                ),
                io.String.Input(
                    "source",
                    default="",
                    tooltip="Who says so: for which file, model and pictures the numbers were found.",
                ),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="Name of a file in the output folder, with or without .json; folders before it with /. Empty: no file is written.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Whether a file of this name with other content may be replaced. Off: that is an error, and the file stays.",
                ),
                Weights.Input("weights", optional=True, tooltip="Block weights, from a weights node."),
                StrengthSchedule.Input("schedule", optional=True, tooltip="A schedule, from a schedule node."),
                ControlLayer.Input(
                    "layer",
                    optional=True,
                    tooltip="A Control Layer whose strength, range, balance, weights and schedule are taken, its own presets with them.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                ControlPreset.Output("own_preset", display_name="own_preset", tooltip="For own_preset of a layer."),
                io.String.Output("text", display_name="text", tooltip="The preset as JSON, for Layer Preset."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        name: str,
        condition: str,
        base: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        uncond_strength: float,
        source: str = "",
        filename: str = "",
        overwrite: bool = False,
        weights: BlockWeights | None = None,
        schedule: Schedule | None = None,
        layer: Layer | None = None,
    ) -> io.NodeOutput:
        settings = Settings(strength, start_percent, end_percent, uncond_strength, weights or Flat(), schedule)
        if layer is not None:
            settings = settings_of(layer) * settings
        preset = LayerPreset(name.strip(), settings, condition, base, source.strip())
        text = preset_text(preset, CURVES)
        file = write(filename, text, overwrite) if filename.strip() else None
        show_text(cls, "\n".join((*([str(file)] if file else ()), text)))
        return io.NodeOutput(preset, text)


def settings_of(layer: Layer) -> Settings:
    """How a layer acts, without its mask, hint and batch."""
    return Settings(
        layer.strength, layer.start_percent, layer.end_percent, layer.uncond_strength, layer.weights, layer.schedule
    )


def write(filename: str, text: str, overwrite: bool) -> Path:
    """Writes a preset into the output folder; the file. Raises PresetError for a name that leads elsewhere or is taken."""
    parts = filename.strip().removesuffix(SUFFIX).replace("\\", "/").split("/")
    if not all(is_plain(part) and part.isprintable() for part in parts):
        raise PresetError(
            f'filename of Save Preset is {filename!r}, but a name inside of the output folder, without : * ? " < > |, was expected; choose another, '
            "as presets/mine."
        )
    *folders, name = parts
    file = Path(folder_paths.get_output_directory(), *folders, f"{name}{SUFFIX}")
    if file.exists() and not overwrite and file.read_text(encoding="utf-8") != text:
        raise PresetError(
            f"The file '{file}' is there already and holds something else, but a new name was expected, since overwrite of Save Preset is off; "
            "choose another filename, or turn overwrite on."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


NODES: list[type[io.ComfyNode]] = [ControlComposerLayerPreset, ControlComposerSavePreset]
