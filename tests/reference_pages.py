"""The two pages of the reference that the code itself writes: every command, and every field of the JSON records.

What they say comes from `--help`, from the dataclasses and from their docstrings; only units that a field's name does
not tell are kept here. `test_reference_pages` holds the committed pages against it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import click

from edgeeff.cli import main
from edgeeff.converters import schemes
from edgeeff.converters.inspect import Inspection
from edgeeff.converters.preflight import Preflight
from edgeeff.devices import targets
from edgeeff.doctor import Checkup
from edgeeff.results import RECORDS, Comparison, EvaluationComparison, FleetSummary, Record, WrittenReport
from edgeeff.scaling import Row, Scaling

COLUMNS = 100
NOTE = "<!-- Written by tests/reference_pages.py; UPDATE_GOLDEN=1 pytest tests/test_reference_pages.py renews it. -->\n"
ALL_RECORDS: tuple[type[Record], ...] = (*RECORDS.values(), Inspection, Preflight)

SUFFIXES = {
    "bytes_per_s": "bytes/s",
    "ops_per_s": "operations/s",
    "per_s": "1/s",
    "per_ms": "1/ms",
    "s": "s",
    "bytes": "bytes",
    "c": "°C",
    "hz": "Hz",
    "w": "W",
    "px": "pixels",
}
"""The last part of a field's name, and the unit that it stands for."""
FRACTION = "0 to 1"
RATIO = "ratio"
UNITS = {
    "agreement": FRACTION,
    "amperes": "A",
    "balanced_accuracy": FRACTION,
    "baseline_confidence": FRACTION,
    "baseline_top1": FRACTION,
    "calibration_error": FRACTION,
    "correlation": "-1 to 1",
    "depth": "factor to B0",
    "divergence": "nats",
    "gain_per_ms": "points/ms",
    "images_per_s": "images/s",
    "interval": "as the value",
    "kl": "nats",
    "load_1m": "processes",
    "macro_f1": FRACTION,
    "macro_precision": FRACTION,
    "macro_recall": FRACTION,
    "macs": "multiply-accumulates",
    "megabits_per_s": "Mbit/s",
    "model_confidence": FRACTION,
    "p_adjusted": FRACTION,
    "p_value": FRACTION,
    "phi": "compound coefficient",
    "ratio": RATIO,
    "resolution": "pixels",
    "seconds": "s",
    "throughput_per_s": "inferences/s",
    "top1": FRACTION,
    "top1_interval": FRACTION,
    "top5": FRACTION,
    "volts": "V",
    "weighted_f1": FRACTION,
    "weighted_precision": FRACTION,
    "weighted_recall": FRACTION,
    "width": "factor to B0",
}
"""Units of fields whose names mean the same everywhere."""
OWN_UNITS = {
    "Agreement.max_difference": "as the output",
    "Agreement.same_top1": FRACTION,
    "BlockLatency.share": FRACTION,
    "BoardSummary.start_load_1m": "processes",
    "ClassMetrics.f1": FRACTION,
    "ClassMetrics.precision": FRACTION,
    "ClassMetrics.recall": FRACTION,
    "CpuShare.macs": FRACTION,
    "DemoPhotograph.float_score": FRACTION,
    "DemoPhotograph.int8_score": FRACTION,
    "DemoRecord.latency_ratio": RATIO,
    "DemoRecord.size_ratio": RATIO,
    "Difference.value": "as the figure",
    "Divergence.kl_mean": "nats",
    "Divergence.kl_median": "nats",
    "Divergence.kl_p95": "nats",
    "Divergence.total_variation_mean": FRACTION,
    "Fidelity.ties": FRACTION,
    "Finding.figures": "as named",
    "Finetuning.accuracy_after": FRACTION,
    "Finetuning.accuracy_before": FRACTION,
    "Finetuning.divergences": "step, nats",
    "Finetuning.pruned_share": FRACTION,
    "Finetuning.simulation_correlation": "-1 to 1",
    "GateResult.bound": FRACTION,
    "GateResult.limit": FRACTION,
    "GateResult.value": FRACTION,
    "Goal.max_drop": "points",
    "Goal.max_latency": RATIO,
    "Goal.min_agreement": FRACTION,
    "Growth.lowest": RATIO,
    "Growth.median": RATIO,
    "ImpliedPhi.depth": "compound coefficient",
    "ImpliedPhi.resolution": "compound coefficient",
    "ImpliedPhi.width": "compound coefficient",
    "InputContract.height": "pixels",
    "InputContract.mean": "as the pixels",
    "InputContract.std": "as the pixels",
    "InputContract.width": "pixels",
    "Kernels.max_difference": FRACTION,
    "Kernels.same_scores": FRACTION,
    "LoneImage.worst_ratio": RATIO,
    "MixedPoint.agreement_estimate": FRACTION,
    "MixedPoint.agreement_low": FRACTION,
    "MixedPoint.latency_ratio": RATIO,
    "MixedTrial.latency_ratio": RATIO,
    "Outputs.commonest_share": FRACTION,
    "Outputs.mean_confidence": FRACTION,
    "Outputs.top1_ties": FRACTION,
    "Outputs.top5_ties": FRACTION,
    "Paired.agreement_interval": FRACTION,
    "Paired.smallest_difference": FRACTION,
    "PickCandidate.top1": "percent",
    "PickLimits.min_top1": "percent",
    "PickRecord.margin": "part of the budget",
    "PickRecord.runner_up_margin": "part of the budget",
    "Preprocessing.height": "pixels",
    "Preprocessing.mean": "pixel, 0 to 255",
    "Preprocessing.std": "pixel, 0 to 255",
    "Preprocessing.width": "pixels",
    "ProfileRecord.options": "as named",
    "RangeAudit.stability": FRACTION,
    "RangeAudit.stability_lowest": FRACTION,
    "Quantization.max_scale": "real per step",
    "Quantization.min_scale": "real per step",
    "Reason.figures": "as named",
    "Row.int8_top1": "percent",
    "Row.top1": "percent",
    "Scaling.resolution": "factor to B0",
    "Scaling.flops_growth": "factor",
    "SetSummary.mean": "pixel, 0 to 255",
    "SetSummary.std": "pixel, 0 to 255",
    "TensorContract.scale": "real per step",
    "TensorFault.clipped": FRACTION,
    "TensorFault.error": RATIO,
    "TensorFault.excess": RATIO,
    "TensorFault.float_high": "real value",
    "TensorFault.float_low": "real value",
    "TensorFault.high": "real value",
    "TensorFault.low": "real value",
    "Test.figures": "as named",
}
"""Units of the others, by class; a field of decimals that is in none of these has no unit, and a test says so."""

