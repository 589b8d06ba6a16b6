"""Calls the Edge TPU compiler and hands over what it made, whole or not at all.

The compiler is Google's program `edgetpu_compiler`, which users install themselves. It runs in a folder of its own with
a limit of time; its output is kept whether it succeeds or fails. What it says is read by `log`, what it made by
`compiled`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeeff.converters.edgetpu import compiled as reader
from edgeeff.converters.edgetpu import estimate, log
from edgeeff.converters.edgetpu.compare import compare
from edgeeff.errors import DeviceError, EdgeeffError, InputError, MissingProgramError, ModelError, TimeLimitError
from edgeeff.files import check_writable, make_folder, staged, write_atomic
from edgeeff.progress import Progress, Silent
from edgeeff.results import (
    CompilationRecord,
    Compiled,
    CompiledFile,
    CompilerLog,
    CompilerSummary,
    EdgeTpuEstimate,
    Forecast,
    ModelFile,
    this_device,
    to_json,
)

NAME = "edgetpu_compiler"
HOW_TO_GET_IT = (
    "it runs on x86-64 Linux, Debian or Ubuntu, no longer on boards; coral.ai/docs/edgetpu/compiler says which package "
    "source to add for: sudo apt-get install edgetpu-compiler"
)
TIME_LIMIT_S = 1800.0
"""How long the whole run may take; the compiler's own limit, 180 s, is for each part that it tries."""
_OUTPUT = "_edgetpu"
_MOST_MODEL_BYTES = 2 << 30  # FlatBuffers end there
_ARCHITECTURES = {"x86_64", "amd64"}
_REFUSED = {"refused", "nothing"}
_FEW = 3


Foresee = Callable[[bytes], Forecast | None]
"""Says of a .tflite file's bytes what the compiler would make of it; None where nothing can be said."""
Work = Callable[[bytes | None, bytes], estimate.Work | None]
"""Says of a file's bytes (None for one that was cut into several) and of what was made of it what the Edge TPU does."""


@dataclass(frozen=True)
class Options:
    """What the compiler can be told; None and False leave it to the compiler.

    `timeout_s` and the two of the search are version 16's.
    """

    min_runtime: int | None = None
    segments: int | None = None
    intermediate_tensors: str | None = None
    """Names with commas between them; what comes after these tensors is left to the CPU."""
    multiple_subgraphs: bool = False
    search_delegate: bool = False
    search_step: int | None = None
    timeout_s: int | None = None

    def arguments(self) -> tuple[str, ...]:
        """Return them as the compiler's arguments; the table of operators is always asked for."""
        values = (
            ("--min_runtime_version", self.min_runtime),
            ("--num_segments", self.segments),
            ("--intermediate_tensors", self.intermediate_tensors),
            ("--delegate_search_step", self.search_step),
            ("--timeout_sec", self.timeout_s),
        )
        flags = (("--enable_multiple_subgraphs", self.multiple_subgraphs), ("--search_delegate", self.search_delegate))
        return (
            "--show_operations",
            *(name for name, given in flags if given),
            *(part for name, value in values if value is not None for part in (name, str(value))),
        )


def find(path: Path | None = None) -> Path:
    """Return the compiler: the file that was named, else the first one in PATH.

    Raises MissingProgramError when there is none, InputError when the named one is none that can be run.
    """
    if path is not None:
        if not path.is_file() or not os.access(path, os.X_OK):
            what = "cannot be run" if path.is_file() else "is not there"
            raise InputError(f"--compiler {path} {what}; give the path of {NAME} itself")
        return path.absolute()
    found = shutil.which(NAME)
    if found is None:
        machine = platform.machine()
        here = "" if machine.lower() in _ARCHITECTURES else f" (this machine is {machine})"
        raise MissingProgramError(
            f"{NAME} is not installed, or not in PATH; {HOW_TO_GET_IT}{here}. "
            "Where it lies elsewhere, give --compiler PATH"
        )
    return Path(found).absolute()


