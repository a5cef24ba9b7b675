"""Downloads, from a server on this machine that behaves as badly as servers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request

import pytest

from control_composer.preprocessors import downloads
from control_composer.preprocessors.annotators import File
from control_composer.preprocessors.downloads import Downloaded, DownloadError, Wishes, address_of, download, is_plain
from control_composer.tests.preprocessors.download_site import CONTENT, SUM, Site, served


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield from served(monkeypatch)


def file(site: Site, *, size: int = len(CONTENT), sha256: str | None = SUM, name: str = "net.pth") -> File:
    return File(name, size, sha256, f"{site.address}/some/net.pth")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_checked(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    done = download(file(site), tmp_path / "new" / "folder", Wishes(progress=lambda *at: told.append(at)))
    assert done == Downloaded(tmp_path / "new" / "folder" / "net.pth", len(CONTENT), SUM, True, True)
    assert done.path.read_bytes() == CONTENT and names(done.path.parent) == ["net.pth"]
    assert told == sorted(told) and told[-1] == (len(CONTENT), len(CONTENT)) and len(told) > 4
    (asked,) = site.asked
    assert "control-composer" in asked["User-Agent"] and "Range" not in asked


def test_what_is_not_known_is_found_and_told(site: Site, tmp_path: Path) -> None:
    assert download(file(site, size=0, sha256=None), tmp_path) == (tmp_path / "net.pth", len(CONTENT), SUM, False, True)


def test_a_cut_connection_is_taken_up_where_it_was(site: Site, tmp_path: Path) -> None:
    site.cut_at = [100_000, 200_000]
    assert download(file(site, size=0, sha256=None), tmp_path).sha256 == SUM
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=100000-", "bytes=300000-"]
    assert [asked.get("If-Range") for asked in site.asked] == [None, '"one"', '"one"']


def test_a_cut_one_is_never_under_the_final_name_and_goes_on_another_time(site: Site, tmp_path: Path) -> None:
    site.cut_at = [100_000, 0, 0, 0, 0]
    with pytest.raises(
        DownloadError,
        match=r"'net\.pth' was expected from http.*but the connection ended after 100,000 of 512,000 bytes.*kept\.$",
    ):
        download(file(site), tmp_path)
    assert names(tmp_path) == ["net.pth.part", "net.pth.part.json"]
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:100_000]
    download(file(site), tmp_path)
    assert site.asked[-1]["Range"] == "bytes=100000-"
    assert names(tmp_path) == ["net.pth"] and (tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [SUM, None])
def test_a_server_without_parts_sends_it_again(site: Site, tmp_path: Path, sha256: str | None) -> None:
    site.cut_at, site.ranges = [100_000], False
    assert download(file(site, sha256=sha256), tmp_path).sha256 == SUM
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_the_rest_of_another_version_is_not_taken(site: Site, tmp_path: Path) -> None:
    site.cut_at = [100_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(file(site, size=0, sha256=None), tmp_path)
    site.content, site.tag = CONTENT[::-1], '"two"'
    done = download(file(site, size=0, sha256=None), tmp_path)
    assert done.path.read_bytes() == CONTENT[::-1]


def test_a_part_of_unknown_origin_is_not_gone_on_with(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(b"something else")
    download(file(site, size=0, sha256=None), tmp_path)
    assert "Range" not in site.asked[0] and (tmp_path / "net.pth").read_bytes() == CONTENT
    (tmp_path / "net.pth").unlink()
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:5000])
    (tmp_path / "net.pth.part.json").write_text(json.dumps({"address": "http://elsewhere", "validator": '"one"'}))
    download(file(site, size=0, sha256=None), tmp_path)
    assert "Range" not in site.asked[-1] and (tmp_path / "net.pth").read_bytes() == CONTENT


def test_another_part_than_asked_for_is_not_taken(site: Site, tmp_path: Path) -> None:
    site.cut_at, site.shifted = [100_000], 1
    download(file(site), tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("have", [CONTENT, CONTENT + b"more"])
def test_a_part_that_has_all_of_it(site: Site, tmp_path: Path, have: bytes) -> None:
    (tmp_path / "net.pth.part").write_bytes(have)
    download(file(site), tmp_path)
    assert names(tmp_path) == ["net.pth"] and (tmp_path / "net.pth").read_bytes() == CONTENT
    assert len(site.asked) == (1 if have == CONTENT else 2)


def test_a_wrong_sum_is_not_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as refused:
        download(file(site, sha256="0" * 64), tmp_path)
    assert str(refused.value) == (
        f"'net.pth' came from {file(site).address} with the SHA-256 sum {SUM}, but {'0' * 64} was expected: it is not kept; "
        "try another network or mirror."
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_size_is_not_kept(site: Site, tmp_path: Path, length: bool) -> None:
    site.length = length
    with pytest.raises(
        DownloadError, match=r"'net\.pth': .*512,000 bytes.*the published file has 400,000; try another mirror"
    ):
        download(file(site, size=400_000, sha256=None), tmp_path)
    assert names(tmp_path) == []


def test_without_a_length_a_cut_one_would_look_whole(site: Site, tmp_path: Path) -> None:
    site.length = False
    with pytest.raises(DownloadError, match="does not say how many bytes"):
        download(file(site, size=0, sha256=None), tmp_path)
    assert names(tmp_path) == []
    assert download(file(site, size=0), tmp_path).verified


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, 4)])
def test_answers_that_are_no_file(site: Site, tmp_path: Path, status: int, times: int) -> None:
    site.statuses = [status] * 5
    with pytest.raises(DownloadError, match=f"answered {status}"):
        download(file(site), tmp_path)
    assert names(tmp_path) == [] and len(site.asked) == times


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429]
    assert download(file(site), tmp_path).fetched and len(site.asked) == 3


def test_a_page_is_no_file(site: Site, tmp_path: Path) -> None:
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"gave a page \(text/html\) where the file was expected"):
        download(file(site, size=0, sha256=None), tmp_path)
    assert names(tmp_path) == []


def test_nobody_answers(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the server could not be reached \(.*check the network"):
        download(File("net.pth", address="http://127.0.0.1:9/net.pth"), tmp_path)
    assert names(tmp_path) == []


class Interrupted(Exception):
    pass


def test_an_interruption_leaves_what_came_for_next_time(site: Site, tmp_path: Path) -> None:
    came: list[int] = []

    def check() -> None:
        if came and came[-1] > 200_000:
            raise Interrupted

    with pytest.raises(Interrupted):
        download(file(site), tmp_path, Wishes(progress=lambda done, total: came.append(done), check=check))
    assert names(tmp_path) == ["net.pth.part", "net.pth.part.json"]
    kept = (tmp_path / "net.pth.part").stat().st_size
    assert 200_000 < kept < len(CONTENT)
    assert download(file(site), tmp_path).verified
    assert site.asked[-1]["Range"] == f"bytes={kept}-"


@pytest.mark.parametrize(("variable", "value"), [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "yes"), ("", "")])
def test_offline_never_asks(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadError) as refused:
        download(file(site), tmp_path / "folder", Wishes(offline=not variable))
    forbidden = variable or "--offline"
    assert str(refused.value) == (
        f"'net.pth' is not in {tmp_path / 'folder'}, where it was expected, and {forbidden} forbids the network: "
        f"put it there from {file(site).address}, or leave {forbidden} out."
    )
    assert site.asked == [] and names(tmp_path) == []


def test_a_full_disk_is_told_before(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=downloads.SPARE + len(CONTENT) - 1)
    )
    with pytest.raises(DownloadError, match=r"the disk of .* has 68 MB free, but 68 MB are needed; free some space"):
        download(file(site), tmp_path)
    assert names(tmp_path) == []
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=downloads.SPARE + len(CONTENT)))
    assert download(file(site), tmp_path).fetched


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(
        DownloadError, match=r"folder cannot be written \(.*\), where the file was expected; choose another folder"
    ):
        download(file(site), tmp_path / "folder")
    assert site.asked == []


def test_a_file_that_is_there_stays_as_it_is(site: Site, tmp_path: Path) -> None:
    there = tmp_path / "net.pth"
    there.write_bytes(b"mine")
    assert download(file(site, size=0), tmp_path) == (there, 4, "", False, False)
    with pytest.raises(DownloadError) as refused:
        download(file(site), tmp_path)
    assert str(refused.value) == (
        f"{there}: found a file of 4 bytes, but the published file of 512,000 bytes was expected; move it away to have it downloaded."
    )
    assert there.read_bytes() == b"mine" and site.asked == [] and names(tmp_path) == ["net.pth"]


def test_a_file_put_there_meanwhile_stays_as_it_is(site: Site, tmp_path: Path) -> None:
    there = tmp_path / "net.pth"
    done = download(file(site, size=0), tmp_path, Wishes(progress=lambda *_: there.write_bytes(b"mine") and None))
    assert not done.fetched and there.read_bytes() == b"mine" and names(tmp_path) == ["net.pth"]


def test_two_at_once(site: Site, tmp_path: Path) -> None:
    refused: list[str] = []

    def another(*_: int) -> None:
        if not refused:
            with pytest.raises(DownloadError) as told:
                download(file(site), tmp_path)
            refused.append(str(told.value))

    assert download(file(site), tmp_path, Wishes(progress=another)).verified
    assert "is being downloaded into" in refused[0] and names(tmp_path) == ["net.pth"]


@pytest.mark.parametrize(
    "name", ["../net.pth", "a/net.pth", "a\\net.pth", "..", ".", "", "C:net.pth", "net\0.pth", " "]
)
def test_names_that_lead_elsewhere(site: Site, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    assert not is_plain(name)
    with pytest.raises(DownloadError, match="has a name that leads elsewhere"):
        download(file(site, name=name), folder)
    assert site.asked == [] and names(tmp_path) == []


def test_a_mirror_of_the_hub(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = File("net.pth", len(CONTENT), SUM, "https://huggingface.co/owner/name/resolve/main/net.pth")
    elsewhere = File("net.pth", address="https://github.com/owner/net.pth")
    assert address_of(hub) == hub.address
    monkeypatch.setenv("HF_ENDPOINT", f"{site.address}/")
    assert address_of(elsewhere) == elsewhere.address
    assert download(hub, tmp_path).verified
    assert site.asked[0]["path"] == "/owner/name/resolve/main/net.pth"
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    with pytest.raises(DownloadError, match="correct HF_ENDPOINT"):
        download(hub, tmp_path / "other")


def test_a_file_that_has_moved(site: Site, tmp_path: Path) -> None:
    site.cut_at, site.moved_to = [100_000], f"{site.address}/moved"
    assert download(file(site), tmp_path).verified
    assert [asked.get("Range") for asked in site.asked] == [None, None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("https://a/x", "http://a/x"),
        ("https://a/x", "ftp://a/x"),
        ("http://a/x", "ftp://a/x"),
        ("http://a/x", "file:///x"),
    ],
)
def test_not_out_of_an_encrypted_connection(now: str, then: str) -> None:
    with pytest.raises(downloads.urllib.error.HTTPError, match="out of the encrypted connection"):
        downloads.Redirects().redirect_request(Request(now), None, 302, "Found", {}, then)
    assert downloads.Redirects().redirect_request(Request(now), None, 302, "Found", {}, "https://b/x") is not None
