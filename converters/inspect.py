"""What is in a .tflite file: operators, tensors, sizes, MACs, metadata, and what XNNPACK takes of it on this machine.

The file is read without TensorFlow. Which operators XNNPACK takes is not guessed: LiteRT loads the file in a child
process (a damaged file may crash it) and is asked. Only the reason why an operator is left comes from rules, which
follow the checks in LiteRT's `xnnpack_delegate.cc`.

Whether a file is fit to be handed over is left to `verify`; how this looks in a terminal to `inspect_view`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata as packages
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeeff.converters import metadata
from edgeeff.converters.edgetpu import compiled, estimate
from edgeeff.errors import MissingExtraError, ModelError
from edgeeff.results import CompiledFile, EdgeTpuEstimate, ModelFile, Record, Runtime, TensorContract, this_device

LOAD_LIMIT_S = 120.0
"""How long LiteRT may take to load a file; B7 in float takes a few seconds on a desk and about ten on a small board."""

_BLOCK = re.compile(
    r"(?:^|[/;_])(features[_.]\d+(?:[_.]\d+(?=[_.]block))?|blocks[_.]\d+[_.]\d+|block_?\d+[a-z]*"
    r"|stem|top|head|predictions|probs|normalization|rescaling)(?=[/;_.:]|$)"
)
"""As the layers of Keras applications are named, of torchvision (features.1.0.block.0) and of timm (blocks.1.0)."""
_EDGE_TPU = "it is compiled for the Edge TPU: only that device and its delegate run it"
_EIGHT_BIT = frozenset({"int8", "uint8"})
_INTEGERS = {"int32": 4, "int64": 8}
_MOST_VALUES = 8
_MOST_ELEMENTS = 1 << 48


@dataclass(frozen=True)
class Quantization:
    """real = (stored - zero_point) * scale, with one pair for the tensor or one for each channel along `axis`.

    Of per-channel ones only the range is kept: B7 has half a million.
    """

    min_scale: float
    """The smallest scale of any channel: real value per step."""
    max_scale: float
    """The largest one."""
    zero_point: int | None
    """The integer that stands for 0; None when the channels differ in it."""
    channels: int = 1
    """How many pairs there are; 1 for the whole tensor."""
    axis: int | None = None
    """The dimension that the pairs go along; None with one pair for the tensor."""

    @property
    def per_channel(self) -> bool:
        """True when every channel has a scale of its own."""
        return self.axis is not None


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph; in `shape_signature` a dimension that is known only at run time is -1."""

    index: int
    """Its place among the tensors, from 0."""
    name: str
    """As the file names it."""
    shape: tuple[int, ...]
    """Its dimensions, with 1 for those that are known only at run time."""
    shape_signature: tuple[int, ...]
    """Its dimensions, with -1 for those that are known only at run time."""
    dtype: str
    """The type of its values, such as float32 or int8."""
    quantization: Quantization | None
    """What its integers stand for; None where it is not quantized."""
    size_bytes: int
    """Bytes of its data in the file: 0 when it is computed."""
    values: tuple[int, ...] | None = None
    """Those of a constant with up to eight integers, such as axes, strides or a shape; None for others."""
    zeros: bool = False
    """True for a constant that stands for zeros only."""
    outside: bool = False
    """True when its data lie behind the flatbuffer, as those of large files do."""

    @property
    def constant(self) -> bool:
        """True when its data is in the file."""
        return self.size_bytes > 0

    @property
    def dynamic(self) -> bool:
        """True when a dimension is known only at run time."""
        return -1 in self.shape_signature

    def contract(self) -> TensorContract:
        """Return what a caller has to know of an input or output; scale and zero point only of per-tensor ones."""
        one = self.quantization if self.quantization and not self.quantization.per_channel else None
        return TensorContract(
            self.name,
            self.shape_signature,
            self.dtype,
            one.max_scale if one else None,
            one.zero_point if one else None,
        )


