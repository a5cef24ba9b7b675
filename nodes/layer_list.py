"""What Compose Controls tells the page of its layers after a run: a small picture of each hint, and how it acts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui
from torch import Tensor

from ..control.layer import Layer
from ..residuals.weights import Flat

KEY = "control_composer_layers"
"""A key of our own: the page shows what comes under *images* large."""

THUMBNAIL_PIXELS = 96
PREFIX = "control_composer_hint"


def number_of(name: str) -> int:
    """The number of a growing input, "layer0", counted from 1."""
    return int(name.removeprefix("layer")) + 1


def layer_list(node: type[io.ComfyNode], layers: Mapping[int, Layer], strength: float = 1.0) -> dict[str, list[str]]:
    """The `ui` of a run of `node`: a JSON text for each layer, by its number, under the whole's `strength`.

    Texts, because the host counts objects there as pictures that were made.
    """
    return {
        KEY: [
            json.dumps(described(layer, strength, number, *origin_of(node, number))) for number, layer in layers.items()
        ]
    }


def described(layer: Layer, strength: float, number: int, origin: str = "", title: str = "") -> dict[str, Any]:
    """A layer in values of JSON. *strength* is its own, *acts* that times the whole's, *idle* why it adds nothing."""
    layer = replace(layer, master=layer.master * strength)
    return {
        "number": number,
        "origin": origin,
        "title": title,
        "name": layer.source.name,
        "strength": layer.strength,
        "acts": layer.strength * layer.master,
        "start": layer.start_percent,
        "end": layer.end_percent,
        "uncond_strength": layer.uncond_strength,
        "idle": layer.idle,
        "weights": layer.weights != Flat(),
        "schedule": layer.schedule is not None,
        "mask": layer.mask is not None,
        "pictures": sum(len(hint) for hint in layer.hints),
        "thumbnail": saved(thumbnail(layer.hint_bchw)),
    }


def origin_of(node: type[io.ComfyNode], number: int) -> tuple[str, str]:
    """Id and title of the node that a layer comes from, the id as within the graph that holds `node`; empty where the host does not say or it lies
    outside of that graph.
    """
    prompt: dict[str, Any] = getattr(node.hidden, "prompt", None) or {}
    own = getattr(node.hidden, "unique_id", None)
    link = (prompt.get(str(own)) or {}).get("inputs", {}).get(f"layers.layer{number - 1}")
    if not isinstance(link, list) or not link or link[0] not in prompt:
        return "", ""
    graph = str(own).rpartition(":")[0]  # ids of nodes inside of subgraphs are "subgraph:node"
    inside = graph == "" or str(link[0]).startswith(graph + ":")
    title = prompt[link[0]].get("_meta", {}).get("title", "")
    return (str(link[0]).removeprefix(graph + ":") if graph else str(link[0])) if inside else "", str(title)


def thumbnail(hint_bchw: Tensor) -> Tensor:
    """The first picture of a hint as (1, H, W, 3) float32 in 0..1 on the CPU, its longer side at most THUMBNAIL_PIXELS."""
    picture = hint_bchw[:1, :3].detach().to("cpu", torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0.0, 1.0)
    if picture.shape[1] < 3:
        picture = picture[:, :1].expand(-1, 3, -1, -1)
    height, width = picture.shape[-2:]
    scale = min(1.0, THUMBNAIL_PIXELS / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(picture, size, mode="area").movedim(1, -1).contiguous()


def saved(image_bhwc: Tensor) -> dict[str, str] | None:
    """Where the page finds the picture, in the host's folder for what may be deleted; None where it cannot be written: a run does not fail for that."""
    try:
        (found,) = ui.ImageSaveHelper.save_images(image_bhwc, PREFIX, io.FolderType.temp, None, compress_level=1)
    except OSError as problem:
        logging.warning("Compose Controls: no thumbnail of a hint could be written: %s", problem)
        return None
    return dict(found)
