"""What every command has: --json, --debug, errors as a message and an exit code, and where its output goes.

The commands themselves are in `cli` and `cli_devices`. Nothing here costs more than click when it is imported.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeeff.errors import EdgeeffError

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
Command = TypeVar("Command", bound=Callable[..., None])


def common(command: Command) -> Command:
    """Add --json and --debug, and turn edgeeff's errors into a message and an exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output, nothing else.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @wraps(command)
    def guarded(*args: Any, debug: bool, **kwargs: Any) -> None:
        try:
            with _ended_like_interrupted():
                command(*args, **kwargs)
        except EdgeeffError as error:
            if debug:
                traceback.print_exc()
            click.echo(f"edgeeff: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt as interrupted:
            if debug:
                traceback.print_exc()
            # Work that can be gone on with says so.
            click.echo(f"edgeeff: interrupted; {str(interrupted) or 'no file was left half written'}", err=True)
            sys.exit(INTERRUPTED)

    return guarded  # type: ignore[return-value]


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Let `timeout`, `kill` and a terminal that closes end a command as Ctrl-C does: it cleans up after itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # What was arranged otherwise, as `nohup` does, stays; only the main thread can arrange anything.
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def console() -> Console:
    """Return where tables and sentences for people go."""
    from rich.console import Console

    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document, in UTF-8 whatever the terminal speaks."""
    from edgeeff.results import to_json

    click.echo(to_json(value).encode("utf-8"), nl=False)