@dataclass(frozen=True)
class Operator:
    """One operator: its tensors as indices, -1 for an optional input that is not there."""

    index: int
    """Its place in the graph, from 0."""
    name: str
    """Its type, such as CONV_2D."""
    inputs: tuple[int, ...]
    """Indices of the tensors that it reads; -1 for an optional one that is not there."""
    outputs: tuple[int, ...]
    """Indices of the tensors that it writes."""
    macs: int
    """Multiply-accumulates of one inference; 0 for all but convolutions and fully connected layers."""
    block: str | None
    """The part of the network that its tensors are named after, such as "block2a"."""
    version: int = 1
    """The version of the operator that a runtime has to know."""
    custom: bool = False
    """True when it is none of TensorFlow Lite's own."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Those that accelerators have limits for, as the schema calls them."""


@dataclass(frozen=True)
class Signature:
    """A named entry point: names of arguments and results, and the tensors they stand for."""

    key: str
    """Its name."""
    inputs: Mapping[str, int]
    """Index of the tensor by the argument's name."""
    outputs: Mapping[str, int]
    """Index of the tensor by the result's name."""


@dataclass(frozen=True)
class Left:
    """An operator that XNNPACK does not take, and why."""

    operator: int
    """Its index."""
    reason: str
    """Why, by the checks of XNNPACK's delegate."""


@dataclass(frozen=True)
class Delegation:
    """What XNNPACK took when LiteRT loaded the file on this machine, as operator indices.

    Every partition is one call into XNNPACK; each operator that is left between two of them costs a way out and back.
    """

    partitions: int
    """Stretches of operators that XNNPACK computes in one call each."""
    taken: tuple[int, ...]
    """Indices of the operators that it took."""
    left: tuple[Left, ...]
    """The operators that it did not take."""


@dataclass(frozen=True, kw_only=True)
class Inspection(Record):
    """What is in a .tflite file. Operators and tensors are those of its first subgraph, in its own order."""

    schema: ClassVar[str] = "edgeeff/inspection"
    schema_version: ClassVar[int] = 4
    """2 came with `blocks`, 3 with `edge_tpu` and the versions of operators, 4 with their options, what constants
    hold, and `edge_tpu_estimate`."""

    model: ModelFile
    """The file."""
    inputs: tuple[TensorContract, ...]
    """What it takes."""
    outputs: tuple[TensorContract, ...]
    """What it gives."""
    operator_counts: Mapping[str, int]
    """How many operators of each type, the most frequent first."""
    macs: int
    """Multiply-accumulate operations of one inference: convolutions and fully connected layers."""
    parameter_bytes: int
    """Bytes of all constant tensors; one that several tensors share is counted once."""
    blocks: Mapping[str, str]
    """What the network's blocks compute in: "static" is int8 or int16, "static in part", "dynamic" (integer weights,
    inputs scaled anew for each image), "weight-only" (small weights, float arithmetic), or "float"."""
    delegation: Delegation | None
    """What XNNPACK took; None when LiteRT cannot run the file, and `runtime_error` says why."""
    runtime_error: str | None
    """Why LiteRT cannot run the file; None when it can."""
    edge_tpu: CompiledFile | None
    """What a file that was compiled for the Edge TPU says of itself; None for others."""
    edge_tpu_estimate: EdgeTpuEstimate | None
    """What sending takes of its latency; None for others, and where a part of it cannot be read."""
    metadata: metadata.Metadata | None
    """What it says of itself; None when it has no metadata."""
    signatures: tuple[Signature, ...]
    """Its named entry points; often none."""
    subgraphs: int
    """How many subgraphs it has; only the first is listed."""
    operators: tuple[Operator, ...]
    """The operators in the order in which they are computed."""
    tensors: tuple[Tensor, ...]
    """The tensors by index."""

    def inputs_of(self, operator: Operator) -> tuple[Tensor, ...]:
        """Return the input tensors of an operator; optional ones that are not there are left out."""
        return tuple(self.tensors[index] for index in operator.inputs if index >= 0)

    def outputs_of(self, operator: Operator) -> tuple[Tensor, ...]:
        """Return the output tensors of an operator."""
        return tuple(self.tensors[index] for index in operator.outputs)

    @property
    def dynamic_operators(self) -> tuple[Operator, ...]:
        """The operators with an input or output whose shape is known only at run time."""
        return tuple(
            operator
            for operator in self.operators
            if any(tensor.dynamic for tensor in (*self.inputs_of(operator), *self.outputs_of(operator)))
        )


