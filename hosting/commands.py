"""The command line of `host.py`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from .existing import check_tools, existing_host
from .place import HOME, MODULE, ROOT, Host, HostError, lay_out, own_host, run_python, say
from .prepare import COMFYUI_VERSION, prepare
from .serving import check_port, free_port, may_have_accelerator, server

MOST_WORKERS = 4
"""A test process takes up to 3 GB."""

COMMANDS = {
    "demo": "make the first pictures: start ComfyUI, run the example graphs through its queue, print where the pictures are",
    "test": "run the tests; further arguments go to pytest",
    "serve": "start ComfyUI with this pack, by default at port 8188; unknown options go to ComfyUI",
    "annotators": "list the files of the preprocessors' networks, or download them: annotators download NAME… (or --all)",
    "check": "lint, formatting and types",
    "format": "rewrite the sources in the house style",
    "python": "run the host's Python; ComfyUI's modules and control_composer can be imported",
}


def main(argv: Sequence[str]) -> int:
    options, rest = parse(argv)
    try:
        HOME.mkdir(exist_ok=True)
    except OSError as problem:
        raise HostError(
            f"The folder {HOME} cannot be made ({problem.strerror}), but everything that host.py makes goes there: "
            "put this folder where you may write."
        ) from None
    # Programs in the host are told its COMFYUI_PATH; host.py called from one of them means the same host.
    foreign = options.comfyui and Path(options.comfyui).resolve() != own_host(HOME).comfyui.resolve()
    host = existing_host(options.comfyui) if foreign else prepare()
    lay_out()
    if not host.ours:
        check_tools(host, options.command)
    if options.command == "demo":
        return demo(host, options)
    if options.command == "serve":
        return serve(host, options, rest)
    if options.command == "annotators":
        return annotators(host, options)
    if options.command == "check":
        return check(host)
    if options.command == "format":
        fixed = run_python(host, ["-m", "ruff", "check", "--fix-only", "--quiet", "."], ROOT)
        return fixed or run_python(host, ["-m", "ruff", "format", "."], ROOT)
    if options.command == "test":
        return test(host, rest)
    return run_python(host, rest, on_cpu=not may_have_accelerator(host))


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Splits the command line into our options and what goes on to pytest, Python or ComfyUI untouched."""
    parser = argparse.ArgumentParser(
        prog="host.py",
        description=f"Runs Control Composer in a real ComfyUI {COMFYUI_VERSION}.",
        epilog="\n".join(f"{name:10} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--comfyui",
        metavar="PATH",
        default=os.environ.get("COMFYUI_PATH") or None,
        help="use this installation and leave it as it is; COMFYUI_PATH does the same",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of " + ", ".join(COMMANDS))
    at = next(
        (i for i, word in enumerate(argv) if word in COMMANDS and (i == 0 or argv[i - 1] != "--comfyui")), len(argv)
    )
    options = parser.parse_args(argv[: at + 1])
    rest = list(argv[at + 1 :])

    after = argparse.ArgumentParser(
        prog=f"host.py {options.command}",
        allow_abbrev=False,
        add_help=options.command not in ("test", "python"),
        description=COMMANDS[options.command],
    )
    if options.command != "python":
        after.add_argument("--comfyui", metavar="PATH", default=options.comfyui, help="use this installation")
    if options.command == "serve":
        after.add_argument("--port", type=int, default=8188)
    if options.command == "demo":
        after.add_argument(
            "--output", type=Path, default=ROOT / "demo" / "runs" / "pictures", help="folder for the pictures"
        )
    if options.command == "annotators":
        after.add_argument("action", nargs="?", choices=("list", "download"), default="list")
        after.add_argument("names", nargs="*", metavar="NAME", help="as the list shows them; default: all for the list")
        after.add_argument("--all", action="store_true", help="download all that are missing, several gigabytes")
        after.add_argument(
            "--folder", type=Path, help="in place of models/annotators of the host, or of the installation at --comfyui"
        )
        after.add_argument(
            "--offline", action="store_true", help="never touch the network; HF_HUB_OFFLINE=1 does the same"
        )
    if options.command != "python":
        # Names and switches in any order.
        read = after.parse_known_intermixed_args if options.command == "annotators" else after.parse_known_args
        _, rest = read(rest, namespace=options)
    if rest and options.command in ("demo", "annotators", "check", "format"):
        after.error(f"unknown argument {rest[0]}")
    if options.command == "annotators" and options.action == "download" and bool(options.names) == options.all:
        after.error("name the annotators to download, or give --all for those that are missing")
    return options, rest


def demo(host: Host, options: argparse.Namespace) -> int:
    port = free_port()
    options.output.mkdir(parents=True, exist_ok=True)
    log = HOME / "demo-server.log"
    started = time.monotonic()
    say(f"Starting ComfyUI (log: {log})")
    # Beside a running `serve`: neither its database nor its temporary pictures are touched.
    apart = ["--database-url", "sqlite:///:memory:", "--temp-directory", str(HOME / "demo")]
    with server(host, port, apart, log):
        say(f"ComfyUI answers at http://127.0.0.1:{port} after {time.monotonic() - started:.0f} s")
        code = run_python(
            host,
            [
                str(ROOT / "demo" / "run.py"),
                "--server",
                f"http://127.0.0.1:{port}",
                "--output",
                str(options.output.resolve()),
            ],
        )
    say(f"All in all {time.monotonic() - started:.0f} s.")
    return code


def serve(host: Host, options: argparse.Namespace, extra: Sequence[str]) -> int:
    check_port(options.port)
    with server(host, options.port, extra, None) as process:
        say(f"ComfyUI with Control Composer is ready at http://127.0.0.1:{options.port} (Ctrl-C ends it)")
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0


def test(host: Host, arguments: Sequence[str]) -> int:
    """All tests on several cores, a file on one; with arguments for pytest, as pytest does it."""
    if arguments:
        return run_python(host, ["-m", "pytest", *arguments], ROOT)
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_WORKERS)
    # Each worker computes on one core: several threads of torch in several processes wait for each other.
    parallel = ["-n", str(cores), "--dist", "loadfile"]
    return run_python(host, ["-m", "pytest", *parallel], ROOT, {"OMP_NUM_THREADS": "1"})


ANNOTATORS = """import sys
from comfy.cli_args import args
args.base_directory = sys.argv[1] or None
from control_composer.nodes.annotators_command import main
sys.exit(main(sys.argv[2:]))
"""


def annotators(host: Host, options: argparse.Namespace) -> int:
    """Works on the folders that the nodes in this host read: an installation's own, if one was named."""
    base = str(HOME / "base") if host.ours else ""
    folder = ["--folder", str(options.folder.resolve())] if options.folder else []
    switches = [f"--{name}" for name in ("all", "offline") if getattr(options, name)]
    words = [*folder, *switches, "--", options.action, *options.names]
    return run_python(host, ["-c", ANNOTATORS, base, *words], on_cpu=True)


def check(host: Host) -> int:
    """Lint, formatting, types of the pack under the name that it is imported by, types of the command line. Runs all four."""
    parts = sorted(folder.parent.name for folder in ROOT.glob("[a-z]*/__init__.py") if folder.parent.name != "hosting")
    pack = [word for part in parts for word in ("-p", f"{MODULE}.{part}")]
    runs = [
        (["ruff", "check", "."], ROOT),
        (["ruff", "format", "--check", "."], ROOT),
        (["mypy", *(["-m", MODULE] if (ROOT / "__init__.py").exists() else []), *pack], HOME / "site"),
        (["mypy", "--explicit-package-bases", "host.py", "hosting"], ROOT),
    ]
    codes = [run_python(host, ["-m", *run], ROOT, {"MYPYPATH": str(path)}) for run, path in runs]
    return max(codes)
