"""What the Edge TPU compiler would say and what it said, and what the files that it made say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgeeff.results.record import ModelFile, Record

ExecutableKind = Literal["stand-alone", "parameter-caching", "execution-only"]
OperatorVerdict = Literal["mapped", "not mapped", "unknown"]
FileVerdict = Literal["whole", "in part", "nothing", "refused", "unknown"]
"""What the compiler would make of a file."""
FORESEEN: Mapping[FileVerdict, str] = {
    "whole": "nothing is known against compiling all of it",
    "in part": "some operators are left to the CPU",
    "nothing": "no operator of it runs on the Edge TPU: the compiler calls such a file not quantized",
    "refused": "the compiler takes nothing of it",
    "unknown": "it hangs on operators of which nothing certain is known",
}


@dataclass(frozen=True)
class ForeseenOperators:
    """Operators of one type that are judged alike; reason, fix and source are empty where they are mapped."""

    name: str
    """Their type, such as CONV_2D."""
    count: int
    """How many they are."""
    verdict: OperatorVerdict
    """Whether the compiler gives them to the Edge TPU, as far as that is known."""
    reason: str = ""
    """Why not, or why that is not known."""
    fix: str = ""
    """What to do about it."""
    source: str = ""
    """Where this is known from."""
    places: tuple[str, ...] = ()
    """The first few of them: the parts of the network they are in, such as "block2a", else "operator 7"."""


@dataclass(frozen=True)
class CpuShare:
    """What the CPU computes of a file when the Edge TPU gets one part of it."""

    first: int | None
    """The first operator behind a mapped one that is left: it and all after it run on the CPU."""
    name: str
    """Its type, and where it is in the network."""
    operators: int
    """How many run on the CPU in all."""
    macs: float
    """Their share of the network's multiply-accumulates, 0 to 1."""


@dataclass(frozen=True)
class Forecast:
    """What is known, before compiling, of what the Edge TPU compiler would make of a file."""

    verdict: FileVerdict
    """What the compiler would make of the whole file."""
    operators: tuple[ForeseenOperators, ...]
    """The operators, those of one type and verdict together."""
    parts: int
    """How many stretches of operators the graph falls into, those for the Edge TPU and those for the CPU in turn; for
    this, unknown ones count as mapped."""
    cpu: CpuShare
    """What the CPU gets if all unknown operators are mapped."""
    cpu_at_worst: CpuShare
    """What the CPU gets if none of them is."""
    parameter_bytes: int
    """Constants of the operators that the Edge TPU computes, if all unknown ones are mapped; it stores them with some
    more bytes."""
    streamed_bytes: int
    """How many of them are sent with each inference at least, since the memory for parameters is no larger."""
    advice: tuple[str, ...] = ()
    """What would make it better suited."""
    estimate: EdgeTpuEstimate | None = None
    """How long the part for the Edge TPU may take; None where nothing is for it."""

    def count(self, verdict: OperatorVerdict) -> int:
        """Return how many operators have this verdict."""
        return sum(line.count for line in self.operators if line.verdict == verdict)

    @property
    def sentence(self) -> str:
        """Say the verdict for people."""
        verdicts: tuple[OperatorVerdict, ...] = ("mapped", "not mapped", "unknown")
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in verdicts)
        return f"{FORESEEN[self.verdict]} ({counts})"


@dataclass(frozen=True)
class EdgeTpuExecutable:
    """One program for the Edge TPU: parameters of a "parameter-caching" one stay there, those of others are sent with
    each inference."""

    kind: ExecutableKind
    """What becomes of its parameters."""
    chip: str
    """What it is compiled for, as it says itself."""
    parameter_bytes: int
    """Size of its parameters."""
    caching_token: str
    """16 hexadecimal digits; files whose programs have the same were compiled together, and keep their parameters there
    together."""


