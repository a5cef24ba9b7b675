"""Where the files of annotators lie: in the host's folder of them, or where other packs and libraries put them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import folder_paths
import yaml

from ..preprocessors import PreprocessorError
from ..preprocessors.annotators import Annotator, File
from ..preprocessors.networks.transformer import WEIGHTS

FOLDER = "annotators"
"""The host's models folder of these files."""
OTHER_PACKS = ("comfyui_controlnet_aux", "comfyui-controlnet-aux", "ComfyUI-ControlNet-Aux")
"""Names under which comfyui_controlnet_aux is installed: its ckpts folder mirrors the hub's repositories."""
THEIR_FOLDER = "AUX_ANNOTATOR_CKPTS_PATH"
"""The variable by which a person tells that pack of another folder; the line annotator_ckpts_path of its config.yaml is the other way."""
DOWNLOAD_NODE = "Download Annotators"
DOWNLOAD_COMMAND = "python host.py annotators download"


def register_folder() -> None:
    """Tells the host of models/annotators, after the folders that extra_model_paths.yaml names."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def find(annotator: Annotator) -> Path:
    """An annotator's file, or its folder, on this machine. Raises PreprocessorError that says where to get it."""
    place = located(annotator)
    if place is not None:
        return place
    what = f"folder '{annotator.folder}'" if annotator.folder else f"file '{annotator.file}'"
    raise PreprocessorError(
        f"{annotator.id}: found no {what} in models/{FOLDER}, but the network's weights{size_in_words(annotator.bytes)} were expected there "
        f"({annotator.licence}: {annotator.commercial}); queue the node {DOWNLOAD_NODE} or run `{DOWNLOAD_COMMAND} {annotator.id}`, "
        f"or download {in_words(addresses(annotator))} into {target_folder(annotator)}."
    )


def located(annotator: Annotator) -> Path | None:
    """Where an annotator's file, or its folder, is on this machine."""
    if annotator.folder:
        return next((place for place in folders(annotator) if place.is_dir() and not missing(annotator, place)), None)
    return next((place for place in files(annotator) if place.is_file()), None)


def missing(annotator: Annotator, folder: Path) -> list[str]:
    """The names of the files that a folder lacks. Weights in either of transformers' formats do."""
    return [
        file.name
        for file in annotator.files
        if not any((folder / name).is_file() for name in (WEIGHTS if file.name in WEIGHTS else (file.name,)))
    ]


def weights_of(annotator: Annotator, place: Path) -> Path:
    """The file with the numbers of an annotator that was found there."""
    if not annotator.folder:
        return place
    names = WEIGHTS if annotator.file in WEIGHTS else (annotator.file,)
    return next((place / name for name in names if (place / name).is_file()), place / annotator.file)


def files(annotator: Annotator) -> Iterator[Path]:
    """Where the file of an annotator without a folder may be: converted files before the published ones, ours before others'."""
    (file,) = annotator.files
    names = [file.name]
    if annotator.reads == "tensors":
        names.insert(0, str(Path(file.name).with_suffix(".safetensors")))
    for name in names:
        yield from host_files(name)
    yield from (root / file.repository / file.name for root in other_roots())
    yield from cached(file)


def folders(annotator: Annotator) -> Iterator[Path]:
    """Where the folder of an annotator may be."""
    name = annotator.folder.rpartition("/")[2]
    yield from (Path(root) / part for root in host_folders() for part in (annotator.folder, name))
    yield from (root / annotator.folder for root in other_roots())
    yield from (path.parent for path in cached(annotator.files[0]))


def host_files(name: str) -> Iterator[Path]:
    """Files of this name in the host's folders: those at their top first, then those of folders in them, as sd-webui-controlnet makes them."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is not None:
        yield Path(found)
        return
    if FOLDER in folder_paths.folder_names_and_paths:
        for inside in names_in(FOLDER):
            if PurePath(inside).name == name and (found := folder_paths.get_full_path(FOLDER, inside)) is not None:
                yield Path(found)


def names_in(folder: str) -> Sequence[str]:
    """The names of all files in the host's folders of a kind, with the folders that they are in."""
    try:
        names: Sequence[str] = folder_paths.get_filename_list(folder)
    except FileNotFoundError:
        # A folder that the host saw before is gone, and what it remembers of it with it.
        folder_paths.filename_list_cache.pop(folder, None)
        names = folder_paths.get_filename_list(folder)
    return names


def host_folders() -> Sequence[str]:
    paths: Sequence[str] = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))[0]
    return paths


def other_roots() -> list[Path]:
    """Folders with other packs' downloads, by the hub's repositories."""
    roots = [Path(folder_paths.models_dir) / "controlnet_aux"]
    if os.environ.get(THEIR_FOLDER):
        roots.append(Path(os.environ[THEIR_FOLDER]))
    for custom_nodes in folder_paths.get_folder_paths("custom_nodes"):
        roots += [their_folder(Path(custom_nodes) / pack) for pack in OTHER_PACKS]
    return roots


def their_folder(pack: Path) -> Path:
    """Where comfyui_controlnet_aux downloads to: its ckpts folder, or what its config.yaml says."""
    try:
        settings = yaml.safe_load((pack / "config.yaml").read_text(encoding="utf-8"))
        said = settings["annotator_ckpts_path"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        said = "ckpts"
    return pack / str(said)


def cached(file: File) -> list[Path]:
    """The file in the hub's own cache on this machine; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache  # here, because importing the pack must stay fast

    if not file.repository:
        return []
    owner, name, *inside = file.repository.split("/")
    found = try_to_load_from_cache(f"{owner}/{name}", "/".join([*inside, file.name]))
    return [Path(found)] if isinstance(found, str) else []


def target_folder(annotator: Annotator) -> Path:
    """Where its files belong."""
    return own_root() / annotator.folder


def own_root() -> Path:
    """The host's first folder of annotators."""
    paths = host_folders()
    return Path(paths[0]) if paths else Path(folder_paths.models_dir) / FOLDER


def addresses(annotator: Annotator) -> list[str]:
    return [file.address for file in annotator.files]


def in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def size_in_words(size: int) -> str:
    return f" of {size:,} bytes" if size else ""
