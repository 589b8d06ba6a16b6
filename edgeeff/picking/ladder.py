"""The networks to choose from, smallest first, with what is known of each before anything is converted.

Sizes and memory are predicted from the network's description, latencies are `latency`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from edgeeff import latency, scaling
from edgeeff.latency import Workload
from edgeeff.scaling import Network

FAMILIES = ("b", "v2", "lite", "edgetpu", "phi")
STEPS = 10
"""Of the phi family, in one phi."""
CLASSES = 1000
SIZE_SPREAD = 0.01
"""Standard deviation of a file's size around its prediction, relative: of 44 files the worst was 0.7 % off."""
LIBRARY_BYTES = 4_000_000
"""Code of the runtime that is first used when a network is loaded: 3 to 6 MB beside what `latency` counts."""
RUNTIME_BYTES = 45_000_000
"""A process with Python, NumPy and LiteRT 2.3 in it, where nobody has measured one: 43 MB on x86-64 Linux."""
MEMORY_SPREAD = 0.05
"""Relative: of 46 files on x86-64, the worst was 6 % off."""


@dataclass(frozen=True)
class Candidate:
    """A network of the ladder; `top1` is published, in percent, and None where nobody did for this resolution.

    `memory_bytes` is the peak of a process beside Python and the runtime.
    """

    name: str
    network: Network
    scheme: str
    workload: Workload
    parameters: int
    macs: int
    size_bytes: int
    memory_bytes: int
    top1: float | None
    top1_source: str | None

    @property
    def file_name(self) -> str:
        """The name of its file; the resolution is in it where it is not the network's own."""
        plain = scaling.network(self.name).resolution
        pixels = "" if self.network.resolution == plain else f"-{self.network.resolution}px"
        return f"{self.name}{pixels}_{self.scheme}.tflite"

    @property
    def options(self) -> str:
        """What `edgeeff convert` has to be told to make it."""
        name = f"--variant {self.name}" if self.network.phi is None or self.network.family != "phi" else self._phi
        plain = scaling.network(self.name).resolution
        pixels = "" if self.network.resolution == plain else f" --resolution {self.network.resolution}"
        return f"{name}{pixels} --scheme {self.scheme}"

    @property
    def _phi(self) -> str:
        return f"--phi {self.network.phi:g}"


@cache
def ladder(family: str, scheme: str, resolution: int | None = None) -> tuple[Candidate, ...]:
    """Return the candidates of a family, from small to large by MACs, at their own resolutions or at that one.

    Raises InputError for a scheme whose latency is not modelled.
    """
    if family == "phi":
        steps = range(round(scaling.PHI_MIN * STEPS), round(scaling.PHI_MAX * STEPS) + 1)
        networks = [scaling.phi_network(step / STEPS, resolution) for step in steps]
    else:
        names = [name for name, variant in scaling.VARIANTS.items() if variant.family == family]
        networks = [scaling.network(name, resolution=resolution) for name in names]
    found = [candidate(network, scheme) for network in networks]
    return tuple(sorted(found, key=lambda one: (one.macs, one.network.phi or 0.0)))


def candidate(network: Network, scheme: str) -> Candidate:
    """Describe one network; raises InputError for a scheme whose latency is not modelled."""
    workload = latency.network_workload(network, scheme, classes=CLASSES)
    size = latency.file_bytes(workload, scheme)
    published = network.published
    plain = published.top1 is not None and scaling.network(network.name).resolution == network.resolution
    quantized = scheme == "int8" and published.int8_top1 is not None
    top1 = (published.int8_top1 if quantized else published.top1) if plain else None
    source = published.top1_source if top1 is not None else None
    if source is not None and scheme == "int8" and not quantized:
        source += " (of the float network)"
    return Candidate(
        name=network.name,
        network=network,
        scheme=scheme,
        workload=workload,
        parameters=scaling.parameters(network, CLASSES),
        macs=scaling.macs(network, CLASSES),
        size_bytes=size,
        memory_bytes=latency.peak_memory(workload) + size + LIBRARY_BYTES,
        top1=top1,
        top1_source=source,
    )
