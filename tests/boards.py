"""Boards that are not there: an SSH server in this process, whose commands run in a real shell in a folder of its own.

Its ways to fail are set from outside: what the shell prints first, a command that it lacks, a connection that is cut.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import asyncssh

from edgeeff.devices.targets import Target

P = ParamSpec("P")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test, which may not hang."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


class Board:
    """One board: its folder, its shell, its keys, and what is wrong with it."""

    def __init__(self, home: Path, key: asyncssh.SSHKey) -> None:
        self.home = home
        self.key = key
        self.port = 0
        self.shell = ["/bin/bash", "-c"]
        self.environment: dict[str, str] = {}
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.processes: list[asyncio.subprocess.Process] = []
        self.serving: list[asyncio.Task[None]] = []
        self.serve: Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]] = self._serve

    def target(self, name: str = "board", user: str = "pi") -> Target:
        return Target(name, f"ssh://{user}@127.0.0.1:{self.port}")

    def known_hosts_line(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.key.export_public_key().decode()}"

    def noisy(self, script: str) -> None:
        """Let every shell there run a script before its command, as .bashrc is run."""
        (self.home / "noise").write_text(script)
        self.environment["BASH_ENV"] = str(self.home / "noise")

    def command(self, name: str, script: str) -> None:
        """Put a command in front of the board's own ones."""
        path = self.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        self.environment["PATH"] = f"{path.parent}:{os.environ['PATH']}"

    def cut(self) -> None:
        """Cut every connection, as a board does that loses its power."""
        for connection in self.connections:
            connection.abort()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if task := asyncio.current_task():
            self.serving.append(task)
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *self.shell,
            process.command or "",
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.home,
            env=os.environ | {"HOME": str(self.home)} | self.environment,
            start_new_session=True,
        )
        self.processes.append(child)
        assert child.stdin and child.stdout and child.stderr
        feeding = asyncio.ensure_future(_feed(process, child.stdin))
        await asyncio.gather(_carry(child.stdout, process.stdout), _carry(child.stderr, process.stderr))
        if process.is_closing():  # nobody listens: what it prints next would end it
            _kill(child)
            await asyncio.gather(child.stdout.read(), child.stderr.read())
        status = await child.wait()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)


async def _feed(process: asyncssh.SSHServerProcess[bytes], sink: asyncio.StreamWriter) -> None:
    with suppress(asyncssh.SignalReceived):  # dropbear knows none either
        await _carry(process.stdin, sink)
    sink.close()


async def _carry(source: Any, sink: Any) -> None:
    """Carry bytes until either side has had enough."""
    with suppress(ConnectionError, asyncssh.Error):
        while not sink.is_closing() and (piece := await source.read(1 << 16)):
            sink.write(piece)
            await sink.drain()


def _kill(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


@asynccontextmanager
async def board(home: Path, ssh_home: Path, *, known: bool = True) -> AsyncIterator[Board]:
    """Run a board that lets the user in whose .ssh this is; at the end everything that it started is gone."""
    home.mkdir(parents=True, exist_ok=True)
    made = Board(home, asyncssh.generate_private_key("ssh-ed25519"))
    authorized = asyncssh.read_private_key(ssh_home / "id_ed25519").export_public_key().decode()

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            made.connections.append(conn)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[made.key],
        authorized_client_keys=asyncssh.import_authorized_keys(authorized),
        process_factory=lambda process: made.serve(process),  # noqa: PLW0108 - a test may set another
        encoding=None,
    )
    made.port = server.get_port()
    if known:
        with (ssh_home / "known_hosts").open("a") as file:
            file.write(made.known_hosts_line())
    try:
        yield made
    finally:
        made.cut()
        server.close()
        await server.wait_closed()
        for child in made.processes:
            _kill(child)
        await asyncio.gather(*made.serving, return_exceptions=True)


async def gone(pid: int) -> None:
    """Wait until there is no such process any more."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":  # over, and nobody has asked yet
            return
        await asyncio.sleep(0.01)
