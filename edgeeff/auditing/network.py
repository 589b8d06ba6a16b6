"""The network whose activation ranges are to be set: opened as `edgeeff convert` would, ready to be watched."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edgeeff import scaling
from edgeeff.converters import convert, inspect, quantize, replay
from edgeeff.converters.convert import Interface, Source
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session, runtime
from edgeeff.errors import InputError, RecordError
from edgeeff.progress import Progress
from edgeeff.results import ConversionRecord, ModelFile, Runtime, read_record

_PHI = re.compile(r"phi(-?[0-9.]+)")

FIXED = ("LOGISTIC", "SOFTMAX")
"""Operators whose results have a range by definition."""


@dataclass(frozen=True)
class Network:
    """A float network, and the tensors whose ranges depend on the images."""

    name: str
    model: FloatModel
    labels: tuple[str, ...] | None
    file: ModelFile | None
    """None for a variant, and a model in a folder."""
    watched: dict[str, int]
    """Indices of tensors by name, in the order of computation."""
    blocks: dict[str, str]
    """The part of the network that each belongs to, "" where its name does not say."""

    @property
    def sha256(self) -> str:
        """Of the float .tflite."""
        return hashlib.sha256(self.model.content).hexdigest()

    @property
    def runtime(self) -> Runtime:
        """What runs it."""
        return runtime()

    def session(self) -> Session:
        """Load it so that all its tensors can be read."""
        return Session(self.model.content, keep=True)


def open_network(
    source: Source, labels: Path | None, input_range: tuple[float, float] | None, progress: Progress
) -> Network:
    """Open what `edgeeff convert` would convert; `labels` and `input_range` as there. Raises what that raises."""
    interface = Interface(labels=labels, input_range=input_range)
    model, names = convert.float_file(source, interface, progress)
    graph = Graph(model.content)
    known = quantize.known_ranges(model)
    fixed = {int(index) for operator in graph.operators if graph.kind(operator) in FIXED for index in operator.outputs}
    parts = {
        index: operator.block or "" for operator in inspect.parse(model.content).operators for index in operator.outputs
    }
    watched = {
        graph.name(index): index
        for index, own in replay.roots(graph).items()
        if index == own and index not in fixed and graph.name(index) not in known and graph.dtype(index) == "float32"
    }
    path = source.model
    return Network(
        name=source.name if path is None else str(path),
        model=model,
        labels=names,
        file=ModelFile.of(path) if path is not None and path.is_file() else None,
        watched=watched,
        blocks={name: parts.get(index, "") for name, index in watched.items()},
    )


def source_of(model: Path | None, variant: str | None, weights: str | None) -> Source:
    """Return what options or a conversion record name.

    Raises RecordError for a .json that is no conversion record, InputError when its model cannot be found.
    """
    if model is None or model.suffix.lower() != ".json":
        return Source(variant=variant, model=model, weights=weights)
    record = read_record(model)
    if not isinstance(record, ConversionRecord):
        raise RecordError(f"{model} is a record of {record.schema}; give one that edgeeff convert wrote, or a model")
    name, phi = record.source, _PHI.fullmatch(record.source)
    if name in scaling.VARIANTS or phi is not None:
        if record.weights not in {"imagenet", "none"} and not Path(record.weights).exists():
            raise InputError(f"the weights {record.weights} that {model} names are not there any more")
        return Source(
            variant=None if phi else name,
            phi=float(phi[1]) if phi else None,
            weights=record.weights,
            classes=record.classes,
            resolution=record.resolution[0],
        )
    for path in (Path(record.source), model.parent / record.source):
        if path.exists():
            return Source(model=path)
    raise InputError(f"the model {record.source} that {model} was made of is not there any more: give it with --model")
