"""What a board is and what state it is in: the runner's answer as a record, with what follows from it.

How the runner gets to the board and how its answer comes back is left to the transports: run it there with `REQUEST`
as its argument, and give its output to `read`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeeff.devices import events
from edgeeff.errors import DeviceError
from edgeeff.results import Device, ProbeRecord, Rail, Runtime

REQUEST = '{"mode": "probe"}'
THROTTLE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3; 16 to 19 say the same of the time since the boot (Raspberry Pi documentation, vcgencmd)."""
STICKY = 16


def read(lines: Iterable[str], *, emulated: bool = False) -> ProbeRecord:
    """Return what the runner's output says of a board; `emulated` is what its target declares.

    Raises DeviceError when the output has no such answer or one that is not understood, and what the runner's own
    errors are raised as.
    """
    said = list(lines)
    answer = next((event for event in events.read(said) if event["event"] == "probe"), None)
    if answer is None:
        end = "".join(f"\n  {line.rstrip()}" for line in said[-5:]) or " nothing at all"
        raise DeviceError(f"the board did not answer the probe; it said:{end}")
    return _record(answer, emulated)


def throttle_names(bits: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what throttle bits say of now, and of the time since the boot."""
    now = tuple(name for bit, name in enumerate(THROTTLE_BITS) if bits >> bit & 1)
    before = tuple(name for bit, name in enumerate(THROTTLE_BITS) if bits >> (bit + STICKY) & 1)
    return now, before


def rails_power(rails: Iterable[Rail]) -> float | None:
    """Return the watts of those rails that tell both volts and amperes; None when none does."""
    watts = [rail.volts * rail.amperes for rail in rails if rail.volts is not None and rail.amperes is not None]
    return sum(watts) if watts else None


def _record(answer: events.Event, emulated: bool) -> ProbeRecord:
    import msgspec

    try:
        rails = msgspec.convert(answer["rails"], tuple[Rail, ...])
        fields = answer | {
            "throttling": _throttling(answer["throttled"], answer["throttled_source"]),
            "rails_w": rails_power(rails),
            "runtime": _runtime(answer["runtimes"]),
            "device": _device(answer, emulated),
        }
        return msgspec.convert(fields, ProbeRecord)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise DeviceError(
            f"the board's answer to the probe is not understood ({error}); is its runner ours?"
        ) from error


def _throttling(bits: int | None, source: str) -> dict[str, Any] | None:
    if bits is None:
        return None
    now, before = throttle_names(bits)
    return {"bits": bits, "source": source, "now": now, "since_boot": before}


def _runtime(runtimes: list[dict[str, Any]]) -> Runtime | None:
    working = next((runtime for runtime in runtimes if runtime["works"]), None)
    return Runtime(working["name"], working["version"] or "unknown") if working else None


def _device(answer: events.Event, emulated: bool) -> Device:
    """Return whom later records are about: the board's model where it has one, else its host name."""
    system, cpu = answer["system"], answer["cpu"]
    return Device(
        name=answer["board"] or answer["hostname"],
        machine=system["machine"],
        system=f"Linux {system['kernel']}",
        cpu=cpu["name"] or "unknown",
        cores=cpu["cores"],
        emulated=emulated,
    )
