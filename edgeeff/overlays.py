"""What edgeeff knows of a file's operators, as overlays for Model Explorer, Google's viewer of model graphs.

An overlay gives nodes a number or a word, and a colour. Model Explorer shows one from each file of node data, so
several overlays are several files. Nothing of it is needed to write them: the format is that of its
`node_data_builder`, and the names of graphs and nodes are those that its TFLite adapters give them, as of 0.1.34.

Measuring is left to `edgeeff profile`, comparing tensors to `diagnosis`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeeff import latency
from edgeeff.converters import inspect, workload
from edgeeff.converters.inspect import Graph, Operator
from edgeeff.diagnosis import diagnose
from edgeeff.errors import InputError, ModelError, RecordError
from edgeeff.files import check_writable, staged
from edgeeff.progress import Progress
from edgeeff.render import shown
from edgeeff.results import BlockLatency, ProfileRecord

if TYPE_CHECKING:
    from rich.console import Console

OPTION = "--model-explorer"
UNNAMED = "main"
"""What Model Explorer calls the first graph of a file when it has no name."""
GRADIENT = ("#fff7bc", "#fe9929", "#993404")
"""From the least value to the largest; light enough, or dark enough, for the text that Model Explorer puts on it."""
COLOURS = {"float32": "#fdae61", "float16": "#fee08b", "int8": "#abd9e9", "uint8": "#abd9e9", "int16": "#a6d96a"}
OTHER = "#e0e0e0"
"""Colour of what changes the type of its values, and of types that are rare."""
BLOCK_SIGMA = 0.1
"""Relative error of a block's time, which is a difference of two."""
DIGITS = 4


@dataclass(frozen=True)
class Plan:
    """What is to be shown of which file, and where it is written."""

    model: Path
    output: Path
    """The first overlay's file; the others' are beside it."""
    profile: ProfileRecord | None = None
    baseline: Path | None = None
    """The float model: a Keras model or a .tflite file."""
    data: Path | None = None
    """Images; None for images made here."""
    input_range: tuple[float, float] | None = None
    """What black and white are for a file that does not say."""


@dataclass(frozen=True)
class Overlay:
    """One figure or word for operators, by their indices."""

    kind: str
    """A word for it, which ends the file's name."""
    name: str
    """What Model Explorer calls it, with its unit."""
    values: Mapping[int, float | str]
    adds_up: bool = True
    """Whether a sum over operators means something."""


def check(plan: Plan) -> None:
    """Refuse what cannot be, before any work is done.

    Raises InputError for an output that would take the place of an input or that Model Explorer would not open,
    OutputError for one that cannot be written.
    """
    output = plan.output
    if output.suffix != ".json":
        raise InputError(f"{OPTION} {output}: Model Explorer opens .json files only; give it such a name")
    if plan.data is not None and plan.baseline is None:
        raise InputError("--data is what the quantization error is measured on: give the float model with --baseline")
    if plan.input_range is not None and plan.baseline is None:
        raise InputError("--input-range is for the images of --baseline: give the float model, too")
    if _is_record(output):
        raise InputError(f"{OPTION} {output} would overwrite a record of edgeeff; give the overlay another name")
    check_writable(output, option=OPTION)


