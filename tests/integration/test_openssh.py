"""Transports against the real OpenSSH server, on loopback, with a configuration and keys of its own.

A server process is started for each connection (`sshd -i`), so no port has to be guessed and nothing waited for.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest

from edgeeff.devices import transport
from edgeeff.devices.targets import Target
from edgeeff.errors import (
    DeviceError,
    DroppedError,
    HostKeyError,
    LoginError,
    NoCommandError,
    StorageError,
    TimeLimitError,
)
from tests.boards import gone, in_a_loop

SSHD = Path("/usr/sbin/sshd")
ME = pwd.getpwuid(os.geteuid()).pw_name
pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"needs {SSHD}, of the package openssh-server")


class Server:
    """sshd behind a socket that stays ours, so that the connection can be cut."""

    def __init__(
        self, folder: Path, authorized: asyncssh.SSHKey, *settings: str, algorithm: str = "ssh-ed25519"
    ) -> None:
        folder.mkdir()
        self.key = asyncssh.generate_private_key(algorithm)
        self.key.write_private_key(folder / "host_key")
        (folder / "host_key").chmod(0o600)
        authorized.write_public_key(folder / "authorized_keys")
        self._config = folder / "sshd_config"
        lines = [
            f"HostKey {folder / 'host_key'}",
            f"AuthorizedKeysFile {folder / 'authorized_keys'}",
            "StrictModes no",  # temporary folders are nobody's home
            "UsePAM no",
            "PermitRootLogin yes",
            "PidFile none",
            "SetEnv SHLVL=9",  # then bash leaves out the .bashrc of who runs the tests
            *settings,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._log = folder / "log"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        command = [str(SSHD), "-i", "-e", "-f", str(self._config)]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._log.open("ab") as log:
                process = subprocess.Popen(command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=log)
            self._connections.append(connection)
            self._processes.append(process)
            self._threads.append(threading.Thread(target=self._end, args=(connection, process)))
            self._threads[-1].start()

    @staticmethod
    def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with suppress(OSError):  # the other side may have been quicker
            connection.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End every connection without a word to either side."""
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for process in self._processes:
            process.terminate()
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()

    @property
    def target(self) -> Target:
        return Target("board", f"ssh://{ME}@127.0.0.1:{self.port}")

    def known_as(self, name: str) -> str:
        return f"{name} {self.key.export_public_key().decode()}"


class Servers:
    """Starts servers that this user knows and may enter."""

    def __init__(self, folder: Path, ssh_home: Path) -> None:
        self._folder = folder
        self._me = asyncssh.read_private_key(ssh_home / "id_ed25519")
        self.known_hosts = ssh_home / "known_hosts"
        self.config = ssh_home / "config"
        self.running: list[Server] = []

    def start(self, *settings: str, known: bool = True, algorithm: str = "ssh-ed25519") -> Server:
        server = Server(self._folder / f"server{len(self.running)}", self._me, *settings, algorithm=algorithm)
        self.running.append(server)
        if known:
            with self.known_hosts.open("a") as file:
                file.write(server.known_as(f"[127.0.0.1]:{server.port}"))
        return server


