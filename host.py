"""Sets up a real ComfyUI for this pack and runs things in it: `python host.py demo`, `serve`, `test`, `check`, `format`, `python`.

Needs nothing but Python 3.10-3.13. Everything it makes lies in `.host/`; deleting that folder undoes it.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from hosting.commands import main
from hosting.place import HostError


def stop(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    # As an exception, so that a server that was started is ended on the way out.
    signal.signal(signal.SIGTERM, stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except HostError as problem:
        sys.exit(f"host.py: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nStopped; run the same command again to go on.")