def compile_files(
    files: Sequence[Path],
    folder: Path,
    *,
    compiler: Path | None = None,
    options: Options | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    work_of: Work | None = None,
    foresee: Foresee | None = None,
    progress: Progress | None = None,
) -> CompilationRecord:
    """Compile quantized .tflite files, several of them together, and write what came out into `folder`.

    For each FILE.tflite there is FILE_edgetpu.tflite and the compiler's operation log FILE_edgetpu.log; named after the
    first file are FILE_edgetpu_compiler.log, which is what the compiler printed, and the record FILE_edgetpu.json.
    `work_of` tells what a latency can be estimated from; without it, or where it returns None, none is. What `foresee`
    says is held against the compiler's table.
    Raises MissingProgramError without a compiler, ModelError when a file cannot be compiled, TimeLimitError and
    DeviceError when the compiler fails for other reasons, OutputError where nothing can be written. When it fails only
    the printed log is written, and earlier files stay.
    """
    options = options or Options()
    program = find(compiler)
    contents = {file: _read(file) for file in files}
    names = {file: file.name.removesuffix(".tflite") for file in files}
    _check_names(names)
    make_folder(folder)
    first = folder / f"{names[files[0]]}{_OUTPUT}.json"
    printed = first.with_name(f"{first.stem}_compiler.log")
    check_writable(printed)
    (progress or Silent()).stage(f"compiling {', '.join(file.name for file in files)}")
    with tempfile.TemporaryDirectory(prefix="edgeeff-compile-") as temporary:
        work = Path(temporary)
        (work / "out").mkdir()
        for file, content in contents.items():
            (work / f"{names[file]}.tflite").write_bytes(content)
        given = [f"./{name}.tflite" for name in names.values()]
        command = [str(program), *options.arguments(), "--out_dir", "out", *given]
        run = _run(command, work, time_limit_s)
        write_atomic(printed, run.output)
        said = log.parse(run.output.decode("utf-8", "replace"))
        made = _made(work / "out", names.values())
        lost = {file: contents[file] for file, name in names.items() if not made[name]} or contents
        failed = _failure(run, said, made, names, printed, time_limit_s, lambda: _foreseen(lost, foresee))
        if failed is not None:
            raise failed
        return _hand_over(program, options, run, said, made, contents, names, folder, first, printed, work_of, foresee)


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_MODEL_BYTES:
            raise ModelError(f"cannot compile {file}: it has more than 2 GiB, which no .tflite file has")
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"cannot compile {file}: there is no such file") from error
    except OSError as error:
        raise ModelError(f"cannot compile {file}: {error.strerror}") from error
    try:
        inside = reader.read(content)
    except ModelError as error:
        raise ModelError(f"cannot compile {file}: {error}") from error
    if inside.operators:
        raise ModelError(f"{file} was compiled for the Edge TPU already; give the file that it was made of")
    return content


def _check_names(names: dict[Path, str]) -> None:
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two of the files are named {twice}.tflite, and so would be what is made of them; rename one")


@dataclass(frozen=True)
class _Run:
    output: bytes
    status: int | None
    """None when it was ended because it took too long."""
    seconds: float


def _run(command: Sequence[str], work: Path, time_limit_s: float) -> _Run:
    """Run the compiler in a session of its own, so that its child processes end with it."""
    started = time.perf_counter()
    printed = work / "printed"
    with printed.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"cannot run {command[0]} ({error.strerror}): {HOW_TO_GET_IT}") from error
        status: int | None = None
        try:
            status = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    with printed.open("rb") as text:
        return _Run(text.read(log.LONGEST_LOG), status, time.perf_counter() - started)


def _made(out: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    """Find what was made of each file: one file, or one for each segment."""
    made: dict[str, list[Path]] = {}
    for name in names:
        whole = out / f"{name}{_OUTPUT}.tflite"
        segments = sorted(
            path for path in out.glob("*.tflite") if path.name.startswith(f"{name}_segment_") and _OUTPUT in path.stem
        )
        made[name] = [whole] if whole.is_file() else segments
    return made


def _failure(
    run: _Run,
    said: CompilerLog,
    made: dict[str, list[Path]],
    names: dict[Path, str],
    printed: Path,
    time_limit_s: float,
    foreseen: Callable[[], str],
) -> EdgeeffError | None:
    """Return the error that says why it failed, None when it did not."""
    missing = [str(file) for file, name in names.items() if not made[name]]
    files = ", ".join(missing or map(str, names))
    kept = f"what it printed is in {printed}"
    version = f" {said.version}" if said.version else ""
    if run.status is None:
        return TimeLimitError(
            f"{NAME}{version} did not finish {files} within {time_limit_s:g} s and was ended; "
            f"give it longer with --time-limit, or use a lower resolution; {kept}"
        )
    if run.status == 0 and not missing and said.succeeded is not False:
        return None
    if said.failures:
        failure = said.failures[0]
        kind = ModelError if failure.model_at_fault else DeviceError
        return kind(
            f"{NAME}{version} cannot compile {files}: {failure.cause}; {failure.fix} "
            f"(known from {failure.source}{foreseen() if failure.model_at_fault else ''}; {kept})"
        )
    lines = run.output.decode("utf-8", "replace").split("\n")
    last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "nothing")
    ended = f"ended by signal {-run.status}" if run.status < 0 else f"exit status {run.status}"
    return DeviceError(
        f"{NAME}{version} failed on {files} ({ended}) for a reason that edgeeff does not know; "
        f"the last that it said is '{last}'; {kept}"
    )


