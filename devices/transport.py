"""Run commands on a board, stream what they print, and send and fetch files: this machine or SSH, behind one Protocol.

A transport only starts and ends processes; everything else here is made of that, files too: they go through standard
input and output of a shell there. So nothing but a POSIX shell is needed on the board, and both kinds fail with the
same words. Every wait has a limit, and a process that is not waited for any more is ended with all its children.

Over SSH the command goes to the login shell, which may print before it: a banner, a noisy .bashrc. So the command first
prints a mark that nobody can guess, with its process id, on both outputs, and all that came before the mark is dropped.

Relative paths, and the folder in which commands run, are the home folder there. Reaching the board is `ssh`'s business.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
import shlex
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from edgeeff.devices.targets import Target
from edgeeff.errors import (
    DeviceError,
    DroppedError,
    HostKeyError,
    InputError,
    MissingExtraError,
    NoCommandError,
    StorageError,
    TimeLimitError,
)
from edgeeff.files import write_atomic

if TYPE_CHECKING:
    import asyncssh

    from edgeeff.devices.ssh import Connection

CONNECT_LIMIT_S = 15.0
TRANSFER_LIMIT_S = 600.0
SMALL_LIMIT_S = 30.0
"""For what takes no time on a board that is well."""
GRACE_S = 3.0
"""How long a process may take to end when it is asked to, before it is killed."""
PIECE_BYTES = 1 << 16
ERRORS_KEPT_BYTES = 1 << 16
"""How much of the end of standard error is kept."""
OUTPUT_LIMIT_BYTES = 1 << 26
"""A command that prints more than this, at once or in one line, has gone wrong."""
NOISE_LIMIT_BYTES = 1 << 20
"""So has a login shell that prints more than this before the command."""

Result = TypeVar("Result")
Input = bytes | Path | AsyncIterable[bytes] | None
"""What a command reads: bytes, a file that is read as it is sent, pieces that are waited for, or nothing."""


@dataclass(frozen=True)
class Completed:
    """A process that has ended: its status, negative for the signal that ended it, and what it printed."""

    status: int
    stdout: str
    stderr: str
    """Its end, where it was long."""


class Transport(Protocol):
    """A board that can be reached.

    All of its methods raise DroppedError when the connection is lost, TimeLimitError when it took too long (the process
    has ended then), and NoCommandError when the board lacks the command.
    """

    name: str
    """The target's, for messages."""

    async def run(self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float) -> Completed:
        """Run a command to its end, whatever its status then is."""

    def stream(
        self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float
    ) -> AbstractAsyncContextManager[Lines]:
        """Start a command; `async with` gives its lines, and leaving it ends the command if it still runs.

        With `math.inf` there is no limit: who reads the lines has one of his own, then.
        """

    async def put(self, local: Path, remote: str, *, time_limit_s: float = TRANSFER_LIMIT_S) -> None:
        """Send a file, making folders on the way; the one that was there stays until the new one is whole.

        Raises StorageError when it cannot be written there, InputError when `local` cannot be read.
        """

    async def get(self, remote: str, local: Path, *, time_limit_s: float = TRANSFER_LIMIT_S) -> None:
        """Fetch a file; raises StorageError when it cannot be read there, OutputError when not written here."""

    async def exists(self, remote: str) -> bool:
        """Say whether there is a file or folder of that name."""

    async def remove(self, remote: str) -> None:
        """Remove a file, or a folder with all that is in it; there may be none."""

    async def close(self) -> None:
        """End the connection."""


@asynccontextmanager
async def connect(target: Target, *, time_limit_s: float = CONNECT_LIMIT_S) -> AsyncIterator[Transport]:
    """Connect to a target, and close the connection at the end.

    Raises InputError for a target without an address, UnreachableError, HostKeyError, LoginError or DeviceError when
    the board cannot be reached, and MissingExtraError without asyncssh.
    """
    transport = await _open(target, time_limit_s)
    try:
        yield transport
    finally:
        await transport.close()


async def accept_host_keys(
    target: Target, fingerprints: Sequence[str], *, time_limit_s: float = CONNECT_LIMIT_S
) -> None:
    """Connect, and remember the host keys on the way that have these fingerprints (`SHA256:...`).

    Raises HostKeyError for a key on the way that is neither known nor among them, and for one that was not met; and
    what `connect` raises.
    """
    left = set(fingerprints)
    while True:
        try:
            transport = await _open(target, time_limit_s)
        except HostKeyError as error:
            if error.fingerprint not in left:
                raise
            from edgeeff.devices import ssh

            ssh.remember(error)
            left.remove(error.fingerprint)
            continue
        try:
            met = transport.fingerprints if isinstance(transport, SSH) else set()
        finally:
            await transport.close()
        if absent := set(fingerprints) - met:
            raise HostKeyError(
                f"{target.name}: no host on the way shows {', '.join(sorted(absent))}; "
                f"shown: {', '.join(sorted(met)) or 'none'}"
            )
        return


