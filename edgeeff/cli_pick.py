"""The commands `edgeeff pick` and `edgeeff predict`: which size a board can afford, and how fast a file would be there.

Like the other commands they import their code when they run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeeff.command import Command, common, console, print_json
from edgeeff.completion import schemes, targets
from edgeeff.errors import GateError, InputError

PATH = click.Path(path_type=Path)
DURATION, SIZE = "DURATION", "SIZE"
THREADS = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads of an inference.  [default: 1; for a recorded target, its own]",
)


def percentile_option(default: str, text: str) -> Callable[[Command], Command]:
    """Return --percentile with what it means for a command."""
    choices = click.Choice(["50", "90", "99"])
    return click.option("--percentile", type=choices, default=default, show_default=True, help=text)


def records_option(text: str) -> Callable[[Command], Command]:
    """Return --records with what it means for a command."""
    return click.option("--records", type=PATH, metavar="DIR", help=text)


@click.command()
@click.option("--budget", required=True, metavar=DURATION, help="What one inference may take, e.g. 30ms or 0.03s.")
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=targets,
    help="Where to measure (`edgeeff devices list`), or recorded:NAME; of several the slowest decides.  "
    "[default: local]",
)
@click.option(
    "--family",
    type=click.Choice(["b", "v2", "lite", "edgetpu", "phi"]),
    default="b",
    show_default=True,
    help="Which networks; edgetpu is EfficientNet-EdgeTPU, on a CPU; phi is B0 scaled by any phi from -3 to 7, in "
    "steps of 0.1.",
)
@click.option(
    "--scheme", shell_complete=schemes, default="int8", show_default=True, help="float32, float16, weight-only or int8."
)
@percentile_option("90", "Percentile of the latency that has to be within the budget.")
@THREADS
@click.option("--resolution", type=click.IntRange(32), metavar="PIXELS", help="One resolution for all.  [default: own]")
@click.option("--max-memory", metavar=SIZE, help="Peak memory of the whole process, e.g. 200MB.")
@click.option("--max-size", metavar=SIZE, help="Size of the file, e.g. 8MB or 8MiB.")
@click.option("--min-top1", metavar="PERCENT", help="Published top-1 at least, e.g. 78.")
@click.option("--end-to-end", "image", type=PATH, metavar="IMAGE", help="Count decoding and resizing this image, too.")
@records_option("Folder with records for recorded:NAME: of edgeeff profile, or TOML files.")
@click.option(
    "--models",
    type=PATH,
    metavar="DIR",
    help="Folder with converted files, named like b2_int8.tflite.",
)
@click.option("--delegate", hidden=True, help="Refused, with what to do for an Edge TPU.")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw accuracy against latency, as .png or .svg.")
@click.option("--quick", is_flag=True, help="Measure for seconds only; more may stay not separable.")
@click.option("--fresh", is_flag=True, help="Measure anew what earlier records in the output folder tell.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("edgeeff-pick"),
    metavar="DIR",
    help="Folder for the records of what is measured, and for the answer.  [default: edgeeff-pick]",
)
@common
def pick(
    budget: str,
    names: tuple[str, ...],
    family: Any,
    scheme: str,
    percentile: str,
    threads: int | None,
    resolution: int | None,
    max_memory: str | None,
    max_size: str | None,
    min_top1: str | None,
    image: Path | None,
    records: Path | None,
    models: Path | None,
    delegate: str | None,
    plot: Path | None,
    quick: bool,
    fresh: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Find the largest network that a board can afford.

    Latency does not depend on the weights, so this needs no training: few networks are converted with random weights
    and measured, and a model of the latency says which ones decide. What is measured is kept in the output folder and
    used again. DURATION is a number with us, ms or s; SIZE one with kB, MB or MiB. When nothing fits the exit code
    is 1.

    \b
    Examples:
      edgeeff pick --budget 100ms --family lite --target recorded:raspberry-pi-4
      edgeeff pick --budget 30ms
      edgeeff pick --budget 30ms --target pi4 --threads 4 --max-memory 200MB --plot pick.svg
      edgeeff pick --budget 12ms --family phi --scheme float32 --percentile 50
      edgeeff pick --budget 60ms --target pi4 --target pi5 --min-top1 78 --json
    """
    from edgeeff import api
    from edgeeff.files import check_writable, write_atomic
    from edgeeff.picking import plot as plotting
    from edgeeff.picking import view

    if delegate is not None:
        raise InputError(
            f"pick has no --delegate {delegate}: it measures CPUs, with what the runtime takes by itself. An Edge TPU "
            "runs compiled files only: measure those with edgeeff profile --delegate edgetpu, and pick from their "
            "figures with --target recorded:NAME. What an int8 file may take there, before it is compiled, is "
            "estimated by edgeeff inspect FILE --edge-tpu"
        )
    if plot is not None:
        plotting.check(plot)
        check_writable(plot, option="--plot")
    record = api.pick(
        budget,
        target=names or "local",
        family=family,
        scheme=scheme,
        percentile=int(percentile),
        threads=threads,
        resolution=resolution,
        max_memory=max_memory,
        max_size=max_size,
        min_top1=min_top1,
        end_to_end=image,
        records=records,
        models=models,
        quick=quick,
        fresh=fresh,
        output=output,
        progress=True,
    )
    if plot is not None:
        write_atomic(plot, plotting.draw(record, plot.suffix.lower()[1:]), option="--plot")
    if as_json:
        print_json(record)
    else:
        view.render(record, console())
    if record.winner is None:
        raise GateError(view.refusal(record))


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--target",
    "name",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=targets,
    help="The board to predict for (`edgeeff devices list`), or recorded:NAME.",
)
@records_option("Folder with records of edgeeff profile or edgeeff pick.")
@percentile_option("50", "Percentile of the latency to predict.")
@THREADS
@common
def predict(file: Path, name: str, records: Path | None, percentile: str, threads: int | None, as_json: bool) -> None:
    """Predict how long FILE takes on a board, without running it.

    The latency model is fitted on what is recorded of that board, and starts from the board's published facts; the
    interval says how little that may be.

    \b
    Examples:
      edgeeff predict lite0_int8.tflite --target recorded:raspberry-pi-4
      edgeeff predict b2_int8.tflite --records edgeeff-pick
      edgeeff predict b2_int8.tflite --target raspberry-pi-5 --threads 4 --json
    """
    from edgeeff import api
    from edgeeff.picking import view

    record = api.predict(file, target=name, records=records, percentile=int(percentile), threads=threads)
    if as_json:
        print_json(record)
        return
    view.render_prediction(record, console())
