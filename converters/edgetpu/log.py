"""What the Edge TPU compiler says, read: its output and its operation logs, of versions 2.0, 2.1, 14, 15 and 16.

It reads line by line and takes what it knows, so an output that is cut off anywhere gives what came before. Known
failures are a table: what the line looks like, what it means, what to do, and where that is known from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeeff.results import CompilerFailure, CompilerLog, CompilerSummary, OperatorStatus

LONGEST_LOG = 8 << 20
"""Characters that are read; a real log has a few thousand, that of a long search some millions."""
_MOST_LINES = 100_000
_MOST_DIGITS = 15  # of any figure: more is no figure


@dataclass(frozen=True)
class Failure:
    """A known failure: `{}` in cause and fix stand for the groups of its pattern."""

    pattern: re.Pattern[str]
    cause: str
    fix: str
    source: str
    model_at_fault: bool = True
    general: bool = False
    """It says that something failed, not what: it counts only where nothing else does."""


def _issue(*numbers: int) -> str:
    return ", ".join(f"github.com/google-coral/edgetpu/issues/{number}" for number in numbers)


FAILURES = (
    Failure(
        re.compile(r"Didn't find op for builtin opcode '(\w{1,60})' version '(\d{1,9})'"),
        "the compiler does not know version {1} of {0}: the file was made by a converter that is newer than it",
        "make the file with edgeeff convert --edge-tpu, or with an older TensorFlow",
        _issue(879, 631),
    ),
    Failure(
        re.compile(r"Encountered unresolved custom op: ([^\s.]{1,100})"),
        "the file has the operator {0}, which is not one of TensorFlow Lite's own",
        "build the network without it; a file that was compiled already cannot be compiled again",
        "the output of compiler 16 for a network with tf.atan",
    ),
    Failure(
        re.compile(r"only supports static-sized tensors with a graph that has dynamic-sized tensors"),
        "a shape in the graph is known only at run time, often the batch",
        "convert at batch 1 and a fixed resolution, as edgeeff convert does; edgeeff inspect FILE names the operators",
        _issue(829, 831),
    ),
    Failure(
        re.compile(r"Model not quantized"),
        "the graph computes in float, at least in part",
        "convert it to full int8: edgeeff convert --edge-tpu",
        _issue(313),
    ),
    Failure(
        re.compile(r"Compilation timeout\. This is usually caused by large activations"),
        "it ran into its own limit of time; large activations are the usual reason",
        "give it more with --timeout, use a lower resolution, or let it look for a part that compiles: "
        "--search-delegate",
        _issue(686),
        model_at_fault=False,
    ),
    Failure(
        re.compile(r"Internal compiler error"),
        "the compiler broke down; it does not say why, and activations that are too large are one reason",
        "run it again (it is known to help), use a lower resolution, or let it look for a part that compiles: "
        "--search-delegate",
        _issue(157, 211),
        model_at_fault=False,
    ),
    Failure(
        re.compile(r"Model failed in Tflite interpreter"),
        "the compiler's own TensorFlow Lite cannot run the file",
        "see its log for the operator; try the file with edgeeff inspect FILE",
        "the output of compiler 16",
        general=True,
    ),
    Failure(
        re.compile(r"Invalid model:"),
        "the compiler does not take the file",
        "see its log; try the file with edgeeff inspect FILE",
        _issue(313),
        general=True,
    ),
    Failure(
        re.compile(r"Compilation failed!"),
        "the compiler gives no reason",
        "let it look for a part of the graph that compiles: --search-delegate",
        _issue(707, 800),
        model_at_fault=False,
        general=True,
    ),
)


def parse(text: str) -> CompilerLog:
    """Read what the compiler printed or wrote into an operation log; any text gives a result."""
    reader = _Reader()
    for line in _lines(text):
        reader.take(line.strip())
    return reader.log()


def failures(text: str) -> tuple[CompilerFailure, ...]:
    """Return the known failures in an output, each once, general ones only where there is no other."""
    return _failures(_lines(text))


def _failures(lines: Iterable[str]) -> tuple[CompilerFailure, ...]:
    found: list[tuple[Failure, CompilerFailure]] = []
    for line in lines:
        for known in FAILURES:
            match = known.pattern.search(line)
            if match is not None and all(known is not other for other, _ in found):
                cause, fix = (said.format(*match.groups()) for said in (known.cause, known.fix))
                found.append(
                    (known, CompilerFailure(line.strip()[:400], cause, fix, known.source, known.model_at_fault))
                )
    specific = [failure for known, failure in found if not known.general]
    return tuple(specific or [failure for _, failure in found][:1])


def _lines(text: str) -> list[str]:
    return text[:LONGEST_LOG].splitlines()[:_MOST_LINES]


_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(rf"(\d{{1,{_MOST_DIGITS}}}(?:\.\d{{1,{_MOST_DIGITS}}})?)(B|KiB|MiB|GiB)")
_COUNT = re.compile(rf"\d{{1,{_MOST_DIGITS}}}")
_VERSION = re.compile(r"Edge TPU Compiler version (\S{1,60})")
_SECONDS = re.compile(rf"Models? compiled successfully in (\d{{1,{_MOST_DIGITS}}}) ms")
_TIMER = re.compile(rf"Started a compilation timeout timer of (\d{{1,{_MOST_DIGITS}}}) seconds")
_STATUS = re.compile(rf"([A-Z][A-Z0-9_]{{1,60}})\s+(\d{{1,{_MOST_DIGITS}}})\s+(\S.{{0,400}})")
_FAILED = ("Compilation failed", "Internal compiler error", "Invalid model", "Compilation timeout")


def _size(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return None if match is None else round(float(match[1]) * _UNITS[match[2]])


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def _text(text: str) -> str | None:
    return text or None


_Take = tuple[str, Callable[[str], Any]]
_FIELDS: Mapping[str, _Take] = {
    "Input size": ("input_bytes", _size),
    "Output model": ("output", _text),
    "Output": ("output", _text),
    "Output size": ("output_bytes", _size),
    "On-chip memory used for caching model parameters": ("on_chip_used_bytes", _size),
    "On-chip memory remaining for caching model parameters": ("on_chip_remaining_bytes", _size),
    "On-chip memory available for caching model parameters": ("on_chip_available_bytes", _size),
    "Off-chip memory used for streaming uncached model parameters": ("off_chip_bytes", _size),
    "Number of Edge TPU subgraphs": ("subgraphs", _count),
    "Total number of operations": ("operators", _count),
    "Operation log": ("operation_log", _text),
    "Number of operations that will run on Edge TPU": ("edge_tpu_operators", _count),
    "Number of operations that will run on CPU": ("cpu_operators", _count),
}
_BEGINS = {"Input model", "Input"}  # the output's word and the operation log's


class _Reader:
    def __init__(self) -> None:
        self._version: str | None = None
        self._succeeded: bool | None = None
        self._milliseconds: int | None = None
        self._timeout_s: int | None = None
        self._attempts = 0
        self._summaries: list[CompilerSummary] = []
        self._statuses: list[list[OperatorStatus]] = []
        self._lines: list[str] = []

    def take(self, line: str) -> None:
        self._lines.append(line)
        name, colon, value = line.partition(":")
        if colon and name in _BEGINS:
            self._begin(CompilerSummary(input=_text(value.strip())))
        elif colon and name in _FIELDS:
            field, read = _FIELDS[name]
            if not self._summaries:
                self._begin(CompilerSummary())
            self._summaries[-1] = replace(self._summaries[-1], **{field: read(value.strip())})
        elif (status := _STATUS.fullmatch(line)) is not None:
            if not self._summaries:
                self._begin(CompilerSummary())
            self._statuses[-1].append(OperatorStatus(status[1], int(status[2]), status[3].strip()))
        else:
            self._outcome(line)

    def _begin(self, summary: CompilerSummary) -> None:
        self._summaries.append(summary)
        self._statuses.append([])

    def _outcome(self, line: str) -> None:
        if (version := _VERSION.match(line)) is not None:
            self._version = version[1]
        elif (timer := _TIMER.match(line)) is not None:
            self._timeout_s = int(timer[1])
        elif (compiled := _SECONDS.match(line)) is not None:
            self._succeeded, self._milliseconds = True, (self._milliseconds or 0) + int(compiled[1])
        elif line.startswith("Compilation succeeded"):
            self._succeeded = True
        elif line.startswith(_FAILED):
            self._succeeded = False
        elif line.startswith("Try to compile segment"):
            self._attempts += 1

    def log(self) -> CompilerLog:
        together = zip(self._summaries, self._statuses, strict=True)
        return CompilerLog(
            version=self._version,
            succeeded=self._succeeded,
            seconds=None if self._milliseconds is None else self._milliseconds / 1e3,
            timeout_s=self._timeout_s,
            attempts=self._attempts,
            summaries=tuple(replace(summary, statuses=tuple(statuses)) for summary, statuses in together),
            # What failed on the way of a search that found something is no failure.
            failures=() if self._succeeded else _failures(self._lines),
        )