def inspect(path: Path) -> Inspection:
    """Read a .tflite file and ask LiteRT what XNNPACK takes of it.

    Raises ModelError when the file is missing, no .tflite file or damaged, MissingExtraError without LiteRT.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingExtraError("LiteRT", "device")
    data = _read(path)
    try:
        graph = parse(data)
        written = metadata.read(data)
        edge_tpu = compiled.read(data)
        answer = _ask_runtime(path)
    except ModelError as error:
        raise ModelError(f"cannot inspect {path}: {error}") from error
    version = packages.version("ai-edge-litert")
    counts = dict(Counter(operator.name for operator in graph.operators).most_common())
    return Inspection(
        runtime=Runtime("LiteRT", version),
        device=this_device(),
        packages={"ai-edge-litert": version},
        model=ModelFile(str(path), hashlib.sha256(data).hexdigest(), len(data)),
        inputs=tuple(graph.tensors[index].contract() for index in graph.inputs),
        outputs=tuple(graph.tensors[index].contract() for index in graph.outputs),
        operator_counts=counts,
        macs=sum(operator.macs for operator in graph.operators),
        parameter_bytes=graph.parameter_bytes,
        blocks=_blocks(graph),
        delegation=None if answer.error else _delegation(graph, answer.partitions),
        runtime_error=_EDGE_TPU if compiled.NAME in counts else answer.error,
        edge_tpu=edge_tpu if edge_tpu.operators else None,
        edge_tpu_estimate=_sending(graph, edge_tpu),
        metadata=written,
        signatures=graph.signatures,
        subgraphs=graph.subgraphs,
        operators=graph.operators,
        tensors=graph.tensors,
    )


def value_types(graph: Graph | Inspection, operator: Operator) -> str:
    """Return what an operator's values are, such as "int8", or "uint8 to int8" where it changes their type."""
    tensors = graph.tensors
    came = {tensors[index].dtype for index in operator.inputs if index >= 0 and not tensors[index].constant}
    went = {tensors[index].dtype for index in operator.outputs}
    return " to ".join(dict.fromkeys("/".join(sorted(types)) for types in (came, went) if types))


def crossing_bytes(graph: Graph | Inspection, part: Iterable[Operator]) -> int:
    """Return the bytes of the values that go into a part of a graph's operators and come out of it.

    Each counts as a byte, which is what the Edge TPU takes and gives.
    """
    inside = {operator.index for operator in part}
    made, used, used_elsewhere = set[int](), set[int](), set[int]()
    for operator in graph.operators:
        given = {index for index in operator.inputs if index >= 0 and not graph.tensors[index].constant}
        if operator.index in inside:
            used |= given
            made.update(operator.outputs)
        else:
            used_elsewhere |= given
    came, went = used - made, (made - used) | (made & used_elsewhere)
    return sum(math.prod(graph.tensors[index].shape) for index in came | went)


def _sending(graph: Graph, edge_tpu: CompiledFile) -> EdgeTpuEstimate | None:
    if not edge_tpu.operators or any(operator.problem is not None for operator in edge_tpu.operators):
        return None
    part = [operator for operator in graph.operators if operator.name == compiled.NAME]
    work = estimate.only_sending(crossing_bytes(graph, part))
    return estimate.of_compiled(work, edge_tpu.streamed_parameter_bytes)


