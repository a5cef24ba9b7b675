"""Tensors that lie in parts on several processes, as FSDP 2 keeps weights (ZeRO 2 and 3, arXiv 1910.02054): whole, and in parts again."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def whole(values: Any, keep: bool) -> Any:
    """The same dictionaries and lists with whole tensors, those that were in parts on the CPU. Every process has to call it at once; where
    not `keep` they are empty.
    """
    if isinstance(values, dict):
        return {key: whole(value, keep) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(whole(value, keep) for value in values)
    if not hasattr(values, "full_tensor"):
        return values
    gathered: Tensor = values.full_tensor()
    # One after the other, or no device would hold what was put into parts because none holds it.
    return gathered.cpu() if keep else gathered.new_empty(0)


def in_parts(value: Tensor, like: Any) -> Tensor:
    """A whole tensor in the parts in which `like` is. Every process has to call it at once."""
    from torch.distributed.tensor import distribute_tensor  # absent where torch is built without it

    parted: Tensor = distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return parted


def state_in_parts(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """The state of an optimiser of these parameters; what has a parameter's shape lies where the parameter does."""

    def placed(value: Any, parameter: nn.Parameter) -> Any:
        return in_parts(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value

    moments = {
        number: {name: placed(value, parameters[number]) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return state | {"state": moments}
