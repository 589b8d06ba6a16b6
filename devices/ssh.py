"""An SSH connection to a board that is verified, or a message that says which step failed and what to do.

asyncssh does the protocol and honours ~/.ssh/config, the agent and the user's keys. What this module adds: jump hosts
are verified like the board itself; host keys that the user accepted for edgeeff live in a known_hosts file of their
own beside the user's; and each way in which a connection can fail has its own error. What runs over the connection is
`transport`'s business, which imports this module when it needs one: it is the only one that needs asyncssh.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

from edgeeff.devices.targets import CONFIG_VARIABLE, SSH_PORT, Address, Target, config_folder, locked_config
from edgeeff.errors import DeviceError, HostKeyError, LoginError, UnreachableError
from edgeeff.files import write_atomic

KEEPALIVE_S = 10.0
"""How often a silent board is asked whether it is still there, unless ~/.ssh/config says otherwise."""
KEEPALIVES = 3
"""How many of these may stay unanswered."""
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
CLOSE_LIMIT_S = 2.0
"""How long a polite goodbye may take."""


@dataclass(frozen=True)
class Connection:
    """An open connection to a board, and those to the jump hosts on the way, the nearest first."""

    board: asyncssh.SSHClientConnection
    jumps: tuple[asyncssh.SSHClientConnection, ...]

    @property
    def fingerprints(self) -> set[str]:
        """The fingerprints of all host keys on the way, as `SHA256:...`."""
        keys = (hop.get_server_host_key() for hop in (*self.jumps, self.board))
        return {key.get_fingerprint() for key in keys if key is not None}

    async def close(self) -> None:
        """Say goodbye to every hop, the board first; who does not answer in time is left."""
        await _close((*self.jumps, self.board))


async def open_connection(target: Target, address: Address, *, time_limit_s: float) -> Connection:
    """Connect and log in, over jump hosts where ~/.ssh/config names some.

    Raises UnreachableError, HostKeyError, LoginError, and DeviceError for settings that cannot be used.
    """
    way = _Way(target)
    try:
        board = await asyncio.wait_for(way.open(address), time_limit_s)
    except asyncio.TimeoutError:
        await way.close()
        raise UnreachableError(
            f"{target.name}: no answer from {way.at} within {time_limit_s:g} s; is it switched on and in this network?"
        ) from None
    except BaseException:
        await way.close()
        raise
    return Connection(board, tuple(way.opened[:-1]))


def remember(error: HostKeyError) -> None:
    """Store the host key that an error is about, in place of any other that was accepted for this host before.

    Raises OutputError when the file cannot be written.
    """
    host = error.known_hosts_line.split(" ")[0]
    with locked_config():
        path = _own_known_hosts()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.split(" ")[0] != host]
        write_atomic(path, "\n".join([*kept, error.known_hosts_line, ""]).encode("utf-8"), option=CONFIG_VARIABLE)


class _Way:
    """The hops to a board while they are being opened: what is open so far, and where we are."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.at = ""
        self.opened: list[asyncssh.SSHClientConnection] = []
        self._opening: list[Address] = []

    async def open(
        self, address: Address, via: asyncssh.SSHClientConnection | None = None
    ) -> asyncssh.SSHClientConnection:
        with self._failures():
            self.at = _host_and_port(address.host, address.port)
            if address in self._opening:
                raise DeviceError(
                    f"{self.target.name}: the jump host {self.at} is reached over itself; "
                    "give it 'ProxyJump none' in ~/.ssh/config"
                )
            self._opening.append(address)
            where: dict[str, Any] = {"host": address.host, "port": address.port or ()}
            user = {"username": address.user} if address.user else {}
            options = await asyncssh.SSHClientConnectionOptions.construct(config=(), **where, **user)
            jumps = options.tunnel.split(",") if via is None and isinstance(options.tunnel, str) else []
            for jump in jumps:
                via = await self.open(_jump(jump), via)
            self.at = _host_and_port(options.host, options.port)
            host_keys = _HostKeys(options)
            settings: dict[str, Any] = {"known_hosts": host_keys.trusted, "tunnel": via}
            if not options.keepalive_interval:
                settings |= {"keepalive_interval": KEEPALIVE_S, "keepalive_count_max": KEEPALIVES}
            try:
                connection = await asyncssh.connect(
                    **where,
                    options=options,
                    client_factory=host_keys.client_factory(),
                    connect_timeout=None,  # one limit for the whole way
                    **settings,
                )
            except asyncssh.HostKeyNotVerifiable as error:
                raise host_keys.error(self.target, error.reason) from error
            except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost) as error:
                # Only kinds of keys that are known are asked for. A host that has another kind now ends it here.
                if not host_keys.known:
                    raise
                host_keys.shown = await asyncssh.get_server_host_key(**where, options=options, tunnel=via)
                if host_keys.is_known():
                    raise
                raise host_keys.error(self.target, error.reason) from error
            except asyncssh.PermissionDenied as error:
                port = "" if options.port == SSH_PORT else f"-p {options.port} "
                raise LoginError(
                    f"{self.target.name}: {self.at} does not let '{options.username}' in with any of your keys; is it "
                    f"the right user? Give the board your key: ssh-copy-id {port}{options.username}@{options.host}; "
                    "a key with a passphrase has to be in the agent: ssh-add"
                ) from error
            self.opened.append(connection)
            return connection

    async def close(self) -> None:
        await _close(self.opened)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what asyncssh and the system raise on the way into errors that say what to do."""
        name = self.target.name
        try:
            yield
        except asyncssh.ConfigParseError as error:
            raise DeviceError(f"{name}: ~/.ssh/config cannot be used: {error}") from error
        except (asyncssh.KeyImportError, ValueError) as error:
            raise DeviceError(f"{name}: your SSH settings cannot be used: {error}") from error
        except socket.gaierror as error:
            raise UnreachableError(
                f"{name}: there is no host '{self.at}' ({error.strerror}); check the name, or give the IP address"
            ) from error
        except ConnectionRefusedError as error:
            raise UnreachableError(
                f"{name}: {self.at} refuses connections; is the SSH server running there, on this port? "
                "On a Raspberry Pi: sudo systemctl enable --now ssh"
            ) from error
        except asyncssh.ChannelOpenError as error:
            raise UnreachableError(f"{name}: the jump host cannot reach {self.at}: {error.reason}") from error
        except (asyncssh.DisconnectError, ConnectionError) as error:
            raise UnreachableError(
                f"{name}: {self.at} ended the connection before the login ({error}); is it an SSH server, "
                "and not too busy for another connection?"
            ) from error
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            raise UnreachableError(f"{name}: cannot connect to {self.at}: {reason}") from error


class _HostKeys:
    """The keys that a host is known by, and the one that it shows."""

    def __init__(self, options: asyncssh.SSHClientConnectionOptions) -> None:
        self._files = _known_hosts_files(options)
        self._host = (options.host_key_alias or options.host).lower()
        self._port = options.port
        self._alias = bool(options.host_key_alias)
        self.known: list[tuple[asyncssh.SSHKey, Path]] = []
        """What the host is known by, and the file that says so."""
        self.shown: asyncssh.SSHKey | None = None

    def trusted(self, _host: str, _address: str, _port: int | None) -> tuple[list[Any], list[Any], list[Any]]:
        """Look the host up by name as OpenSSH does: with its port, and only then without."""
        keys, authorities, revoked = [], [], []
        names = [self._pattern]
        if self._pattern != self._host:
            names.append(self._host)
        for name in names:
            for path, hosts in self._files:
                found = hosts.match(name, "", None)
                keys += found[0]
                authorities += found[1]
                revoked += found[2]
                if name == self._pattern or self._alias:
                    self.known += [(key, path) for key in found[0]]
            if keys or authorities:
                break
        return keys, authorities, revoked

    def is_known(self) -> bool:
        """Say whether the key that is shown is one that the host is known by."""
        return self.shown in [key for key, _ in self.known]

    def client_factory(self) -> Callable[[], asyncssh.SSHClient]:
        """Return what makes a client that takes down the key that is shown, and trusts none that is not known."""
        keys = self

        class Client(asyncssh.SSHClient):
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                keys.shown = key
                return False

        return Client

    def error(self, target: Target, reason: str) -> HostKeyError:
        """Say that the host is unknown, that its key changed, or what else is wrong with it."""
        where = _host_and_port(self._host, self._port)
        if self.shown is None:
            return HostKeyError(f"{target.name}: the host key of {where} is not to be trusted: {reason}")
        algorithm, key = self.shown.export_public_key().decode("ascii").split()[:2]
        fingerprint = self.shown.get_fingerprint()
        line = f"{self._pattern} {algorithm} {key}"
        accept = f"edgeeff devices add {target.name} {target.url} --accept-host-key {fingerprint}"
        if not self.known:
            message = (
                f"{target.name}: the host key of {where} is not known: {algorithm} {fingerprint}\n"
                f"If the board itself says the same (there: ssh-keygen -lf {_key_file(algorithm)}), accept it:\n"
                f"  {accept}"
            )
        else:
            known, path = self.known[0]
            message = (
                f"{target.name}: the host key of {where} HAS CHANGED\n"
                f"  known: {known.get_algorithm()} {known.get_fingerprint()} ({path})\n"
                f"  shown: {algorithm} {fingerprint}\n"
                "Either the board was installed anew, or another machine answers in its place. Only if you know why,\n"
                f"and the board itself says the same (there: ssh-keygen -lf {_key_file(algorithm)}), accept it:\n"
                f"  {accept}"
            )
        return HostKeyError(message, fingerprint, line)

    @property
    def _pattern(self) -> str:
        return self._host if self._port == SSH_PORT else f"[{self._host}]:{self._port}"


def _known_hosts_files(options: asyncssh.SSHClientConnectionOptions) -> list[tuple[Path, Any]]:
    """Read what is there of the user's known_hosts files, the system's, and our own."""
    # None would tell asyncssh to trust everybody ("UserKnownHostsFile none"); edgeeff trusts whom it knows.
    named = options.known_hosts if isinstance(options.known_hosts, list) else []
    paths = [Path(str(name)).expanduser() for name in named] or [Path("~/.ssh/known_hosts").expanduser()]
    paths += [SYSTEM_KNOWN_HOSTS, _own_known_hosts()]
    read = []
    for path in paths:
        if path.is_file():
            try:
                read.append((path, _known_hosts(path.read_text("utf-8", errors="replace"))))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    return read


@lru_cache(maxsize=8)
def _known_hosts(text: str) -> Any:
    """Parse a known_hosts file once for a whole fleet: that of 300 boards takes 10 ms."""
    return asyncssh.import_known_hosts(text)


def _own_known_hosts() -> Path:
    return config_folder() / "known_hosts"


async def _close(connections: Sequence[asyncssh.SSHClientConnection]) -> None:
    for connection in reversed(connections):
        connection.close()
        try:
            await asyncio.wait_for(connection.wait_closed(), CLOSE_LIMIT_S)
        except asyncio.TimeoutError:
            connection.abort()


def _jump(text: str) -> Address:
    """Read one hop of ProxyJump, `[user@]host[:port]`."""
    user, _, rest = text.strip().removeprefix("ssh://").rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    port = port.removeprefix(":")
    return Address(host, user or None, int(port) if port.isdigit() else None)


def _host_and_port(host: str, port: int | None) -> str:
    if port in {None, SSH_PORT}:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _key_file(algorithm: str) -> str:
    kind = next((kind for kind in ("ed25519", "ecdsa", "rsa", "dsa") if kind in algorithm), "ed25519")
    return f"/etc/ssh/ssh_host_{kind}_key.pub"