@dataclass(frozen=True)
class Graph:
    """What can be read of a file without a runtime."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: tuple[Signature, ...]
    subgraphs: int
    parameter_bytes: int
    name: str = ""
    """Of the subgraph; often empty or "main"."""


def parse(data: bytes) -> Graph:
    """Read the first subgraph of a .tflite file's bytes.

    Raises ModelError when they are no .tflite file, cut off or damaged, MissingExtraError without LiteRT.
    """
    root = metadata.open_model(data)
    try:
        return _graph(root, data)
    except metadata.DAMAGE as error:
        raise ModelError("the .tflite file is cut off or damaged; convert or copy it again") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a folder; give the .tflite file itself") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


# The flatbuffer. Its reader checks nothing: what is used as an index or a size is checked here.


def _graph(root: Any, data: bytes) -> Graph:
    graph = root.Subgraphs(0)
    buffers = [_buffer(root.Buffers(index), data) for index in range(_length(root.BuffersLength(), data))]
    tensors = tuple(
        _tensor(index, graph.Tensors(index), buffers) for index in range(_length(graph.TensorsLength(), data))
    )
    types = [root.OperatorCodes(index) for index in range(_length(root.OperatorCodesLength(), data))]
    codes = [_Code(_operator_name(code), code.Version(), _is_custom(code)) for code in types]
    operators = tuple(
        _operator(index, graph.Operators(index), codes, tensors)
        for index in range(_length(graph.OperatorsLength(), data))
    )
    used = {graph.Tensors(tensor.index).Buffer() for tensor in tensors if tensor.constant}
    return Graph(
        tensors=tensors,
        operators=operators,
        inputs=_indices(graph.InputsAsNumpy(), tensors, 0),
        outputs=_indices(graph.OutputsAsNumpy(), tensors, 0),
        signatures=_signatures(root, data),
        subgraphs=root.SubgraphsLength(),
        parameter_bytes=sum(buffers[buffer].content.size for buffer in used),
        name=(graph.Name() or b"").decode("utf-8", "replace"),
    )


def _length(count: int, data: bytes) -> int:
    # Every element takes four bytes at least: a longer vector is damage, and would keep the reader busy for hours.
    if count * 4 > len(data):
        raise ValueError(f"a list of {count} elements in a file of {len(data)} bytes")
    return count


class _Buffer(NamedTuple):
    content: npt.NDArray[np.uint8]
    outside: bool = False


class _Code(NamedTuple):
    name: str
    version: int
    custom: bool


def _buffer(buffer: Any, data: bytes) -> _Buffer:
    if buffer.Offset() > 1:  # the data lies behind the flatbuffer
        end = buffer.Offset() + buffer.Size()
        if end > len(data):
            raise ModelError(f"it is cut off: its data reach to byte {end}, but it has {len(data)}; copy it again")
        return _Buffer(np.frombuffer(data, np.uint8, buffer.Size(), buffer.Offset()), outside=True)
    return _Buffer(np.empty(0, np.uint8) if buffer.DataIsNone() else buffer.DataAsNumpy())


def _tensor(index: int, tensor: Any, buffers: list[_Buffer]) -> Tensor:
    shape = _ints(tensor.ShapeAsNumpy())
    if any(dimension < 0 for dimension in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"tensor {index} has the shape {shape}")
    dtype, quantization = metadata.dtype_name(tensor.Type()), _quantization(index, tensor.Quantization())
    content, outside = buffers[tensor.Buffer()]
    return Tensor(
        index=index,
        name=(tensor.Name() or b"").decode(),
        shape=shape,
        shape_signature=_ints(tensor.ShapeSignatureAsNumpy()) or shape,
        dtype=dtype,
        quantization=quantization,
        size_bytes=content.size,
        values=_values(dtype, content),
        zeros=_zeros(dtype, content, quantization),
        outside=outside,
    )


def _values(dtype: str, content: npt.NDArray[np.uint8]) -> tuple[int, ...] | None:
    width = _INTEGERS.get(dtype)
    if width is None or not 0 < content.size <= _MOST_VALUES * width or content.size % width:
        return None
    return tuple(np.frombuffer(content.tobytes(), f"<i{width}").tolist())


def _zeros(dtype: str, content: npt.NDArray[np.uint8], quantization: Quantization | None) -> bool:
    zero = 0 if quantization is None else quantization.zero_point
    if not content.size or zero is None or (zero and dtype not in _EIGHT_BIT):
        return False
    # The first value is another one nearly always, and spares a look at millions.
    return int(content[0]) == zero % 256 and bool((content == zero % 256).all())


def _quantization(index: int, parameters: Any) -> Quantization | None:
    if parameters is None or not parameters.ScaleLength():
        return None
    scales = parameters.ScaleAsNumpy()
    low, high = float(scales.min()), float(scales.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(f"the scales of its tensor {index} are no finite numbers; convert it again")
    zero_points = set(_ints(parameters.ZeroPointAsNumpy())) or {0}
    zero_point = zero_points.pop() if len(zero_points) == 1 else None
    if scales.size == 1:
        return Quantization(low, high, zero_point)
    return Quantization(low, high, zero_point, scales.size, parameters.QuantizedDimension())


def _operator(index: int, operator: Any, codes: list[_Code], tensors: tuple[Tensor, ...]) -> Operator:
    name, version, custom = codes[operator.OpcodeIndex()]
    inputs = _indices(operator.InputsAsNumpy(), tensors, -1)
    outputs = _indices(operator.OutputsAsNumpy(), tensors, 0)
    ordered = [tensors[item].name for item in (*outputs, *inputs) if item >= 0]
    block = next((found[1] for found in map(_BLOCK.search, ordered) if found), None)
    macs = _macs(name, inputs, outputs, tensors)
    return Operator(index, name, inputs, outputs, macs, block, version, custom, _options(name, operator))


_FUSED, _DILATION = (
    {"fused_activation": "FusedActivationFunction"},
    {"dilation_height": "DilationHFactor", "dilation_width": "DilationWFactor"},
)
_OPTIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "AVERAGE_POOL_2D": ("Pool2DOptions", _FUSED),
    "CONCATENATION": ("ConcatenationOptions", _FUSED),
    "CONV_2D": ("Conv2DOptions", _DILATION),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", _DILATION),
    "FULLY_CONNECTED": ("FullyConnectedOptions", {"weights_format": "WeightsFormat"}),
    "MAX_POOL_2D": ("Pool2DOptions", _FUSED),
    "PACK": ("PackOptions", {"axis": "Axis"}),
    "STRIDED_SLICE": ("StridedSliceOptions", {"ellipsis_mask": "EllipsisMask", "new_axis_mask": "NewAxisMask"}),
}
"""Operators, the schema's table of their options, and which of these are read under which name."""