class Lines:
    """The lines that a running command prints, without their ends; iterate over them once.

    `status` and `stderr` are there when the iteration has come to its end.
    """

    status: int | None = None
    stderr: str = ""

    def __init__(self, running: _Running) -> None:
        self._running = running
        self._whole: deque[bytes] = deque()
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def __aiter__(self) -> Lines:
        """Return itself."""
        return self

    async def __anext__(self) -> str:
        """Wait for the next line."""
        while not self._whole:
            piece = await self._running.read()
            if not piece:
                if self._begun:
                    self._whole.append(b"".join(self._begun))
                    self._begun.clear()
                    break
                if self.status is None:
                    self.status, self.stderr = await self._running.finish()
                raise StopAsyncIteration
            first, *others = piece.split(b"\n")
            self._begun.append(first)
            self._begun_bytes += len(first)
            if self._begun_bytes > OUTPUT_LIMIT_BYTES:
                raise self._running.too_much()
            if others:
                self._whole.append(b"".join(self._begun))
                *whole, rest = others
                self._whole += whole
                self._begun, self._begun_bytes = ([rest] if rest else []), len(rest)
        return self._whole.popleft().decode("utf-8", errors="replace")


class _Process(Protocol):
    """A process on the board, as the transports start it."""

    async def read(self) -> bytes:
        """Wait for more of standard output; empty at its end."""

    async def read_errors(self) -> bytes:
        """Wait for more of standard error; empty at its end."""

    async def write(self, data: bytes) -> None:
        """Give it input; raises ConnectionError when it takes no more."""

    def close_input(self) -> None:
        """There is no more input."""

    async def wait(self) -> int:
        """Wait for its status; raises DroppedError when there will be none."""

    async def end(self) -> None:
        """End it and its children, first politely; does not fail."""


class _Running:
    """A process whose input is fed and whose errors are collected while somebody reads its output."""

    def __init__(
        self, process: _Process, feeding: asyncio.Task[None], errors: asyncio.Task[str], within: Within
    ) -> None:
        self._process = process
        self._feeding = feeding
        self._errors = errors
        self._within = within
        self.ended = False

    async def read(self) -> bytes:
        return await self._within(self._process.read())

    async def finish(self) -> tuple[int, str]:
        """Return status and errors of a process whose output has come to its end."""
        status = await self._within(self._process.wait())
        errors = await self._within(asyncio.shield(self._errors))
        self.ended = True
        if self._feeding.done():
            self._feeding.result()  # raises what kept it from reading the input
        return status, errors

    def too_much(self) -> DeviceError:
        return DeviceError(f"{self._within.what} printed more than {OUTPUT_LIMIT_BYTES >> 20} MiB and was ended")


