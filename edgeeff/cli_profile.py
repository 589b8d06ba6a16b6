"""The command `edgeeff profile`: how fast and how big a file is on a board, or on many.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeeff.command import common, console, print_json
from edgeeff.completion import targets
from edgeeff.errors import GateError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeeff.devices.profile import Failure
    from edgeeff.results import Comparison, ProfileRecord

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=targets,
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
    from edgeeff import api, profiling
    from edgeeff.devices import figures
    from edgeeff.devices import profile as protocols
    from edgeeff.devices.profile_view import Live, render
    from edgeeff.results import ProfileRecord

    asked = profiling.prepare(
        files,
        names,
        protocol=protocols.protocol(quick=quick, duration_s=duration, sustained_min=sustained),
        threads=profiling.thread_counts(threads),
        delegate=delegate,
        image=image,
        keep=keep,
        output=output,
        resume=resume,
        by_block=blocks,
    )
    before = None if compare is None else api.read_record(compare, ProfileRecord)
    if compare is not None and compare.resolve() in [path.resolve() for path in asked.paths]:
        raise InputError(f"{compare} would be overwritten; choose another folder for what is new: --output after")
    with Live() as live:
        measured = profiling.measure(asked, live.watch)
    records = measured.records
    fleet = figures.fleet(records)
    comparisons: list[Comparison] = []
    problem = measured.problem
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
            "failures": [_failure(failure) for failure in measured.failures],
        }
        print_json(document)
    else:
        paths = [str(asked.path(one)) for one in records]
        render(records, fleet, comparisons, paths, console())
    if problem is not None:
        raise problem
    if require_valid:
        _require_valid(records)


def _failure(failure: Failure) -> dict[str, Any]:
    case = failure.case
    return {
        "target": failure.target,
        "model": case.model if case is not None else None,
        "threads": case.threads if case is not None else None,
        "error": type(failure.error).__name__,
        "message": str(failure.error),
    }


def _require_valid(records: Sequence[ProfileRecord]) -> None:
    invalid = [record for record in records if record.verdict is not None and not record.verdict.valid]
    if invalid:
        raise GateError(f"{len(invalid)} of {len(records)} measurements are invalid; the reasons are in their verdicts")