DOCUMENTS: Mapping[str, str] = {
    "calibrate": "[edgeeff/audit](#edgeeffaudit)",
    "compare": "`comparison` ([EvaluationComparison](#evaluationcomparison))",
    "compile": "[edgeeff/compilation](#edgeeffcompilation)",
    "convert": "[edgeeff/conversion](#edgeeffconversion)",
    "demo": "[edgeeff/demo](#edgeeffdemo)",
    "devices add": "`target` ([Target](#target))",
    "devices list": "`targets`: a list of [Target](#target); `boards`: a list of [Facts](#facts)",
    "devices probe": "[edgeeff/probe](#edgeeffprobe)",
    "devices remove": "`removed` ([Target](#target))",
    "devices setup": "`target` ([Target](#target)), `setup`: the runtime, the packages and the Python that it is for",
    "diagnose": "[edgeeff/diagnosis](#edgeeffdiagnosis)",
    "doctor": "[Checkup](#checkup)",
    "evaluate": "`records`: a list of [edgeeff/evaluation](#edgeeffevaluation)",
    "inspect": "[edgeeff/inspection](#edgeeffinspection), with `--edge-tpu` [edgeeff/preflight](#edgeeffpreflight)",
    "pick": "[edgeeff/pick](#edgeeffpick)",
    "predict": "[edgeeff/prediction](#edgeeffprediction)",
    "profile": "`records`: a list of [edgeeff/profile](#edgeeffprofile); `fleet`: a list of "
    "[FleetSummary](#fleetsummary); `comparisons`: a list of [Comparison](#comparison); `failures`: what failed where",
    "report": "[WrittenReport](#writtenreport)",
    "scale": "`scaling` ([Scaling](#scaling)), `resolution_px`, `parameters`, `macs`",
    "schemes": "`schemes`: a list of [Scheme](#scheme)",
    "variants": "`variants`: a list of [Row](#row)",
}
"""What --json prints, by command."""
PARTS: tuple[type[Any], ...] = (
    Checkup,
    Comparison,
    EvaluationComparison,
    FleetSummary,
    WrittenReport,
    Scaling,
    Row,
    schemes.Scheme,
    targets.Target,
    targets.Facts,
)
"""The dataclasses that DOCUMENTS speaks of and no record holds."""


# --- Commands ---------------------------------------------------------------------------------------------------------