class Within:
    """Waits that together take no longer than a limit; raises TimeLimitError, which begins with `what`."""

    def __init__(self, what: str, limit_s: float) -> None:
        self.what = what
        self._limit_s = limit_s
        self._end = asyncio.get_running_loop().time() + limit_s

    async def __call__(self, awaitable: Awaitable[Result]) -> Result:
        """Wait for it in what is left of the time; when that is over, or we are interrupted, it is cancelled."""
        # Not wait_for: up to Python 3.11 it forgets that it was cancelled where the result came at the same moment, and
        # then Ctrl-C does nothing.
        task = asyncio.ensure_future(awaitable)
        try:
            left = max(0.0, self._end - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait({task}, timeout=None if left == math.inf else left)
            if not done:
                raise TimeLimitError(f"{self.what} took longer than {self._limit_s:g} s and was ended")
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()


class _Processes(ABC):
    """All that a transport does, made of processes that it can start."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def _start(self, argv: Sequence[str]) -> _Process:
        """Start a process; when this is interrupted, none is left."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection."""

    async def run(self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float) -> Completed:
        """Run a command to its end."""
        status, output, errors = await self._run(argv, stdin, time_limit_s)
        return Completed(status, output.decode("utf-8", errors="replace"), errors)

    @asynccontextmanager
    async def stream(self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float) -> AsyncIterator[Lines]:
        """Start a command and give its lines."""
        async with self._running(argv, stdin, time_limit_s) as running:
            yield Lines(running)

    async def put(self, local: Path, remote: str, *, time_limit_s: float = TRANSFER_LIMIT_S) -> None:
        """Send a file."""
        try:
            size = local.stat().st_size
        except OSError as error:
            raise _unreadable(local, error) from error
        temporary = f"{remote}.{secrets.token_hex(8)}.part"
        await self._script(_PUT, remote, temporary, str(size), stdin=local, time_limit_s=time_limit_s)

    async def get(self, remote: str, local: Path, *, time_limit_s: float = TRANSFER_LIMIT_S) -> None:
        """Fetch a file."""
        write_atomic(local, await self._script(_GET, remote, time_limit_s=time_limit_s, limited=False))

    async def exists(self, remote: str) -> bool:
        """Say whether there is a file or folder of that name."""
        return bool(await self._script(_EXISTS, remote))

    async def remove(self, remote: str) -> None:
        """Remove a file or folder."""
        if not remote.strip("/. "):
            raise ValueError(f"'{remote}' is not to be removed")
        await self._script(_REMOVE, remote)

    async def _script(
        self,
        script: str,
        path: str,
        *more: str,
        stdin: Path | None = None,
        time_limit_s: float = SMALL_LIMIT_S,
        limited: bool = True,
    ) -> bytes:
        """Run a script that does something with a file there; its messages are in English whatever is spoken there."""
        argv = ["/bin/sh", "-c", "export LC_ALL=C\n" + script, "sh", path, *more]
        what = f"{self.name}: the transfer of {path}"
        status, output, errors = await self._run(argv, stdin, time_limit_s, what, limited=limited)
        if status:
            raise StorageError(f"{self.name}: {path}: {_storage_reason(errors, status)}")
        return output

    async def _run(
        self,
        argv: Sequence[str],
        stdin: Input,
        time_limit_s: float,
        what: str = "",
        *,
        limited: bool = True,
    ) -> tuple[int, bytes, str]:
        pieces, size = [], 0
        async with self._running(argv, stdin, time_limit_s, what) as running:
            while piece := await running.read():
                pieces.append(piece)
                size += len(piece)
                if limited and size > OUTPUT_LIMIT_BYTES:
                    raise running.too_much()
            status, errors = await running.finish()
        return status, b"".join(pieces), errors

    @asynccontextmanager
    async def _running(
        self, argv: Sequence[str], stdin: Input, time_limit_s: float, what: str = ""
    ) -> AsyncIterator[_Running]:
        _check(argv)
        within = Within(what or f"{self.name}: '{_shortened(shlex.join(argv))}'", time_limit_s)
        with ExitStack() as stack:
            source = stdin if isinstance(stdin, AsyncIterable) else _pieces(stack.enter_context(_opened(stdin)))
            starting = asyncio.ensure_future(self._start(argv))
            try:
                process = await within(starting)
            except BaseException:
                if not starting.cancelled() and starting.exception() is None:  # it came when nobody waited any more
                    await starting.result().end()
                raise
            feeding = asyncio.ensure_future(_feed(process, source))
            errors = asyncio.ensure_future(_collect_errors(process))
            running = _Running(process, feeding, errors, within)
            try:
                yield running
            finally:
                if not running.ended:
                    await process.end()
                for task in (feeding, errors):
                    task.cancel()
                await asyncio.gather(feeding, errors, return_exceptions=True)


class Local(_Processes):
    """This machine."""

    async def _start(self, argv: Sequence[str]) -> _Process:
        pipe = asyncio.subprocess.PIPE
        home = Path.home()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                cwd=home if home.is_dir() else "/",
                start_new_session=True,  # so that its children can be ended with it
            )
        except (FileNotFoundError, PermissionError) as error:
            raise _no_command(self.name, argv[0]) from error
        except OSError as error:
            raise DeviceError(f"{self.name}: cannot start '{_shortened(argv[0])}': {error.strerror}") from error
        return _LocalProcess(process)

    async def close(self) -> None:
        """Nothing is open."""


class _LocalProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin and process.stdout and process.stderr  # noqa: S101 - pipes were asked for
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr

    async def read(self) -> bytes:
        return await self._stdout.read(PIECE_BYTES)

    async def read_errors(self) -> bytes:
        return await self._stderr.read(PIECE_BYTES)

    async def write(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    def close_input(self) -> None:
        self._stdin.close()

    async def wait(self) -> int:
        return await self._process.wait()

    async def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._at_end(), GRACE_S)
                return

    async def _at_end(self) -> None:
        """Wait until it and all its children are gone: then nobody holds its output open."""
        while await self.read():
            pass
        await self._process.wait()


