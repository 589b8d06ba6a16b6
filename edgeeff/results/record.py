"""The head that every record carries, and what several records say: a file, a runtime, a machine, a tensor."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from edgeeff.files import sha256
from edgeeff.version import __version__


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class ModelFile:
    """A file on disk and what makes it that file and no other."""

    path: str
    """As it was given, or written."""
    sha256: str
    """Of its bytes."""
    size_bytes: int
    """Its size."""

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Read size and sha256 of the file at `path`; raises OSError."""
        return cls(str(path), sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Runtime:
    """What ran a model: the package's name, its version, and the delegate that was asked for."""

    name: str
    """Of the package."""
    version: str
    """Of the package."""
    delegate: str = "xnnpack"
    """"xnnpack", "none" or "edgetpu"."""


@dataclass(frozen=True)
class Device:
    """The machine that a record is about; `emulated` is true when a program stood in for it."""

    name: str
    """The board's model, else the host's name."""
    machine: str
    """Architecture of the kernel, such as aarch64."""
    system: str
    """Kernel and its release."""
    cpu: str
    """Name of the CPU."""
    cores: int
    """Number of CPUs."""
    emulated: bool = False
    """True when a program stood in for it: no latency of it is a real board's."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The head that every record carries."""

    schema: ClassVar[str]
    schema_version: ClassVar[int]

    edgeeff_version: str = __version__
    """Version of edgeeff that wrote it."""
    created: str = field(default_factory=_now)
    """When, in UTC, as ISO 8601 writes it."""
    runtime: Runtime | None
    """What ran the model; None where nothing did."""
    device: Device
    """The machine that it is about."""
    packages: dict[str, str] = field(default_factory=dict)
    """Versions of the installed packages that had a part in it."""


@dataclass(frozen=True)
class TensorContract:
    """What a model takes or gives: shape, dtype, and real = (stored - zero_point) * scale where it is quantized."""

    name: str
    """As the file names it."""
    shape: tuple[int, ...]
    """Its dimensions; -1 for those that are known only at run time."""
    dtype: str
    """The type of its values, such as uint8."""
    scale: float | None = None
    """Real value per step; None where it is not quantized."""
    zero_point: int | None = None
    """The integer that stands for 0; None where it is not quantized."""


@cache
def this_device() -> Device:
    """Describe the machine that this process runs on."""
    name = _first_line(Path("/proc/device-tree/model")).rstrip("\0") or platform.node() or "local"
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.lower().startswith(("model name", "hardware"))
        ),
        platform.processor() or "unknown",
    )
    system = f"{platform.system()} {platform.release()}"
    return Device(name, platform.machine(), system, cpu, len(os.sched_getaffinity(0)))


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "")
