"""A function in a process of its own, as `accelerate launch` starts it: `launched.py MODULE:FUNCTION ARGUMENTS`. A fork of a process that
has computed gradients cannot compute any."""

import os
import subprocess
import sys
import traceback
import types
from pathlib import Path

HERE = Path(__file__).resolve()


def launch(function, *arguments, port, rank=0, count=1):
    """The process; with a `count` above 1, one of so many that know of each other."""
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if count > 1:
        told |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return subprocess.Popen([sys.executable, str(HERE), function, *map(str, arguments)], env=os.environ | told)


def run(function, *arguments):
    """`function` gets the arguments as texts and in sys.argv; what it returns is the exit code."""
    import importlib

    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import torch

    torch.set_num_threads(1)
    sys.argv = [function, *arguments]
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    return (call() if name == "main" else call(*arguments)) or 0


if __name__ == "__main__":
    package = types.ModuleType("control_composer")
    package.__path__ = [str(HERE.parents[2])]
    sys.modules["control_composer"] = package
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE.parent]
    code = 99
    try:
        code = run(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without the clean-up of process groups, which waits for the other process.
        os._exit(code)
