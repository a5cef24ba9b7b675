"""ControlNet-XS in the host's sampler: the UNet's output against diffusers' UNetControlNetXSModel with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("comfy")
pytest.importorskip("diffusers")

import comfy.supported_models
import torch
from torch import Tensor

from control_composer.control import Control, compose_controls, layer_of
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import made, save
from control_composer.tests.control.xs_reference import Watched, adapter_for, diffusers_unet, fused, watched

TOLERANCE = 1e-4
MATTERS = 1e-2
SIZE = (2, 8, 16)
IMAGE = narrow.picture(1, 64, 128)
HINT = IMAGE.movedim(-1, 1)


class NarrowSD2(comfy.supported_models.SD15):
    unet_config: ClassVar = narrow.SD1 | {"use_linear_in_transformer": True, "context_dim": 32}
    unet_extra_config: ClassVar = {}


MODELS: dict[str, Callable[[], Any]] = {
    "SD1": lambda: narrow.make_model("sd1"),
    "SD2": lambda: made(NarrowSD2),
    "SDXL": lambda: narrow.make_model("sdxl"),
}
STREAMS = {
    "SD1": ((4, 8, 16, 16), (1, 2, 4, 4)),
    "SD2": ((4, 8, 16, 24), (1, 1, 2, 3)),
    "SDXL": ((8, 16, 32), (1, 2, 4)),
}


class XS:
    """A narrow model, an adapter for it by diffusers, and our control from its file."""

    def __init__(self, folder: Path, kind: str, mix: float | None = None, **changes: Any) -> None:
        self.kind = "sdxl" if kind == "SDXL" else "sd1"
        self.model = MODELS[kind]()
        unet = diffusers_unet(self.model)
        channels, heads = STREAMS[kind]
        adapter = adapter_for(unet, channels, heads, mix, **changes)
        self.whole = fused(unet, adapter)
        metadata = {"num_attention_heads": json.dumps(heads)} | (
            {} if mix is None else {"time_embedding_mix": str(mix)}
        )
        if changes.get("conditioning_channel_order"):
            metadata["conditioning_channel_order"] = changes["conditioning_channel_order"]
        self.path = save(folder, dict(adapter.state_dict()), "xs.safetensors", metadata)
        self.source, self.description = load_source(self.path, self.model, "auto")

    def start(self) -> Any:
        width = self.model.model.model_config.unet_config["context_dim"]
        conds = narrow.conditioning(self.kind, 10), narrow.conditioning(self.kind, 11)
        for number, cond in enumerate(conds):
            cond[0][0] = torch.randn(1, 7, width, generator=torch.Generator().manual_seed(number))
        return conds

    def sample(self, *layers: Any, size: tuple[int, int, int] = SIZE, **changes: Any) -> Watched:
        conds = compose_controls(*self.start(), layers) if layers else self.start()
        with watched(self.model) as seen:
            narrow.sample(self.model, *conds, size, **{"steps": 2} | changes)
        return seen

    def layer(self, image: Tensor = IMAGE, **settings: Any) -> Any:
        return layer_of(Control.unbound(self.source), image, **settings)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("mix", [None, 0.95, 1.0])
def test_outputs_are_those_of_diffusers(kind: str, mix: float | None, tmp_path: Path) -> None:
    xs = XS(tmp_path, kind, mix)
    plain = xs.sample()
    assert plain.worst(xs.whole, HINT, 0.0) <= TOLERANCE or mix is not None
    for strength in (1.0, 0.6):
        seen = xs.sample(xs.layer(strength=strength))
        assert seen.worst(xs.whole, HINT, strength) <= TOLERANCE
        assert narrow.relative(seen.calls[0][2], plain.calls[0][2]) > MATTERS
        assert seen.worst(xs.whole, HINT, 0.8) > MATTERS
