"""What a .tflite file says about itself: labels, what its input wants, and where it comes from.

Two entries are written into the model. The standard one, `TFLITE_METADATA`, is what MediaPipe Tasks, Android's tools
and others read; its label file lies in a zip archive behind the model's bytes. The one named `edgeeff` is our own
provenance as JSON. No maintained package writes the standard entry for Python 3.12 and later, so the few tables that a
classifier needs are written here, field by field as the public `metadata_schema.fbs` numbers them.

What the graph does is left to `inspect`, and what must hold of a file to `verify`.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import io
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgeeff.errors import InputError, MissingExtraError, ModelError

LABEL_FILE = "labels.txt"
_STANDARD, _OWN = "TFLITE_METADATA", "edgeeff"
_IDENTIFIER = b"M001"
_MAX_LABEL_BYTES = 4 << 20
_MAX_CHANNELS = 1 << 16

# What the generated flatbuffer reader and zipfile raise on bytes that are not what they should be.
DAMAGE = (struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError)
_ZIP_DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


_Value: TypeAlias = "int | str | tuple[float, ...] | _Fields | list[_Fields]"
_Fields: TypeAlias = "Mapping[int, _Value]"


class _Model:
    NAME, DESCRIPTION, _, SUBGRAPHS, _, _, _, MIN_PARSER_VERSION = range(8)


class _SubGraph:
    _, _, INPUTS, OUTPUTS = range(4)


class _Tensor:
    NAME, DESCRIPTION, _, CONTENT, PROCESS_UNITS, _, FILES = range(7)


class _Content:
    TYPE, PROPERTIES = range(2)
    FEATURE, IMAGE = 1, 2


class _Image:
    COLOR_SPACE = 0
    RGB = 1


class _Unit:
    TYPE, OPTIONS = range(2)
    NORMALIZATION = 1


class _Normalization:
    MEAN, STD = range(2)


class _File:
    NAME, DESCRIPTION, TYPE = range(3)
    AXIS_LABELS = 2


@dataclass(frozen=True)
class InputContract:
    """What the input tensor takes: an RGB image, batch 1, and for each channel of a pixel p in 0..255 the real value
    (p - mean) / std. A quantized tensor stores real / scale + zero_point; with uint8, mean 0, std 1 that is p itself.
    """

    height: int
    """Of the image, in pixels."""
    width: int
    """Of the image, in pixels."""
    channels: int
    """3 for RGB."""
    dtype: str
    """The type of the tensor's values."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """What is taken off each channel, in pixel values."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """What each channel is divided by then, in pixel values."""


@dataclass(frozen=True)
class Metadata:
    """What was read of a file's metadata; None where it says nothing."""

    name: str | None
    """What the model is called."""
    description: str | None
    """What it is, in a sentence or a few."""
    labels: tuple[str, ...] | None
    """Class names in the order of the scores."""
    contract: InputContract | None
    """What the input takes."""
    provenance: Mapping[str, Any] | None
    """The JSON object of our own entry."""
    min_parser_version: str | None
    """The oldest version of the metadata's readers that understands it."""


def embed(
    model: bytes,
    *,
    name: str,
    description: str,
    labels: Sequence[str] | None,
    contract: InputContract,
    provenance: Mapping[str, Any],
    output_name: str = "probability",
) -> bytes:
    """Return `model` with standard metadata, labels and provenance in it; those that were there are replaced.

    The file is written anew with every buffer inside the flatbuffer and aligned to 16 bytes, as the schema asks.
    litert-quantizer puts them behind it, where readers from before 2023 do not look, and Python's generated writer
    drops the alignment. The same arguments give the same bytes.

    Raises InputError when the number of labels is not the number of outputs, or a label is empty or has a line break,
    ModelError when `model` is no .tflite file or its input is not what `contract` says, MissingExtraError without
    LiteRT.
    """
    root = open_model(model)
    standard = _standard(name, description, bool(labels), contract, output_name)
    own = json.dumps(provenance, ensure_ascii=False, allow_nan=False).encode()
    try:
        _check(root, labels, contract)
        packed = _pack(_unpack(model), {_STANDARD: standard, _OWN: own}, len(model))
    except DAMAGE as error:
        raise ModelError("the .tflite file is cut off or damaged; convert or copy it again") from error
    return _with_archive(packed, labels)


