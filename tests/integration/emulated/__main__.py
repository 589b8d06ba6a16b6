"""Build the emulated board where the cache does not have it, switch it on, and off again at Ctrl-C."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.emulated.board import MODEL, BoardError, EmulatedBoard
from tests.integration.emulated.image import BuildError, image, missing_tools


def main() -> str | None:
    """Return what went wrong, if something did."""
    missing = missing_tools()
    if missing:
        return f"the emulated board needs these Debian packages: apt-get install {' '.join(missing)}"
    print("Building the emulated board, unless it is in the cache ...", flush=True)
    try:
        files = image()
        with tempfile.TemporaryDirectory() as folder, EmulatedBoard(files, Path(folder)) as board:
            print(f"{MODEL}: up after {board.boot_s:.1f} s, host key {board.fingerprint}")
            print(f"  {shlex.join(board.ssh([]))}")
            print("Ctrl-C switches it off; what was stored on it is lost then.", flush=True)
            while board.running:
                time.sleep(1)
            return f"the board switched itself off:\n{board.console[-2000:]}"
    except (BuildError, BoardError) as error:
        return str(error)
    except KeyboardInterrupt:
        return None


if __name__ == "__main__":
    sys.exit(main())