class SSH(_Processes):
    """A board behind an SSH connection that is open and verified."""

    def __init__(self, name: str, connection: Connection) -> None:
        super().__init__(name)
        self._connection = connection

    @property
    def fingerprints(self) -> set[str]:
        """The fingerprints of all host keys on the way."""
        return self._connection.fingerprints

    async def _start(self, argv: Sequence[str]) -> _Process:
        mark = secrets.token_hex(16)
        process = await self._execute(shlex.join(["exec", "/bin/sh", "-c", _MARKED, "sh", mark, *argv]))
        try:
            pid, rest = await self._until_mark(process, mark)
        except BaseException:
            process.kill()
            process.close()
            raise
        if pid is None:
            process.close()
            raise _no_command(self.name, argv[0])
        return _SSHProcess(self, process, pid, rest, mark)

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()

    async def _execute(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        import asyncssh

        try:
            # No terminal, even where ~/.ssh/config asks for one: it would mix the outputs and change bytes.
            return await self._connection.board.create_process(command, encoding=None, request_pty=False)
        except (asyncssh.Error, OSError) as error:
            raise self.dropped(error) from error

    async def _until_mark(self, process: asyncssh.SSHClientProcess[bytes], mark: str) -> tuple[int | None, bytes]:
        """Drop what comes before the mark; return the process id, None without such a command, and what follows."""
        pattern = re.compile(rf"\n{mark} (\d+|missing)\n".encode())
        said = b""
        while not (match := pattern.search(said)):
            if len(said) > NOISE_LIMIT_BYTES:
                raise DeviceError(f"{self.name}: the login shell prints without end; look into its start-up files")
            piece = await self.read(process.stdout)
            said += piece
            if not piece:
                await process.wait_closed()
                if process.returncode is None:
                    raise self.dropped(None)
                said += await self.read(process.stderr)
                raise DeviceError(
                    f"{self.name}: the login shell ended with status {process.returncode} before the command began; "
                    f"it said: {_shortened(said.decode('utf-8', errors='replace').strip()) or '(nothing)'}"
                )
        return None if match[1] == b"missing" else int(match[1]), said[match.end() :]

    async def read(self, stream: asyncssh.SSHReader[bytes]) -> bytes:
        """Read from a process's output; raises DroppedError."""
        import asyncssh

        try:
            return await stream.read(PIECE_BYTES)
        except (asyncssh.Error, OSError) as error:
            raise self.dropped(error) from error

    async def send_signal(self, name: str, pid: int, *, alive: bool) -> None:
        """Send a signal to a process and its children; raises DroppedError.

        Where it does not lead a group it gets the signal alone, if it is alive: else its number may be another's.
        """
        script = f"kill -s {name} -- -{pid} 2>/dev/null" + (f" || kill -s {name} {pid}" if alive else "")
        killing = await self._execute(shlex.join(["exec", "/bin/sh", "-c", script]))
        while await self.read(killing.stdout):
            pass

    def dropped(self, error: Exception | None) -> DroppedError:
        """Say that the connection was lost."""
        reason = f" ({error})" if error and str(error) else ""
        return DroppedError(
            f"{self.name}: the connection was lost while a command ran{reason}; is the board still on, and its network?"
        )


class _SSHProcess:
    def __init__(
        self, board: SSH, process: asyncssh.SSHClientProcess[bytes], pid: int, begun: bytes, mark: str
    ) -> None:
        self._board = board
        self._process = process
        self._pid = pid
        self._begun = begun
        self._mark: bytes | None = f"\n{mark}\n".encode()

    async def read(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        return await self._board.read(self._process.stdout)

    async def read_errors(self) -> bytes:
        said = b""
        while self._mark is not None:
            piece = await self._board.read(self._process.stderr)
            before, mark, after = (said + piece).partition(self._mark)
            if mark or not piece:
                self._mark = None
                if after:
                    return after
            said = before[-ERRORS_KEPT_BYTES:]
        return await self._board.read(self._process.stderr)

    async def write(self, data: bytes) -> None:
        import asyncssh

        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from error

    def close_input(self) -> None:
        self._process.stdin.write_eof()

    async def wait(self) -> int:
        await self._process.wait_closed()
        status = self._process.returncode
        if status is None:
            raise self._board.dropped(None)
        return status

    async def end(self) -> None:
        with suppress(DeviceError):  # without a connection there is nobody to tell; its output is closed there
            for name in ("TERM", "KILL"):
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._at_end(name), GRACE_S)
                    break
        self._process.close()

    async def _at_end(self, name: str) -> None:
        await self._board.send_signal(name, self._pid, alive=self._process.returncode is None)
        while await self.read():  # what is not read keeps the channel open
            pass
        await self._process.wait_closed()


async def _open(target: Target, time_limit_s: float) -> Local | SSH:
    address = target.address
    if address is None:
        return Local(target.name)
    try:
        from edgeeff.devices import ssh
    except ModuleNotFoundError as error:
        if error.name != "asyncssh":
            raise
        raise MissingExtraError("asyncssh", "ssh") from error
    return SSH(target.name, await ssh.open_connection(target, address, time_limit_s=time_limit_s))


def _opened(stdin: bytes | Path | None) -> BinaryIO:
    if not isinstance(stdin, Path):
        return BytesIO(stdin or b"")
    try:
        return stdin.open("rb")
    except OSError as error:
        raise _unreadable(stdin, error) from error


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


async def _feed(process: _Process, source: AsyncIterable[bytes]) -> None:
    try:
        async for piece in source:
            await process.write(piece)
    except ConnectionError:
        return  # a process may end without reading all its input; its status says why
    except OSError as error:
        raise InputError(f"cannot read the input of a command: {error.strerror}") from error
    finally:
        process.close_input()


async def _collect_errors(process: _Process) -> str:
    kept = b""
    while piece := await process.read_errors():
        kept = (kept + piece)[-ERRORS_KEPT_BYTES:]
    return kept.decode("utf-8", errors="replace")


def _check(argv: Sequence[str]) -> None:
    if not argv or not argv[0]:
        raise InputError("there is no command to run on the board")
    for word in argv:
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise InputError(f"{word!r} cannot be given to a command on a board")


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror}")