@dataclass(frozen=True)
class EdgeTpuOperator:
    """One `edgetpu-custom-op`: the part of a graph that the Edge TPU computes, which it has as programs."""

    subgraph: int
    """Index of the subgraph that it is in."""
    index: int
    """Its place there, from 0."""
    minimum_runtime: int | None
    """Version of the Edge TPU runtime (libedgetpu) that it needs at least; None where it cannot be read."""
    compiler: str | None
    """How the compiler names its own build, such as "cl/343520747"; None where it does not say."""
    executables: tuple[EdgeTpuExecutable, ...]
    """Its programs; empty where they cannot be read."""
    problem: str | None = None
    """Why nothing could be read of it."""


@dataclass(frozen=True)
class CompiledFile:
    """What a file for the Edge TPU says of itself."""

    operators: tuple[EdgeTpuOperator, ...]
    """Its parts for the Edge TPU; empty where nothing was compiled."""
    cpu_operators: int
    """Operators that were left to the CPU."""

    @property
    def minimum_runtime(self) -> int | None:
        """The version of the Edge TPU runtime that all of it needs at least."""
        return max((o.minimum_runtime for o in self.operators if o.minimum_runtime is not None), default=None)

    @property
    def cached_parameter_bytes(self) -> int:
        """Parameters that are sent once and stay in the Edge TPU's memory."""
        return sum(e.parameter_bytes for e in self._executables() if e.kind == "parameter-caching")

    @property
    def streamed_parameter_bytes(self) -> int:
        """Parameters that are sent anew with each inference."""
        return sum(e.parameter_bytes for e in self._executables() if e.kind != "parameter-caching")

    @property
    def caching_tokens(self) -> tuple[str, ...]:
        """The different tokens of its programs, in order; those without one, which have 0, are left out."""
        return tuple(dict.fromkeys(e.caching_token for e in self._executables() if e.caching_token.strip("0")))

    def _executables(self) -> tuple[EdgeTpuExecutable, ...]:
        return tuple(executable for operator in self.operators for executable in operator.executables)


@dataclass(frozen=True)
class EdgeTpuTime:
    """What an inference takes over one link: estimated from published figures, not measured."""

    link: str
    """"USB 3", "USB 2" or "PCIe"; or one of these on a host that has figures of its own."""
    host: str
    """Where the published figures of this link are from; another host may be slower or faster."""
    estimated_s: float
    """The whole inference; it takes at least this where something is left out."""
    estimated_interval_s: tuple[float, float]
    """As wide as the worst error of a published network that the estimate was not fitted to."""
    estimated_streaming_s: tuple[float, float]
    """What sending the least and the most of the parameters takes."""


@dataclass(frozen=True)
class EdgeTpuEstimate:
    """How long an inference on the Edge TPU may take: estimated from published figures, not measured."""

    streamed_parameter_bytes: tuple[int, int]
    """Least and most that is sent with each inference: of a compiled file twice the same, which it says itself."""
    expected_streamed_parameter_bytes: int
    """What is sent in the estimated times."""
    left_out: tuple[str, ...]
    """What takes time and is not counted; nothing, when it is empty."""
    times: tuple[EdgeTpuTime, ...]
    """For each link whose figures are published."""


@dataclass(frozen=True)
class OperatorStatus:
    """A line of the compiler's table: so many operators of one type, and what became of them, in its own words."""

    name: str
    """Type of the operators, such as CONV_2D."""
    count: int
    """How many they are."""
    status: str
    """What became of them, in the compiler's words."""

    @property
    def mapped(self) -> bool:
        """True when the Edge TPU computes them."""
        return self.status == "Mapped to Edge TPU"


@dataclass(frozen=True)
class Disagreement:
    """Operators of one type that the compiler did not do with as was foreseen."""

    name: str
    """Type of the operators, such as CONV_2D."""
    count: int
    """At least: the compiler tells types and counts, not which ones."""
    foreseen: OperatorVerdict
    """What edgeeff had said of them."""
    statuses: tuple[str, ...]
    """What the compiler says of this type where it did otherwise."""


@dataclass(frozen=True)
class ForecastCheck:
    """How the compiler's table of operators compares with what was foreseen.

    Those that it left only because an earlier one was left (`stranded`) say nothing about a rule.
    """

    agreed: int
    """Operators with which the compiler did what was foreseen."""
    settled: int
    """Operators that were unknown before."""
    stranded: int
    """Operators that it left only because an earlier one was left."""
    disagreements: tuple[Disagreement, ...]
    """Operators with which it did otherwise."""
    uncounted: tuple[str, ...]
    """Types of which the compiler tells another number than the file has: it changed the graph first."""