def _foreseen(contents: Mapping[Path, bytes], foresee: Foresee | None) -> str:
    """Say whether it could be known before that files are refused, and which operators that is about."""
    forecasts = [forecast for content in contents.values() if foresee and (forecast := foresee(content))]
    if not forecasts:
        return ""
    lines = [line for forecast in forecasts if forecast.verdict in _REFUSED for line in forecast.operators]
    wrong = [f"{line.name} ({', '.join(line.places)})" for line in lines if line.verdict == "not mapped"]
    if not wrong:
        return "; edgeeff inspect --edge-tpu knew nothing against it"
    return f"; edgeeff inspect --edge-tpu knew it of {', '.join(wrong[:_FEW])}{', ...' if len(wrong) > _FEW else ''}"


def _hand_over(
    program: Path,
    options: Options,
    run: _Run,
    said: CompilerLog,
    made: dict[str, list[Path]],
    contents: dict[Path, bytes],
    names: dict[Path, str],
    folder: Path,
    record_file: Path,
    printed: Path,
    work_of: Work | None,
    foresee: Foresee | None,
) -> CompilationRecord:
    summaries = {Path(summary.output).name: summary for summary in said.summaries if summary.output}
    compiled: list[Compiled] = []
    with contextlib.ExitStack() as together:  # all are complete before the first is moved
        for file, name in names.items():
            for path in made[name]:
                content, target = path.read_bytes(), folder / path.name
                operations = path.with_suffix(".log")
                summary = _with_operations(summaries.get(path.name), operations)
                try:
                    inside = reader.read(content)
                except ModelError as error:
                    raise DeviceError(f"what {NAME} made of {file} cannot be used: {error}") from error
                source = contents[file] if len(made[name]) == 1 else None
                expected = _estimate(inside, source, content, work_of)
                foreseen = foresee(source) if foresee is not None and source is not None else None
                compiled.append(
                    Compiled(
                        file=_file(target, content),
                        source=str(file),
                        summary=summary,
                        inside=inside,
                        estimate=expected,
                        foreseen=foreseen,
                        check=compare(foreseen, summary.statuses) if foreseen is not None and summary else None,
                    )
                )
                together.enter_context(staged(target, content))
                if operations.is_file():
                    together.enter_context(staged(target.with_suffix(".log"), operations.read_bytes()))
        tokens = [set(item.inside.caching_tokens) for item in compiled]
        record = CompilationRecord(
            runtime=None,
            device=this_device(),
            compiler=str(program),
            compiler_version=said.version,
            arguments=options.arguments(),
            seconds=run.seconds,
            sources=tuple(_file(file, content) for file, content in contents.items()),
            compiled=tuple(compiled),
            compiled_together=len(names) > 1 and bool(set.intersection(*tokens)),
            attempts=said.attempts,
            log=str(printed),
            warnings=(),
        )
        record = replace(record, warnings=tuple(_warnings(record)))
        together.enter_context(staged(record_file, to_json(record).encode()))
    return record


def _estimate(
    inside: CompiledFile, source: bytes | None, content: bytes, work_of: Work | None
) -> EdgeTpuEstimate | None:
    readable = inside.operators and all(operator.problem is None for operator in inside.operators)
    done = work_of(source, content) if work_of is not None and readable else None
    return None if done is None else estimate.of_compiled(done, inside.streamed_parameter_bytes)


def _with_operations(summary: CompilerSummary | None, operations: Path) -> CompilerSummary | None:
    """Add the table of operators from the operation log where the output has none."""
    if (summary is not None and summary.statuses) or not operations.is_file():
        return summary
    with operations.open("rb") as text:
        written = log.parse(text.read(log.LONGEST_LOG).decode("utf-8", "replace")).summaries
    if not written:
        return summary
    return replace(summary, statuses=written[0].statuses) if summary is not None else written[0]


def _file(path: Path, content: bytes) -> ModelFile:
    return ModelFile(str(path), hashlib.sha256(content).hexdigest(), len(content))


def _warnings(record: CompilationRecord) -> Iterator[str]:
    for item in record.compiled:
        inside, name = item.inside, Path(item.file.path).name
        if not inside.operators:
            yield f"{name}: nothing of it runs on the Edge TPU; it is as fast as the file that it was made of"
        elif inside.cpu_operators:
            yield f"{name}: {inside.cpu_operators} operators run on the CPU; each way there and back costs time"
        for operator in inside.operators:
            if operator.problem is not None:
                yield f"{name}: {operator.problem}"
        for wrong in item.check.disagreements if item.check is not None else ():
            yield (
                f"{name}: {wrong.count} {wrong.name} were foreseen to be {wrong.foreseen}, and the compiler says "
                f"'{'; '.join(wrong.statuses)}': a rule of edgeeff is wrong or missing, please report it"
            )
        if inside.streamed_parameter_bytes:
            size = inside.streamed_parameter_bytes / 1e6
            yield f"{name}: {size:.2f} MB of parameters do not stay on the Edge TPU and are sent with each inference"
    if len(record.sources) > 1 and not record.compiled_together:
        yield "the files do not share a caching token: running them in turn sends all parameters again each time"
