"""Files and a program for tests of the Edge TPU: compiled files made after libedgetpu's executable.fbs, and a stand-in
for the compiler that replays an output written here. No real compiler is involved."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
from flatbuffers import flexbuffers

from edgeeff.converters.graph import Graph
from tests import test_inspect, tiny

TOKEN = 0x0123_4567_89AB_CDEF
STAND_ALONE, CACHING, EXECUTION = range(3)


class Program(NamedTuple):
    """One executable of a package."""

    kind: int = EXECUTION
    parameters: int = 0
    token: int = TOKEN


class Field(NamedTuple):
    """A number in a table: how it is written, and its value."""

    form: str
    value: int


def table(builder: Any, fields: Mapping[int, Field | int]) -> int:
    """Write a table; an int is the offset of what was written before."""
    builder.StartObject(20)
    for number, field in fields.items():
        if isinstance(field, Field):
            getattr(builder, f"Prepend{field.form}Slot")(number, field.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, field, 0)
    return int(builder.EndObject())


def executable(program: Program) -> bytes:
    builder = flatbuffers.Builder(256)
    chip = builder.CreateString("beagle")
    parameters = builder.CreateByteVector(bytes(program.parameters))
    fields: dict[int, Field | int] = {6: parameters, 10: chip}
    fields |= {13: Field("Int16", program.kind), 14: Field("Uint64", program.token)}
    builder.Finish(table(builder, fields))
    return bytes(builder.Output())


def package(programs: Sequence[Program], runtime: int = 14, compiler: str = "cl/1234") -> bytes:
    """A DWN1 package."""
    inner = flatbuffers.Builder(256)
    strings = [inner.CreateString(executable(program)) for program in programs]
    inner.StartVector(4, len(strings), 4)
    for string in reversed(strings):
        inner.PrependUOffsetTRelative(string)
    inner.Finish(table(inner, {0: inner.EndVector()}))
    outer = flatbuffers.Builder(256)
    fields: dict[int, Field | int] = {1: outer.CreateByteVector(bytes(inner.Output())), 4: outer.CreateString(compiler)}
    outer.Finish(table(outer, fields | {0: Field("Int32", runtime)}), file_identifier=b"DWN1")
    return bytes(outer.Output())


def options(content: bytes, key: str = "4") -> bytes:
    """The options of an edgetpu-custom-op."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Key("1")
        builder.Int(0)
        builder.Key(key)
        builder.String(content.decode("latin-1")) if content.isascii() else builder.Blob(content)
        builder.Key("5")
        builder.Int(-1)
    return bytes(builder.Finish())


def compiled(programs: Sequence[Program], *, runtime: int = 14, compiler: str = "cl/1234") -> bytes:
    """A .tflite with one part for the Edge TPU and nothing else."""
    return with_options(options(package(programs, runtime, compiler)))


def with_options(content: bytes | None) -> bytes:
    """A .tflite whose one edgetpu-custom-op has these options."""
    graph = Graph(test_inspect.custom("edgetpu-custom-op"))
    graph.operators[0].customOptions = None if content is None else list(content)
    return graph.content()


WHOLE = compiled([Program(EXECUTION), Program(CACHING, 1000)])
PLAIN = tiny.classifier()

BANNER = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n\n"
ENDED = "Compilation child process completed within timeout period.\n"


def block(name: str, mapped: int = 5, left: int = 2, table: bool = True) -> str:
    """What compiler 16 prints of one file."""
    operators = f"CONV_2D                        {mapped}          Mapped to Edge TPU\n" + (
        f"SOFTMAX                        {left}          Operation is working on an unsupported data type\n"
    )
    head = "Operator                       Count      Status\n\n"
    return (
        f"Input model: {name}.tflite\nInput size: 4.00KiB\n"
        f"Output model: out/{name}_edgetpu.tflite\nOutput size: 1.50MiB\n"
        "On-chip memory used for caching model parameters: 2.25MiB\n"
        "On-chip memory remaining for caching model parameters: 5.50MiB\n"
        "Off-chip memory used for streaming uncached model parameters: 0.00B\n"
        f"Number of Edge TPU subgraphs: 1\nTotal number of operations: {mapped + left}\n"
        f"Operation log: out/{name}_edgetpu.log\n\n"
        f"Number of operations that will run on Edge TPU: {mapped}\nNumber of operations that will run on CPU: {left}\n"
        + (f"\n{head}{operators}" if table else "See the operation log file for individual operation details.\n")
    )


def success(*names: str, table: bool = True) -> str:
    """The whole output of compiler 16 for one or several files."""
    models = "Model" if len(names) == 1 else "Models"
    blocks = "\n".join(block(name, table=table) for name in names)
    return f"{BANNER}{models} compiled successfully in 250 ms.\n\n{blocks}{ENDED}Compilation succeeded! \n"


def operation_log(name: str) -> str:
    """The operation log of compiler 16."""
    return (
        f"Edge TPU Compiler version 16.0.384591198\nInput: {name}.tflite\nOutput: {name}_edgetpu.tflite\n\n"
        "Operator                       Count      Status\n\n"
        "ADD                            3          Mapped to Edge TPU\n"
        "HARD_SWISH                     4          Operation not supported\n"
    )


PROGRAM = """#!{python}
# A stand-in for edgetpu_compiler, for tests: it prints what it is told and copies the files that it is told.
import json, pathlib, subprocess, sys, time
plan = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
pathlib.Path(__file__).with_suffix(".arguments").write_text(json.dumps(sys.argv[1:]))
if plan["child_s"]:
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({{plan['child_s']}})"])
    pathlib.Path(__file__).with_suffix(".child").write_text(str(child.pid))
print(plan["prints"], end="", flush=True)
for name, content in plan["files"].items():
    (pathlib.Path(sys.argv[sys.argv.index("--out_dir") + 1]) / name).write_bytes(bytes.fromhex(content))
time.sleep(plan["sleeps_s"])
sys.exit(plan["status"])
"""


def stand_in(
    folder: Path,
    prints: str,
    files: Mapping[str, bytes] | None = None,
    *,
    status: int = 0,
    sleeps_s: float = 0,
    child_s: float = 0,
) -> Path:
    """Write a program that plays the compiler: it prints, writes files where --out_dir says, waits and ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "edgetpu_compiler"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    hexed = {name: content.hex() for name, content in (files or {}).items()}
    plan = {"prints": prints, "files": hexed, "status": status, "sleeps_s": sleeps_s, "child_s": child_s}
    path.with_suffix(".json").write_text(json.dumps(plan))
    return path


def given(program: Path) -> list[str]:
    """What the stand-in was called with."""
    arguments: list[str] = json.loads(program.with_suffix(".arguments").read_text())
    return arguments