@dataclass(frozen=True)
class CompilerSummary:
    """What the compiler said of one file that it made; None is what it did not say.

    Bytes come from figures with three digits, such as 8.05MiB.
    """

    input: str | None = None
    """Name of the file that was given."""
    input_bytes: int | None = None
    """Its size."""
    output: str | None = None
    """Name of the file that was made."""
    output_bytes: int | None = None
    """Its size."""
    on_chip_used_bytes: int | None = None
    """Parameters that stay on the Edge TPU."""
    on_chip_remaining_bytes: int | None = None
    """Memory for parameters on the Edge TPU that is left."""
    on_chip_available_bytes: int | None = None
    """What version 2.0 says instead of what remains: more than remains, since what is used is still part of it."""
    off_chip_bytes: int | None = None
    """Parameters that are sent with each inference."""
    subgraphs: int | None = None
    """Parts of the graph that run on the Edge TPU."""
    operators: int | None = None
    """Operators of the whole graph."""
    operation_log: str | None = None
    """Name of the log with every operator."""
    edge_tpu_operators: int | None = None
    """Operators that run on the Edge TPU."""
    cpu_operators: int | None = None
    """Operators that run on the CPU."""
    statuses: tuple[OperatorStatus, ...] = ()
    """Its table of operators; empty where it printed none."""


@dataclass(frozen=True)
class CompilerFailure:
    """A line that says why it failed, in the compiler's words and in ours."""

    line: str
    cause: str
    fix: str
    source: str
    """Where this is known from."""
    model_at_fault: bool
    """True when another model would do, False when the compiler itself broke or ran out of time."""


@dataclass(frozen=True)
class CompilerLog:
    """What the compiler printed, or wrote into its operation log."""

    version: str | None
    succeeded: bool | None
    """None where it does not say: an operation log never does, and an output that is cut off may not."""
    seconds: float | None
    timeout_s: int | None
    """Its own limit; versions before 16 have none."""
    attempts: int
    """How many parts of the graph it tried when it searched for one that compiles; 0 when it did not search."""
    summaries: tuple[CompilerSummary, ...]
    failures: tuple[CompilerFailure, ...]


@dataclass(frozen=True)
class Compiled:
    """A file for the Edge TPU, what the compiler said of it, and what it says of itself."""

    file: ModelFile
    """The file for the Edge TPU."""
    source: str
    """Path of the file that it was made of."""
    summary: CompilerSummary | None
    """What the compiler printed of it; None where it printed nothing."""
    inside: CompiledFile
    """What the file says of itself."""
    estimate: EdgeTpuEstimate | None = None
    """How long an inference may take; None in records of version 1, and where nothing of the file runs on the Edge TPU
    or it cannot be read."""
    foreseen: Forecast | None = None
    """What edgeeff had said before; None in records of version 1, and where it was not asked."""
    check: ForecastCheck | None = None
    """How far the compiler agrees with that; None where it gave no table, or nothing was foreseen."""


@dataclass(frozen=True, kw_only=True)
class CompilationRecord(Record):
    """How files were compiled for the Edge TPU."""

    schema: ClassVar[str] = "edgeeff/compilation"
    schema_version: ClassVar[int] = 2

    compiler: str
    """Path of the program."""
    compiler_version: str | None
    """As it says itself; None where it does not."""
    arguments: tuple[str, ...]
    """What it was given beside the files and where to write."""
    seconds: float
    """How long it ran."""
    sources: tuple[ModelFile, ...]
    """The files that were given."""
    compiled: tuple[Compiled, ...]
    """The files that were made of them."""
    compiled_together: bool
    """True when several files share a caching token: they keep their parameters on the Edge TPU together."""
    attempts: int
    """How many parts of the graph it tried when it searched for one that compiles; 0 when it did not search."""
    log: str
    """Path of what it printed, as it printed it."""
    warnings: tuple[str, ...]
    """What to know before using the files."""
