"""What a board is, and in which state: what probes say, and the verdict on a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.record import Record


@dataclass(frozen=True)
class OperatingSystem:
    """What runs on a board; `machine` is the kernel's, and a 32-bit Python may run on a 64-bit kernel."""

    name: str | None
    id: str | None
    version: str | None
    kernel: str
    machine: str


@dataclass(frozen=True)
class BoardPython:
    """The Python that answered, and what of it decides which packages fit."""

    version: str
    executable: str
    bits: int
    multiarch: str | None
    libc: str | None
    venv: bool
    """Whether it can make virtual environments with pip in them."""
    pip: str | None
    numpy: str | None


@dataclass(frozen=True)
class Processor:
    """The CPUs: names of their kinds, their number, and the features that kernels are chosen by."""

    name: str | None
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Memory and swap of a board."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None


@dataclass(frozen=True)
class CpuFrequency:
    """Governor and frequencies of one CPU: now, the highest that is allowed, the highest that it can keep up."""

    cpu: int
    governor: str | None
    driver: str | None
    current_hz: int | None
    limit_hz: int | None
    hardware_hz: int | None


@dataclass(frozen=True)
class Zone:
    """A thermal zone."""

    name: str
    temperature_c: float


@dataclass(frozen=True)
class Throttling:
    """A Raspberry Pi's throttle bits, and what they say of now and of the time since the boot."""

    bits: int
    source: str
    """"vcgencmd"; "sysfs", whose history begins with the last reading; "hwmon", which knows under-voltage only."""
    now: tuple[str, ...]
    since_boot: tuple[str, ...]


@dataclass(frozen=True)
class Rail:
    """A supply rail that the board measures itself."""

    name: str
    volts: float | None
    amperes: float | None


@dataclass(frozen=True)
class Disk:
    """What is free where a folder lies, and whether the user may write there."""

    path: str
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True)
class FoundRuntime:
    """A runtime that is installed, and whether it ran a model of one operator."""

    name: str
    version: str | None
    works: bool
    problem: str | None


@dataclass(frozen=True)
class EdgeTpu:
    """An Edge TPU on USB or PCIe."""

    bus: str
    id: str
    """Vendor and product; on USB another one before the first inference than after it."""
    initialized: bool | None = None
    megabits_per_s: float | None = None
    """What its link carries: 480 for USB 2, 5000 for USB 3; on PCIe transfers times lanes, 5000 at most."""
    device: str | None = None
    """Its device file; None on PCIe where its driver is missing."""
    temperature_c: float | None = None
    """On PCIe only; the driver of the kernel itself does not tell it."""
    throttle_c: float | None = None
    """Where its driver begins to lower its clock; None where it does not look at the temperature, or does not tell."""


@dataclass(frozen=True)
class EdgeTpuLibrary:
    """libedgetpu on a board: its package and version where dpkg installed it, and what it says of itself."""

    path: str
    package: str | None
    version: str | None
    says: str | None
    runtime: int | None = None
    """The runtime version in what it says, which is what compiled files ask for."""
    problem: str | None = None
    """Why it cannot be loaded."""


@dataclass(frozen=True, kw_only=True)
class ProbeRecord(Record):
    """What a board is and what state it is in; what could not be read is None or empty.

    `runtime` is the one that measuring would use, None when none works.
    """

    schema: ClassVar[str] = "edgeeff/probe"
    schema_version: ClassVar[int] = 2

    board: str | None
    """The device tree's model."""
    hostname: str
    system: OperatingSystem
    python: BoardPython
    cpu: Processor
    memory: Memory
    frequencies: tuple[CpuFrequency, ...]
    clock_hz: int | None
    """The Arm cores' frequency as a Raspberry Pi's firmware measured it."""
    zones: tuple[Zone, ...]
    throttling: Throttling | None
    rails: tuple[Rail, ...]
    rails_w: float | None
    """Sum over the rails that tell volts and amperes: less than the board takes, since not all of them do."""
    load_1m: float | None
    disks: tuple[Disk, ...]
    runtimes: tuple[FoundRuntime, ...]
    edge_tpus: tuple[EdgeTpu, ...]
    edge_tpu_library: EdgeTpuLibrary | None
    hints: tuple[str, ...]
    """Signs of a virtual machine or a container; whether a board is emulated is what its target declares."""


@dataclass(frozen=True)
class BoardState:
    """What a board was doing at one moment of a measuring process, between timed runs.

    The times from `cpu_s` to `quota_wait_s` and `swapped_in_bytes` are sums that only their differences give a meaning.
    """

    at_s: float
    """Since the process began."""
    phase: str
    """"start", "warm-up" or "measure"."""
    cpus: tuple[CpuFrequency, ...]
    clock_hz: int | None
    temperature_c: float | None
    throttled: int | None
    load_1m: float | None
    cpu_s: float
    """CPU time of the measuring process."""
    busy_s: float | None
    """CPU time of everything on the board."""
    stolen_s: float | None
    """CPU time that a virtual machine's host gave to others."""
    quota_wait_s: float | None
    """Time that a CPU quota held the process's group back."""
    available_bytes: int | None
    swap_used_bytes: int | None
    swapped_in_bytes: int | None
    edge_tpus_c: dict[str, float] = field(default_factory=dict)
    """Temperatures of the Edge TPUs that tell theirs, by device file."""


@dataclass(frozen=True)
class Reason:
    """One thing to know of a measurement: its cause, whether it makes it invalid, and its figures."""

    cause: str
    invalidates: bool
    text: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """Whether figures may go into a report."""

    valid: bool
    reasons: tuple[Reason, ...]
    """First those that make it invalid, then warnings."""
