"""Starting and ending a server. A few lines of Python stand in for ComfyUI here; tests marked `server` use the real one."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control_composer.hosting import serving
from control_composer.hosting.place import Host, HostError


def test_a_port_in_use_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HostError) as error:
            serving.check_port(port)
    assert str(error.value) == (
        f"Port {port} cannot be used, because another program listens there or the system refuses it: "
        "end that program or choose another with --port."
    )
    serving.check_port(port)


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_be(port):
    with pytest.raises(HostError, match=f"^Port {port} cannot be used"):
        serving.check_port(port)


def test_a_free_port_is_free():
    serving.check_port(serving.free_port())


def test_the_servers_command_keeps_out_of_comfyuis_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(serving, "HOME", tmp_path)
    host = Host(Path("python"), Path("comfy"), ours=True)
    command = serving.server_command(host, 8199, False, ["--lowvram"])
    assert command[:2] == ["python", str(Path("comfy") / "main.py")]
    assert command[command.index("--base-directory") + 1] == str(tmp_path / "base")
    assert command[command.index("--database-url") + 1].startswith("sqlite:///" + (tmp_path / "base").as_posix())
    assert command[-2:] == ["--cpu", "--lowvram"]
    assert "--cpu" not in serving.server_command(host, 8199, True, [])
    assert serving.server_command(host, 8199, False, ["--cpu"]).count("--cpu") == 1


def test_our_host_on_a_machine_without_a_driver_needs_no_torch_to_know(monkeypatch):
    monkeypatch.setattr(serving, "nvidia_driver", lambda: False)
    monkeypatch.setattr(serving, "probe", lambda *_, **__: {"accelerator": True})
    monkeypatch.setattr(serving.sys, "platform", "linux")
    assert not serving.has_accelerator(Host(Path("p"), Path("c"), ours=True))
    assert serving.has_accelerator(Host(Path("p"), Path("c"), ours=False))
    monkeypatch.setattr(serving, "nvidia_driver", lambda: True)
    assert serving.has_accelerator(Host(Path("p"), Path("c"), ours=True))


STAND_IN = """
import http.server, subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path("pids").write_text(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/system_stats" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "HOME", tmp_path)
    monkeypatch.setattr(serving, "has_accelerator", lambda host: False)
    (tmp_path / "base").mkdir()
    (tmp_path / "main.py").write_text(STAND_IN)
    return Host(Path(sys.executable), tmp_path, ours=True)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_soon(pid):
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes through /proc")
@pytest.mark.parametrize("leave", [None, KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_server_and_its_children_end_however_we_leave_and_nothing_else_does(stand_in, tmp_path, leave):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        try:
            with serving.server(stand_in, serving.free_port(), [], tmp_path / "log") as process:
                child = int((tmp_path / "base" / "pids").read_text())
                assert alive(process.pid) and alive(child)
                if leave:
                    raise leave
        except BaseException as reason:
            assert leave and isinstance(reason, leave), reason
        assert process.returncode is not None
        assert gone_soon(child)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_that_ignores_the_request_to_end_is_forced(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    serving.end(process, patience=0.3)
    assert process.poll() is not None
    process.stdout.close()


def test_a_server_that_dies_on_the_way_is_one_sentence_with_its_log(stand_in, tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit(3)")
    with pytest.raises(
        HostError, match=r"^ComfyUI ended with code 3 before it answered at port \d+: its log is .*log\.$"
    ):
        with serving.server(stand_in, serving.free_port(), [], tmp_path / "log"):
            pytest.fail("it cannot be ready")


def test_a_server_that_never_answers_is_one_sentence(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "START_SECONDS", 0.5)
    (tmp_path / "main.py").write_text("import time; time.sleep(60)")
    with pytest.raises(HostError, match=r"did not answer at port \d+ within 0\.5 s: its messages are above\.$"):
        with serving.server(stand_in, serving.free_port(), [], None):
            pytest.fail("it cannot be ready")
