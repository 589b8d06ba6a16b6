"""How a probe looks in a terminal: one table of what the board is, what state it is in, and what can run there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgeeff.devices.validity import FULL_LINK
from edgeeff.results import CpuFrequency, EdgeTpu, FoundRuntime, Memory, ProbeRecord

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "not readable"


def render(record: ProbeRecord, console: Console) -> None:
    """Print a probe; what the board does not tell is said, too."""
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(record):
        table.add_row(name, escape(value))
    console.print(table)


def _rows(record: ProbeRecord) -> Iterator[tuple[str, str]]:
    emulated = ", emulated: no figure of it is a real board's" if record.device.emulated else ""
    yield "Board", f"{record.board or 'unknown'} ({record.hostname}){emulated}"
    yield "System", f"{record.system.name or 'unknown'}, Linux {record.system.kernel}, {record.system.machine}"
    python = record.python
    yield "Python", f"{python.version}, {python.bits}-bit, {python.libc or 'unknown libc'} ({python.executable})"
    features = f": {', '.join(record.cpu.features)}" if record.cpu.features else ""
    yield "CPU", f"{record.cpu.cores} x {record.cpu.name or 'unknown'}{features}"
    memory = record.memory
    free = f", {_size(memory.available_bytes)} available" if memory.available_bytes is not None else ""
    yield "Memory", f"{_size(memory.total_bytes)}{free}"
    yield "Swap", _swap(memory)
    yield "Frequency", _frequencies(record.frequencies, record.clock_hz)
    yield "Temperature", ", ".join(f"{zone.name} {zone.temperature_c:.1f} C" for zone in record.zones) or UNKNOWN
    yield "Throttling", _throttling(record)
    yield "Power", _power(record)
    yield "Load", UNKNOWN if record.load_1m is None else f"{record.load_1m:.2f} in the last minute"
    for disk in record.disks:
        yield "Disk", f"{disk.path}: {_size(disk.free_bytes)} free{'' if disk.writable else ', not writable'}"
    if not record.runtimes:
        yield "Runtime", "none: neither LiteRT nor tflite-runtime is installed for this Python"
    for runtime in record.runtimes:
        yield "Runtime", _runtime(runtime)
    yield "NumPy", python.numpy or "not installed"
    for edge_tpu in record.edge_tpus:
        yield "Edge TPU", _edge_tpu(edge_tpu)
    library = record.edge_tpu_library
    if library is not None:
        problem = f"cannot be loaded: {library.problem}" if library.problem else None
        parts = (library.package, library.version, library.path, library.says, problem)
        yield "libedgetpu", ", ".join(part for part in parts if part)
    elif record.edge_tpus:
        yield "libedgetpu", "not found: the Edge TPU cannot be used without it"
    for hint in record.hints:
        yield "Hint", f"{hint}: this may be a virtual machine or a container"


def _swap(memory: Memory) -> str:
    if memory.swap_total_bytes is None or memory.swap_used_bytes is None:
        return UNKNOWN
    if memory.swap_total_bytes == 0:
        return "none"
    return f"{_size(memory.swap_used_bytes)} of {_size(memory.swap_total_bytes)} in use"


def _frequencies(cpus: Iterable[CpuFrequency], clock_hz: int | None) -> str:
    """Say what all CPUs have in common once, and how many there are of each kind."""
    kinds: dict[str, int] = {}
    for cpu in cpus:
        capped = (
            f", capped at {_frequency(cpu.limit_hz)}" if cpu.limit_hz and cpu.limit_hz < (cpu.hardware_hz or 0) else ""
        )
        text = f"{_frequency(cpu.current_hz)} of {_frequency(cpu.hardware_hz)}{capped}, {cpu.governor or 'no governor'}"
        kinds[text] = kinds.get(text, 0) + 1
    if not kinds:
        return UNKNOWN if clock_hz is None else f"{_frequency(clock_hz)} as the firmware measures it"
    measured = f"; measured {_frequency(clock_hz)}" if clock_hz is not None else ""
    return "; ".join(f"{count} x {text}" for text, count in kinds.items()) + measured


def _throttling(record: ProbeRecord) -> str:
    throttling = record.throttling
    if throttling is None:
        return UNKNOWN
    now = f"now: {', '.join(throttling.now)}" if throttling.now else "not now"
    if throttling.source == "hwmon":
        return f"{now} (under-voltage is all that can be read)"
    since = "since the last reading" if throttling.source == "sysfs" else "since the boot"
    return f"{now}; {since}: {', '.join(throttling.since_boot) or 'never'} (0x{throttling.bits:x})"


def _power(record: ProbeRecord) -> str:
    if record.rails_w is None:
        return UNKNOWN
    supply = next((rail.volts for rail in record.rails if rail.name.startswith("EXT5V") and rail.volts), None)
    volts = f", supply {supply:.2f} V" if supply else ""
    return f"{record.rails_w:.2f} W on the rails that are measured{volts}; the whole board takes more"


def _runtime(runtime: FoundRuntime) -> str:
    name = f"{runtime.name} {runtime.version or 'of unknown version'}"
    return f"{name}: works" if runtime.works else f"{name} does not work: {runtime.problem}"


def link(edge_tpu: EdgeTpu) -> str:
    """Say how an Edge TPU is connected: USB 3 (5000 Mbit/s)."""
    kinds = {480: "USB 2", 5000: "USB 3"}
    kind = kinds.get(int(edge_tpu.megabits_per_s or 0), "USB") if edge_tpu.bus == "usb" else "PCIe"
    return kind if edge_tpu.megabits_per_s is None else f"{kind} ({edge_tpu.megabits_per_s:.0f} Mbit/s)"


def _edge_tpu(edge_tpu: EdgeTpu) -> str:
    slow = edge_tpu.megabits_per_s is not None and edge_tpu.megabits_per_s < FULL_LINK
    connected = f"{link(edge_tpu)}{': slow' if slow else ''}"
    if edge_tpu.bus == "usb":
        return f"{connected}, {edge_tpu.id}{'' if edge_tpu.initialized else ', not used since it was plugged in'}"
    if edge_tpu.device is None:
        return f"{connected}, without its driver: install gasket-dkms on the board"
    warmth = f", {edge_tpu.temperature_c:.1f} C" if edge_tpu.temperature_c is not None else ""
    limit = f", slower from {edge_tpu.throttle_c:.0f} C on" if edge_tpu.throttle_c is not None else ""
    return f"{connected}, {edge_tpu.device}{warmth}{limit}"


def _size(size: int | None) -> str:
    if size is None:
        return UNKNOWN
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _frequency(hertz: int | None) -> str:
    return UNKNOWN if hertz is None else f"{hertz / 1e9:.2f} GHz"
