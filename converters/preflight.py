"""What the Edge TPU compiler would make of a file, said before it is called, from rules that are known.

Each operator is judged by the table in `edge_tpu_rules`; here is told what follows for the file: where its graph falls
apart, how much the CPU gets, whether its parameters fit. "Mapped" means that nothing is known against it.

How a file is read is left to `inspect`, what the compiler really says to `edgetpu.log`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from edgeeff.converters import inspect, workload
from edgeeff.converters.edge_tpu_rules import COMPILER_PAGE, Node, judge
from edgeeff.converters.edgetpu import estimate
from edgeeff.converters.inspect import Graph, Inspection, Operator, Tensor
from edgeeff.errors import MissingExtraError, ModelError
from edgeeff.results import (
    CpuShare,
    EdgeTpuEstimate,
    FileVerdict,
    Forecast,
    ForeseenOperators,
    ModelFile,
    OperatorVerdict,
    Record,
)

MEMORY_BYTES = estimate.MOST_ON_CHIP_BYTES
_FEW = 3


@dataclass(frozen=True)
class Judged:
    """What becomes of one operator; reason, fix and source are empty where it is mapped."""

    operator: int
    """Its index in the graph."""
    name: str
    """Its type, such as CONV_2D."""
    block: str | None
    """The part of the network that it is in, such as "block2a"."""
    verdict: OperatorVerdict
    """Whether the compiler gives it to the Edge TPU, as far as that is known."""
    reason: str = ""
    """Why not, or why that is not known."""
    fix: str = ""
    """What to do about it."""
    source: str = ""
    """Where this is known from."""


@dataclass(frozen=True, kw_only=True)
class Preflight(Record):
    """What the compiler would make of a file, and of each of its operators."""

    schema: ClassVar[str] = "edgeeff/preflight"
    schema_version: ClassVar[int] = 2
    """2 came with `forecast`, and with names and places of operators."""

    model: ModelFile
    """The file, before compiling."""
    forecast: Forecast
    """What would become of the whole file."""
    operators: tuple[Judged, ...]
    """What would become of each operator, in the order of the graph."""

    @property
    def verdict(self) -> FileVerdict:
        """The verdict on the whole file."""
        return self.forecast.verdict

    def count(self, verdict: OperatorVerdict) -> int:
        """Return how many operators have this verdict."""
        return self.forecast.count(verdict)


def check(inspection: Inspection) -> Preflight:
    """Judge each operator of a file; raises ModelError when it was compiled already."""
    if inspection.edge_tpu is not None:
        raise ModelError(
            f"{inspection.model.path} was compiled for the Edge TPU already; give the file that it was made of, or "
            "leave --edge-tpu away"
        )
    judged, refused = _judge(inspection)
    return Preflight(
        runtime=inspection.runtime,
        device=inspection.device,
        packages=inspection.packages,
        model=inspection.model,
        forecast=_forecast(inspection, judged, refused=refused),
        operators=judged,
    )


def foresee(content: bytes) -> Forecast:
    """Say what the compiler would make of a .tflite file's bytes.

    Raises ModelError when they are no .tflite file or damaged, MissingExtraError without LiteRT.
    """
    graph = inspect.parse(content)
    judged, refused = _judge(graph)
    return _forecast(graph, judged, refused=refused)


def try_foresee(content: bytes) -> Forecast | None:
    """Say the same as `foresee`; None without LiteRT, and for bytes that cannot be read."""
    try:
        return foresee(content)
    except (MissingExtraError, ModelError):
        return None


def _judge(graph: Graph | Inspection) -> tuple[tuple[Judged, ...], bool]:
    """Return what becomes of each operator, and whether the whole file is refused."""
    judged = []
    refused = False
    for operator in graph.operators:
        inputs = tuple(graph.tensors[index] for index in operator.inputs if index >= 0)
        rule = judge(Node(operator, inputs, tuple(graph.tensors[index] for index in operator.outputs)))
        place = (operator.index, operator.name, operator.block)
        if rule is None:
            judged.append(Judged(*place, "mapped"))
        else:
            refused |= rule.refuses
            judged.append(Judged(*place, rule.verdict, rule.reason, rule.fix, rule.source))
    return tuple(judged), refused


def _forecast(graph: Graph | Inspection, judged: Sequence[Judged], *, refused: bool) -> Forecast:
    cpu = _cpu(graph, judged, lambda one: one.verdict == "not mapped")
    at_worst = _cpu(graph, judged, lambda one: one.verdict != "mapped")
    parameters = _parameters(graph, judged, cpu)
    streamed = max(0, parameters - MEMORY_BYTES)
    verdict = _verdict(judged, refused=refused)
    return Forecast(
        verdict=verdict,
        operators=_lines(judged),
        parts=sum(1 for _ in groupby(judged, lambda one: one.verdict == "not mapped")),
        cpu=cpu,
        cpu_at_worst=at_worst,
        parameter_bytes=parameters,
        streamed_bytes=streamed,
        advice=(*_misfits(graph), *_too_large(parameters, streamed)),
        estimate=None if verdict in {"nothing", "refused"} else _estimate(graph, judged, cpu, parameters),
    )


def _estimate(graph: Graph | Inspection, judged: Sequence[Judged], cpu: CpuShare, parameters: int) -> EdgeTpuEstimate:
    left = (
        one.operator
        for one in judged
        if one.verdict == "not mapped" or (cpu.first is not None and one.operator >= cpu.first)
    )
    return estimate.before_compiling(workload.for_edge_tpu(graph, left), parameters)


def _verdict(judged: Sequence[Judged], *, refused: bool) -> FileVerdict:
    verdicts = {one.verdict for one in judged}
    if refused:
        return "refused"
    if "unknown" in verdicts:
        return "unknown"
    if "mapped" not in verdicts:
        return "nothing"
    return "in part" if "not mapped" in verdicts else "whole"


def _lines(judged: Sequence[Judged]) -> tuple[ForeseenOperators, ...]:
    groups: dict[tuple[str, OperatorVerdict, str, str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.name, one.verdict, one.reason, one.fix, one.source), []).append(one)
    return tuple(
        ForeseenOperators(name, len(found), verdict, reason, fix, source, _places(found, verdict))
        for (name, verdict, reason, fix, source), found in groups.items()
    )


def _places(found: Sequence[Judged], verdict: OperatorVerdict) -> tuple[str, ...]:
    """Name the first few places; those of mapped operators nobody asks for."""
    named = dict.fromkeys(one.block or f"operator {one.operator}" for one in found)
    return () if verdict == "mapped" else tuple(named)[:_FEW]


def _cpu(graph: Graph | Inspection, judged: Sequence[Judged], is_left: Callable[[Judged], bool]) -> CpuShare:
    """Say what the CPU gets: what is left before the first mapped operator, and all from the next one that is left."""
    begin = next((index for index, one in enumerate(judged) if not is_left(one)), len(judged))
    end = next((index for index in range(begin, len(judged)) if is_left(judged[index])), len(judged))
    kept = graph.operators[begin:end]
    macs = sum(operator.macs for operator in graph.operators)
    name = ""
    if end < len(judged):
        name = judged[end].name + (f" in {judged[end].block}" if judged[end].block else "")
    return CpuShare(
        first=judged[end].operator if end < len(judged) else None,
        name=name,
        operators=len(judged) - len(kept),
        macs=(macs - sum(operator.macs for operator in kept)) / macs if macs else 0.0,
    )


def _parameters(graph: Graph | Inspection, judged: Sequence[Judged], cpu: CpuShare) -> int:
    """Return the bytes of the constants that the Edge TPU has to hold; shared ones count once."""
    kept = graph.operators[: cpu.first]
    used = {
        index
        for operator, one in zip(kept, judged, strict=False)
        if one.verdict != "not mapped"
        for index in operator.inputs
        if index >= 0
    }
    # Shapes, axes and strides become part of the program.
    return sum(graph.tensors[index].size_bytes for index in used if graph.tensors[index].quantization is not None)


# Advice: https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/README.md tells what was left
# away for accelerators, https://research.google/blog/efficientnet-edgetpu-creating-accelerator-optimized-neural-networks-with-automl/
# what the Edge TPU is good at.


def _misfits(graph: Graph | Inspection) -> list[str]:
    """Say what in the network costs more on an Edge TPU than its MACs tell."""
    swishes, gates = _sigmoids(graph.operators, graph.tensors)
    parts = [
        *([f"{swishes} swish (two operators each, over all activations)"] if swishes else []),
        *([f"{gates} squeeze-and-excite (each waits for a mean over the whole image)"] if gates else []),
    ]
    if not parts:
        return []
    return [
        f"the network has {' and '.join(parts)}, which cost on an Edge TPU; lite0 to lite4 and edgetpu-s/m/l are made "
        "without them"
    ]


def _sigmoids(operators: Sequence[Operator], tensors: Sequence[Tensor]) -> tuple[int, int]:
    """Count the sigmoids that are multiplied with what they are of, and those that scale the channels of another."""
    of = {
        result: source
        for operator in operators
        if operator.name == "LOGISTIC"
        for source, result in zip(operator.inputs, operator.outputs, strict=False)
    }
    swishes = gates = 0
    for operator in operators:
        if operator.name != "MUL" or not operator.outputs:
            continue
        for index in operator.inputs:
            if index in of and of[index] in operator.inputs:
                swishes += 1
            elif index in of and tensors[index].shape != tensors[operator.outputs[0]].shape:
                gates += 1
    return swishes, gates


def _too_large(parameters: int, streamed: int) -> list[str]:
    if not streamed:
        return []
    return [
        f"{parameters / 1e6:.1f} MB of parameters are more than the {MEMORY_BYTES / 1e6:.1f} MB that an Edge TPU "
        f"keeps: {streamed / 1e6:.1f} MB or more are sent with each inference ({COMPILER_PAGE}); a smaller variant, or "
        "several Edge TPUs (edgeeff compile --segments), avoid that"
    ]
