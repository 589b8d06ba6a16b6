"""Names of boards: how to reach them, and what is published about the ones that many people have.

Two lists behind one set of names. The boards that come with edgeeff (targets/*.toml) carry facts, each with its
source, and no address. The user's own targets have an address and may say which of those boards they are; they live
in targets.toml in the user's config folder. How a board is reached is `transport`'s, what it is right now `probe`'s.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeeff.errors import InputError, UnknownNameError
from edgeeff.files import write_atomic

CONFIG_VARIABLE = "EDGEEFF_CONFIG"
"""Names the user's config folder where that is not the system's usual one."""
SSH_PORT = 22

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Narrow on purpose: a host or user goes into the user's own ProxyCommand.
_SSH_URL = re.compile(
    r"ssh://(?:(?P<user>\w[\w.+-]*\$?)@)?(?P<host>\w[\w.-]*|\[[0-9a-fA-F:.]+(?:%\w+)?\])(?::(?P<port>\d{1,5}))?/?",
    re.ASCII,
)
_HEADER = "# The boards that `edgeeff devices` knows. It rewrites this file: comments are lost.\n"

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Facts:
    """What is published about a board that many people have; None or empty where it is not known.

    Frequencies are Hz, sizes bytes, temperatures degrees Celsius, rates per second over all cores.
    """

    key: str
    """Its name among the targets, e.g. raspberry-pi-4."""
    name: str
    """As it is sold."""
    cpu: str | None = None
    """Name of its CPU."""
    cores: int | None = None
    """Number of CPU cores."""
    clock_hz: float | None = None
    """The highest frequency without overclocking."""
    memory_bytes: tuple[int, ...] = ()
    """The sizes that are sold."""
    peak_float32_ops_per_s: float | None = None
    """A multiply-add counts as two operations, here and below."""
    peak_int8_ops_per_s: float | None = None
    """The same for 8-bit integers."""
    has_int8_dot_product: bool | None = None
    """Whether the CPU has instructions for dot products of 8-bit integers."""
    memory_bandwidth_bytes_per_s: float | None = None
    """What the memory's interface can do in theory."""
    memory_copy_bytes_per_s: tuple[float, float] | None = None
    """Lowest and highest of the published measurements of memcpy by one core."""
    soft_limit_c: float | None = None
    """From here the clock is reduced to stay below the next limit for longer."""
    throttle_limit_c: float | None = None
    """From here the cores are slowed."""
    hard_limit_c: float | None = None
    """The system does what it can to stay below this."""
    accelerator: str | None = None
    """What computes networks beside the CPU, such as an Edge TPU."""
    accelerator_int8_ops_per_s: float | None = None
    """The most that it computes."""
    accelerator_memory_bytes: int | None = None
    """Its own memory for parameters."""
    notes: str = ""
    """What else is worth knowing."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each figure is from, by the field's name."""


@dataclass(frozen=True)
class Address:
    """Where an SSH server listens; without a user or a port, ~/.ssh/config and then SSH's defaults decide."""

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True)
class Target:
    """A named way to reach a board; raises InputError when a part of it makes no sense."""

    name: str
    """As --target takes it."""
    url: str | None = None
    """"local", ssh://[user@]host[:port], or None for a board that comes with edgeeff: facts, but nowhere to go."""
    board: str | None = None
    """Which of the boards that come with edgeeff it is."""
    python: str | None = None
    """The Python to use there; None leaves the choice to who sets the board up."""
    emulated: bool = False
    """A program stands in for the board, so its latencies are nobody's; only its owner can know."""
    notes: str = ""
    """What its owner wrote of it."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"'{self.name}' cannot name a target: take up to 64 of a-z, 0-9, '.', '_' and '-', "
                "a letter or digit first; for example pi5-lab"
            )
        if self.url not in {None, "local"}:
            _parse_url(str(self.url))
        if self.board is not None and self.board not in boards():
            raise UnknownNameError("board", self.board, boards())
        for text in (self.python or "", self.notes):
            if not text.isprintable():
                raise InputError(f"{text!r} of target '{self.name}' has characters that cannot be printed")

    @property
    def address(self) -> Address | None:
        """Where to connect to, None for this machine; raises InputError where nobody said how to reach the board."""
        if self.url is None:
            raise InputError(
                f"'{self.name}' is a board that edgeeff has facts about, not one that it can reach; "
                f"add yours: edgeeff devices add my-{self.name} ssh://USER@HOST --board {self.name}"
            )
        return None if self.url == "local" else _parse_url(self.url)

    @property
    def facts(self) -> Facts | None:
        """What is published about the board, where the user said which one it is."""
        return None if self.board is None else boards()[self.board]


LOCAL = Target("local", "local")


def config_folder() -> Path:
    """Return the folder with the user's own targets and host keys; it need not exist."""
    if chosen := os.environ.get(CONFIG_VARIABLE):
        return Path(chosen)
    return Path(click.get_app_dir("edgeeff"))


@cache
def boards() -> dict[str, Facts]:
    """Return the boards that come with edgeeff, by their names."""
    folder = resources.files("edgeeff.devices").joinpath("targets")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    found = {}
    for file in files:
        key = file.name[: -len(".toml")]
        found[key] = _convert(_parse(file.read_text("utf-8"), file.name) | {"key": key}, Facts, file.name)
    return found


