"""What a file for the Edge TPU says of itself, read without a runtime, a compiler or a device.

A compiled file is a `.tflite` whose custom operators `edgetpu-custom-op` hold the programs: their options are a
FlexBuffer map, its key "4" is a package (libedgetpu's `executable/executable.fbs`, mark DWN1), and that holds the
executables. Everything that is used as a place or a length is checked first, nothing is copied, and lists have a
limit: a file of garbage costs no more than a good one.

Operators that the CPU computes are counted only; `inspect` names them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import get_args

from edgeeff.errors import ModelError
from edgeeff.results import CompiledFile, EdgeTpuExecutable, EdgeTpuOperator
from edgeeff.results.compilation import ExecutableKind

NAME = "edgetpu-custom-op"
_TFLITE, _PACKAGE = b"TFL3", b"DWN1"
_PACKAGE_KEY = b"4"
_KINDS: tuple[ExecutableKind, ...] = get_args(ExecutableKind)
_CUSTOM = 32

# How many there may be: B7 has 820 operators, a file seldom more than a few parts, and a part two programs.
_MOST_SUBGRAPHS, _MOST_OPERATORS, _MOST_CODES = 64, 65_536, 1_024
_MOST_PARTS, _MOST_PROGRAMS, _MOST_KEYS = 256, 64, 64
_MOST_TEXT = 4_096


class _Model:
    CODES, SUBGRAPHS = 1, 2


class _Code:
    DEPRECATED_BUILTIN, CUSTOM, _, BUILTIN = range(4)


class _Operator:
    CODE, CUSTOM_OPTIONS = 0, 5


class _Package:
    RUNTIME, EXECUTABLES, _, _, COMPILER = range(5)


class _Executable:
    PARAMETERS, CHIP, KIND, TOKEN = 6, 10, 13, 14


_SUBGRAPH_OPERATORS = 3
_MULTI_EXECUTABLES = 0


def read(content: bytes) -> CompiledFile:
    """Read the Edge TPU's part of a .tflite file's bytes; a file that was not compiled has no operators in it.

    Of an operator whose package is damaged, the reason is given. Raises ModelError when the bytes are no .tflite file,
    or are damaged outside of these.
    """
    data = memoryview(content)
    if bytes(data[4:8]) != _TFLITE:
        raise ModelError("it is no .tflite file (it does not carry the mark TFL3)")
    try:
        operators, others = _operators(_root(data))
    except _DamageError as error:
        raise ModelError(f"the .tflite file is cut off or damaged ({error}); compile or copy it again") from error
    return CompiledFile(tuple(operators), others)


class _DamageError(Exception):
    """Something that lies outside of the file, or cannot be."""


def _operators(model: _Table) -> tuple[list[EdgeTpuOperator], int]:
    codes = [_is_edge_tpu(code) for code in model.tables(_Model.CODES, _MOST_CODES)]
    found: list[EdgeTpuOperator] = []
    others = 0
    for number, subgraph in enumerate(model.tables(_Model.SUBGRAPHS, _MOST_SUBGRAPHS)):
        for index, operator in enumerate(subgraph.tables(_SUBGRAPH_OPERATORS, _MOST_OPERATORS)):
            code = operator.number(_Operator.CODE, "I")
            if code >= len(codes):
                raise _DamageError(f"an operator is of type {code} of {len(codes)}")
            if not codes[code]:
                others += 1
                continue
            if len(found) == _MOST_PARTS:
                raise _DamageError(f"more than {_MOST_PARTS} parts for the Edge TPU")
            found.append(_operator(number, index, operator))
    return found, others


def _is_edge_tpu(code: _Table) -> bool:
    # Old files have the number in the first field, new ones in both; some compilers leave it away.
    number = max(code.number(_Code.BUILTIN, "i"), code.number(_Code.DEPRECATED_BUILTIN, "b"))
    return number in {0, _CUSTOM} and code.raw(_Code.CUSTOM) == NAME.encode()


def _operator(subgraph: int, index: int, operator: _Table) -> EdgeTpuOperator:
    try:
        package = _root(_package(operator.raw(_Operator.CUSTOM_OPTIONS)))
        compiler = package.text(_Package.COMPILER)
        executables = _root(package.raw(_Package.EXECUTABLES))
        return EdgeTpuOperator(
            subgraph=subgraph,
            index=index,
            minimum_runtime=package.number(_Package.RUNTIME, "i"),
            compiler=compiler if compiler.removeprefix("cl/") else None,
            executables=tuple(
                _executable(_root(program)) for program in executables.texts(_MULTI_EXECUTABLES, _MOST_PROGRAMS)
            ),
        )
    except _DamageError as error:
        return EdgeTpuOperator(subgraph, index, None, None, (), f"its program cannot be read: {error}")


def _executable(program: _Table) -> EdgeTpuExecutable:
    kind = program.number(_Executable.KIND, "h")
    if not 0 <= kind < len(_KINDS):
        raise _DamageError(f"a program is of kind {kind}")
    return EdgeTpuExecutable(
        kind=_KINDS[kind],
        chip=program.text(_Executable.CHIP),
        parameter_bytes=len(program.raw(_Executable.PARAMETERS)),
        caching_token=f"{program.number(_Executable.TOKEN, 'Q'):016x}",
    )


# FlatBuffers: https://flatbuffers.dev/internals/


def _unpack(data: memoryview, place: int, form: str) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(f"<{form}"):
        raise _DamageError(f"byte {place} of {len(data)}")
    value: int = struct.unpack_from(f"<{form}", data, place)[0]
    return value


def _slice(data: memoryview, place: int, length: int) -> memoryview:
    if not (0 <= place <= len(data) and 0 <= length <= len(data) - place):
        raise _DamageError(f"{length} bytes from byte {place} of {len(data)}")
    return data[place : place + length]


def _root(data: memoryview) -> _Table:
    return _Table(data, _unpack(data, 0, "I"))


class _Table:
    """A table in a FlatBuffer; a field that is not there reads as 0 or empty."""

    def __init__(self, data: memoryview, place: int) -> None:
        self._data, self._place = data, place
        self._fields = place - _unpack(data, place, "i")
        self._size = _unpack(data, self._fields, "H")

    def number(self, field: int, form: str) -> int:
        place = self._find(field)
        return _unpack(self._data, place, form) if place else 0

    def raw(self, field: int) -> memoryview:
        place = self._find(field)
        return self._bytes_at(place) if place else self._data[:0]

    def text(self, field: int) -> str:
        return bytes(self.raw(field)[:_MOST_TEXT]).decode("utf-8", "replace")

    def texts(self, field: int, most: int) -> Iterator[memoryview]:
        return (self._bytes_at(place) for place in self._elements(field, most))

    def tables(self, field: int, most: int) -> Iterator[_Table]:
        return (_Table(self._data, place + _unpack(self._data, place, "I")) for place in self._elements(field, most))

    def _find(self, field: int) -> int:
        entry = 4 + 2 * field
        offset = _unpack(self._data, self._fields + entry, "H") if entry + 2 <= self._size else 0
        return self._place + offset if offset else 0

    def _bytes_at(self, place: int) -> memoryview:
        start = place + _unpack(self._data, place, "I")
        return _slice(self._data, start + 4, _unpack(self._data, start, "I"))

    def _elements(self, field: int, most: int) -> Iterator[int]:
        place = self._find(field)
        if not place:
            return iter(())
        start = place + _unpack(self._data, place, "I")
        count = _unpack(self._data, start, "I")
        if count > most:
            raise _DamageError(f"a list of {count}, where {most} are many")
        return iter(range(start + 4, start + 4 + 4 * count, 4))


# FlexBuffers: https://flatbuffers.dev/flatbuffers_internals/#autotoc_md-flexbuffers. The value of the package's key is
# a string or a blob, its length in front of it, and the key's place in the sorted keys is the value's.

_FORMS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MAP, _STRING, _BLOB = 9, 5, 25


def _package(options: memoryview) -> memoryview:
    """Find the package in an operator's options."""
    if len(options) < 3:
        raise _DamageError("it has no options")
    width, form = _width(options[-1]), options[-2]
    if form >> 2 != _MAP:
        raise _DamageError(f"its options are of type {form >> 2}, not a map")
    root = len(options) - 2 - width
    values = _back(options, root, width)
    width = _width(1 << (form & 3))
    count = _number(options, values - width, width)
    if count > _MOST_KEYS:
        raise _DamageError(f"its options have {count} keys")
    keys = _back(options, values - 3 * width, width)
    key_width = _width(_number(options, values - 2 * width, width))
    wanted = _PACKAGE_KEY + b"\0"
    for index in range(count):
        start = _back(options, keys + index * key_width, key_width)
        if bytes(options[start : start + len(wanted)]) == wanted:
            return _value(options, values, width, count, index)
    raise _DamageError("its options have no package")


def _value(options: memoryview, values: int, width: int, count: int, index: int) -> memoryview:
    form = _unpack(options, values + count * width + index, "B")
    if form >> 2 not in {_STRING, _BLOB}:
        raise _DamageError(f"its package is of type {form >> 2}")
    start = _back(options, values + index * width, width)
    length_width = 1 << (form & 3)
    package = _slice(options, start, _number(options, start - length_width, length_width))
    if bytes(package[4:8]) != _PACKAGE:
        raise _DamageError("its package does not carry the mark DWN1")
    return package


def _width(value: int) -> int:
    if value not in _FORMS:
        raise _DamageError(f"numbers of {value} bytes")
    return value


def _number(data: memoryview, place: int, width: int) -> int:
    return _unpack(data, place, _FORMS[width])


def _back(data: memoryview, place: int, width: int) -> int:
    """Follow an offset, which leads back from where it stands."""
    return place - _number(data, place, width)