def _options(name: str, operator: Any) -> dict[str, int]:
    if name not in _OPTIONS or operator.BuiltinOptions() is None:
        return {}
    from ai_edge_litert import schema_py_generated as schema

    table, wanted = _OPTIONS[name]
    options = getattr(schema, table)()
    options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
    return {option: int(getattr(options, word)()) for option, word in wanted.items()}


def _macs(name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], tensors: tuple[Tensor, ...]) -> int:
    """Multiply-accumulate operations: for each output value, the weights that it is computed from.

    CONV_2D's filter is [out, height, width, in of its group], DEPTHWISE_CONV_2D's [1, height, width, out],
    FULLY_CONNECTED's [out, in].
    """
    if name not in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} or len(inputs) < 2 or not outputs:
        return 0
    filter_shape = tensors[inputs[1]].shape
    weights = math.prod(filter_shape[1:3] if name == "DEPTHWISE_CONV_2D" else filter_shape[1:])
    return math.prod(tensors[outputs[0]].shape) * weights


def _blocks(graph: Graph) -> dict[str, str]:
    """Say what each block computes in, by its convolutions; by those of a single pixel only where it has no others."""
    found: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        if operator.block is not None and operator.macs:
            found.setdefault(operator.block, []).append(operator)
    return {block: _together(graph, operators) for block, operators in found.items()}


def _together(graph: Graph, operators: list[Operator]) -> str:
    spatial = [o for o in operators if max(graph.tensors[o.outputs[0]].shape[1:3], default=1) > 1]
    spatial = [o for o in spatial if o.name != "FULLY_CONNECTED"] or operators
    kinds = {_arithmetic(graph, operator) for operator in spatial}
    if "static" in kinds:
        return "static" if len(kinds) == 1 else "static in part"
    return "dynamic" if "dynamic" in kinds else kinds.pop() if len(kinds) == 1 else "float"


def _arithmetic(graph: Graph, operator: Operator) -> str:
    values, weights = (graph.tensors[index] for index in operator.inputs[:2])
    if values.dtype != "float32":
        return "static"
    if not weights.constant:  # widened when the file is loaded
        return "weight-only"
    return "float" if weights.dtype == "float32" else "dynamic"


