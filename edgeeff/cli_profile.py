"""The command `edgeeff profile`: how fast and how big a file is on a board, or on many.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeeff.command import common, console, print_json
from edgeeff.errors import DeviceError, DroppedError, EdgeeffError, GateError, InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeeff.converters.blocks import Block
    from edgeeff.devices.profile import Failure, Plan, Watch
    from edgeeff.devices.targets import Target
    from edgeeff.results import Comparison, CompiledFile, ProfileRecord

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    help="Where to measure (`edgeeff devices list`); several at once when given again.  [default: local]",
)
@click.option("--threads", default="1", show_default=True, metavar="N,N...", help="Threads, one count after the other.")
@click.option(
    "--delegate",
    type=click.Choice(["auto", "xnnpack", "none", "edgetpu"]),
    default="auto",
    show_default=True,
    help="What runs the model; auto is what the runtime takes by itself, edgetpu needs compiled files.",
)
@click.option("--quick", is_flag=True, help="3 processes of 1 second: for a first look, and marked as such.")
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Timed runs per process, in seconds; less than 10 counts as quick.  [default: 10, quick 1]",
)
@click.option(
    "--sustained",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="One process of so many minutes instead: p50 by minute, and the time until the board slows down.",
)
@click.option("--end-to-end", "image", type=PATH, metavar="IMAGE", help="Time decoding and resizing this image, too.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path(),
    metavar="DIR",
    help="Folder for the records, one .profile.json for each.  [default: this one]",
)
@click.option("--compare", type=PATH, metavar="OLD.json", help="Say what changed since an older record, with interval.")
@click.option("--force", is_flag=True, help="Compare although device, runtime, threads or emulation differ.")
@click.option("--blocks", is_flag=True, help="Say where time goes, by block of the network; needs the extra host.")
@click.option("--resume", is_flag=True, help="Go on with a measurement that failed or was interrupted.")
@click.option("--keep", is_flag=True, help="Leave the files on the board, for the next time.")
@click.option("--require-valid", is_flag=True, help="Exit with 1 when a verdict is invalid.")
@common
def profile(
    files: tuple[Path, ...],
    names: tuple[str, ...],
    threads: str,
    delegate: Any,
    quick: bool,
    duration: float | None,
    sustained: float | None,
    image: Path | None,
    output: Path,
    compare: Path | None,
    force: bool,
    blocks: bool,
    resume: bool,
    keep: bool,
    require_valid: bool,
    as_json: bool,
) -> None:
    """Measure .tflite files on boards: latency, memory, heat.

    FILE... are measured in turn, 5 fresh processes for each file and thread count; then come percentiles with an
    interval, memory, and a verdict: valid, or invalid with the reasons. Times are in ms here and in seconds in the
    records. When a board fails the others go on, and the exit code is 3; --resume measures what is missing.

    \b
    Examples:
      edgeeff profile lite0_int8.tflite --quick
      edgeeff profile b0_int8.tflite b1_int8.tflite --target pi4 --threads 1,4
      edgeeff profile b0_int8.tflite --target pi4 --target pi5 --json
      edgeeff profile b0_int8.tflite --target pi4 --sustained 15
      edgeeff profile b0_int8.tflite --end-to-end photo.jpg
      edgeeff profile lite0_int8.tflite --target pi4 --quick --blocks
      edgeeff profile lite0_int8_edgetpu.tflite --target coral --delegate edgetpu
    """
    from edgeeff.devices import figures, targets
    from edgeeff.devices import profile as profiling
    from edgeeff.devices.profile_view import Live, render
    from edgeeff.files import write_atomic
    from edgeeff.results import to_json

    compiled = _compiled(files, delegate)
    known = targets.targets() if names else {}
    chosen = [targets.find(name, known) for name in dict.fromkeys(names)] or [targets.LOCAL]
    for target in chosen:
        _ = target.address  # raises where nobody said how to reach it
    plan = profiling.Plan(
        files,
        _threads(threads),
        delegate,
        profiling.protocol(quick=quick, duration_s=duration, sustained_min=sustained),
        image,
        keep,
        compiled,
    )
    before = None if compare is None else _older(compare)
    if compare is not None:
        written = [
            output / profiling.file_name(file.name, target.name, count, plan)
            for file in files
            for target in chosen
            for count in plan.threads
        ]
        if compare.resolve() in [path.resolve() for path in written]:
            raise InputError(f"{compare} would be overwritten; choose another folder for what is new: --output after")

    parts = {str(file): _cut(file) for file in files} if blocks else {}
    with Live() as live:
        outcomes = profiling.wait(profiling.measure_all(chosen, plan, output=output, resume=resume, watch=live.watch))
        records = [record for outcome in outcomes for record in outcome.records]
        failures = list(profiling.failures(outcomes))
        for path, cuts in parts.items():
            records, failed = _by_block(path, cuts, records, plan, chosen, live.watch)
            failures += failed
    if blocks:
        for record in records:
            name = profiling.file_name(record.model.path, record.target, record.threads, plan)
            write_atomic(output / name, to_json(record).encode("utf-8"))
    fleet = figures.fleet(records)
    comparisons: list[Comparison] = []
    problem = _problem(failures)
    if before is not None:
        try:
            comparisons = [figures.compare(before, record, force=force) for record in records]
        except InputError as error:
            problem = problem or error
    if as_json:
        document = {
            "records": records,
            "fleet": fleet,
            "comparisons": comparisons,
            "failures": [_failure(failure) for failure in failures],
        }
        print_json(document)
    else:
        paths = [str(output / profiling.file_name(one.model.path, one.target, one.threads, plan)) for one in records]
        render(records, fleet, comparisons, paths, console())
    if problem is not None:
        raise problem
    if require_valid:
        _require_valid(records)


def _threads(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1 or max(counts) > 1024:
        raise InputError(f"--threads '{text}' is no list of thread counts; for example --threads 1,2,4")
    return counts


def _older(path: Path) -> ProfileRecord:
    from edgeeff.results import ProfileRecord, read_record

    record = read_record(path)
    if not isinstance(record, ProfileRecord):
        raise InputError(f"{path} is a record of {record.schema}; --compare takes one that edgeeff profile wrote")
    return record


def _cut(file: Path) -> tuple[Block, ...]:
    from edgeeff.converters import blocks

    return blocks.cut(_read(file), str(file))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {file}: {error.strerror}") from error


def _compiled(files: Sequence[Path], delegate: str) -> dict[str, CompiledFile]:
    """Read what files for the Edge TPU say of themselves; refuse them without its delegate, and others with it."""
    from edgeeff.converters.edgetpu import compiled

    found = {}
    for file in files:
        content = _read(file)
        if compiled.NAME.encode() in content:
            if delegate != "edgetpu":
                raise ModelError(
                    f"{file} is compiled for the Edge TPU and runs nowhere else; measure it with --delegate edgetpu"
                )
            try:
                found[str(file)] = compiled.read(content)
            except ModelError as error:
                raise ModelError(f"cannot measure {file}: {error}") from error
        elif delegate == "edgetpu":
            raise ModelError(
                f"{file} is not compiled for the Edge TPU: nothing of it would run there. Compile it (edgeeff compile "
                f"{file}) and measure {file.stem}_edgetpu.tflite, or measure it on the CPU without --delegate edgetpu"
            )
    return found


def _by_block(
    path: str,
    cuts: Sequence[Block],
    records: list[ProfileRecord],
    plan: Plan,
    chosen: Sequence[Target],
    watch: Watch,
) -> tuple[list[ProfileRecord], list[Failure]]:
    """Measure a file's blocks in turn on every board; return the records with its own completed, and what failed."""
    import tempfile
    from dataclasses import replace

    from edgeeff.devices import figures
    from edgeeff.devices import profile as profiling

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, block in enumerate(cuts):
            files.append(Path(folder) / f"{number:02}-{block.name}.tflite")
            files[-1].write_bytes(block.content)
        quick = replace(plan, files=tuple(files), protocol=profiling.PARTS, image=None, keep=False)
        done = {record.target for record in records if record.model.path == path}
        boards = [target for target in chosen if target.name in done]
        outcomes = profiling.wait(profiling.measure_all(boards, quick, watch=watch))
    until = {
        # The least disturbed process: differences of parts that a neighbour slowed say more of the neighbour.
        (record.target, record.threads, record.model.path): min(record.latency.process_p50_s)
        for outcome in outcomes
        for record in outcome.records
    }
    names = [(block.name, block.operators, block.macs) for block in cuts]

    def complete(record: ProfileRecord) -> ProfileRecord:
        times = [until.get((record.target, record.threads, str(file))) for file in files]
        known = [seconds for seconds in times if seconds is not None]
        if record.model.path != path or len(known) < len(files):
            return record
        return replace(record, blocks=figures.by_block(names, known))

    return [complete(record) for record in records], list(profiling.failures(outcomes))


def _failure(failure: Failure) -> dict[str, Any]:
    case = failure.case
    return {
        "target": failure.target,
        "model": case.model if case is not None else None,
        "threads": case.threads if case is not None else None,
        "error": type(failure.error).__name__,
        "message": str(failure.error),
    }


def _problem(failures: Sequence[Failure]) -> EdgeeffError | None:
    """Return what to end with: the one failure as it is, or all of them, as the board's when one is."""
    if not failures:
        return None
    if len(failures) == 1:
        error = failures[0].error
        # With what arrived before, the measurement need not begin anew.
        return DroppedError(f"{error}; go on with --resume") if isinstance(error, DroppedError) else error
    lines = "".join(f"\n- {failure.error}" for failure in failures)
    kind = DeviceError if any(isinstance(failure.error, DeviceError) for failure in failures) else InputError
    return kind(f"{len(failures)} measurements failed:{lines}")


def _require_valid(records: Sequence[ProfileRecord]) -> None:
    invalid = [record for record in records if record.verdict is not None and not record.verdict.valid]
    if invalid:
        raise GateError(f"{len(invalid)} of {len(records)} measurements are invalid; the reasons are in their verdicts")
