"""How an inspection looks in a terminal: facts, operators by type, and what XNNPACK leaves with the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgeeff.converters.edgetpu import view as edge_tpu
from edgeeff.converters.inspect import Inspection, Operator, value_types
from edgeeff.converters.metadata import InputContract, Metadata
from edgeeff.converters.preflight import MEMORY_BYTES, Preflight
from edgeeff.results import CpuShare, Forecast, ForeseenOperators, TensorContract

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MANY, _FEW = 8, 3


def render(inspection: Inspection, console: Console) -> None:
    """Print an inspection as a table of facts, one of operators and the reasons for what XNNPACK leaves."""
    from rich.markup import escape
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(inspection):
        facts.add_row(name, escape(value))
    console.print(facts)
    console.print()
    console.print(_operators(inspection))
    _reasons(inspection, console)
    _dynamic(inspection, console)
    if inspection.edge_tpu_estimate is not None:
        edge_tpu.render_estimate(inspection.edge_tpu_estimate, console)


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    weights = f"{inspection.parameter_bytes / 1e6:.2f} MB of it weights"
    yield "File", f"{inspection.model.path}: {inspection.model.size_bytes / 1e6:.2f} MB, {weights}"
    yield "MACs", f"{inspection.macs / 1e9:.3f} G (multiply-accumulates; the EfficientNet papers say FLOPs)"
    for contract in inspection.inputs:
        yield "Input", _tensor(contract)
    for contract in inspection.outputs:
        yield "Output", _tensor(contract)
    for signature in inspection.signatures:
        yield "Signature", f"{signature.key}({', '.join(signature.inputs)}) -> {', '.join(signature.outputs)}"
    if len(set(inspection.blocks.values())) > 1:
        yield "Blocks", _blocks(inspection)
    yield "XNNPACK", _xnnpack(inspection)
    if inspection.edge_tpu is not None:
        yield from edge_tpu.facts(inspection.edge_tpu)
    if inspection.metadata is None:
        yield "Metadata", "none: other tools will find no labels and no normalisation in it"
    else:
        yield from _metadata(inspection.metadata)


def _tensor(contract: TensorContract) -> str:
    shape = " x ".join("?" if dimension < 0 else str(dimension) for dimension in contract.shape)
    scale = f", real = (stored - {contract.zero_point}) * {contract.scale:.6g}" if contract.scale is not None else ""
    return f"{contract.dtype} {shape}{scale}"


def _xnnpack(inspection: Inspection) -> str:
    delegation = inspection.delegation
    here = f"here, LiteRT {inspection.runtime.version if inspection.runtime else '?'}"
    if delegation is None:
        return f"unknown ({here}): {inspection.runtime_error}"
    partitions = f"{delegation.partitions} partition{'s' if delegation.partitions != 1 else ''}"
    return f"takes {len(delegation.taken)} of {len(inspection.operators)} operators in {partitions} ({here})"


def _blocks(inspection: Inspection) -> str:
    groups: dict[str, list[str]] = {}
    for block, arithmetic in inspection.blocks.items():
        groups.setdefault(arithmetic, []).append(block)
    return "; ".join(f"{arithmetic}: {', '.join(blocks)}" for arithmetic, blocks in groups.items())


def _metadata(metadata: Metadata) -> Iterator[tuple[str, str]]:
    if metadata.name or metadata.description:
        yield "Name", ": ".join(filter(None, (metadata.name, metadata.description)))
    if metadata.contract is not None:
        yield "Pixels", _pixels(metadata.contract)
    if metadata.labels is not None:
        more = ", ..." if len(metadata.labels) > _FEW else ""
        yield "Labels", f"{len(metadata.labels)}: {', '.join(metadata.labels[:_FEW])}{more}"
    if metadata.provenance:
        yield "Made from", _pairs(metadata.provenance)


def _pairs(items: Mapping[str, Any]) -> str:
    pairs = [
        f"{key} ({_pairs(value)})" if isinstance(value, Mapping) else f"{key} {value}" for key, value in items.items()
    ]
    return ", ".join(pairs[:_MANY]) + (", ..." if len(pairs) > _MANY else "")


def _pixels(contract: InputContract) -> str:
    if not any(contract.mean) and set(contract.std) == {1.0}:
        return "RGB 0 to 255, as they are"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (contract.mean, contract.std))
    return f"RGB 0 to 255, (pixel - mean) / std with mean {mean} and std {std}"


def _operators(inspection: Inspection) -> Table:
    from rich.markup import escape
    from rich.table import Table

    delegation = inspection.delegation
    taken = Counter(inspection.operators[index].name for index in delegation.taken) if delegation else None
    macs: Counter[str] = Counter()
    for operator in inspection.operators:
        macs[operator.name] += operator.macs
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Operator", overflow="fold")
    for heading in ("Count", "XNNPACK", "M MACs", "Share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Values", overflow="fold")
    for name, count in inspection.operator_counts.items():
        table.add_row(
            escape(name),
            str(count),
            str(taken[name]) if taken is not None else "?",
            f"{macs[name] / 1e6:.1f}" if macs[name] else "",
            f"{macs[name] / inspection.macs:.1%}" if macs[name] else "",
            ", ".join(
                sorted(
                    {value_types(inspection, operator) for operator in inspection.operators if operator.name == name}
                )
            ),
        )
    return table


def _reasons(inspection: Inspection, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    if inspection.delegation is None or not inspection.delegation.left:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Left by XNNPACK because", overflow="fold")
    table.add_column("Operators", overflow="fold")
    groups: dict[str, list[Operator]] = {}
    for item in inspection.delegation.left:
        groups.setdefault(item.reason, []).append(inspection.operators[item.operator])
    for reason, operators in groups.items():
        counts = Counter(operator.name for operator in operators).most_common()
        table.add_row(escape(reason), escape(", ".join(f"{count} {name}" for name, count in counts)))
    console.print()
    console.print(table)


def _dynamic(inspection: Inspection, console: Console) -> None:
    from rich.markup import escape

    dynamic = inspection.dynamic_operators
    if not dynamic:
        return
    first = ", ".join(
        f"{operator.name} {operator.index}" + (f" in {operator.block}" if operator.block else "")
        for operator in dynamic[:_FEW]
    )
    more = f" and {len(dynamic) - _FEW} more" if len(dynamic) > _FEW else ""
    console.print()
    console.print(
        f"[bold]Shapes known only at run time[/bold] in {len(dynamic)} operators: {escape(first)}{more}. "
        "Convert at batch 1 with a fixed resolution: the Edge TPU compiler refuses such files, XNNPACK splits them."
    )


def render_preflight(preflight: Preflight, console: Console) -> None:
    """Print what the Edge TPU compiler would make of a file, with reasons and what to do."""
    from rich.markup import escape
    from rich.table import Table

    forecast = preflight.forecast
    console.print()
    console.print(f"[bold]Edge TPU, before compiling[/bold]: {forecast.sentence}", soft_wrap=True)
    groups: dict[tuple[str, str, str, str], list[ForeseenOperators]] = {}
    for line in forecast.operators:
        if line.verdict != "mapped":
            groups.setdefault((line.verdict, line.reason, line.fix, line.source), []).append(line)
    if groups:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("Verdict", "Operators", "Because", "What to do", "Known from"):
            table.add_column(heading, overflow="fold")
        for (verdict, reason, fix, source), lines in groups.items():
            table.add_row(verdict, *(escape(text) for text in ("; ".join(map(_group, lines)), reason, fix, source)))
        console.print(table)
    for text in (*_split(preflight), *_parameters(forecast), *forecast.advice):
        console.print(escape(text), soft_wrap=True)
    if forecast.estimate is not None:
        edge_tpu.render_estimate(forecast.estimate, console)
        if forecast.count("unknown"):
            console.print("They take it that unknown operators are mapped.")


def _group(line: ForeseenOperators) -> str:
    more = ", ..." if line.count > len(line.places) else ""
    return f"{line.count} {line.name} ({', '.join(line.places)}{more})"


def _split(preflight: Preflight) -> Iterator[str]:
    """Say where the graph is cut, and what the CPU gets then."""
    forecast = preflight.forecast
    if forecast.verdict not in {"in part", "unknown"}:
        return
    cpu, worst = forecast.cpu, forecast.cpu_at_worst
    if cpu.first is not None:
        after = preflight.operators[cpu.first :]
        stranded = sum(one.verdict == "mapped" for one in after)
        again = f"; {stranded} of them could go back with edgeeff compile --multiple-subgraphs" if stranded else ""
        yield (
            f"From {cpu.name} (operator {cpu.first}) on, {len(after)} operators run on the CPU{again}. All in all the "
            f"CPU gets {_share(cpu)}; the graph falls into {forecast.parts} parts."
        )
    if worst.operators != cpu.operators:
        where = f" from {worst.name} (operator {worst.first}) on" if worst.first is not None else ""
        yield f"Should no unknown one be mapped, the CPU gets {_share(worst)}{where}."


def _share(cpu: CpuShare) -> str:
    return f"{cpu.operators} operator{'' if cpu.operators == 1 else 's'} with {cpu.macs:.1%} of the MACs"


def _parameters(forecast: Forecast) -> Iterator[str]:
    """Say whether parameters stay on the Edge TPU; what cannot stay is in the advice."""
    if not forecast.parameter_bytes or forecast.streamed_bytes or forecast.verdict in {"nothing", "refused"}:
        return
    yield (
        f"{forecast.parameter_bytes / 1e6:.2f} MB of parameters: an Edge TPU keeps up to {MEMORY_BYTES / 1e6:.1f} MB "
        "of them, and how many the compiler decides."
    )
