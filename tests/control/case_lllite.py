"""ControlNet-LLLite: narrow files of random weights, with the modules that kohya-ss/sd-scripts makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from control_composer.checkpoints.lllite import LLLiteHyperparameters
from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.checkpoints.lllite_reference import module, random_lllite
from control_composer.tests.control.case import Case, save

INPUTS = ("attn1_to_k", "attn1_to_q", "attn1_to_v", "attn2_to_q")
# Block, channels, depth, transformer blocks. SD1's middle has no depth that fits: its tokens are squares of 64 pixels.
BLOCKS = {
    "sd1": [
        *((f"input_blocks_{n}", 32, 1, 1) for n in (1, 2)),
        *((f"input_blocks_{n}", 64, 2, 1) for n in (4, 5)),
        *((f"input_blocks_{n}", 128, 3, 1) for n in (7, 8)),
    ],
    "sdxl": [
        *((f"input_blocks_{n}", 64, 2, 1) for n in (4, 5)),
        *((f"input_blocks_{n}", 128, 3, 2) for n in (7, 8)),
        ("middle_block", 128, 3, 2),
    ],
}
OUTPUTS = [("output_blocks_2", 128, 3, 2), ("output_blocks_4", 64, 2, 1)]


def modules(kind: str, outputs: bool = False) -> LLLiteHyperparameters:
    """The modules of a narrow model; `outputs` adds some in the decoder of SDXL, which the trainer can do too."""
    return LLLiteHyperparameters(
        tuple(
            module(block, projection, transformer, width=width, depth=depth)
            for block, width, depth, transformers in [*BLOCKS[kind], *(OUTPUTS if outputs else [])]
            for transformer in range(transformers)
            for projection in INPUTS
        )
    )


def lllite(kind: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = save(folder, random_lllite(modules(kind, outputs=kind == "sdxl")), "lllite.safetensors")
        model = narrow.make_model(kind)
        source, description = load_source(path, model, "auto")
        return Case(kind, model, Control.unbound(source), None, description)

    return make
