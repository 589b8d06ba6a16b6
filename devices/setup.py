"""Make a board ready to measure on: the Python to use there, the runner, and a virtual environment with a runtime.

A board keeps nothing of edgeeff but what setup makes: ~/.cache/edgeeff with a virtual environment in it. It is made
without pip, and filled by the board's own pip or, offline, by unpacking wheels that this machine fetched: a wheel is a
zip file, so a board without pip, ensurepip (Debian without python3-venv) and network can be set up, too. It takes the
place of the one that was there when the runner has constructed an interpreter with it, not before.

Which packages those are is `builds`'s business, how a board is reached `transport`'s, what its answers mean `probe`'s.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from edgeeff.devices import probe as answers
from edgeeff.devices import runner as runner_module
from edgeeff.devices.builds import Choice, choose
from edgeeff.devices.targets import Target
from edgeeff.devices.transport import Completed, Local, Transport
from edgeeff.errors import DeviceError, InputError, NoCommandError, StorageError
from edgeeff.results import ProbeRecord, Runtime

FOLDER = ".cache/edgeeff"
"""Below the home folder on the board, in which commands run there."""
VENV = f"{FOLDER}/venv"
PROBE_LIMIT_S = 300.0
"""The runner waits up to 120 s for each runtime."""
SMALL_LIMIT_S = 30.0
VENV_LIMIT_S = 180.0
INSTALL_LIMIT_S = 1200.0
"""For pip on the board, which may be slow and on a slow network."""
FETCH_LIMIT_S = 900.0
UNPACK_LIMIT_S = 600.0
NEEDED_BYTES = {64: 300_000_000, 32: 20_000_000}
"""What has to be free, by word size: LiteRT, NumPy and Pillow take 140 MB unpacked, and their wheels lie beside them
meanwhile; a 32-bit board gets nothing but tflite-runtime."""
NEWER_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10", "python3.9")
"""What is looked for where python3 is missing or too old."""


@dataclass(frozen=True)
class Board:
    """A board that is ready: the Python to use there, and what it is."""

    python: str
    probe: ProbeRecord


@dataclass(frozen=True)
class SetUp:
    """What `set_up` found or made; `packages` is empty when nothing had to be installed."""

    python: str
    """Its path there."""
    runtime: Runtime
    packages: tuple[str, ...]
    source: str | None
    """"index" or "offline"; None when nothing was installed."""


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


async def ready(transport: Transport, target: Target, path: str) -> Board:
    """Return the Python that has a runtime on the board and what the board is; `path` is the runner's there.

    Raises DeviceError when no runtime works, with the command that sets the board up.
    """
    python = await find_python(transport, target)
    board = await _probe(transport, target, python, path)
    if board.runtime is None:
        problems = "".join(f" {one.name} {one.version} does not work: {one.problem}." for one in board.runtimes)
        raise DeviceError(
            f"{target.name}: {python} has no runtime that works.{problems} Set the board up: "
            f"edgeeff devices setup {target.name}"
        )
    return Board(python, board)


async def set_up(
    transport: Transport,
    target: Target,
    *,
    offline: bool = False,
    runtime: str | None = None,
    base: str | None = None,
    again: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> SetUp:
    """Find a Python with a working runtime on the board, or make a virtual environment that has one.

    Offline, this machine fetches the wheels; otherwise pip on the board does. `runtime` asks for one of
    `builds.RUNTIMES`, `base` for the Python that the environment is made of, and `again` makes a new one where one
    works already. What was there stays until the new one works. Raises DeviceError and its kinds, each with what to
    do: no Python or an old one, no build that fits, a full or read-only disk, no network, no pip.
    """
    async with runner_on(transport) as path:
        first = base or (sys.executable if target.address is None else "python3")
        known: dict[str, ProbeRecord] = {}
        if not again and base is None:
            say("looking for a runtime")
            python = await find_python(transport, target)
            with suppress(DeviceError):  # no Python, an old one, or an environment whose Python is gone
                known[python] = await _probe(transport, target, python, path)
            for one in known[python].runtimes if python in known else ():
                if one.works and runtime in {None, one.name}:
                    there = known[python].python.executable
                    return SetUp(there, Runtime(one.name, one.version or "unknown"), (), None)
        if target.python is not None:
            raise InputError(
                f"'{target.name}' is to use {target.python}, which setup does not change; install a runtime for it "
                f"yourself ({target.python} -m pip install ai-edge-litert), or let setup make an environment: "
                f"edgeeff devices add {target.name} {target.url} --replace, without --python"
            )
        if first in known:
            chosen, board = first, known[first]
        else:
            chosen, board = await _base(transport, target, first, () if base else NEWER_PYTHONS, path)
        try:
            choice = choose(board.python, board.system.machine, runtime)
        except DeviceError as error:
            raise DeviceError(f"{target.name}: {error}") from error
        _check_disk(target, board)
        made = f"{FOLDER}/venv-{secrets.token_hex(8)}"
        try:
            say(f"making a virtual environment of {chosen} (Python {board.python.version})")
            folder = await _make(transport, target, chosen, made, choice)
            if offline:
                await _install_offline(transport, made, folder, choice, say)
            else:
                say(f"installing {', '.join(choice.packages)} with the board's pip")
                await _install_from_index(transport, target, chosen, made, folder, choice, board)
            say("trying the runtime")
            python, found = await _check(transport, target, f"{made}/bin/python", path, choice)
            await _do(transport, ["/bin/sh", "-c", _REPLACE, "sh", made, VENV], SMALL_LIMIT_S, f"moving {VENV}")
        except BaseException:
            with suppress(DeviceError):  # what went wrong is the news
                await transport.remove(made)
            raise
        return SetUp(python.replace(made, VENV), found, choice.packages, "offline" if offline else "index")


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


async def _base(
    transport: Transport, target: Target, first: str, others: Sequence[str], path: str
) -> tuple[str, ProbeRecord]:
    """Return the Python to make an environment of, and what it says of the board: the first that can say something."""
    try:
        return first, await _probe(transport, target, first, path)
    except DeviceError as error:
        problem = error
    for other in others:
        with suppress(DeviceError):
            return other, await _probe(transport, target, other, path)
    raise problem


def _check_disk(target: Target, board: ProbeRecord) -> None:
    home, needed = board.disks[0], NEEDED_BYTES[board.python.bits]
    if not home.writable:
        raise StorageError(
            f"{target.name}: the home folder {home.path} cannot be written (read-only, or not this user's); "
            "setup keeps its environment there. After a fault Linux mounts an SD card read-only: see dmesg there"
        )
    if home.free_bytes is not None and home.free_bytes < needed:
        raise StorageError(
            f"{target.name}: {home.free_bytes / 1e6:.0f} MB are free at {home.path}, and setup needs "
            f"{needed / 1e6:.0f} MB; free some space there (du -xh {home.path} | sort -h shows what takes it)"
        )


async def _make(transport: Transport, target: Target, base: str, made: str, choice: Choice) -> str:
    """Make an empty environment and return the folder that its packages belong into."""
    await _do(transport, ["/bin/sh", "-c", _TIDY, "sh", FOLDER], SMALL_LIMIT_S, "looking for what was left")
    system = ["--system-site-packages"] if choice.system_packages else []
    done = await transport.run([base, "-m", "venv", "--without-pip", *system, made], time_limit_s=VENV_LIMIT_S)
    if done.status:
        _raise_known(transport, done)
        raise DeviceError(
            f"{target.name}: {base} cannot make a virtual environment: {_last(done)}; "
            "on Debian and Raspberry Pi OS: sudo apt install python3-venv"
        )
    return (await _do(transport, [f"{made}/bin/python", "-c", _SITE], SMALL_LIMIT_S, "its new Python")).stdout.strip()


async def _install_from_index(
    transport: Transport, target: Target, base: str, made: str, folder: str, choice: Choice, board: ProbeRecord
) -> None:
    """Let the board's pip fetch the packages, or the environment's where only that can be had."""
    python = base
    if board.python.pip is None:
        python = f"{made}/bin/python"
        if not board.python.venv:
            raise DeviceError(
                f"{target.name}: {base} has no pip; on Debian and Raspberry Pi OS: sudo apt install python3-pip. Or "
                f"let this machine fetch the packages: edgeeff devices setup {target.name} --offline"
            )
        await _do(transport, [python, "-m", "ensurepip"], VENV_LIMIT_S, "ensurepip")
    command = [*ENV, python, "-m", "pip", "install", *PIP, "--no-cache-dir", "--target", folder, *choice.packages]
    done = await transport.run(command, time_limit_s=INSTALL_LIMIT_S)
    if done.status == 0:
        return
    _raise_known(transport, done)
    if _NO_NETWORK.search(done.stderr + done.stdout):
        raise DeviceError(
            f"{target.name}: pip on the board cannot reach the package index; let this machine fetch the packages: "
            f"edgeeff devices setup {target.name} --offline"
        )
    raise DeviceError(
        f"{target.name}: pip on the board failed: {_error_line(done)}; "
        f"this machine can fetch the packages instead: edgeeff devices setup {target.name} --offline"
    )


async def _install_offline(
    transport: Transport, made: str, folder: str, choice: Choice, say: Callable[[str], None]
) -> None:
    """Fetch the wheels for the board's platform here, send them, and unpack them there."""
    with tempfile.TemporaryDirectory(prefix="edgeeff-") as temporary:
        say(f"fetching {', '.join(choice.packages)} for {choice.platform}")
        wheels = await fetch(choice, Path(temporary))
        size = sum(wheel.stat().st_size for wheel in wheels)
        say(f"sending {len(wheels)} packages, {size / 1e6:.0f} MB")
        sent = []
        for wheel in wheels:
            sent.append(f"{made}/wheels/{wheel.name}")
            await transport.put(wheel, sent[-1])
    say("unpacking them")
    await _do(transport, [f"{made}/bin/python", "-c", _UNPACK, folder, *sent], UNPACK_LIMIT_S, "unpacking")


