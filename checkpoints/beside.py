"""What stands beside a weights file and says what its tensors cannot: diffusers' config.json, and the .yaml of the original repositories."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CONFIG = "config.json"
# Real ones have a few kilobytes.
LONGEST = 2**18


@dataclass(frozen=True)
class Beside:
    """`config` is the content of config.json, if any; `pooling` what the .yaml of the file's own name says of global average pooling."""

    config: Mapping[str, Any] = field(default_factory=dict)
    pooling: bool | None = None


def beside(path: Path) -> Beside:
    """Read what stands beside a file. What cannot be read is as if it were absent: it may belong to anything."""
    return Beside(_mapping(path.with_name(CONFIG), json.loads), _pooling(_mapping(yaml_of(path), yaml.safe_load)))


def yaml_of(path: Path) -> Path:
    """The .yaml that would belong to a file."""
    return path.with_suffix(".yaml")


def companions(path: Path) -> tuple[Path, ...]:
    """The files beside it that are there."""
    return tuple(other for other in (path.with_name(CONFIG), yaml_of(path)) if other.is_file())


def _mapping(path: Path, parse: Callable[[str], Any]) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > LONGEST:
            return {}
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _pooling(content: Mapping[str, Any]) -> bool | None:
    """`model.params.global_average_pooling` (lllyasviel/ControlNet-v1-1, control_v11e_sd15_shuffle.yaml)."""
    found: Any = content
    for name in ("model", "params", "global_average_pooling"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, bool) else None
