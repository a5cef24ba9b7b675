"""What the layers of a control need of the device's memory beside weights, over what the model itself needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import comfy.model_management

from .expected import Chunk, Expected
from .hint import picture_key
from .layer import Layer
from .memory import (
    activation_bytes,
    embedding_bytes,
    graph_bytes,
    hint_bytes,
    model_bytes,
    residual_bytes,
    rows_per_pass,
    workspace_bytes,
)
from .network import EncoderNetwork
from .plan import evaluation_key, network_key


@dataclass(frozen=True)
class Pass:
    """What one network has to do in a call: the rows of all its evaluations, and how many of them it has at a time."""

    network: EncoderNetwork
    rows: int
    at_a_time: int
    joined: int
    """Rows of embeddings that are put together for it, which are no longer those that are kept."""
    pictures: int
    """Of the hint that has most."""


def needed(layers: Iterable[Layer], expected: Expected, beside: bool = False, previous: bool = False) -> float:
    """Bytes for layers of encoder networks that act; those of others count for nothing here.

    `beside` says that they may run beside the model, `previous` that a control before this one gives residuals too. Two things are needed: what is kept
    from step to step, and what the largest call of the sampler takes over what the model takes in the same call.
    """
    ours = [layer for layer in layers if isinstance(layer.source, EncoderNetwork)]
    if not ours:
        return 0.0
    calls = [
        needed_in_call(passes_of(ours, call, expected.latents), call, expected, beside, previous)
        for call in expected.calls()
    ]
    graphs = sum(graphs_of(ours, call, expected) for call in expected.calls()) if beside else 0.0
    return kept(ours, expected) + graphs + max(calls)


def groups_of(layers: Iterable[Layer]) -> dict[Hashable, list[Layer]]:
    """Layers that share one evaluation."""
    groups: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(evaluation_key(layer), []).append(layer)
    return groups


def rows_of(group: Iterable[Layer], chunks: Sequence[Chunk], latents: int) -> int:
    """How many rows of some chunks a group of layers needs."""
    both = any(layer.uncond_strength != 0 for layer in group)
    return latents * sum(both or chunk.conditional for chunk in chunks)


def passes_of(layers: Sequence[Layer], call: Sequence[Chunk], latents: int) -> list[Pass]:
    """What each network has to do in a call that evaluates all layers."""
    networks: dict[Hashable, list[list[Layer]]] = {}
    for group in groups_of(layers).values():
        network = network_of(group[0])
        networks.setdefault(network_key(network), []).append(group)
    found = []
    for groups in networks.values():
        network, (height, width) = network_of(groups[0][0]), (call[0].height, call[0].width)
        on_cpu = bool(comfy.model_management.is_device_cpu(network.patcher.load_device))
        rows = sum(rows_of(group, call, latents) for group in groups)
        at_a_time = min(rows, rows_per_pass(rows, latents * len(call), height * width, on_cpu))
        pictures = max(len(hint) for group in groups for hint in group[0].hints)
        alone = len(groups) == 1 and pictures == 1
        joined = at_a_time if not alone else 1 if len(groups[0][0].hints) > 1 else 0
        found.append(Pass(network, rows, at_a_time, joined, pictures))
    return found


def network_of(layer: Layer) -> EncoderNetwork:
    assert isinstance(layer.source, EncoderNetwork)
    return layer.source


def needed_in_call(
    passes: Sequence[Pass], call: Sequence[Chunk], expected: Expected, beside: bool, previous: bool
) -> float:
    """The most at any moment of a call, over the model's own call.

    Before the model a network's layers need no room of their own for as many rows as the model has: the model's layers come after them, and are the
    same or more. What is left then is the sum that the model waits for. More rows at a time need more, and so does the sum of earlier networks.
    Beside the model all of it is there at once.
    """
    height, width = call[0].height, call[0].width
    batch = expected.latents * len(call)
    size = (height, width)
    total = max(residual_bytes(one.network, batch, *size) for one in passes)
    if beside:
        working = sum(
            residual_bytes(one.network, one.rows, *size)
            + embedding_bytes(one.network, one.joined, *size)
            + hint_bytes(one.network, one.pictures, *size)
            + workspace_bytes(one.network.patcher.load_device)
            for one in passes
        )
        return total + working
    model = max(model_bytes(one.network, batch, *size) for one in passes)
    moments: list[float] = [total]
    for number, one in enumerate(passes):
        before = total if previous or number or one.rows > one.at_a_time else 0
        more = activation_bytes(one.network, max(0, one.at_a_time - batch), *size)
        moments += [
            before + more + embedding_bytes(one.network, one.joined, *size),
            before + hint_bytes(one.network, one.pictures, *size) - model,
            before + 2 * total + residual_bytes(one.network, one.at_a_time, *size) - model,
        ]
    return max(moments)


def graphs_of(layers: Sequence[Layer], call: Sequence[Chunk], expected: Expected) -> float:
    """The graphs of a call's passes, which stay until the end of the run."""
    size = (call[0].height, call[0].width)
    return sum(
        graph_bytes(one.network, one.at_a_time, *size, one.network.context_dim)
        for one in passes_of(layers, call, expected.latents)
    )


def kept(layers: Sequence[Layer], expected: Expected) -> float:
    """What is there from the first step to the last: embeddings of hints, masks on the sizes of blocks, residuals for reuse."""
    return embeddings_kept(layers, expected) + masks_kept(layers, expected) + residuals_kept(layers, expected)


def embeddings_kept(layers: Iterable[Layer], expected: Expected) -> int:
    """One for each picture, place and network, as `HintEmbeddings` keeps them."""
    found = {
        (network.embedding_key, picture_key(hint), layer.placing): (network, len(hint))
        for layer in layers
        for network, hint in layer.readings
    }
    return sum(embedding_bytes(*one, *size) for one in found.values() for size in expected.sizes)


def masks_kept(layers: Iterable[Layer], expected: Expected) -> int:
    """One for each shape of residuals, as `LayerMasks` keeps them."""
    found = 0
    for layer in layers:
        if layer.mask is None:
            continue
        masks = max(len(one.mask) for one in (layer, *layer.overlapping) if one.mask is not None)
        network = network_of(layer)
        for size in expected.sizes:
            shapes = {(block.channels, block.height, block.width) for block in network.blocks(*size)}
            found += masks * sum(height * width for _, height, width in shapes) * network.dtype.itemsize
    return found


def residuals_kept(layers: Iterable[Layer], expected: Expected) -> int:
    """The last evaluation of layers that reuse it, and the one before where they continue the way from there; of all conditionings."""
    found = 0
    for group in groups_of(layers).values():
        if group[0].reuse.never:
            continue
        sets = 2 if group[0].reuse.extrapolate else 1
        for chunk in expected.chunks:
            rows = rows_of(group, [chunk], expected.latents)
            found += sets * residual_bytes(network_of(group[0]), rows, chunk.height, chunk.width)
    return found
