"""What a board is, and in which state: what probes say, and the verdict on a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.record import Record


@dataclass(frozen=True)
class OperatingSystem:
    """What runs on a board; `machine` is the kernel's, and a 32-bit Python may run on a 64-bit kernel."""

    name: str | None
    """Such as Debian GNU/Linux 12 (bookworm)."""
    id: str | None
    """Such as debian."""
    version: str | None
    """Such as 12."""
    kernel: str
    """The kernel's release."""
    machine: str
    """The kernel's architecture, such as aarch64."""


@dataclass(frozen=True)
class BoardPython:
    """The Python that answered, and what of it decides which packages fit."""

    version: str
    """Such as 3.11.2."""
    executable: str
    """Its path."""
    bits: int
    """32 or 64, which may be less than the kernel's."""
    multiarch: str | None
    """What it was built for, such as aarch64-linux-gnu."""
    libc: str | None
    """The C library and its version, such as glibc 2.36."""
    venv: bool
    """Whether it can make virtual environments with pip in them."""
    pip: str | None
    """Version of pip; None where it is not installed."""
    numpy: str | None
    """Version of NumPy; None where it is not installed."""


@dataclass(frozen=True)
class Processor:
    """The CPUs: names of their kinds, their number, and the features that kernels are chosen by."""

    name: str | None
    """Kinds of its cores, joined by +."""
    cores: int
    """Number of CPUs."""
    features: tuple[str, ...]
    """Those that kernels are chosen by, such as asimddp."""


@dataclass(frozen=True)
class Memory:
    """Memory and swap of a board."""

    total_bytes: int | None
    """All that the system has."""
    available_bytes: int | None
    """What programs could get now."""
    swap_total_bytes: int | None
    """All swap."""
    swap_used_bytes: int | None
    """Swap that is in use."""


@dataclass(frozen=True)
class CpuFrequency:
    """Governor and frequencies of one CPU: now, the highest that is allowed, the highest that it can keep up."""

    cpu: int
    """Its number, from 0."""
    governor: str | None
    """What sets its frequency, such as ondemand."""
    driver: str | None
    """The kernel's driver for that."""
    current_hz: int | None
    """Frequency now, as the kernel asked for it."""
    limit_hz: int | None
    """The highest frequency that is allowed."""
    hardware_hz: int | None
    """The highest frequency that it can keep up: without turbo, where it tells."""


@dataclass(frozen=True)
class Zone:
    """A thermal zone."""

    name: str
    """As the kernel calls it."""
    temperature_c: float
    """Temperature in degrees Celsius."""


@dataclass(frozen=True)
class Throttling:
    """A Raspberry Pi's throttle bits, and what they say of now and of the time since the boot."""

    bits: int
    """As the firmware tells them."""
    source: str
    """"vcgencmd"; "sysfs", whose history begins with the last reading; "hwmon", which knows under-voltage only."""
    now: tuple[str, ...]
    """What is so now, such as "under-voltage"."""
    since_boot: tuple[str, ...]
    """What was so since the boot."""


@dataclass(frozen=True)
class Rail:
    """A supply rail that the board measures itself."""

    name: str
    """As the board calls it."""
    volts: float | None
    """Its voltage; None where the board does not tell."""
    amperes: float | None
    """Its current; None where the board does not tell."""


@dataclass(frozen=True)
class Disk:
    """What is free where a folder lies, and whether the user may write there."""

    path: str
    """The folder."""
    free_bytes: int | None
    """What is free there; None where it cannot be read."""
    writable: bool
    """Whether the user may write there."""


@dataclass(frozen=True)
class FoundRuntime:
    """A runtime that is installed, and whether it ran a model of one operator."""

    name: str
    """Of the package."""
    version: str | None
    """Of the package; None where it does not say one."""
    works: bool
    """Whether it ran a model of one operator."""
    problem: str | None
    """Why not; None where it did."""


@dataclass(frozen=True)
class EdgeTpu:
    """An Edge TPU on USB or PCIe."""

    bus: str
    """"usb" or "pcie"."""
    id: str
    """Vendor and product; on USB another one before the first inference than after it."""
    initialized: bool | None = None
    """Whether it ran an inference since it was plugged in; None on PCIe."""
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
    """Of the library's file."""
    package: str | None
    """Name of its package; None where dpkg did not install it."""
    version: str | None
    """Version of its package; None where dpkg did not install it."""
    says: str | None
    """Its own words for its version; None where it cannot be loaded."""
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
    """As the board calls itself."""
    system: OperatingSystem
    """What runs on it."""
    python: BoardPython
    """The Python that answered."""
    cpu: Processor
    """Its CPUs."""
    memory: Memory
    """Memory and swap."""
    frequencies: tuple[CpuFrequency, ...]
    """Of every CPU that tells them."""
    clock_hz: int | None
    """The Arm cores' frequency as a Raspberry Pi's firmware measured it."""
    zones: tuple[Zone, ...]
    """Temperatures, by thermal zone."""
    throttling: Throttling | None
    """Whether a Raspberry Pi is, or was, slowed; None on other boards."""
    rails: tuple[Rail, ...]
    """Supply rails that the board measures itself, as a Raspberry Pi 5 does."""
    rails_w: float | None
    """Sum over the rails that tell volts and amperes: less than the board takes, since not all of them do."""
    load_1m: float | None
    """Mean number of processes that ran or waited in the last minute."""
    disks: tuple[Disk, ...]
    """Where the home and temporary folders lie."""
    runtimes: tuple[FoundRuntime, ...]
    """Those that are installed."""
    edge_tpus: tuple[EdgeTpu, ...]
    """Those on USB and PCIe."""
    edge_tpu_library: EdgeTpuLibrary | None
    """libedgetpu; None where it is not installed."""
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
    """Frequencies of every CPU."""
    clock_hz: int | None
    """The Arm cores' frequency as a Raspberry Pi's firmware measured it; None elsewhere."""
    temperature_c: float | None
    """Of the CPU."""
    throttled: int | None
    """A Raspberry Pi's throttle bits."""
    load_1m: float | None
    """Mean number of processes that ran or waited in the last minute."""
    cpu_s: float
    """CPU time of the measuring process."""
    busy_s: float | None
    """CPU time of everything on the board."""
    stolen_s: float | None
    """CPU time that a virtual machine's host gave to others."""
    quota_wait_s: float | None
    """Time that a CPU quota held the process's group back."""
    available_bytes: int | None
    """Memory that programs could get."""
    swap_used_bytes: int | None
    """Swap that was in use."""
    swapped_in_bytes: int | None
    """What was read back from swap since the boot."""
    edge_tpus_c: dict[str, float] = field(default_factory=dict)
    """Temperatures of the Edge TPUs that tell theirs, by device file."""


@dataclass(frozen=True)
class Reason:
    """One thing to know of a measurement: its cause, whether it makes it invalid, and its figures."""

    cause: str
    """Its name, such as "throttled"."""
    invalidates: bool
    """Whether it makes the measurement invalid; else it is a warning."""
    text: str
    """What happened and what to do, in words."""
    figures: dict[str, float]
    """The evidence in numbers, by name."""


@dataclass(frozen=True)
class Verdict:
    """Whether figures may go into a report."""

    valid: bool
    """False when a reason makes the measurement invalid."""
    reasons: tuple[Reason, ...]
    """First those that make it invalid, then warnings."""