def read(model: bytes) -> Metadata | None:
    """Read the metadata in a .tflite file, ours or another tool's; None when it has none.

    Raises ModelError when `model` is no .tflite file or its metadata is damaged, MissingExtraError without LiteRT.
    """
    root = open_model(model)
    try:
        entries = dict(_entries(root, model))
        if not entries.keys() & {_STANDARD, _OWN}:
            return None
        provenance = _provenance(entries[_OWN]) if _OWN in entries else None
        if _STANDARD not in entries:
            return Metadata(None, None, None, None, provenance, None)
        standard = _Table.root(entries[_STANDARD])
        graph = next(standard.tables(_Model.SUBGRAPHS), None)
        inputs = list(graph.tables(_SubGraph.INPUTS)) if graph else []
        outputs = list(graph.tables(_SubGraph.OUTPUTS)) if graph else []
        return Metadata(
            name=standard.text(_Model.NAME),
            description=standard.text(_Model.DESCRIPTION),
            labels=_labels(outputs[0], model) if len(outputs) == 1 else None,
            contract=_contract(inputs[0], root) if len(inputs) == 1 else None,
            provenance=provenance,
            min_parser_version=standard.text(_Model.MIN_PARSER_VERSION),
        )
    except DAMAGE as error:
        raise ModelError("its metadata is damaged; convert or copy it again") from error


def open_model(model: bytes) -> Any:
    """Return the flatbuffer reader (`schema_py_generated.Model`) of a .tflite file's bytes.

    Raises ModelError when they are no .tflite file with a graph, MissingExtraError without LiteRT. Most of it is read
    only when it is asked for: a damaged file raises one of `DAMAGE` then.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingExtraError("LiteRT", "device")
    from ai_edge_litert import schema_py_generated as schema

    if len(model) < 8 or model[4:8] != b"TFL3":
        raise ModelError(f"it is no .tflite file{_looks_like(model)}")
    try:
        root = schema.Model.GetRootAs(model, 0)
        graphs = root.SubgraphsLength()
    except DAMAGE as error:
        raise ModelError("the .tflite file is cut off or damaged; convert or copy it again") from error
    if not graphs:
        raise ModelError("the .tflite file has no graph; convert it again")
    return root


def dtype_name(code: int) -> str:
    """Return the name of a `TensorType` number: float32, int8 and so on; KeyError when there is no such type."""
    return _dtype_names()[code]


@functools.cache
def _dtype_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


def _looks_like(data: bytes) -> str:
    if not data:
        return ": it is empty"
    if data[:4] == b"PK\x03\x04":
        return " but a zip archive, as .keras files are: convert it first"
    if data[:4] == b"\x89HDF":
        return " but HDF5, as .h5 files are: convert it first"
    return f": its bytes 4 to 8 are {bytes(data[4:8])!r}, not b'TFL3'"


def read_labels(path: Path, classes: int | None = None) -> tuple[str, ...]:
    """Read class names, one per line in class index order, from a UTF-8 text file.

    Raises InputError when the file cannot be read, a line is empty, a name stands there twice (but for the two that
    ImageNet itself has twice), or there are not `classes` names, if that is given.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the labels {path} are not UTF-8 text (byte {error.start}); save them as UTF-8") from error
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise InputError(f"line {names.index('') + 1} of the labels {path} is empty; give one class name per line")
    if classes is not None and len(names) != classes:
        background = len(names) == classes + 1 and is_background(names[0])
        hint = (
            f"its first line, '{names[0]}', is the background class of older models: delete that line"
            if background
            else "give one name per line, in class index order"
        )
        raise InputError(f"the labels {path} have {len(names)} names, the model has {classes} classes; {hint}")
    twice = [name for name, count in Counter(names).items() if count > 1 and name not in _imagenet_doubles()]
    if twice:
        first = names.index(twice[0])
        second = names.index(twice[0], first + 1)
        raise InputError(
            f"the labels {path} name '{twice[0]}' twice, in lines {first + 1} and {second + 1}; give each class its own"
        )
    return names


