"""The command line: what goes where, and what a person reads when it goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control_composer.hosting import commands, place

ROOT = Path(place.__file__).parents[1]


@pytest.fixture(autouse=True)
def no_installation(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)


@pytest.mark.parametrize(
    ("words", "command", "comfyui", "rest"),
    [
        ("demo", "demo", None, []),
        ("test -q tests/host -k port", "test", None, ["-q", "tests/host", "-k", "port"]),
        ("test --comfyui /c -q", "test", "/c", ["-q"]),
        ("--comfyui /c test -x", "test", "/c", ["-x"]),
        ("--comfyui=/c check", "check", "/c", []),
        ("--comfyui demo serve", "serve", "demo", []),
        ("serve --lowvram", "serve", None, ["--lowvram"]),
        ("python -c pass --comfyui x", "python", None, ["-c", "pass", "--comfyui", "x"]),
        ("python -m pytest --help", "python", None, ["-m", "pytest", "--help"]),
        ("test --help", "test", None, ["--help"]),
        ("annotators --comfyui /c", "annotators", "/c", []),
    ],
)
def test_words_go_where_they_belong(words, command, comfyui, rest):
    options, passed_on = commands.parse(words.split())
    assert (options.command, options.comfyui, passed_on) == (command, comfyui, rest)


def test_an_environment_variable_names_the_installation_and_the_option_wins(monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", "/from/variable")
    assert commands.parse(["demo"])[0].comfyui == "/from/variable"
    assert commands.parse(["demo", "--comfyui", "/from/option"])[0].comfyui == "/from/option"


def test_options_of_serve_and_demo():
    assert commands.parse(["serve"])[0].port == 8188
    assert commands.parse(["serve", "--port", "8199"])[0].port == 8199
    assert commands.parse(["demo", "--output", "here"])[0].output == Path("here")


def test_options_of_annotators():
    options = commands.parse(["annotators", "download", "--folder", "here", "HED", "TEED", "--offline"])[0]
    assert (options.action, options.names, options.folder) == ("download", ["HED", "TEED"], Path("here"))
    assert (options.offline, options.all) == (True, False)
    assert commands.parse(["annotators"])[0].action == "list"


@pytest.mark.parametrize(("ours", "base"), [(True, str(place.HOME / "base")), (False, "")])
def test_annotators_go_where_the_nodes_of_that_host_look(monkeypatch, tmp_path, ours, base):
    ran = []
    monkeypatch.setattr(commands, "run_python", lambda host, words, on_cpu: ran.append((words[2:], on_cpu)) or 0)
    words = ["annotators", "download", "HED", "--folder", str(tmp_path), "--offline"]
    host = place.Host(Path("python"), Path("comfyui"), ours)
    assert commands.annotators(host, commands.parse(words)[0]) == 0
    assert ran == [([base, "--folder", str(tmp_path), "--offline", "--", "download", "HED"], True)]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "paint",
        "demo --colour",
        "check tests",
        "serve --port many",
        "annotators fetch",
        "annotators list HED --colour",
        "annotators download",
        "annotators download HED --all",
    ],
)
def test_an_unknown_word_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        commands.parse(words.split())
    assert stopped.value.code == 2
    assert "host.py" in capsys.readouterr().err


def run(*words, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("COMFYUI_PATH", "PYTHONSAFEPATH")}
    command = [sys.executable, str(ROOT / "host.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **variables}, timeout=60)


def test_help_lists_every_command():
    shown = run("--help")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in commands.COMMANDS)


def test_an_error_is_one_sentence_and_no_traceback(tmp_path):
    failed = run("demo", COMFYUI_PATH=str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        f"host.py: --comfyui (or COMFYUI_PATH) names {tmp_path}, which has no ComfyUI in it"
    )
    assert failed.stderr.count("\n") == 1


def test_the_folder_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "HOME", tmp_path / "missing" / ".host")
    with pytest.raises(place.HostError, match=r"cannot be made \(No such file.*put this folder where you may write"):
        commands.main(["check"])