async def fetch(choice: Choice, folder: Path) -> list[Path]:
    """Fetch the wheels for a board into a folder here, with this Python's pip and its settings; return them.

    Raises InputError when there is no pip, the index cannot be reached, or it lacks one of them.
    """
    python = "".join(str(part) for part in choice.platform.python)
    platforms = [word for tag in choice.platform.tags for word in ("--platform", tag)]
    abis = [word for abi in (f"cp{python}", "abi3", "none") for word in ("--abi", abi)]
    which = ["--implementation", "cp", "--python-version", ".".join(map(str, choice.platform.python))]
    command = [*ENV, sys.executable, "-m", "pip", "download", *PIP, *platforms, *which, *abis, "--dest", str(folder)]
    done = await Local("this machine").run([*command, *choice.packages], time_limit_s=FETCH_LIMIT_S)
    if done.status == 0:
        return sorted(folder.glob("*.whl"))
    if "No module named pip" in done.stderr:
        raise InputError(
            f"{sys.executable} has no pip, with which packages for the board are fetched; "
            f"install it: {sys.executable} -m ensurepip"
        )
    if _NO_NETWORK.search(done.stderr + done.stdout):
        raise InputError("this machine cannot reach the package index, either; setup needs it once, here or there")
    raise InputError(f"pip cannot fetch the packages for {choice.platform}: {_error_line(done)}")