def _operator_name(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _operator_names()[number]
    return code.CustomCode().decode() if name == "CUSTOM" and code.CustomCode() else name


def _is_custom(code: Any) -> bool:
    return _operator_names()[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] == "CUSTOM"


@functools.cache
def _operator_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def _signatures(root: Any, data: bytes) -> tuple[Signature, ...]:
    def names(count: int, item: Any) -> dict[str, int]:
        return {item(index).Name().decode(): item(index).TensorIndex() for index in range(_length(count, data))}

    signatures = (root.SignatureDefs(index) for index in range(_length(root.SignatureDefsLength(), data)))
    return tuple(
        Signature(
            (signature.SignatureKey() or b"").decode(),
            names(signature.InputsLength(), signature.Inputs),
            names(signature.OutputsLength(), signature.Outputs),
        )
        for signature in signatures
    )


def _ints(vector: Any) -> tuple[int, ...]:
    # The generated reader gives 0 for a vector that is not there.
    return () if isinstance(vector, int) else tuple(vector.tolist())


def _indices(vector: Any, tensors: tuple[Tensor, ...], lowest: int) -> tuple[int, ...]:
    indices = _ints(vector)
    wrong = next((index for index in indices if not lowest <= index < len(tensors)), None)
    if wrong is not None:
        raise ValueError(f"tensor {wrong} of {len(tensors)}")
    return indices


# Asking LiteRT


@dataclass(frozen=True)
class _Answer:
    partitions: list[tuple[list[int], list[int]]]
    """Inputs and outputs, as tensor indices, of every node that XNNPACK put in."""
    error: str | None = None


def _ask_runtime(path: Path) -> _Answer:
    # The child gets this process's search path, and not the folder of this file, where an `inspect.py` lies, nor the
    # working folder, where a user's `json.py` may lie.
    program = (
        "import sys; sys.path[:] = sys.argv[1].split(':'); "
        "from edgeeff.converters.inspect import report_partitions as report; report(sys.argv[2])"
    )
    command = [sys.executable, "-c", program, ":".join(sys.path), str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return _Answer([], f"LiteRT did not load it within {LOAD_LIMIT_S:g} s")
    if done.returncode < 0:
        raise ModelError(
            f"LiteRT crashed while loading it (signal {-done.returncode}): the file is damaged or was made wrongly"
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"LiteRT failed while loading it: {reason}")
    answered = json.loads(lines[-1])
    if answered["damaged"]:
        raise ModelError(f"LiteRT refuses it ({answered['error']}): the file is damaged; convert or copy it again")
    return _Answer(answered["partitions"], answered["error"])


def report_partitions(path: str) -> None:
    """Load a file with LiteRT and print, as JSON, the nodes that XNNPACK put in; runs in the child process."""
    from ai_edge_litert.interpreter import Interpreter

    partitions: list[tuple[list[int], list[int]]] = []
    error, damaged = None, False
    try:
        interpreter = Interpreter(model_path=path)
        interpreter.allocate_tensors()
        # No public method lists the nodes; this one has been there since 2020.
        for node in interpreter._get_ops_details():
            if node["op_name"] in {"DELEGATE", "TfLiteXNNPackDelegate"}:
                partitions.append((node["inputs"].tolist(), node["outputs"].tolist()))
    except (ValueError, RuntimeError) as failure:
        error = str(failure).strip().replace("\n", " ")
        damaged = "valid Flatbuffer" in error or isinstance(failure, UnicodeDecodeError)
    print(json.dumps({"partitions": partitions, "error": error, "damaged": damaged}))  # noqa: T201 - to the parent


def _delegation(graph: Graph, partitions: Iterable[tuple[list[int], list[int]]]) -> Delegation:
    producer = {tensor: operator for operator in graph.operators for tensor in operator.outputs}
    taken: set[int] = set()
    count = 0
    for inputs, outputs in partitions:
        count += 1
        # What lies between a partition's outputs and its inputs was taken.
        waiting = [producer[tensor] for tensor in outputs if tensor in producer]
        border = set(inputs)
        while waiting:
            operator = waiting.pop()
            if operator.index not in taken:
                taken.add(operator.index)
                waiting += [
                    producer[tensor] for tensor in operator.inputs if tensor in producer and tensor not in border
                ]
    left = tuple(
        Left(operator.index, why_left(operator, graph.tensors))
        for operator in graph.operators
        if operator.index not in taken
    )
    return Delegation(count, tuple(sorted(taken)), left)


# Why XNNPACK leaves an operator: the checks of its Visit...Node functions, for what image classifiers have.

_FLOAT_ONLY = frozenset(
    """ABS AVERAGE_POOL_2D BATCH_MATMUL CEIL COS DIV EXP FLOOR GELU HARD_SWISH MAXIMUM MINIMUM NEG PRELU RELU RELU6
    RELU_N1_TO_1 ROUND RSQRT SIN SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE""".split()  # noqa: SIM905 - a word list reads better
)
_KNOWN = _FLOAT_ONLY.union(
    """ADD CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE ELU FULLY_CONNECTED LEAKY_RELU LOGISTIC
    MAX_POOL_2D MEAN MUL PAD QUANTIZE REDUCE_MAX REDUCE_MIN RESHAPE RESIZE_BILINEAR SLICE SPACE_TO_DEPTH SPLIT
    STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV""".split()  # noqa: SIM905
)
_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
# What XNNPACK has to know beforehand: the second input.
_FIXED = {
    "CONV_2D": "weights are",
    "DEPTHWISE_CONV_2D": "weights are",
    "MEAN": "axes are",
    "PAD": "padding is",
    "RESHAPE": "new shape is",
    "SLICE": "start is",
    "STRIDED_SLICE": "start is",
    "TRANSPOSE": "order of axes is",
}
# The bounds of scale1 * scale2 / scale_out for MUL, and of scale / scale_out of either input for ADD and SUB.
_SCALE_RANGES = {"ADD": (2**-10, 2**8), "SUB": (2**-10, 2**8), "MUL": (2**-16, 2**8)}


def why_left(operator: Operator, tensors: tuple[Tensor, ...]) -> str:
    """Say why XNNPACK leaves an operator that it is known to leave."""
    inputs = [tensors[index] for index in operator.inputs if index >= 0]
    outputs = [tensors[index] for index in operator.outputs]
    reasons = _reasons(operator.name, inputs, outputs)
    return next(reasons, "XNNPACK declined it here; edgeeff knows no rule that says why")


def _reasons(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Iterator[str]:
    if name not in _KNOWN:
        yield f"XNNPACK has no {name}"
    if name in _FIXED and len(inputs) > 1 and not inputs[1].constant:
        yield f"its {_FIXED[name]} computed while it runs"
    types = sorted({tensor.dtype for tensor in (*inputs, *outputs) if not tensor.constant})
    eight_bit = [dtype for dtype in types if dtype in _EIGHT_BIT]
    for dtype in types:
        if dtype not in {"float32", *eight_bit}:
            yield f"XNNPACK has no {dtype} operators, only float and 8-bit ones"
    if name in _FLOAT_ONLY and eight_bit:
        yield f"XNNPACK's {name} takes float only, this one is {eight_bit[0]}"
    if name == "QUANTIZE" and len(eight_bit) == 2:
        yield f"XNNPACK's QUANTIZE does not turn {inputs[0].dtype} into {outputs[0].dtype}"
    if name == "DEPTHWISE_CONV_2D" and types == ["float32"] and inputs[1].dtype == "int8":
        yield "its values are float and its weights int8: XNNPACK mixes these in CONV_2D and FULLY_CONNECTED only"
    if name == "DEPTHWISE_CONV_2D" and len(inputs) < 3:
        yield "XNNPACK's DEPTHWISE_CONV_2D needs a bias, this one has none"
    if name == "RESHAPE" and inputs[0].quantization != outputs[0].quantization:
        yield "its input and output have different scales or zero points"
    if name in _SCALE_RANGES and not _scales_fit(name, inputs, outputs):
        yield "the scales of its inputs and its output are too far apart for XNNPACK"


def _scales_fit(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    known = [tensor.quantization.max_scale for tensor in (*inputs, *outputs) if tensor.quantization]
    if len(known) != 3 or min(known) <= 0:
        return True
    first, second, result = known
    low, high = _SCALE_RANGES[name]
    ratios = [first * second / result] if name == "MUL" else [first / result, second / result]
    return all(low <= ratio < high for ratio in ratios)