def is_background(name: str) -> bool:
    """Whether a name is that of the class which older models have before all others."""
    return name.strip().strip("_").lower() in {"background", "dummy", "none", "???"}


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ImageNet class names in class index order."""
    text = importlib.resources.files("edgeeff").joinpath("data/imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """Return the WordNet identifiers of the 1000 ImageNet classes in class index order, which is also their own."""
    text = importlib.resources.files("edgeeff").joinpath("data/imagenet_synsets.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@functools.cache
def _imagenet_doubles() -> frozenset[str]:
    return frozenset(name for name, count in Counter(imagenet_labels()).items() if count > 1)


# Writing


def _check(root: Any, labels: Sequence[str] | None, contract: InputContract) -> None:
    graph = root.Subgraphs(0)
    if graph.InputsLength() != 1 or graph.OutputsLength() != 1:
        raise ModelError(
            f"the model has {graph.InputsLength()} inputs and {graph.OutputsLength()} outputs; "
            "an image classifier has one of each"
        )
    tensor = graph.Tensors(graph.Inputs(0))
    shape = tuple(tensor.ShapeAsNumpy().tolist())
    wanted = (1, contract.height, contract.width, contract.channels)
    if shape != wanted or dtype_name(tensor.Type()) != contract.dtype:
        raise ModelError(
            f"the model's input is {dtype_name(tensor.Type())} {list(shape)}, "
            f"but the metadata would say {contract.dtype} {list(wanted)}"
        )
    if not len(contract.mean) == len(contract.std) == contract.channels:
        raise ModelError(f"mean {contract.mean} and std {contract.std} need {contract.channels} values each")
    if labels is None:
        return
    classes = int(graph.Tensors(graph.Outputs(0)).ShapeAsNumpy()[-1])
    if len(labels) != classes:
        raise InputError(f"there are {len(labels)} labels, but the model has {classes} outputs")
    unfit = next((label for label in labels if not label.strip() or len(label.splitlines()) != 1), None)
    if unfit is not None:
        raise InputError(f"the label {unfit!r} is empty or has a line break")


def _unpack(model: bytes) -> Any:
    import numpy as np  # noqa: PLC0415
    from ai_edge_litert.tools import flatbuffer_utils

    tree = flatbuffer_utils.read_model_from_bytearray(bytes(model))
    for buffer in tree.buffers:
        if buffer.data is not None:
            # The writer copies an array at once, anything else byte by byte in Python.
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return tree


def _pack(tree: Any, entries: Mapping[str, bytes], size: int) -> bytes:
    import flatbuffers
    import numpy as np  # noqa: PLC0415
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        """A writer that keeps the schema's `force_align: 16` of byte vectors, which the generated code leaves out."""

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
            offset: int = super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)
            return offset

    tree.metadata = tree.metadata or []
    places = {item.name.decode(): item.buffer for item in tree.metadata}
    for name, content in entries.items():
        if not places.get(name):  # buffer 0 is everybody's empty one
            tree.metadata = [item for item in tree.metadata if item.name.decode() != name]
            places[name] = len(tree.buffers)
            tree.buffers.append(schema.BufferT())
            tree.metadata.append(schema.MetadataT(name=name.encode(), buffer=places[name]))
        tree.buffers[places[name]].data = np.frombuffer(content, np.uint8)
    builder = Aligned(size + (1 << 16))
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _standard(name: str, description: str, labelled: bool, contract: InputContract, output_name: str) -> bytes:
    import flatbuffers

    image: _Fields = {
        _Tensor.NAME: "image",
        _Tensor.DESCRIPTION: f"RGB image, {contract.height} x {contract.width} pixels",
        _Tensor.CONTENT: {
            _Content.TYPE: _Content.IMAGE,
            _Content.PROPERTIES: {_Image.COLOR_SPACE: _Image.RGB},
        },
        _Tensor.PROCESS_UNITS: [
            {
                _Unit.TYPE: _Unit.NORMALIZATION,
                _Unit.OPTIONS: {_Normalization.MEAN: contract.mean, _Normalization.STD: contract.std},
            }
        ],
    }
    scores: _Fields = {
        _Tensor.NAME: output_name,
        _Tensor.DESCRIPTION: f"{output_name} of each class",
        _Tensor.CONTENT: {_Content.TYPE: _Content.FEATURE, _Content.PROPERTIES: {}},
    }
    if labelled:
        file: _Fields = {
            _File.NAME: LABEL_FILE,
            _File.DESCRIPTION: "class names, one per line",
            _File.TYPE: _File.AXIS_LABELS,
        }
        scores = {**scores, _Tensor.FILES: [file]}
    root: _Fields = {
        _Model.NAME: name,
        _Model.DESCRIPTION: description,
        _Model.SUBGRAPHS: [{_SubGraph.INPUTS: [image], _SubGraph.OUTPUTS: [scores]}],
        # The first version of the schema has every field that is used here.
        _Model.MIN_PARSER_VERSION: "1.0.0",
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, root), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, fields: _Fields) -> int:
    """Write a table: an int is a one-byte enum, a dict a table, a list a vector of tables, a tuple one of floats."""
    offsets = {slot: _write(builder, value) for slot, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, int):
            builder.PrependUint8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
    offset: int = builder.EndObject()
    return offset


def _write(builder: Any, value: _Value) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _write_table(builder, value)
    if isinstance(value, tuple):
        builder.StartVector(4, len(value), 4)
        for number in reversed(value):
            builder.PrependFloat32(number)
        return int(builder.EndVector())
    items = [_write_table(builder, item) for item in value]  # type: ignore[union-attr]  # only lists are left
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return int(builder.EndVector())