def _no_command(name: str, command: str) -> NoCommandError:
    return NoCommandError(f"{name}: there is no command '{_shortened(command)}' that can be run")


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _storage_reason(errors: str, status: int) -> str:
    said = errors.strip().splitlines()[-1] if errors.strip() else f"status {status}"
    return next((reason for words, reason in _STORAGE_REASONS.items() if words in said), said)


_STORAGE_REASONS = {
    "No space left on device": "the board's disk is full; free some space there (df -h shows how much there is)",
    "Disk quota exceeded": "your disk quota on the board is used up; free some space there",
    "Read-only file system": "the file system there is read-only; after a fault Linux mounts an SD card so (dmesg)",
    "Permission denied": "there is no permission for it on the board",
    "No such file": "it is not there on the board",
    "Is a directory": "it is a folder on the board",
    "Not a directory": "a part of the path is a file on the board",
    "File exists": "a part of the path is a file on the board",
    "File name too long": "the name is too long for the board",
    "Input/output error": "the board's disk has a fault; look at what dmesg says there",
}

# The mark, on both outputs; $$ is the command's process id, because exec keeps it. One line in single quotes, without
# backslashes and exclamation marks, means the same to every login shell.
_MARKED = (
    'case "$2" in */*) [ -f "$2" ] && [ -x "$2" ];; *) command -v "$2" >/dev/null;; esac '
    '|| { echo; echo "$1 missing"; exit 127; }; '
    'echo; echo "$1 $$"; { echo; echo "$1"; } >&2; shift; exec "$@"'
)

# cat takes a lost connection for the end of the file, so the size decides whether it is whole.
_PUT = """
if [ -d "$1" ]; then echo "Is a directory" >&2; exit 1; fi
mkdir -p -- "$(dirname -- "$1")" || exit 1
trap 'rm -f -- "$2"' EXIT
trap 'exit 1' HUP INT PIPE TERM
set -C
cat > "$2" || exit 1
size=$(($(wc -c < "$2")))
[ "$size" -eq "$3" ] || { echo "only $size of $3 bytes arrived" >&2; exit 1; }
mv -f -- "$2" "$1"
"""
_GET = 'if [ -d "$1" ]; then echo "Is a directory" >&2; exit 1; fi; exec cat < "$1"'
_EXISTS = 'if [ -e "$1" ] || [ -L "$1" ]; then echo yes; fi'
_REMOVE = 'exec rm -rf -- "$1"'