def targets() -> dict[str, Target]:
    """Return every target by its name: this machine, the user's own, and the boards that come with edgeeff.

    Raises InputError when the user's file cannot be read.
    """
    shipped = {key: Target(key, board=key) for key in boards()}
    return {LOCAL.name: LOCAL} | own_targets() | shipped


def find(name: str, known: Mapping[str, Target] | None = None) -> Target:
    """Return the target of that name; raises UnknownNameError, with the nearest names.

    Who looks for many reads them once and gives them as `known`.
    """
    known = targets() if known is None else known
    if name not in known:
        raise UnknownNameError("target", name, known)
    return known[name]


def own_targets() -> dict[str, Target]:
    """Return the targets that the user added, by their names; raises InputError when their file cannot be read."""
    path = _own_file()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    found = {}
    for name, entry in _parse(text, str(path)).items():
        if not isinstance(entry, dict):
            raise InputError(f"{path}: '{name}' is no table; a target begins with a line [{name}]")
        found[name] = _convert(entry | {"name": name}, Target, f"{path}, [{name}]")
        if name in _shipped_names():
            raise InputError(f"{path}: [{name}] is a name of edgeeff's own; choose another")
        if found[name].url is None:
            raise InputError(f"{path}: [{name}] has no url; write ssh://USER@HOST, or local")
    return found


def add(target: Target, *, replace_it: bool = False) -> None:
    """Add a target to the user's own, or replace the one of that name.

    Raises what `check_new` raises, and OutputError when the file cannot be written.
    """
    with _changing() as own:
        check_new(target, own, replace_it=replace_it)
        own[target.name] = target


def check_new(target: Target, own: Mapping[str, Target] | None = None, *, replace_it: bool = False) -> None:
    """Refuse a target that cannot be added to the user's own.

    Raises InputError when the name is taken and `replace_it` is false, when it is one of edgeeff's own, and when the
    target has no address.
    """
    if target.url is None:
        raise InputError(f"target '{target.name}' needs an address: ssh://USER@HOST, or local")
    if target.name in _shipped_names():
        board = f" --board {target.name}" if target.name in boards() else ""
        raise InputError(
            f"'{target.name}' is a name of edgeeff's own; choose another: "
            f"edgeeff devices add my-{target.name} {target.url}{board}"
        )
    there = (own_targets() if own is None else own).get(target.name)
    if there is not None and not replace_it:
        raise InputError(
            f"there is a target '{target.name}' already, {there.url}; replace it with --replace, or choose another name"
        )


def remove(name: str) -> Target:
    """Remove one of the user's own targets and return it.

    Raises UnknownNameError when there is none of that name, InputError when it is one of edgeeff's own.
    """
    if name in _shipped_names():
        raise InputError(f"'{name}' comes with edgeeff and cannot be removed")
    with _changing() as own:
        if name not in own:
            raise UnknownNameError("target", name, own or ["(none: you have not added any)"])
        return own.pop(name)


@contextmanager
def locked_config() -> Iterator[Path]:
    """Hold the config folder for one change of a file in it, so that two commands at once lose nothing.

    Makes the folder where there is none; raises InputError when it cannot.
    """
    folder = config_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(
            f"cannot use the config folder {folder}: {error.strerror}; choose another with {CONFIG_VARIABLE}"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)


@contextmanager
def _changing() -> Iterator[dict[str, Target]]:
    """Read the user's targets, let them be changed, and write them back, all while nobody else does."""
    with locked_config():
        own = own_targets()
        yield own
        tables = [_table(target) for target in own.values()]
        write_atomic(_own_file(), "\n".join([_HEADER, *tables]).encode("utf-8"), option=CONFIG_VARIABLE)


def _own_file() -> Path:
    return config_folder() / "targets.toml"


def _shipped_names() -> set[str]:
    return {LOCAL.name, *boards()}


def _parse_url(url: str) -> Address:
    match = _SSH_URL.fullmatch(url)
    if match is None:
        hint = "write ssh://[USER@]HOST[:PORT], or local for this machine"
        if re.match(r"ssh://[^@/]*:[^@/]*@", url):
            hint = "passwords are not stored; leave it out, and give the board your key: ssh-copy-id USER@HOST"
            url = re.sub(r":[^@/:]*@", ":...@", url)
        elif re.fullmatch(r"[\w.@:-]+", url):
            hint = f"did you mean ssh://{url}?"
        raise InputError(f"'{url}' is no address of a board: {hint}")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port < 1 << 16:
        raise InputError(f"'{url}' has no possible port: {port} is not between 1 and 65535")
    return Address(match["host"].strip("[]"), match["user"], port)


def _parse(text: str, where: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.toml.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InputError(f"{where} is no TOML: {error}") from error


def _convert(entry: dict[str, Any], kind: type[Parsed], where: str) -> Parsed:
    import msgspec

    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for name in entry:
        if name not in known:
            raise InputError(f"{where}: {UnknownNameError('entry', name, known)}")
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from error


def _table(target: Target) -> str:
    lines = [f"[{_quoted(target.name)}]" if "." in target.name else f"[{target.name}]"]
    for one in fields(target):
        value = getattr(target, one.name)
        if one.name != "name" and value != one.default:
            lines.append(f"{one.name} = {_quoted(value) if isinstance(value, str) else 'true'}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # for text that can be printed, JSON's strings are TOML's
