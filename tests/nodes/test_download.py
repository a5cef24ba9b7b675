"""The node and the command that download annotators, from a server on this machine into a host's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("comfy")

import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.nodes.annotator_files import FOLDER, located
from control_composer.nodes.annotators_command import main
from control_composer.nodes.download import ALL, ControlComposerDownloadAnnotators, fetch, wishes_of
from control_composer.preprocessors.annotators import BY_ID, Annotator, File
from control_composer.preprocessors.downloads import DownloadError, Wishes
from control_composer.tests.preprocessors.download_site import CONTENT, SUM, Site, served

NODE = ControlComposerDownloadAnnotators


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from served(monkeypatch)


@pytest.fixture
def folder(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty host that knows two annotators: a single file and a folder of two."""
    for name in (FOLDER, "custom_nodes"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], set()))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    hed = BY_ID["HED"]
    for name in list(BY_ID):
        monkeypatch.delitem(BY_ID, name)
    one = replace(hed, id="One", files=(File("one.pth", len(CONTENT), SUM, f"{site.address}/one.pth"),), licence="MIT")
    files = tuple(File(name, address=f"{site.address}/{name}") for name in ("config.json", "model.safetensors"))
    monkeypatch.setitem(BY_ID, "One", one)
    monkeypatch.setitem(BY_ID, "Many", replace(hed, id="Many", files=files, folder="owner/name", reads="path"))
    return tmp_path / FOLDER


def inside(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file())


def queue(annotator: str) -> str:
    (report,) = NODE.execute(annotator).result
    return str(report)


def test_nothing_is_downloaded_before_the_node_runs(site: Site, folder: Path) -> None:
    schema = NODE.define_schema()
    assert schema.is_output_node and schema.inputs[0].options == ["One", "Many", ALL]
    assert "terms of use differ" in schema.inputs[0].tooltip and "terms of use" in schema.description
    assert NODE.fingerprint_inputs(ALL) == "One Many" and NODE.fingerprint_inputs("Many") == "Many"
    assert site.asked == [] and inside(folder) == []


def test_one_annotator(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    assert queue("One") == (
        "One: MIT; everyone may use it commercially\none.pth is there now (0.5 MB); its SHA-256 sum is right"
    )
    assert inside(folder) == ["one.pth"] and told[-1] == (1000, 1000) and told[0][0] < 1000
    assert NODE.fingerprint_inputs("One") == ""
    assert queue("One") == f"One is there already, at {folder / 'one.pth'}"
    assert len(site.asked) == 1


def test_all_that_are_missing(site: Site, folder: Path) -> None:
    report = queue(ALL)
    assert inside(folder) == ["one.pth", "owner/name/config.json", "owner/name/model.safetensors"]
    assert f"config.json is there now (0.5 MB); its SHA-256 sum is {SUM}; what it should be is not known here" in report
    assert located(BY_ID["Many"]) == folder / "owner" / "name"
    assert queue(ALL) == "Nothing is missing." and len(site.asked) == 3


def test_a_folder_that_lacks_a_file_is_completed(site: Site, folder: Path) -> None:
    (folder / "owner" / "name").mkdir(parents=True)
    (folder / "owner" / "name" / "config.json").write_bytes(b"mine")
    assert "config.json was there already" in queue("Many")
    assert [asked["path"] for asked in site.asked] == ["/model.safetensors"]
    assert (folder / "owner" / "name" / "config.json").read_bytes() == b"mine"


def test_what_another_pack_has_is_not_downloaded(site: Site, folder: Path) -> None:
    place = folder.parent / "controlnet_aux" / "owner" / "name"
    place.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (place / name).write_bytes(b"theirs")
    assert queue("Many") == f"Many is there already, at {place}" and site.asked == []


def test_the_hosts_interruption_ends_it_and_it_goes_on_later(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(value: int, *_: Any, **__: Any) -> None:
        if value > 300:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt)
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda self, value, *_: interrupt(value))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        queue("One")
    assert inside(folder) == ["one.pth.part", "one.pth.part.json"]
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda *_: None)
    queue("One")
    assert inside(folder) == ["one.pth"] and int(site.asked[-1]["Range"].removeprefix("bytes=")[:-1]) > 100_000


def test_progress_over_several_files() -> None:
    told: list[int] = []

    class Bar:
        def update_absolute(self, value: int) -> None:
            told.append(value)

    wishes_of(Bar(), 2)(1).progress(50, 100)
    wishes_of(Bar(), 2)(1).progress(50, 0)
    assert told == [3500]


@pytest.mark.parametrize("name", ["../name", "owner/..", "/etc", "owner\\name", "a//b"])
def test_folders_that_lead_elsewhere(site: Site, folder: Path, name: str) -> None:
    with pytest.raises(DownloadError, match=r"Many: found the folder .* but one inside of .* was expected"):
        fetch(replace(BY_ID["Many"], folder=name), lambda _: Wishes())
    assert site.asked == []


def test_the_list(site: Site, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one.safetensors").write_bytes(b"converted")
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        f"Annotators, looked for in {folder} and where other packs keep theirs:\n\n"
        f"One  one.pth  0.5 MB, SHA-256 known\n    {folder / 'one.safetensors'}\n    MIT: everyone may use it commercially\n\n"
        "Many  owner/name  size not known, SHA-256 not known\n    missing\n"
        "    Apache-2.0 by the header of its code: everyone may use it commercially\n\n"
        "1 of 2 are there.\n"
    )
    assert site.asked == []


def test_the_command_downloads(site: Site, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", "one"]) == 0
    said = capsys.readouterr().out
    assert "1/1  One: MIT" in said and "one.pth: 0.5 MB of 0.5 MB (100 %)" in said and "1 files, 0.5 MB in" in said
    assert main(["--all", "download"]) == 0
    assert "2 files, 1.0 MB in" in capsys.readouterr().out
    assert main(["--all", "download"]) == 0
    assert capsys.readouterr().out == "Nothing is missing.\n" and len(site.asked) == 3
    for path in folder.rglob("*.*"):
        path.unlink()
    assert main(["--folder", str(tmp_path / "other"), "download", "One"]) == 0
    assert inside(tmp_path / "other") == ["one.pth"] and inside(folder) == []


def test_what_fails_is_told_and_the_others_go_on(site: Site, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.statuses = [404]
    assert main(["--all", "download"]) == 1
    said = capsys.readouterr().out
    assert "answered 404" in said and "2 files, 1.0 MB in" in said and said.endswith("; 1 of 2 annotators failed.\n")
    assert main(["--offline", "--", "download", "One"]) == 1
    assert "--offline forbids the network" in capsys.readouterr().out
    assert main(["download", "Two"]) == 1
    assert capsys.readouterr().out == "host.py: there is no annotator 'Two'; the names are One, Many.\n"


def test_ctrl_c(site: Site, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(annotator: Annotator, wishes: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("control_composer.nodes.annotators_command.fetch", stop)
    assert main(["download", "One"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