def _is_record(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and str(document.get("schema", "")).startswith("edgeeff/")


def of_file(plan: Plan, progress: Progress | None = None) -> tuple[Graph, tuple[Overlay, ...]]:
    """Return a file's graph and overlays: latency and error where they are asked for, then what is always known.

    Raises InputError for a profile of another file or one without blocks, ModelError for a file that cannot be read,
    and what comparing tensors raises.
    """
    try:
        content = plan.model.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {plan.model}: {error.strerror}") from error
    graph = inspect.parse(content)
    asked = []
    if plan.profile is not None:
        asked.append(by_latency(graph, plan.profile, hashlib.sha256(content).hexdigest(), str(plan.model)))
    if plan.baseline is not None:
        asked.append(by_error(graph, plan, progress))
    return graph, (*asked, by_macs(graph), by_weights(graph), by_types(graph))


def document(graph: Graph, overlay: Overlay) -> dict[str, Any]:
    """Return an overlay as Model Explorer's node data: graphs by name, and in them nodes by key."""
    keys = _keys(graph)
    data: dict[str, Any] = {
        "name": overlay.name,
        "results": {keys[index]: _result(value) for index, value in sorted(overlay.values.items())},
    }
    if any(isinstance(value, str) for value in overlay.values.values()):
        data["hideInAggregatedStatsTable"] = True
    else:
        last = len(GRADIENT) - 1
        data["gradient"] = [{"stop": place / last, "bgColor": colour} for place, colour in enumerate(GRADIENT)]
    if not overlay.adds_up:
        data["hideAggregatedStats"] = ["sum"]
        data["hideInChildrenStatsTable"] = True
    return {graph.name or UNNAMED: data}


def write(graph: Graph, made: Sequence[Overlay], output: Path) -> dict[Path, str]:
    """Write the first overlay to `output`, the others beside it with their kind in the file's name, all or none.

    Returns the files with the names of their overlays. Raises OutputError where writing is impossible.
    """
    written: dict[Path, str] = {}
    with contextlib.ExitStack() as stack:
        for one in made:
            path = output.with_suffix(f".{one.kind}.json") if written else output
            text = json.dumps(document(graph, one), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            stack.enter_context(staged(path, text.encode("utf-8", "replace"), option=OPTION))
            written[path] = one.name
    return written


def render(model: Path, written: Mapping[Path, str], console: Console) -> None:
    """Print which overlay is where, and how to see them."""
    console.print("\n[bold]Overlays for Model Explorer[/bold], one in each file:")
    for path, name in written.items():
        console.print(f"  {shown(str(path))}: {shown(name)}", soft_wrap=True)
    paths = shlex.quote(",".join(map(str, written)))
    command = f"model-explorer {shlex.quote(str(model))} --node_data_paths={paths}"
    console.print(f"Next: {shown(command)}", soft_wrap=True)
    console.print("It is in the package ai-edge-model-explorer; the page shows one overlay at a time, of your choice.")


# --- What is shown ----------------------------------------------------------------------------------------------------


def by_latency(graph: Graph, record: ProfileRecord, sha256: str, origin: str) -> Overlay:
    """Return what every operator takes, in ms, so that a block's operators take together what was measured of it.

    No runtime tells single operators apart, so within a block the latency model does, fitted to the blocks. Raises
    InputError for a record of another file, or without blocks.
    """
    if record.model.sha256 != sha256:
        raise InputError(
            f"--profile is a record of another file: {record.model.path}, sha256 {record.model.sha256[:12]}...; "
            f"{origin} has {sha256[:12]}...: measure it with edgeeff profile {origin} --blocks"
        )
    if not record.blocks:
        raise InputError(
            f"--profile does not say where the time goes; measure it with edgeeff profile {origin} --blocks "
            f"--target {record.target}"
        )
    if sum(block.operators for block in record.blocks) != len(graph.operators):
        raise RecordError(
            f"--profile contradicts its file: its blocks have {sum(block.operators for block in record.blocks)} "
            f"operators, {origin} has {len(graph.operators)}; measure it anew"
        )
    seconds = _shared_out(graph, record.blocks)
    return Overlay("latency", _measured(record), {index: _rounded(1e3 * one) for index, one in enumerate(seconds)})


def by_error(graph: Graph, plan: Plan, progress: Progress | None = None) -> Overlay:
    """Return how far every tensor is from the float model's, in percent of the deviation of its values.

    That is with all errors before it. Raises InputError where the two files have no tensor in common, and what
    comparing raises.
    """
    if plan.baseline is None:
        raise InputError("a quantization error is one against the float model: give it with --baseline")
    asked = diagnose.Plan(plan.model, plan.baseline, plan.data, input_range=plan.input_range, samples=diagnose.COMPARED)
    compared, count = diagnose.compare_tensors(asked, progress)
    makers = {tensor: operator.index for operator in graph.operators for tensor in operator.outputs}
    found = {
        makers[one.pair.model]: _rounded(100 * one.fault.error)
        for one in compared
        if one.pair.model in makers and one.fault.float_low < one.fault.float_high  # else nothing deviates
    }
    if not found:
        raise InputError(f"{plan.model} and {plan.baseline} have no tensors in common: one was not made of the other")
    where = f"{count} images of {plan.data.name or plan.data}" if plan.data is not None else f"{count} synthetic images"
    return Overlay("error", f"quantization error, % of deviation ({where})", found, adds_up=False)


def by_macs(graph: Graph) -> Overlay:
    """Return the multiply-accumulates of one inference, in millions, of the operators that have any."""
    return Overlay(
        "macs", "MACs, millions", {one.index: _rounded(one.macs / 1e6) for one in graph.operators if one.macs}
    )


def by_weights(graph: Graph) -> Overlay:
    """Return the bytes of constants that operators read; one that several share counts for each."""
    sizes = {
        one.index: sum(graph.tensors[index].size_bytes for index in dict.fromkeys(one.inputs) if index >= 0)
        for one in graph.operators
    }
    return Overlay("weights", "weights, bytes", {index: size for index, size in sizes.items() if size})


def by_types(graph: Graph) -> Overlay:
    """Return what operators compute in, and the type of their weights where it is another one."""
    found = {one.index: _types(graph, one) for one in graph.operators}
    return Overlay("types", "types of values", found, adds_up=False)


def _types(graph: Graph, operator: Operator) -> str:
    values = inspect.value_types(graph, operator)
    filters = graph.tensors[operator.inputs[1]] if operator.macs and len(operator.inputs) > 1 else None
    if filters is None or not filters.constant or filters.dtype in values:
        return values
    return f"{values}, {filters.dtype} weights"


def _measured(record: ProfileRecord) -> str:
    """Name a latency so that nobody takes it for more than it is; the page shows the beginning of long names."""
    facts = [record.target, f"{record.threads} thread{'s' if record.threads > 1 else ''}"]
    if record.verdict is not None and not record.verdict.valid:
        facts.insert(0, "INVALID")
    if record.device.emulated:
        facts.insert(0, "EMULATED")
    return f"latency, ms ({', '.join(facts)}; blocks measured, operators estimated)"


def _shared_out(graph: Graph, blocks: Sequence[BlockLatency]) -> list[float]:
    """Return the seconds of every operator: the blocks' own, in the shares that the latency model expects."""
    work = workload.of_graph(graph, "the network", "b")
    ends = [sum(block.operators for block in blocks[: number + 1]) for number in range(len(blocks))]
    parts = [work.operators[end - block.operators : end] for end, block in zip(ends, blocks, strict=True)]
    measured = [
        latency.Measured(replace(work, operators=part), block.p50_s, BLOCK_SIGMA)
        for part, block in zip(parts, blocks, strict=True)
        if block.p50_s > 0
    ]
    model = latency.fit(measured, work.scheme, family=work.family)
    seconds: list[float] = []
    for part, block in zip(parts, blocks, strict=True):
        expected = [model.predict(replace(work, operators=(operator,))).seconds for operator in part]
        seconds += [block.p50_s * one / sum(expected) for one in expected]
    return seconds


# --- As Model Explorer has it -----------------------------------------------------------------------------------------


def _keys(graph: Graph) -> list[str]:
    """Return what tells every operator's node.

    It is the name of its first output, which all adapters keep; where that is not the only one of its name, the
    operator's index, which is the node's identity in the adapter that Model Explorer takes unless told otherwise.
    """
    counts = Counter(tensor.name for tensor in graph.tensors)

    def key(operator: Operator) -> str:
        name = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
        return name if name and counts[name] == 1 and name.isprintable() else str(operator.index)

    return [key(operator) for operator in graph.operators]


def _result(value: float | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"value": value, "bgColor": COLOURS.get(value.split(",")[0], OTHER)}
    return {"value": value}


def _rounded(value: float) -> float:
    """Return what Model Explorer shows as it is: it rounds nothing."""
    return float(f"{value:.{DIGITS}g}")