def commands(group: click.Group = main, name: str = "edgeeff") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words that call it: a group before its commands, else in alphabetical order."""
    yield name, group
    for word, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        elif not command.hidden:
            yield f"{name} {word}", command


def help_of(name: str, command: click.Command) -> str:
    """Return what `--help` prints where the terminal is COLUMNS wide."""
    context = click.Context(command, info_name=name, terminal_width=COLUMNS, help_option_names=["-h", "--help"])
    return command.get_help(context)


def commands_page() -> str:
    """Return docs/reference/commands.md."""
    parts = [NOTE, "# Commands\n", "What `--help` says of every command.\n"]
    for name, command in commands():
        parts.append(f"## {name}\n\n```text\n{help_of(name, command)}\n```\n")
    return "\n".join(parts)


# --- Records ----------------------------------------------------------------------------------------------------------


def records_page() -> str:
    """Return docs/reference/records.md."""
    parts = [
        NOTE,
        "# Records\n",
        "What commands write beside their files and print with `--json`. Times are seconds and sizes bytes; names\n"
        "that end in `_s` and `_bytes` say so. What is None in the descriptions is `null` in JSON.\n",
        "A record has `schema` and `schema_version` first. edgeeff reads records of every earlier version; fields\n"
        "that came later are null or empty there. Newer records than it knows are refused.\n",
        "## What each command prints\n",
        "| command | with `--json` |\n|---|---|\n"
        + "".join(f"| `{name}` | {text} |\n" for name, text in DOCUMENTS.items()),
        "## What every record begins with\n",
        table(Record),
    ]
    for cls in sorted(ALL_RECORDS, key=lambda one: one.schema):
        parts += [f"## {cls.schema}\n", f"Version {cls.schema_version}. {summary(cls)}\n", table(cls, Record)]
    parts += [
        "## Parts\n",
        "What fields of the tables above hold.\n",
    ]
    for cls in sorted(parts_of((*ALL_RECORDS, *PARTS)), key=lambda one: one.__name__):
        parts += [f"### {cls.__name__}\n", f"{summary(cls)}\n", table(cls)]
    return "\n".join(parts)


def parts_of(roots: tuple[type[Any], ...]) -> set[type[Any]]:
    """Return the dataclasses that these hold, at any depth; raises ValueError when two have the same name."""
    found: set[type[Any]] = {cls for cls in roots if not issubclass(cls, Record)}
    waiting = list(roots)
    while waiting:
        for hint in hints(waiting.pop()).values():
            new = {cls for cls in _classes(hint) if not issubclass(cls, Record)} - found
            found |= new
            waiting += new
    if len({cls.__name__ for cls in found}) < len(found):
        raise ValueError("two parts of records have the same name")
    return found


def table(cls: type[Any], without: type[Any] | None = None) -> str:
    """Return the fields of a dataclass with types, units and docstrings, but for those that `without` has."""
    known = {field.name for field in dataclasses.fields(without)} if without else set()
    types_of = hints(cls)
    lines = ["| field | type | unit | |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        if field.name not in known:
            cells = (f"`{field.name}`", words(types_of[field.name]), unit(cls, field.name), documented(cls, field.name))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def unit(cls: type[Any], name: str) -> str:
    """Return the unit of a field; empty where it is a count, a name or a part."""
    if not {int, float} & _leaves(hints(cls)[name]):
        return ""
    if (own := OWN_UNITS.get(f"{cls.__name__}.{name}") or UNITS.get(name)) is not None:
        return own
    return next((text for suffix, text in SUFFIXES.items() if name.endswith(f"_{suffix}")), "")


def everything() -> tuple[type[Any], ...]:
    """Return the dataclasses that have a table."""
    return (*ALL_RECORDS, *parts_of((*ALL_RECORDS, *PARTS)))


def without_unit() -> list[str]:
    """Return the fields of decimals whose unit nothing tells."""
    return sorted(
        f"{cls.__name__}.{name}"
        for cls in everything()
        for name, hint in hints(cls).items()
        if float in _leaves(hint) and not unit(cls, name)
    )


def without_text() -> list[str]:
    """Return the fields that have no docstring."""
    classes: tuple[type[Any], ...] = (Record, *everything())
    fields = {(cls.__name__, name, documented(cls, name)) for cls in classes for name in hints(cls)}
    return sorted(f"{cls}.{name}" for cls, name, text in fields if not text)


def words(hint: Any) -> str:
    """Say a type as JSON knows it; dataclasses are links to their tables."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(words(one) for one in arguments)
    if origin is typing.Literal:
        return ", ".join(f'"{one}"' for one in arguments)
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {words(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(words(one) for one in arguments)}]"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {words(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        record = isinstance(hint, type) and issubclass(hint, Record)
        title = hint.schema if record else hint.__name__  # type: ignore[union-attr]
        return f"[{title}](#{title.lower().replace('/', '')})"
    plain = {str: "string", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
    return plain[hint]


def summary(cls: type[Any]) -> str:
    """Return the docstring of a class as one paragraph of Markdown."""
    return _plain(cls.__doc__ or "")


def documented(cls: type[Any], name: str) -> str:
    """Return the docstring of a field: the string that follows it in the class that defines it."""
    owner = next(base for base in cls.__mro__ if name in _field_docs(base))
    return _plain(_field_docs(owner)[name])


def hints(cls: type[Any]) -> dict[str, Any]:
    """Return the types of a dataclass's fields, resolved where each is defined."""
    return _hints(cls.__module__, cls.__name__)


@cache
def _hints(module: str, name: str) -> dict[str, Any]:
    cls = getattr(sys.modules[module], name)
    resolved = typing.get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


@cache
def _field_docs(cls: type[Any]) -> dict[str, str]:
    if not dataclasses.is_dataclass(cls):
        return {}
    found: dict[str, str] = {}
    body = next(
        node.body
        for node in _module(cls.__module__).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            found[node.target.id] = str(text)
    return found


@cache
def _module(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _leaves(hint: Any) -> set[Any]:
    arguments = typing.get_args(hint)
    return set().union(*(_leaves(one) for one in arguments)) if arguments else {hint}


def _classes(hint: Any) -> Iterator[type[Any]]:
    yield from (leaf for leaf in _leaves(hint) if isinstance(leaf, type) and dataclasses.is_dataclass(leaf))
