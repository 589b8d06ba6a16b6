"""Small edits of a .tflite graph: read, find, add, replace, write.

The words are those of the TFLite schema. What an edit is for belongs to the module that makes it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.errors import MissingExtraError, ModelError

FILE_IDENTIFIER = b"TFL3"
OPTIONAL = -1
"""What stands for an input that is left out, such as a missing bias."""
CONVOLVING = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
WEIGHTED = CONVOLVING | {"FULLY_CONNECTED"}
"""Operators with weights, their second input, and perhaps a bias, their third."""
LEAST_INPUTS = {
    **dict.fromkeys(("MUL", "ADD", "SUB", "DIV", *WEIGHTED), 2),
    **dict.fromkeys(("RESHAPE", "SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE"), 1),
}
"""How many inputs the operators have whose inputs are looked at."""
LARGEST_TENSOR = 1 << 27
"""Elements; the largest of B7 has 300 * 300 * 192, an eighth of it."""


def schema() -> Any:
    """Return LiteRT's generated schema module; raises MissingExtraError where LiteRT is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError("LiteRT (ai-edge-litert)", "host") from error
    return schema_py_generated


class Graph:
    """The one subgraph of a .tflite classifier, open for editing."""

    def __init__(self, content: bytes | bytearray, origin: str = "the model") -> None:
        """Parse `content`; raises ModelError when it is no .tflite file, damaged, or has more than one subgraph."""
        self.schema = schema()
        from ai_edge_litert.tools import flatbuffer_utils

        self._tools = flatbuffer_utils
        if len(content) < 8 or bytes(content[4:8]) != FILE_IDENTIFIER:
            raise ModelError(f"{origin} is no .tflite file (it does not carry the mark TFL3)")
        self._kinds = _names(self.schema.BuiltinOperator)
        self._dtypes = _names(self.schema.TensorType)
        self._activations = _names(self.schema.ActivationFunctionType)
        try:
            self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
            if len(self.model.subgraphs) == 1:
                self._check_tensors()
                self._check_operators()
        except Exception as error:
            # The generated reader checks nothing and raises whatever a broken offset leads to.
            raise ModelError(f"{origin} is damaged, get or make it anew: {type(error).__name__}: {error}") from error
        if len(self.model.subgraphs) != 1:
            raise ModelError(f"{origin} has {len(self.model.subgraphs)} subgraphs (control flow); a classifier has one")

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Read a .tflite file; raises ModelError when it is missing or damaged."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
        return cls(content, str(path))

    def content(self) -> bytes:
        """Return the file's bytes."""
        for buffer in self.model.buffers:
            if isinstance(buffer.data, (bytes, bytearray, memoryview)):
                # The generated writer copies arrays whole, and anything else byte by byte in Python.
                buffer.data = np.frombuffer(buffer.data, dtype=np.uint8)
        return bytes(self._tools.convert_object_to_bytearray(self.model))

    @property
    def _subgraph(self) -> Any:
        return self.model.subgraphs[0]

    @property
    def operators(self) -> list[Any]:
        """Operators in the order of execution."""
        return list(self._subgraph.operators)

    @property
    def inputs(self) -> list[int]:
        """Tensor indices of the inputs."""
        return [int(index) for index in self._subgraph.inputs]

    @property
    def outputs(self) -> list[int]:
        """Tensor indices of the outputs."""
        return [int(index) for index in self._subgraph.outputs]

    def tensor(self, index: int) -> Any:
        """Return the schema's tensor object."""
        return self._subgraph.tensors[index]

    def name(self, index: int) -> str:
        """Return a tensor's name."""
        raw = self.tensor(index).name
        return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw or "")

    def shape(self, index: int) -> tuple[int, ...]:
        """Return a tensor's shape, -1 where the dimension is dynamic."""
        tensor = self.tensor(index)
        signature = tensor.shapeSignature
        shape = tensor.shape if signature is None or len(signature) == 0 else signature
        return tuple(int(size) for size in (shape if shape is not None else ()))

    def dtype(self, index: int) -> str:
        """Return a tensor's type in the words of NumPy, e.g. "float32"."""
        return str(self._dtypes[self.tensor(index).type]).lower()

    def kind(self, operator: Any) -> str:
        """Return an operator's builtin name, e.g. "CONV_2D"."""
        return str(self._kinds[self._code(operator)])

    def activation(self, operator: Any) -> str:
        """Return the activation that an operator ends with, e.g. "RELU6", or "NONE"."""
        code = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        return self._activations.get(code, str(code))

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """Return a constant tensor's values, or None for one that is computed.

        Raises ModelError when the values do not fill the shape, or are of a type that NumPy does not have.
        """
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        try:
            return np.frombuffer(memoryview(data), dtype=np.dtype(self.dtype(index))).reshape(self.shape(index))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the constant '{self.name(index)}' cannot be read: {len(data)} bytes as {self.dtype(index)} "
                f"{self.shape(index)}"
            ) from error

    def set_constant(self, index: int, values: npt.NDArray[Any]) -> None:
        """Give a constant tensor new values of the same shape; another tensor that shares them keeps the old ones."""
        tensor = self.tensor(index)
        if sum(other.buffer == tensor.buffer for other in self._subgraph.tensors) > 1:
            self.model.buffers.append(self.schema.BufferT())
            tensor.buffer = len(self.model.buffers) - 1
        data = np.ascontiguousarray(values.astype(self.dtype(index))).tobytes()
        self.model.buffers[tensor.buffer].data = np.frombuffer(data, dtype=np.uint8)

    def consumers(self, index: int) -> list[Any]:
        """Return the operators that read a tensor."""
        return [operator for operator in self.operators if index in operator.inputs]

    def producer(self, index: int) -> Any | None:
        """Return the operator that writes a tensor, or None for inputs and constants."""
        return next((operator for operator in self.operators if index in operator.outputs), None)

    def add_tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        values: npt.NDArray[Any] | None = None,
        quantization: tuple[float, int] | None = None,
    ) -> int:
        """Add a tensor, constant when `values` are given, quantized as (scale, zero point); return its index."""
        tensor = self.schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = list(shape)
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        tensor.buffer = 0
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), dtype=np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if quantization is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [quantization[0]]
            tensor.quantization.zeroPoint = [quantization[1]]
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def insert(self, position: int, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        """Insert an operator before the one at `position`; `options` is a schema object such as SoftmaxOptionsT."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._opcode(kind)
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._subgraph.operators.insert(position, operator)

    def remove(self, operator: Any) -> None:
        """Remove an operator; its tensors stay."""
        self._subgraph.operators.remove(operator)

    def set_input(self, index: int) -> None:
        """Make a tensor the one input, in the signature too."""
        self._subgraph.inputs = [index]
        for signature in self.model.signatureDefs or []:
            for entry in signature.inputs or []:
                entry.tensorIndex = index

    def set_output(self, index: int) -> None:
        """Make a tensor the one output, in the signature too."""
        self._subgraph.outputs = [index]
        for signature in self.model.signatureDefs or []:
            for entry in signature.outputs or []:
                entry.tensorIndex = index

    def set_signature(self, key: str, input_name: str, output_name: str) -> None:
        """Give the graph one signature with the named input and output."""
        signature = self.schema.SignatureDefT()
        signature.signatureKey = key.encode()
        signature.subgraphIndex = 0
        for attribute, name, index in (
            ("inputs", input_name, self.inputs[0]),
            ("outputs", output_name, self.outputs[0]),
        ):
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            setattr(signature, attribute, [entry])
        self.model.signatureDefs = [signature]

    def cut(self, first: int, end: int, source: int, target: int) -> None:
        """Keep the operators `first` to `end` alone, the end not included, which make tensor `target` from `source`.

        Weights of the others, the signature and the metadata go, too.
        """
        for position, operator in enumerate(self.operators):
            if not first <= position < end:
                self.remove(operator)
        self.set_input(source)
        self.set_output(target)
        self.model.signatureDefs, self.model.metadata = [], []
        self.tidy()
        used = {tensor.buffer for tensor in self._subgraph.tensors}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None

    def tidy(self) -> None:
        """Drop tensors that nothing reads or writes, and make the names of the others unique.

        An edit leaves tensors behind, and a quantizer tells tensors apart by name.
        """
        subgraph = self._subgraph
        used = {*self.inputs, *self.outputs}
        for operator in subgraph.operators:
            used.update(int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0)
            used.update(int(index) for index in (operator.intermediates if operator.intermediates is not None else ()))
        new = {old: position for position, old in enumerate(sorted(used))}
        subgraph.tensors = [subgraph.tensors[index] for index in new]
        subgraph.inputs = [new[index] for index in self.inputs]
        subgraph.outputs = [new[index] for index in self.outputs]
        for operator in subgraph.operators:
            operator.inputs = [new[int(index)] if index >= 0 else -1 for index in operator.inputs]
            operator.outputs = [new[int(index)] for index in operator.outputs]
            if operator.intermediates is not None:
                operator.intermediates = [new[int(index)] for index in operator.intermediates]
        for signature in self.model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = new[int(entry.tensorIndex)]
        names: set[str] = set()
        for index, tensor in enumerate(subgraph.tensors):
            name = self.name(index).partition("\0")[0]  # native code reads no further
            tensor.name = (f"{name}#{index}" if name in names else name).encode()
            names.add(self.name(index))

    def _check_tensors(self) -> None:
        """Raise ValueError where a tensor is not what the methods above take for granted."""
        subgraph, buffers = self._subgraph, len(self.model.buffers)
        for part in (subgraph, *subgraph.operators):
            # An empty list may be left out of the file.
            part.inputs = [] if part.inputs is None else list(part.inputs)
            part.outputs = [] if part.outputs is None else list(part.outputs)
        for index, tensor in enumerate(subgraph.tensors):
            if not 0 <= tensor.buffer < buffers:
                raise ValueError(f"tensor {index} has its values in buffer {tensor.buffer} of {buffers}")
            if tensor.type not in self._dtypes:
                raise ValueError(f"tensor {index} is of the unknown type {tensor.type}")
            shape = self.shape(index)
            if any(size < -1 for size in shape) or math.prod(shape) > LARGEST_TENSOR:
                raise ValueError(f"tensor {index} has the shape {shape}")
        for index in (*subgraph.inputs, *subgraph.outputs):
            if not 0 <= index < len(subgraph.tensors):
                raise ValueError(f"an input or output is tensor {index} of {len(subgraph.tensors)}")

    def _check_operators(self) -> None:
        """Raise ValueError where an operator is not what the methods above take for granted."""
        tensors, codes = range(len(self._subgraph.tensors)), range(len(self.model.operatorCodes))
        unwritten = {index for operator in self._subgraph.operators for index in operator.outputs}
        if not unwritten.isdisjoint(self._subgraph.inputs):
            raise ValueError("an operator writes the input")
        for position, operator in enumerate(self._subgraph.operators):
            what = f"operator {position}"
            if operator.opcodeIndex not in codes or self._code(operator) not in self._kinds:
                raise ValueError(f"{what} is of an unknown kind")
            kind = self.kind(operator)
            if kind in LEAST_INPUTS and (len(operator.inputs) < LEAST_INPUTS[kind] or not operator.outputs):
                raise ValueError(f"{what} ({kind}) has inputs {operator.inputs} and outputs {operator.outputs}")
            for index in (*operator.inputs, *operator.outputs):
                if index not in tensors and (index != OPTIONAL or index in operator.outputs):
                    raise ValueError(f"{what} ({kind}) uses tensor {index} of {len(tensors)}")
            if not unwritten.isdisjoint(operator.inputs):
                raise ValueError(f"{what} ({kind}) reads what is computed after it")
            if not unwritten.issuperset(operator.outputs):
                raise ValueError(f"{what} ({kind}) writes what is computed before it")
            unwritten.difference_update(operator.outputs)

    def _code(self, operator: Any) -> int:
        return _builtin(self.model.operatorCodes[operator.opcodeIndex])

    def _opcode(self, kind: str) -> int:
        builtin = getattr(self.schema.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if _builtin(code) == builtin:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = builtin
        # Readers older than TensorFlow 2.4 look at this field, which has one byte.
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _names(numbers: Any) -> dict[int, str]:
    """Return the names of an enumeration of the schema."""
    return {number: name for name, number in vars(numbers).items() if isinstance(number, int)}


def _builtin(code: Any) -> int:
    # Codes up to 126 are in the older field, which has one byte; later ones in the newer.
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