async def _check(transport: Transport, target: Target, python: str, path: str, choice: Choice) -> tuple[str, Runtime]:
    """Return the Python's path there and the runtime that was installed, which has to work."""
    board = await _probe(transport, target, python, path)
    found = next((one for one in board.runtimes if one.name == choice.build.runtime), None)
    if found is None or not found.works:
        raise DeviceError(
            f"{target.name}: {choice.packages[0]} was installed and does not work there: "
            f"{found.problem if found else 'its Python does not find it'}"
        )
    return board.python.executable, Runtime(found.name, found.version or "unknown")


async def _do(transport: Transport, argv: list[str], time_limit_s: float, what: str) -> Completed:
    """Run what has to succeed."""
    done = await transport.run(argv, time_limit_s=time_limit_s)
    if done.status:
        _raise_known(transport, done)
        raise DeviceError(f"{transport.name}: {what} failed there: {_last(done)}")
    return done


def _raise_known(transport: Transport, done: Completed) -> None:
    """Raise what a command's output shows to be the board's disk or memory, whatever the command was."""
    if re.search("No space left on device|Disk quota exceeded", done.stderr + done.stdout):
        raise StorageError(f"{transport.name}: the board's disk is full; free some space there (df -h shows how much)")
    if re.search("Read-only file system|Permission denied", done.stderr + done.stdout):
        raise StorageError(f"{transport.name}: {FOLDER} in the home folder there cannot be written: {_last(done)}")
    if done.status in {-9, 137}:
        raise DeviceError(f"{transport.name}: the board killed the command; its memory may have run out (dmesg tells)")


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


def _error_line(done: Completed) -> str:
    """Return the first error of pip, which says more than its last."""
    said = re.search(r"^ERROR: (.+)$", done.stderr, re.MULTILINE)
    return said[1] if said else _last(done)


# What users' own settings of pip would make impossible here.
ENV = ("env", "PIP_USER=0", "PIP_REQUIRE_VIRTUALENV=0")
PIP = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet", "--retries", "2")
_NO_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeoutError|NameResolutionError|name resolution|Network is unreachable|"
    "Connection refused|No route to host|ReadTimeoutError|ProxyError|Max retries exceeded|connection broken"
)
_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
_UNPACK = """
import shutil, sys, zipfile
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(sys.argv[1])
shutil.rmtree(wheel.rpartition("/")[0])
"""
# Where the connection was lost, an environment that is half made stays; another setup may be making one right now.
_TIDY = """
[ ! -d "$1" ] || find "$1" -mindepth 1 -maxdepth 1 -name 'venv-*' -mmin +120 -exec rm -rf -- '{}' +
"""
_REPLACE = """
[ ! -e "$2" ] || mv -- "$2" "$1.old" || exit 1
mv -- "$1" "$2" || exit 1
rm -rf -- "$1.old"
"""
_TEMPORARY = 'mktemp -d 2>/dev/null || mktemp -d "$HOME/.edgeeff-XXXXXX"'
