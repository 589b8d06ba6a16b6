"""Small edits of a .tflite graph: read, find, add, replace, write.

The words are those of the TFLite schema. What an edit is for belongs to the module that makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.errors import MissingExtraError, ModelError

FILE_IDENTIFIER = b"TFL3"


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
        """Parse `content`; raises ModelError when it is no .tflite file or has more than one subgraph."""
        self.schema = schema()
        from ai_edge_litert.tools import flatbuffer_utils

        self._tools = flatbuffer_utils
        if len(content) < 8 or bytes(content[4:8]) != FILE_IDENTIFIER:
            raise ModelError(f"{origin} is no .tflite file (it does not carry the mark TFL3)")
        try:
            self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        except Exception as error:
            raise ModelError(f"{origin} is damaged: {type(error).__name__}: {error}") from error
        if len(self.model.subgraphs or []) != 1:
            raise ModelError(
                f"{origin} has {len(self.model.subgraphs or [])} subgraphs (control flow); a classifier has one"
            )
        self._names = {code: name for name, code in vars(self.schema.BuiltinOperator).items() if isinstance(code, int)}
        self._dtypes = {code: name for name, code in vars(self.schema.TensorType).items() if isinstance(code, int)}

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
        code = self.model.operatorCodes[operator.opcodeIndex]
        return str(self._names[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """Return a constant tensor's values, or None for one that is computed."""
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        array = np.frombuffer(memoryview(data), dtype=np.dtype(self.dtype(index)))
        return array.reshape(self.shape(index))

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
            signature.inputs[0].tensorIndex = index

    def set_output(self, index: int) -> None:
        """Make a tensor the one output, in the signature too."""
        self._subgraph.outputs = [index]
        for signature in self.model.signatureDefs or []:
            signature.outputs[0].tensorIndex = index

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
            name = self.name(index)
            if name in names:
                tensor.name = f"{name}#{index}".encode()
            names.add(self.name(index))

    def _opcode(self, kind: str) -> int:
        builtin = getattr(self.schema.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = builtin
        # Readers older than TensorFlow 2.4 look at this field, which has one byte.
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1
