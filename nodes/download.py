"""Fetching the files of annotators when a person asks for it: the node, and what the command line shares with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..preprocessors.annotators import BY_ID, Annotator
from ..preprocessors.downloads import Downloaded, DownloadError, Wishes, download, is_plain
from .annotator_files import located, own_root
from .text import show_text

ALL = "all that are missing"
STEPS = 1000
"""Of the progress bar, for each file."""


def missing_annotators(annotators: Iterable[Annotator]) -> list[Annotator]:
    """Those whose files are nowhere on this machine."""
    return [annotator for annotator in annotators if located(annotator) is None]


def fetch(annotator: Annotator, wishes: Callable[[int], Wishes]) -> list[Downloaded]:
    """Its files in the host's folder of annotators, fetched unless they are there; `wishes(n)` for its n-th file. Raises DownloadError."""
    if annotator.folder and not all(is_plain(part) for part in annotator.folder.split("/")):
        raise DownloadError(
            f"{annotator.id}: found the folder {annotator.folder!r}, but one inside of {own_root()} was expected; tell the developers."
        )
    folder = own_root() / annotator.folder
    return [download(file, folder, wishes(number)) for number, file in enumerate(annotator.files)]


def in_megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def terms(annotator: Annotator) -> str:
    return f"{annotator.id}: {annotator.licence}; {annotator.commercial}"


def outcome(done: Downloaded) -> str:
    """One line on a file that is there now."""
    if not done.fetched:
        return f"{done.path.name} was there already ({in_megabytes(done.bytes)})"
    checked = (
        "its SHA-256 sum is right"
        if done.verified
        else f"its SHA-256 sum is {done.sha256}; what it should be is not known here"
    )
    return f"{done.path.name} is there now ({in_megabytes(done.bytes)}); {checked}"


class ControlComposerDownloadAnnotators(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDownloadAnnotators",
            display_name="Download Annotators (Control Composer)",
            category="Control Composer/preprocess",
            description="Downloads the files of the networks that preprocessors use, into models/annotators, when it is queued and never otherwise. "
            "A download that was stopped goes on where it was; files are compared with their checksums where these are known. Look at the "
            "terms of use: not all of them allow commercial use.",
            search_aliases=["download models", "preprocessor models", "annotators", "model manager"],
            inputs=[
                io.Combo.Input(
                    "annotator",
                    options=[*BY_ID, ALL],
                    tooltip="Whose files to download. Their terms of use differ: this node's help page lists them, and the report repeats those of "
                    "what was downloaded.",
                )
            ],
            outputs=[
                io.String.Output("report", display_name="report", tooltip="What was downloaded, and under which terms.")
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, annotator: str) -> Any:
        return " ".join(one.id for one in missing_annotators(chosen(annotator)))

    @classmethod
    def execute(cls, annotator: str) -> io.NodeOutput:
        wanted = chosen(annotator)
        lines = [f"{one.id} is there already, at {place}" for one in wanted if (place := located(one)) is not None]
        lacking = missing_annotators(wanted)
        bar = comfy.utils.ProgressBar(STEPS * sum(len(one.files) for one in lacking))
        before = 0
        for one in lacking:
            show_text(cls, f"Downloading {terms(one)}")
            lines.append(terms(one))
            lines += [outcome(done) for done in fetch(one, wishes_of(bar, before))]
            before += len(one.files)
            bar.update_absolute(STEPS * before)
        report = "\n".join(lines) or "Nothing is missing."
        show_text(cls, report)
        return io.NodeOutput(report)


def chosen(annotator: str) -> list[Annotator]:
    return missing_annotators(BY_ID.values()) if annotator == ALL else [BY_ID[annotator]]


def wishes_of(bar: Any, before: int) -> Callable[[int], Wishes]:
    """With the host's progress bar, on which `before` files are done, and its interruption."""
    plain = Wishes(check=comfy.model_management.throw_exception_if_processing_interrupted)

    def of_file(number: int) -> Wishes:
        def progress(done: int, total: int) -> None:
            if total:
                bar.update_absolute(STEPS * (before + number) + STEPS * done // total)

        return replace(plain, progress=progress)

    return of_file


NODES: list[type[io.ComfyNode]] = [ControlComposerDownloadAnnotators]