@in_a_loop
async def test_commands_and_files(servers: Servers, tmp_path: Path) -> None:
    server = servers.start()  # without a Subsystem line it has no SFTP
    content = os.urandom(3_000_001)
    (tmp_path / "model").write_bytes(content)
    there = tmp_path / "board" / "a folder" / "mödel"
    async with transport.connect(server.target) as board:
        done = await board.run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in", time_limit_s=10)
        assert (done.status, done.stdout, done.stderr) == (7, "in", "err\n")
        await board.put(tmp_path / "model", str(there))
        assert there.read_bytes() == content
        assert [path.name for path in there.parent.iterdir()] == ["mödel"]
        await board.get(str(there), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert await board.exists(str(there))
        await board.remove(str(there.parent))
        assert not await board.exists(str(there))
        with pytest.raises(StorageError, match="it is not there on the board"):
            await board.get(str(there), tmp_path / "back")


@in_a_loop
async def test_a_command_runs_in_the_home_folder(servers: Servers) -> None:
    async with transport.connect(servers.start().target) as board:
        done = await board.run(["pwd", "-P"], time_limit_s=10)
    assert Path(done.stdout.strip()).samefile(Path(f"~{ME}").expanduser())


@in_a_loop
async def test_a_banner_and_a_noisy_start_up_are_kept_out(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Authorized users only\n")
    noisy = r"""ForceCommand printf 'Welcome!\nno end'; echo grumble >&2; eval "$SSH_ORIGINAL_COMMAND" """
    server = servers.start(noisy, f"Banner {tmp_path / 'banner'}")
    async with transport.connect(server.target) as board:
        done = await board.run(["sh", "-c", "echo out; echo err >&2"], time_limit_s=10)
        async with board.stream(["sh", "-c", "echo one; echo err >&2; printf two"], time_limit_s=10) as lines:
            assert [line async for line in lines] == ["one", "two"]
        with pytest.raises(NoCommandError, match="no command 'no-such-command'"):
            await board.run(["no-such-command"], time_limit_s=10)
    assert (done.status, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert (lines.status, lines.stderr) == (0, "err\n")


@in_a_loop
async def test_a_terminal_is_never_asked_for(servers: Servers) -> None:
    server = servers.start()
    servers.config.write_text("Host *\n  RequestTTY force\n  RemoteCommand echo other\n")
    async with transport.connect(server.target) as board:
        done = await board.run(["sh", "-c", r"printf 'a\nb\n'; test -t 1"], time_limit_s=10)
    assert (done.status, done.stdout) == (1, "a\nb\n")


@in_a_loop
async def test_a_command_that_the_kernel_kills_says_so(servers: Servers) -> None:
    async with transport.connect(servers.start().target) as board:
        done = await board.run(["sh", "-c", "kill -KILL $$"], time_limit_s=10)
    assert done.status == -signal.SIGKILL


BUSY = ["sh", "-c", "sleep 1000 & echo $!; echo $$; wait"]


@in_a_loop
async def test_a_command_that_takes_too_long_is_ended_with_its_children(servers: Servers) -> None:
    async with transport.connect(servers.start().target) as board:
        with pytest.raises(TimeLimitError, match=r"took longer than 1 s and was ended"):
            async with board.stream(BUSY, time_limit_s=1) as lines:
                pids = [int(await lines.__anext__()), int(await lines.__anext__())]
                await lines.__anext__()
        for pid in pids:
            await gone(pid)


@in_a_loop
async def test_leaving_early_ends_the_command(servers: Servers) -> None:
    async with transport.connect(servers.start().target) as board:
        async with board.stream(BUSY, time_limit_s=30) as lines:
            pids = [int(await lines.__anext__()), int(await lines.__anext__())]
        for pid in pids:
            await gone(pid)
        assert (await board.run(["true"], time_limit_s=10)).status == 0


@in_a_loop
async def test_a_command_that_does_not_want_to_end_is_killed(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GRACE_S", 0.5)
    stubborn = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done"]
    async with transport.connect(servers.start().target) as board:
        async with board.stream(stubborn, time_limit_s=30) as lines:
            pid = int(await lines.__anext__())
        await gone(pid)


CALLER = """
import asyncio, sys
from edgeeff.devices import transport
from edgeeff.devices.targets import Target

async def main():
    async with transport.connect(Target("board", sys.argv[1])) as board:
        async with board.stream(["sh", "-c", "echo $$; exec sleep 1000"], time_limit_s=1000) as lines:
            async for line in lines:
                print(line, flush=True)

asyncio.run(main())
"""


@in_a_loop
async def test_control_c_ends_the_command(servers: Servers) -> None:
    url = str(servers.start().target.url)
    pipe = asyncio.subprocess.PIPE
    caller = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, url, stdout=pipe, stderr=pipe)
    assert caller.stdout
    pid = int(await caller.stdout.readline())
    caller.send_signal(signal.SIGINT)
    _, errors = await caller.communicate()
    await gone(pid)
    assert errors.decode().splitlines()[-1] == "KeyboardInterrupt"


@in_a_loop
async def test_a_lost_connection_is_a_failure_and_ends_a_command_that_prints(servers: Servers) -> None:
    server = servers.start()
    async with transport.connect(server.target) as board:
        with pytest.raises(DroppedError, match="the connection was lost"):
            async with board.stream(
                ["sh", "-c", "echo $$; while sleep 0.02; do echo on; done"], time_limit_s=30
            ) as lines:
                pid = int(await lines.__anext__())
                server.cut()
                async for _ in lines:
                    pass
        assert lines.status is None
        with pytest.raises(DroppedError):
            await board.run(["true"], time_limit_s=10)
    await gone(pid)


@in_a_loop
async def test_half_a_file_is_no_file(servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    os.mkfifo(tmp_path / "slow")
    there = tmp_path / "board" / "model"
    async with transport.connect(server.target) as board:

        async def cut_when_begun() -> None:
            while not list(there.parent.glob("model.*")):
                await asyncio.sleep(0.005)
            server.cut()

        (tmp_path / "model").write_bytes(bytes(100_000_000))
        cutting = asyncio.ensure_future(cut_when_begun())
        with pytest.raises(DroppedError):
            await board.put(tmp_path / "model", str(there))
        await cutting
    while list(there.parent.iterdir()):  # the board notices on its own that nothing more comes
        await asyncio.sleep(0.01)


@in_a_loop
async def test_an_unknown_host_key_is_shown_and_refused_until_accepted(servers: Servers) -> None:
    server = servers.start(known=False)
    fingerprint = server.key.get_fingerprint()
    with pytest.raises(HostKeyError) as caught:
        async with transport.connect(server.target):
            pass
    assert f"--accept-host-key {fingerprint}" in str(caught.value)
    assert "is not known" in str(caught.value)
    with pytest.raises(HostKeyError, match="is not known"):
        await transport.accept_host_keys(server.target, ["SHA256:another"])
    await transport.accept_host_keys(server.target, [fingerprint])
    async with transport.connect(server.target) as board:
        assert (await board.run(["true"], time_limit_s=10)).status == 0
    assert not servers.known_hosts.exists()


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ssh-rsa"])
@in_a_loop
async def test_a_changed_host_key_is_refused_with_both_fingerprints(servers: Servers, algorithm: str) -> None:
    server = servers.start(known=False, algorithm=algorithm)
    old = asyncssh.generate_private_key("ssh-ed25519")
    servers.known_hosts.write_text(f"[127.0.0.1]:{server.port} {old.export_public_key().decode()}")
    with pytest.raises(HostKeyError) as caught:
        async with transport.connect(server.target):
            pass
    message = str(caught.value)
    assert "HAS CHANGED" in message
    assert f"{old.get_fingerprint()} ({servers.known_hosts})" in message
    assert server.key.get_fingerprint() in message
    await transport.accept_host_keys(server.target, [server.key.get_fingerprint()])
    async with transport.connect(server.target):
        pass


@in_a_loop
async def test_hashed_known_hosts_are_understood(servers: Servers) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen, of the package openssh-client")
    server = servers.start()
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(servers.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in servers.known_hosts.read_text()
    async with transport.connect(server.target):
        pass


@in_a_loop
async def test_a_wrong_key_and_a_wrong_user_are_named(servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(servers.config.with_name("id_ed25519"))
    with pytest.raises(LoginError, match=r"does not let '[^']+' in with any of your keys") as caught:
        async with transport.connect(server.target):
            pass
    assert f"ssh-copy-id -p {server.port} {ME}@127.0.0.1" in str(caught.value)
    with pytest.raises(LoginError, match=r"does not let 'nobody-here' in"):
        async with transport.connect(Target("board", f"ssh://nobody-here@127.0.0.1:{server.port}")):
            pass


@in_a_loop
async def test_a_key_in_the_agent_is_enough(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("needs ssh-agent, of the package openssh-client")
    server = servers.start()
    key = servers.config.with_name("id_ed25519")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(tmp_path / "agent"), stdout=-3)
    try:
        while not (tmp_path / "agent").exists():
            await asyncio.sleep(0.005)
        key.chmod(0o600)
        subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True)
        key.unlink()
        async with transport.connect(server.target):
            pass
    finally:
        agent.terminate()
        await agent.wait()


@in_a_loop
async def test_ssh_config_and_jump_hosts_are_honoured_and_verified(servers: Servers) -> None:
    jump, board = servers.start(known=False), servers.start(known=False)
    servers.config.write_text(
        f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n"
        f"Host lab-pi\n  HostName 127.0.0.1\n  Port {board.port}\n  User {ME}\n  ProxyJump gate\n"
    )
    target = Target("pi", "ssh://lab-pi")
    with pytest.raises(HostKeyError, match=f"127.0.0.1:{jump.port} is not known"):
        async with transport.connect(target):
            pass
    with pytest.raises(HostKeyError, match=f"127.0.0.1:{board.port} is not known"):
        await transport.accept_host_keys(target, [jump.key.get_fingerprint()])
    await transport.accept_host_keys(target, [board.key.get_fingerprint()])
    async with transport.connect(target) as reached:
        assert (await reached.run(["echo", "hi"], time_limit_s=10)).stdout == "hi\n"
    servers.running.remove(board)
    board.close()
    with pytest.raises(DeviceError, match=f"the jump host cannot reach 127.0.0.1:{board.port}"):
        async with transport.connect(target):
            pass


@in_a_loop
async def test_an_account_without_a_shell_is_named(servers: Servers) -> None:
    server = servers.start("ForceCommand echo 'This account is currently not available.'; exit 1")
    async with transport.connect(server.target) as board:
        with pytest.raises(DeviceError, match=r"ended with status 1 before .* not available\."):
            await board.run(["true"], time_limit_s=10)
