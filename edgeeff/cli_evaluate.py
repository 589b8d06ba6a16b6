"""The commands `edgeeff evaluate` and `edgeeff compare`: is a quantized model still right, and which of two is better.

Like the other commands they import their code when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeeff.command import common, console, print_json
from edgeeff.completion import targets
from edgeeff.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeeff.results import EvaluationRecord

PATH = click.Path(path_type=Path)
POINTS = "POINTS"
FRACTION = "FRACTION"


@click.command()
@click.argument("models", nargs=-1, required=True, type=PATH, metavar="MODEL.tflite...")
@click.option(
    "--baseline",
    required=True,
    type=PATH,
    metavar="FILE",
    help="The float model: .keras, .h5, SavedModel folder or .tflite.",
)
@click.option(
    "--data",
    required=True,
    type=PATH,
    metavar="PATH",
    help="Images: class folders, a CSV of files and labels, TFRecords, or a folder without classes (agreement only).",
)
@click.option("--labels", type=PATH, metavar="FILE", help="Class names, one a line.  [default: the model's own]")
@click.option(
    "--crop",
    type=click.Choice(["center", "none"]),
    default="center",
    show_default=True,
    help="Take the middle of each image, or squeeze it whole; one that has the network's size stays as it is.",
)
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    help="What black and white are for a file that does not say, e.g. 0,1 or -1,1.",
)
@click.option("--restrict", is_flag=True, help="Count only classes that have an image as answers.")
@click.option(
    "--target", metavar="NAME", shell_complete=targets, help="The board that runs the models; the baseline runs here."
)
@click.option(
    "--delegate",
    type=click.Choice(["auto", "xnnpack", "none", "edgetpu"]),
    default="auto",
    show_default=True,
    help="What runs the models; all but auto run them as on a board.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=16, show_default=True, help="Images that a worker gets at a time."
)
@click.option("--workers", type=click.IntRange(1), help="Processes here.  [default: one for each core]")
@click.option("--threads", type=click.IntRange(1), help="Threads of each interpreter.  [default: what is fastest]")
@click.option(
    "--scheduler", metavar="tcp://HOST:PORT", help="A Dask cluster that does the work; needs the extra cluster."
)
@click.option(
    "--max-unreadable",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    metavar="PERCENT",
    help="Images that may be unreadable; they are left out and listed.",
)
@click.option("--train", type=PATH, metavar="PATH", help="Training images: looks for leaks, and for overfitting.")
@click.option(
    "--train-accuracy", metavar=FRACTION, help="The baseline's top-1 on its training images, e.g. 0.93 or 93%."
)
@click.option("--max-drop", metavar=POINTS, help="Gate: top-1 at most so far below the baseline's, e.g. 1.0.")
@click.option("--min-accuracy", metavar=FRACTION, help="Gate: top-1 at least, e.g. 0.75 or 75%.")
@click.option("--min-recall", metavar=FRACTION, help="Gate: mean recall over classes at least.")
@click.option("--min-precision", metavar=FRACTION, help="Gate: mean precision over classes at least.")
@click.option(
    "--min-class-recall",
    multiple=True,
    metavar="[NAME=]FRACTION",
    help="Gate: recall of one class, or of every class, at least; may be given again.",
)
@click.option("--max-class-recall-drop", metavar=POINTS, help="Gate: recall of no class further below the baseline's.")
@click.option("--min-agreement", metavar=FRACTION, help="Gate: images with the same best class at least.")
@click.option(
    "--gates",
    "gates_file",
    type=PATH,
    metavar="FILE",
    help="Gates as TOML.  [default: [tool.edgeeff.gates] of a pyproject.toml that is here]",
)
@click.option("--junit", type=PATH, metavar="FILE", help="Write the gates as JUnit XML, for CI systems.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws bootstrap samples.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path(),
    metavar="DIR",
    help="Folder for the records, one .evaluation.json for each model.  [default: this one]",
)
@click.option("--resume", is_flag=True, help="Go on with an evaluation that was interrupted.")
@common
def evaluate(
    models: tuple[Path, ...],
    baseline: Path,
    data: Path,
    labels: Path | None,
    crop: Any,
    input_range: str | None,
    restrict: bool,
    target: str | None,
    delegate: Any,
    batch: int,
    workers: int | None,
    threads: int | None,
    scheduler: str | None,
    max_unreadable: float,
    train: Path | None,
    train_accuracy: str | None,
    gates_file: Path | None,
    junit: Path | None,
    seed: int,
    output: Path,
    resume: bool,
    as_json: bool,
    min_class_recall: tuple[str, ...],
    **limits: Any,
) -> None:
    """Judge quantized models against the float baseline.

    MODEL.tflite... and the baseline see the same images; differences come with 95 % intervals, and pitfalls are named
    with their evidence. A gate is held against the end of the interval that speaks against the model, and sets the exit
    code to 1 when it says no. POINTS are percentage points; a FRACTION is 0 to 1 or a percentage.

    \b
    Examples:
      edgeeff evaluate b2_int8.tflite --baseline b2.keras --data val/
      edgeeff evaluate b0_int8.tflite b0_mixed.tflite --baseline b0.keras --data val.csv --max-drop 1.0
      edgeeff evaluate b0_int8.tflite --baseline b0.keras --data val/ --target pi4 --min-class-recall cat=0.9
      edgeeff evaluate b0_int8.tflite --baseline b0_float32.tflite --data photos/ --min-agreement 95%
    """
    from edgeeff import api
    from edgeeff.evaluation import gates, view
    from edgeeff.evaluation import junit as junit_xml
    from edgeeff.files import check_writable, write_atomic

    if junit is not None:
        check_writable(junit, option="--junit")
    if gates_file is None and gates.in_project(project := Path(gates.PROJECT)):
        gates_file = project
    records = api.evaluate(
        *models,
        baseline=baseline,
        data=data,
        labels=labels,
        crop=crop,
        input_range=input_range,
        restrict=restrict,
        target=target or "local",
        delegate=delegate,
        batch=batch,
        workers=workers,
        threads=threads,
        scheduler=scheduler,
        max_unreadable=max_unreadable,
        train=train,
        train_accuracy=train_accuracy,
        gates=gates_file,
        min_class_recall=min_class_recall,
        seed=seed,
        output=output,
        resume=resume,
        progress=True,
        **limits,
    )
    if junit is not None:
        write_atomic(junit, junit_xml.to_junit(records), option="--junit")
    if as_json:
        print_json({"records": records})
    else:
        view.render(records, console())
    _require(records)


@click.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@common
def compare(first: Path, second: Path, as_json: bool) -> None:
    """Compare two evaluations by their records.

    FIRST and SECOND are what `edgeeff evaluate` wrote; differences are the second model's figures minus the first's.
    They are paired over the images that both saw; where they share
    none, the difference is that of two independent sets.

    \b
    Example:
      edgeeff compare b0_int8.local.evaluation.json b0_mixed.local.evaluation.json
    """
    from edgeeff import api
    from edgeeff.evaluation import view
    from edgeeff.results import EvaluationRecord

    before, after = (api.read_record(path, EvaluationRecord) for path in (first, second))
    comparison = api.compare(before, after)
    if as_json:
        print_json({"comparison": comparison})
        return
    view.render_comparison(comparison, console())


def _require(records: Sequence[EvaluationRecord]) -> None:
    refused = [f"{record.model.path}: {gate.text}" for record in records for gate in record.gates if not gate.passed]
    if len(refused) == 1:
        raise GateError(refused[0])
    if refused:
        raise GateError(f"{len(refused)} gates said no:" + "".join(f"\n- {line}" for line in refused))
