"""`python host.py annotators`: which files the preprocessors' networks need, where they are, and fetching those that are missing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import folder_paths
from utils.extra_config import load_extra_path_config

from ..preprocessors import PreprocessorError
from ..preprocessors.annotators import BY_ID, Annotator
from ..preprocessors.downloads import Downloaded, Wishes
from .annotator_files import FOLDER, located, own_root, register_folder
from .download import fetch, in_megabytes, missing_annotators, outcome, terms


def main(words: Sequence[str]) -> int:
    """Words as host.py passes them on, checked: ACTION, names, --all, --folder FOLDER, --offline. The exit code."""
    parser = argparse.ArgumentParser(prog="host.py annotators")
    parser.add_argument("action")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--offline", action="store_true")
    options = parser.parse_args(words)
    register_folders(options.folder)
    known = {identifier.lower(): annotator for identifier, annotator in BY_ID.items()}
    unknown = [name for name in options.names if name.lower() not in known]
    if unknown:
        say(f"host.py: there is no annotator {unknown[0]!r}; the names are {', '.join(BY_ID)}.")
        return 1
    named = [known[name.lower()] for name in options.names]
    if options.action == "list":
        say(table(named or list(BY_ID.values())))
        return 0
    try:
        return download_all(missing_annotators(BY_ID.values()) if options.all else named, options.offline)
    except KeyboardInterrupt:
        say("\nStopped; the same command goes on from here.")
        return 130


def say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def register_folders(folder: Path | None) -> None:
    """The host's folders as its server has them after it has loaded the pack; `folder` before all."""
    extra = Path(folder_paths.__file__).with_name("extra_model_paths.yaml")
    if extra.is_file():
        load_extra_path_config(str(extra))
    register_folder()
    if folder is not None:
        folder_paths.add_model_folder_path(FOLDER, str(folder.resolve()), is_default=True)


def table(annotators: Sequence[Annotator]) -> str:
    lines = [f"Annotators, looked for in {own_root()} and where other packs keep theirs:"]
    for annotator in annotators:
        place = located(annotator)
        known = "SHA-256 known" if all(file.sha256 for file in annotator.files) else "SHA-256 not known"
        size = in_megabytes(annotator.bytes) if annotator.bytes else "size not known"
        files = annotator.folder or annotator.file
        lines += [
            "",
            f"{annotator.id}  {files}  {size}, {known}",
            f"    {'missing' if place is None else place}",
            f"    {annotator.licence}: {annotator.commercial}",
        ]
    lacking = missing_annotators(annotators)
    lines += ["", f"{len(annotators) - len(lacking)} of {len(annotators)} are there."]
    return "\n".join(lines)


def download_all(annotators: Sequence[Annotator], offline: bool) -> int:
    """Fetches one after the other; what fails is told, and the others go on."""
    started, done, failed = time.monotonic(), list[Downloaded](), 0
    if not annotators:
        say("Nothing is missing.")
        return 0
    say(f"Into {own_root()}:")
    for number, annotator in enumerate(annotators, start=1):
        place = located(annotator)
        say(f"\n{number}/{len(annotators)}  {terms(annotator)}")
        if place is not None:
            say(f"    is there already, at {place}")
            continue
        try:
            found = fetch(annotator, partial(wishes_of, annotator, offline))
        except PreprocessorError as problem:
            say(f"    {problem}")
            failed += 1
            continue
        done += found
        say("\n".join(f"    {outcome(one)}" for one in found))
    fetched = [one for one in done if one.fetched]
    say(
        f"\n{len(fetched)} files, {in_megabytes(sum(one.bytes for one in fetched))} in {time.monotonic() - started:.0f} s"
        + (f"; {failed} of {len(annotators)} annotators failed." if failed else ".")
    )
    return 1 if failed else 0


def wishes_of(annotator: Annotator, offline: bool, file: int) -> Wishes:
    return Wishes(shown(annotator.files[file].name), offline=offline)


def shown(name: str) -> Callable[[int, int], None]:
    """Prints how far a file is: on a terminal all the time, into a log at each tenth."""
    last = [-1]

    def progress(done: int, total: int) -> None:
        part = 100 * done // total if total else 0
        text = f"    {name}: {in_megabytes(done)}" + (f" of {in_megabytes(total)} ({part} %)" if total else "")
        if sys.stdout.isatty():
            say(f"\r{text}", end="\n" if total and done >= total else "")
        elif part // 10 > last[0]:
            last[0] = part // 10
            say(text)

    return progress
