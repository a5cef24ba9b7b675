"""Menu section "demo": the tiny diffusion world that ships with the pack, so that a first picture needs no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

if TYPE_CHECKING:
    from ..demo.world import World

DemoWorld = io.Custom("DEMO_WORLD")
SCENES_AT_ONCE = 32


class ControlComposerDemoWorld(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDemoWorld",
            display_name="Load Demo World",
            category="Control Composer/demo",
            description="A tiny diffusion model of coloured shapes, 128 x 128 pixels, that ships with the pack: "
            "try controls without any download.",
            search_aliases=["demo", "example model", "tiny model", "toy"],
            inputs=[],
            outputs=[
                io.Model.Output("model", display_name="model", tooltip="The demo's diffusion model, for any sampler."),
                io.Vae.Output(
                    "vae", display_name="vae", tooltip="The demo's autoencoder, for VAE Decode and VAE Encode."
                ),
                DemoWorld.Output("world", display_name="world", tooltip="The demo's words, for Demo Prompt."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..demo.world import load_world  # here, because importing the pack must stay fast

        world = load_world()
        return io.NodeOutput(world.model, world.vae, world)


class ControlComposerDemoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDemoPrompt",
            display_name="Demo Prompt",
            category="Control Composer/demo",
            description="Words of the demo world into conditioning, as CLIP Text Encode does for a real model.",
            search_aliases=["demo", "text encode", "caption"],
            inputs=[
                DemoWorld.Input("world", tooltip="From Load Demo World."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="a red circle and a blue star on a green ground",
                    tooltip="One to three shapes with their colours, and the ground; empty for the negative prompt. "
                    "A word that the world does not know is an error that lists all it knows.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning", display_name="conditioning", tooltip="For Apply Control or a sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, world: World, text: str) -> io.NodeOutput:
        return io.NodeOutput(world.encode(text))


class ControlComposerDemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDemoScene",
            display_name="Demo Scene",
            category="Control Composer/demo",
            description="Draws a picture of the kind the demo world was trained on, with its caption: "
            "something to make hints of.",
            search_aliases=["demo", "example picture", "test image", "shapes"],
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Which scene to draw; every number is another one.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The scene, 128 x 128 pixels."),
                io.String.Output(
                    "caption", display_name="caption", tooltip="What is in the scene, in the demo world's words."
                ),
            ],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        from ..demo.scenes import render, sample_scenes  # here, because importing the pack must stay fast

        scenes = sample_scenes(1, seed)
        image_bhwc = render(scenes)
        return io.NodeOutput(image_bhwc, scenes.captions()[0], ui=ui.PreviewImage(image_bhwc, cls=cls))


class ControlComposerDemoScenes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDemoScenes",
            display_name="Demo Scenes",
            category="Control Composer/demo",
            description="Many pictures of the kind the demo world was trained on, each with its caption: a set to train a control on, or to compare "
            "with.",
            search_aliases=["demo", "dataset", "training pictures", "shapes"],
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Which scenes to draw; with every number they are others.",
                ),
                io.Int.Input("count", default=500, min=1, max=20_000, tooltip="How many scenes."),
            ],
            outputs=[
                io.Image.Output(
                    "images", display_name="images", is_output_list=True, tooltip="The scenes, 128 x 128 pixels each."
                ),
                io.String.Output(
                    "captions", display_name="captions", is_output_list=True, tooltip="What is in each of them."
                ),
            ],
        )

    @classmethod
    def execute(cls, seed: int, count: int) -> io.NodeOutput:
        from ..demo.scenes import render, sample_scenes  # here, because importing the pack must stay fast

        scenes = sample_scenes(count, seed)
        progress = comfy.utils.ProgressBar(count)
        images = []
        for start in range(0, count, SCENES_AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            images += render(scenes[slice(start, start + SCENES_AT_ONCE)]).split(1)
            progress.update_absolute(len(images))
        return io.NodeOutput(images, scenes.captions())


NODES: list[type[io.ComfyNode]] = [
    ControlComposerDemoWorld,
    ControlComposerDemoPrompt,
    ControlComposerDemoScene,
    ControlComposerDemoScenes,
]
