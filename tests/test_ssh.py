"""SSH connections: who is let in, which host is believed, and what is said of each way that fails."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from edgeeff.devices import ssh, transport
from edgeeff.devices.targets import Address, Target
from edgeeff.errors import DeviceError, HostKeyError, LoginError, UnreachableError
from tests.boards import Board, board, in_a_loop


async def attempt(target: Target, time_limit_s: float = 10) -> set[str]:
    """Connect and leave again; return the host keys' fingerprints."""
    async with transport.connect(target, time_limit_s=time_limit_s) as there:
        assert isinstance(there, transport.SSH)
        return there.fingerprints


def on(port: int) -> Target:
    return Target("board", f"ssh://pi@127.0.0.1:{port}")


# --- Boards that cannot be reached ------------------------------------------------------------------------------------


@in_a_loop
async def test_a_host_that_does_not_exist(ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match=r"board: there is no host 'pi9\.local' \(Name or service not known\)"):
        await attempt(Target("board", "ssh://pi@pi9.local"))


@in_a_loop
async def test_a_port_where_nobody_listens(ssh_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError, match=f"board: 127.0.0.1:{port} refuses connections; is the SSH server"):
            await attempt(on(port))


@in_a_loop
async def test_a_network_that_is_not_there(ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(113, "No route to host")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
    with pytest.raises(UnreachableError, match=r"cannot connect to 127\.0\.0\.1:22222: No route to host"):
        await attempt(on(22222))


@in_a_loop
async def test_a_board_that_does_not_answer(ssh_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match=f"no answer from 127.0.0.1:{port} within 0.2 s; is it switched on"):
            await attempt(on(port), time_limit_s=0.2)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\r\n", b"\0" * 100_000])
@in_a_loop
async def test_a_server_that_is_none_for_ssh(ssh_home: Path, greeting: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match=f"127.0.0.1:{port} ended the connection before the login"):
            await attempt(on(port))


# --- Who is let in ----------------------------------------------------------------------------------------------------


@in_a_loop
async def test_a_key_that_the_board_does_not_know(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(ssh_home / "id_ed25519")
        with pytest.raises(LoginError) as caught:
            await attempt(there.target(user="mallory"))
    said = str(caught.value)
    assert f"127.0.0.1:{there.port} does not let 'mallory' in with any of your keys" in said
    assert f"ssh-copy-id -p {there.port} mallory@127.0.0.1" in said


@in_a_loop
async def test_a_key_with_a_passphrase_is_for_the_agent(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        key = asyncssh.read_private_key(ssh_home / "id_ed25519")
        key.write_private_key(ssh_home / "id_ed25519", "pkcs8-pem", "a phrase")
        with pytest.raises(LoginError, match="a key with a passphrase has to be in the agent: ssh-add"):
            await attempt(there.target())


@in_a_loop
async def test_what_ssh_config_says_holds(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home, known=False) as there:
        (ssh_home / "id_ed25519").rename(ssh_home / "other")
        (ssh_home / "their_hosts").write_text(f"our-pi {there.key.export_public_key().decode()}")
        (ssh_home / "config").write_text(
            f"Host lab\n  HostName 127.0.0.1\n  Port {there.port}\n  User pi\n  IdentityFile ~/.ssh/other\n"
            "  HostKeyAlias our-pi\n  UserKnownHostsFile ~/.ssh/their_hosts\n"
        )
        assert await attempt(Target("board", "ssh://lab")) == {there.key.get_fingerprint()}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("Host *\n  Port many\n", "~/.ssh/config cannot be used: .*Invalid"),
        ("Host *\n  IdentityFile ~/.ssh/missing\n", "cannot connect to .*/missing: No such file or directory"),
        ("Host *\n  IdentityFile ~/.ssh/config\n", "your SSH settings cannot be used: Invalid private key"),
    ],
)
@in_a_loop
async def test_settings_that_cannot_be_used(ssh_home: Path, tmp_path: Path, config: str, reason: str) -> None:
    (ssh_home / "config").write_text(config)
    async with board(tmp_path / "board", ssh_home) as there:
        with pytest.raises(DeviceError, match=reason):
            await attempt(there.target())


# --- Jump hosts -------------------------------------------------------------------------------------------------------


@in_a_loop
async def test_a_jump_host_over_itself(ssh_home: Path, tmp_path: Path) -> None:
    (ssh_home / "config").write_text("Host *\n  ProxyJump gate\n")
    with pytest.raises(DeviceError, match=r"the jump host gate is reached over itself; give it 'ProxyJump none'"):
        await attempt(Target("board", "ssh://pi@lab"))


@in_a_loop
async def test_a_jump_host_that_refuses(ssh_home: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (ssh_home / "config").write_text(f"Host lab\n  ProxyJump me@127.0.0.1:{port}\n")
        with pytest.raises(UnreachableError, match=f"board: 127.0.0.1:{port} refuses connections"):
            await attempt(Target("board", "ssh://pi@lab"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gate", Address("gate")),
        ("me@gate:2222", Address("gate", "me", 2222)),
        (" ssh://me@gate:2222", Address("gate", "me", 2222)),
        ("a@b@gate", Address("gate", "a@b")),
        ("[fe80::1]:22", Address("fe80::1", None, 22)),
        ("[fe80::1]", Address("fe80::1")),
        ("fe80::1", Address("fe80::1")),
        ("gate:", Address("gate")),
    ],
)
def test_a_hop_of_proxyjump(text: str, address: Address) -> None:
    assert ssh._jump(text) == address


# --- Whom we believe --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def stranger(ssh_home: Path, tmp_path: Path) -> AsyncIterator[Board]:
    async with board(tmp_path / "board", ssh_home, known=False) as there:
        yield there


def a_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


def line(name: str, key: asyncssh.SSHKey) -> str:
    return f"{name} {key.export_public_key().decode()}"


@in_a_loop
async def test_an_unknown_host(ssh_home: Path, tmp_path: Path) -> None:
    async with stranger(ssh_home, tmp_path) as there:
        with pytest.raises(HostKeyError) as caught:
            await attempt(there.target())
    fingerprint = there.key.get_fingerprint()
    assert caught.value.fingerprint == fingerprint
    assert str(caught.value).splitlines() == [
        f"board: the host key of 127.0.0.1:{there.port} is not known: ssh-ed25519 {fingerprint}",
        "If the board itself says the same (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), accept it:",
        f"  edgeeff devices add board ssh://pi@127.0.0.1:{there.port} --accept-host-key {fingerprint}",
    ]
    assert there.processes == []


@pytest.mark.parametrize("where", ["theirs", "ours", "the system's"])
@in_a_loop
async def test_a_changed_key(ssh_home: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "theirs": ssh_home / "known_hosts",
        "ours": tmp_path / "config" / "known_hosts",
        "the system's": tmp_path / "s",
    }
    monkeypatch.setattr(ssh, "SYSTEM_KNOWN_HOSTS", files["the system's"])
    old, file = a_key(), files[where]
    async with stranger(ssh_home, tmp_path) as there:
        file.parent.mkdir(exist_ok=True)
        file.write_text(line(f"[127.0.0.1]:{there.port}", old))
        with pytest.raises(HostKeyError) as caught:
            await attempt(there.target())
        said = str(caught.value)
        assert f"board: the host key of 127.0.0.1:{there.port} HAS CHANGED\n" in said
        assert f"  known: ssh-ed25519 {old.get_fingerprint()} ({file})\n" in said
        assert f"  shown: ssh-ed25519 {there.key.get_fingerprint()}\n" in said
        before = file.read_text()
        await transport.accept_host_keys(there.target(), [there.key.get_fingerprint()])
        assert await attempt(there.target()) == {there.key.get_fingerprint()}
        if where == "ours":
            assert old.export_public_key().decode().split()[1] not in file.read_text()
        else:
            assert file.read_text() == before


@in_a_loop
async def test_another_kind_of_key_than_before_is_a_changed_key(ssh_home: Path, tmp_path: Path) -> None:
    old = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with stranger(ssh_home, tmp_path) as there:
        (ssh_home / "known_hosts").write_text(line(f"[127.0.0.1]:{there.port}", old))
        with pytest.raises(HostKeyError, match="HAS CHANGED") as caught:
            await attempt(there.target())
    assert f"known: ecdsa-sha2-nistp256 {old.get_fingerprint()}" in str(caught.value)
    assert caught.value.fingerprint == there.key.get_fingerprint()


@in_a_loop
async def test_the_port_is_part_of_the_name(ssh_home: Path, tmp_path: Path) -> None:
    async with stranger(ssh_home, tmp_path) as there:
        # As with OpenSSH, the name without a port helps a host with the same key, and accuses none with another.
        (ssh_home / "known_hosts").write_text(line("127.0.0.1", a_key()))
        with pytest.raises(HostKeyError, match="is not known"):
            await attempt(there.target())
        (ssh_home / "known_hosts").write_text(line("127.0.0.1", there.key))
        assert await attempt(there.target()) == {there.key.get_fingerprint()}


@in_a_loop
async def test_names_of_hosts_have_no_case(ssh_home: Path, tmp_path: Path) -> None:
    async with stranger(ssh_home, tmp_path) as there:
        (ssh_home / "known_hosts").write_text(line(f"[localhost]:{there.port}", there.key))
        assert await attempt(Target("board", f"ssh://pi@LocalHost:{there.port}"))


@pytest.mark.parametrize(
    "setting", ["UserKnownHostsFile none", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking no"]
)
@in_a_loop
async def test_nobody_is_believed_because_ssh_config_is_careless(ssh_home: Path, tmp_path: Path, setting: str) -> None:
    (ssh_home / "config").write_text(f"Host *\n  {setting}\n")
    async with stranger(ssh_home, tmp_path) as there:
        with pytest.raises(HostKeyError, match="is not known"):
            await attempt(there.target())


@in_a_loop
async def test_a_revoked_key_cannot_be_accepted(ssh_home: Path, tmp_path: Path) -> None:
    async with stranger(ssh_home, tmp_path) as there:
        (ssh_home / "known_hosts").write_text("@revoked " + line("*", there.key))
        for attempting in (
            attempt(there.target()),
            transport.accept_host_keys(there.target(), [there.key.get_fingerprint()]),
        ):
            with pytest.raises(HostKeyError, match="is not to be trusted: Host key is revoked"):
                await attempting


@in_a_loop
async def test_a_damaged_known_hosts_file_is_named(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        with (ssh_home / "known_hosts").open("a") as file:
            file.write("nonsense\n")
        with pytest.raises(DeviceError, match=r"cannot be used: .*known_hosts: Invalid known hosts entry: nonsense"):
            await attempt(there.target())


def test_accepted_keys_replace_those_of_the_same_host_only(ssh_home: Path, tmp_path: Path) -> None:
    first, second, other = a_key(), a_key(), a_key()
    for name, key in (("[pi]:2222", first), ("pi", other), ("[pi]:2222", second)):
        ssh.remember(HostKeyError("", key.get_fingerprint(), line(name, key).strip()))
    kept = (tmp_path / "config" / "known_hosts").read_text()
    assert kept == line("pi", other) + line("[pi]:2222", second)
    assert re.fullmatch(r"(\S+ ssh-ed25519 \S+\n){2}", kept)
