"""Make a board ready to measure on: the Python to use there, the runner, and a virtual environment with a runtime.

A board keeps nothing of edgeeff but what setup makes: ~/.cache/edgeeff with a virtual environment in it. Which runtime
that gets is data (`BUILDS`): a wheel's tags promise more than its libraries keep, so pip alone would choose ones that
do not load. Whether one works is asked of the runner, which constructs an interpreter. How a board is reached is
`transport`'s, what its answers mean `probe`'s.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from edgeeff.devices import probe as answers
from edgeeff.devices import runner as runner_module
from edgeeff.devices.targets import Target
from edgeeff.devices.transport import Completed, Transport
from edgeeff.errors import DeviceError, NoCommandError, StorageError
from edgeeff.results import ProbeRecord

FOLDER = ".cache/edgeeff"
"""Below the home folder on the board, in which commands run there."""
VENV = f"{FOLDER}/venv"
PROBE_LIMIT_S = 300.0
"""The runner waits up to 120 s for each runtime."""
SMALL_LIMIT_S = 30.0


async def find_python(transport: Transport, target: Target) -> str:
    """Return the Python to run the runner with: the target's own, else what setup made, else python3.

    For this machine it is the Python that runs edgeeff, unless it lacks a runtime and setup made an environment.
    """
    if target.python is not None:
        return target.python
    here = target.address is None
    if here and any(find_spec(package) for _, package in runner_module.RUNTIMES):
        return sys.executable
    made = f"{VENV}/bin/python"
    if await transport.exists(made):
        return made
    return sys.executable if here else "python3"


async def send_runner(transport: Transport, *, cache: bool = False) -> str:
    """Send the runner and return its path there, which has its sha256 in its name.

    It lies in a temporary folder of its own, which `remove_runner` removes; with `cache` it stays in ~/.cache/edgeeff
    and is sent only once. Raises StorageError when it cannot be written.
    """
    local = Path(runner_module.__file__)
    name = f"runner-{hashlib.sha256(local.read_bytes()).hexdigest()}.py"
    folder = FOLDER if cache else await _temporary_folder(transport)
    path = f"{folder}/{name}"
    if not (cache and await transport.exists(path)):
        await transport.put(local, path)
    return path


async def remove_runner(transport: Transport, path: str) -> None:
    """Remove what `send_runner` sent, unless it is to stay."""
    folder = str(PurePosixPath(path).parent)
    if folder != FOLDER:
        await transport.remove(folder)


@asynccontextmanager
async def runner_on(transport: Transport, *, cache: bool = False) -> AsyncIterator[str]:
    """Send the runner, give its path there, and remove it at the end if the board can still be reached then."""
    path = await send_runner(transport, cache=cache)
    try:
        yield path
    finally:
        with suppress(DeviceError):  # the temporary folder goes with the next start of the board, then
            await remove_runner(transport, path)


async def probe(transport: Transport, target: Target, *, python: str | None = None) -> ProbeRecord:
    """Ask a board what it is and what state it is in.

    Raises DeviceError when there is no Python that could answer or it is too old, and what the transport raises.
    """
    chosen = python or await find_python(transport, target)
    async with runner_on(transport) as path:
        return await _probe(transport, target, chosen, path)


async def _probe(transport: Transport, target: Target, python: str, path: str) -> ProbeRecord:
    try:
        done = await transport.run([python, path, answers.REQUEST], time_limit_s=PROBE_LIMIT_S)
    except NoCommandError as error:
        raise NoCommandError(
            f"{target.name}: there is no '{python}'; on Debian and Raspberry Pi OS: sudo apt install python3; "
            f"or name another: edgeeff devices add {target.name} {target.url} --replace --python PATH"
        ) from error
    try:
        return answers.read([*done.stdout.splitlines(), *done.stderr.splitlines()], emulated=target.emulated)
    except DeviceError as error:
        raise DeviceError(f"{target.name}: {error}") from error


async def _temporary_folder(transport: Transport) -> str:
    done = await transport.run(["/bin/sh", "-c", _TEMPORARY], time_limit_s=SMALL_LIMIT_S)
    folder = done.stdout.strip()
    if done.status or not folder:
        raise StorageError(f"{transport.name}: no temporary folder can be made there: {_last(done)}")
    return folder


def _last(done: Completed) -> str:
    """Return the last line of what a command said."""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1].strip() if said else f"status {done.status}"


_TEMPORARY = 'mktemp -d 2>/dev/null || mktemp -d "$HOME/.edgeeff-XXXXXX"'
