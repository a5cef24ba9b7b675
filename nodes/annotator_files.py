"""Where the files of annotators lie: in the host's folder of them, or where other packs and libraries put them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import folder_paths

from ..preprocessors import PreprocessorError
from ..preprocessors.annotators import Annotator

FOLDER = "annotators"
"""The host's models folder of these files."""
OTHER_PACKS = ("comfyui_controlnet_aux", "comfyui-controlnet-aux", "ComfyUI-ControlNet-Aux")
"""Names under which comfyui_controlnet_aux is installed: its ckpts folder mirrors the hub's repositories."""


def register_folder() -> None:
    """Tells the host of models/annotators, after the folders that extra_model_paths.yaml names."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def find(annotator: Annotator) -> Path:
    """An annotator's file, or its folder, on this machine. Raises PreprocessorError that says where to get it."""
    for place in folders(annotator) if annotator.folder else files(annotator):
        if annotator.folder:
            if place.is_dir() and not missing(annotator, place):
                return place
        elif place.is_file():
            return place
    what = f"folder '{annotator.folder}'" if annotator.folder else f"file '{annotator.file}'"
    raise PreprocessorError(
        f"{annotator.id}: found no {what} in models/{FOLDER}, but the network's weights{size_in_words(annotator.bytes)} were expected there "
        f"({annotator.licence}: {annotator.commercial}); download {in_words(addresses(annotator))} into {target_folder(annotator)}."
    )


def missing(annotator: Annotator, folder: Path) -> list[str]:
    """The names of the files that a folder lacks."""
    return [file.name for file in annotator.files if not (folder / file.name).is_file()]


def files(annotator: Annotator) -> list[Path]:
    """Where the file of an annotator without a folder may be: converted files before the published ones, ours before others'."""
    (file,) = annotator.files
    places = []
    if annotator.reads == "tensors":
        places += host_files(str(Path(file.name).with_suffix(".safetensors")))
    places += host_files(file.name)
    return places + [root / file.repository / file.name for root in other_roots()]


def folders(annotator: Annotator) -> list[Path]:
    """Where the folder of an annotator may be."""
    name = annotator.folder.rpartition("/")[2]
    roots = [Path(root) for root in host_folders()]
    places = [root / part for root in roots for part in (annotator.folder, name)]
    return places + [root / annotator.folder for root in other_roots()] + cached_folders(annotator)


def host_files(name: str) -> list[Path]:
    found = folder_paths.get_full_path(FOLDER, name)
    return [] if found is None else [Path(found)]


def host_folders() -> Sequence[str]:
    paths: Sequence[str] = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))[0]
    return paths


def other_roots() -> list[Path]:
    """Folders with other packs' downloads, by the hub's repositories."""
    roots = [Path(folder_paths.models_dir) / "controlnet_aux"]
    for custom_nodes in folder_paths.get_folder_paths("custom_nodes"):
        roots += [Path(custom_nodes) / pack / "ckpts" for pack in OTHER_PACKS]
    return roots


def cached_folders(annotator: Annotator) -> list[Path]:
    """The folder in the hub's own cache on this machine; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache  # here, because importing the pack must stay fast

    found = try_to_load_from_cache(annotator.folder, annotator.files[0].name)
    return [Path(found).parent] if isinstance(found, str) else []


def target_folder(annotator: Annotator) -> Path:
    """Where its files belong."""
    paths = host_folders()
    root = Path(paths[0]) if paths else Path(folder_paths.models_dir) / FOLDER
    return root / annotator.folder


def addresses(annotator: Annotator) -> list[str]:
    return [file.address for file in annotator.files]


def in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def size_in_words(size: int) -> str:
    return f" of {size:,} bytes" if size else ""