def _with_archive(model: bytes, labels: Sequence[str] | None) -> bytes:
    """Append the zip archive with the label file: not compressed, because C++ readers take it as it is."""
    if labels is None:
        return model
    stream = io.BytesIO(model)
    stream.seek(0, io.SEEK_END)  # the archive's offsets count from the start of the whole file, as other writers do it
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        # A fixed date: the same labels give the same bytes.
        archive.writestr(zipfile.ZipInfo(LABEL_FILE, (1980, 1, 1, 0, 0, 0)), "".join(f"{label}\n" for label in labels))
    return stream.getvalue()


# Reading


class _Table:
    """One flatbuffer table, read by field number."""

    def __init__(self, data: bytes, position: int) -> None:
        from flatbuffers import table

        self._table = table.Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        if data[4:8] != _IDENTIFIER:
            raise ValueError(f"its identifier is {data[4:8]!r}, not {_IDENTIFIER!r}")
        return cls(data, struct.unpack_from("<I", data)[0])

    def text(self, slot: int) -> str | None:
        offset = self._offset(slot)
        return self._table.String(offset + self._table.Pos).decode() if offset else None

    def byte(self, slot: int) -> int:
        offset = self._offset(slot)
        return int(self._table.Bytes[offset + self._table.Pos]) if offset else 0

    def table(self, slot: int) -> _Table | None:
        offset = self._offset(slot)
        return _Table(self._table.Bytes, self._table.Indirect(offset + self._table.Pos)) if offset else None

    def tables(self, slot: int) -> Iterator[_Table]:
        offset = self._offset(slot)
        if offset:
            start = self._table.Vector(offset)
            for index in range(self._table.VectorLen(offset)):
                yield _Table(self._table.Bytes, self._table.Indirect(start + 4 * index))

    def floats(self, slot: int) -> tuple[float, ...]:
        offset = self._offset(slot)
        if not offset:
            return ()
        return struct.unpack_from(f"<{self._table.VectorLen(offset)}f", self._table.Bytes, self._table.Vector(offset))

    def _offset(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))


def _entries(root: Any, model: bytes) -> Iterator[tuple[str, bytes]]:
    for index in range(root.MetadataLength()):
        entry = root.Metadata(index)
        buffer = root.Buffers(entry.Buffer())
        if buffer.Offset() > 1:
            content = model[buffer.Offset() : buffer.Offset() + buffer.Size()]
        else:
            content = b"" if buffer.DataIsNone() else buffer.DataAsNumpy().tobytes()
        yield entry.Name().decode(), content


def _provenance(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"the '{_OWN}' entry is no JSON object")
    return value


def _labels(scores: _Table, model: bytes) -> tuple[str, ...] | None:
    files = (
        file.text(_File.NAME) for file in scores.tables(_Tensor.FILES) if file.byte(_File.TYPE) == _File.AXIS_LABELS
    )
    name = next(files, None)
    if name is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            size = archive.getinfo(name).file_size
            if size > _MAX_LABEL_BYTES:
                raise ModelError(
                    f"the label file '{name}' in the model has {size} bytes; at most {_MAX_LABEL_BYTES} are read"
                )
            return tuple(archive.read(name).decode().splitlines())
    except _ZIP_DAMAGE as error:
        raise ModelError(f"the model names the label file '{name}', but it cannot be read from it ({error})") from error


def _contract(image: _Table, root: Any) -> InputContract | None:
    tensor = root.Subgraphs(0).Tensors(root.Subgraphs(0).Inputs(0))
    shape = tensor.ShapeAsNumpy().tolist()
    content = image.table(_Tensor.CONTENT)
    if content is None or content.byte(_Content.TYPE) != _Content.IMAGE or len(shape) != 4:
        return None
    units = (unit for unit in image.tables(_Tensor.PROCESS_UNITS) if unit.byte(_Unit.TYPE) == _Unit.NORMALIZATION)
    options = next((unit.table(_Unit.OPTIONS) for unit in units), None)
    _, height, width, channels = shape
    if not 0 <= channels <= _MAX_CHANNELS:
        raise ValueError(f"an image of {channels} channels")
    dtype = dtype_name(tensor.Type())
    if options is None:
        # An 8-bit input takes pixels as they are; what a float input wants cannot be guessed.
        return InputContract(height, width, channels, dtype) if dtype == "uint8" else None
    mean, std = options.floats(_Normalization.MEAN), options.floats(_Normalization.STD)
    # One value stands for every channel.
    return InputContract(
        height,
        width,
        channels,
        dtype,
        mean * channels if len(mean) == 1 else mean,
        std * channels if len(std) == 1 else std,
    )
