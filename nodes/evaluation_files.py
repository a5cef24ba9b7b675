"""Where the files of networks that compare sets of pictures lie: in the host's folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import folder_paths

from ..evaluation.errors import EvaluationError
from ..evaluation.sets import INCEPTION, INCEPTION_ADDRESS
from .annotator_files import names_in

FOLDER = "evaluation"
"""The host's models folder of these files."""
NONE = "none"
SUFFIXES = (".pth", ".pt", ".safetensors")
CONFIG = "config.json"
CLIP_ADDRESS = "https://huggingface.co/openai/clip-vit-base-patch16"


def register_folder() -> None:
    """Tells the host of models/evaluation, after the folders that extra_model_paths.yaml names."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def feature_files() -> list[str]:
    """What can be chosen, the published file first whether it is there or not: choosing it tells where to get it."""
    clips = clip_folders()
    found = [name for name in _names() if PurePath(name).suffix in SUFFIXES and _folder(name) not in clips]
    return [INCEPTION, *(name for name in found if name != INCEPTION), NONE]


def clip_folders() -> list[str]:
    return [NONE, *sorted({_folder(name) for name in _names() if _is_config(name)})]


def feature_file(name: str) -> Path:
    """Raises EvaluationError that says where to get it."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise EvaluationError(
            f"Compare Sets: found no file '{name}' in models/{FOLDER}, but the weights of the network whose features are compared were expected "
            f"there (Inception-v3, 91 MiB, Apache 2.0); download {INCEPTION_ADDRESS} into {target_folder()}."
        )
    return Path(found)


def clip_folder(name: str) -> Path:
    """Raises EvaluationError that says where to get one."""
    found = folder_paths.get_full_path(FOLDER, f"{name}/{CONFIG}")
    if found is None:
        raise EvaluationError(
            f"Compare Sets: found no folder '{name}' with a {CONFIG} in models/{FOLDER}, but that of a published CLIP was expected; download all "
            f"files of one, as {CLIP_ADDRESS}, into {target_folder() / name}."
        )
    return Path(found).parent


def target_folder() -> Path:
    """The host's first folder of these files."""
    paths = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))[0]
    return Path(paths[0]) if paths else Path(folder_paths.models_dir) / FOLDER


def _names() -> Sequence[str]:
    return names_in(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else ()


def _is_config(name: str) -> bool:
    return PurePath(name).name == CONFIG and len(PurePath(name).parts) > 1


def _folder(name: str) -> str:
    return PurePath(name).parent.as_posix()
