"""The Python API: what the commands do, as functions that return the records which `--json` prints.

Each function takes what its command takes, under the same names, and the command calls the same function or what is
behind it. Paths are text or Path; a duration is text with its unit or a number of seconds, a size text or a number of
bytes. What is no error on the command line but an exit code, a gate or a budget that says no, is in the record. Errors
are classes of `edgeeff.errors`; a message names an argument as the command line does. Nothing is written where no
`output` is given, but by `convert`, which makes a file, and by `pick`, which would measure again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from edgeeff.errors import InputError, RecordError, UnknownNameError
from edgeeff.quantities import percent, ratio_or_seconds, seconds, size, value_range

if TYPE_CHECKING:
    from edgeeff.converters.qat import Finetune
    from edgeeff.devices.profile import Watch
    from edgeeff.picking.measure import Bench
    from edgeeff.progress import Progress
    from edgeeff.results import (
        Comparison,
        ConversionRecord,
        EvaluationComparison,
        EvaluationRecord,
        Goal,
        PickRecord,
        PredictionRecord,
        ProfileRecord,
        Record,
    )

    RecordKind = TypeVar("RecordKind", bound=Record)

File = str | os.PathLike[str]
Delegate = Literal["auto", "xnnpack", "none", "edgetpu"]
Effort = Literal["quick", "standard", "thorough"]
Dtype = Literal["float32", "uint8", "int8"]
Family = Literal["b", "v2", "lite", "edgetpu", "phi"]


def convert(
    *,
    variant: str | None = None,
    phi: float | None = None,
    model: File | None = None,
    weights: File | None = None,
    classes: int | None = None,
    resolution: int | None = None,
    scheme: str | None = None,
    min_agreement: str | float | None = None,
    max_drop: float | None = None,
    max_latency: str | float | None = None,
    target: str | None = None,
    edge_tpu: bool = False,
    finetune: File | None = None,
    steps: int | None = None,
    learn_labels: bool = False,
    prune: float | None = None,
    cluster: int | None = None,
    calibration: File | None = None,
    samples: int = 128,
    calibrator: str | None = None,
    effort: Effort = "standard",
    seed: int = 0,
    input_type: Dtype | None = None,
    output_type: Dtype | None = None,
    logits: bool | None = None,
    labels: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    threads: int | None = None,
    output: File | None = None,
    progress: bool = False,
) -> ConversionRecord:
    """Convert a variant, a phi or a model to a verified .tflite file; its record is written beside it as .json.

    Exactly one of `variant`, `phi` and `model` says what. `min_agreement` is in percent, `max_drop` in points of top-1,
    `max_latency` a ratio to the float file's latency, or a duration as text; a goal that is not met is told by
    `record.mixed.shortfall`. `progress` shows bars on standard error where that is a terminal.

    Raises InputError and its kinds for bad input, DeviceError when the target is lost, MissingExtraError without the
    extra host, VerificationError when what came out does not hold; files that were there stay as they were then.
    """
    from edgeeff.converters import convert as conversion

    for option, value, least in (("--seed", seed, 0), ("--resolution", resolution, 1)):
        _at_least(option, value, least)
    types = ("float32", "uint8", "int8")
    _one_of("input type", input_type, types)
    _one_of("output type", output_type, types)
    source = conversion.Source(
        variant=variant,
        phi=phi,
        model=_path(model),
        weights=None if weights is None else os.fspath(weights),
        classes=classes,
        resolution=resolution,
    )
    interface = conversion.Interface(
        input_type=input_type,
        output_type=output_type,
        head=None if logits is None else "logits" if logits else "softmax",
        input_range=value_range(input_range),
        labels=_path(labels),
    )
    with _bars(progress) as bars:
        return conversion.convert(
            source,
            scheme=scheme,
            goal=_goal(min_agreement, max_drop, max_latency),
            target=target,
            edge_tpu=edge_tpu,
            finetune=_finetune(_path(finetune), steps, prune, cluster, learn_labels=learn_labels),
            calibration=conversion.Calibration(_path(calibration), samples, seed, calibrator, effort),
            interface=interface,
            output=_path(output),
            threads=threads,
            progress=bars,
        )


def profile(
    *files: File,
    target: str | Sequence[str] = "local",
    threads: int | Sequence[int] = 1,
    delegate: Delegate = "auto",
    quick: bool = False,
    duration: str | float | None = None,
    sustained: float | None = None,
    end_to_end: File | None = None,
    output: File | None = None,
    blocks: bool = False,
    resume: bool = False,
    keep: bool = False,
    progress: bool = False,
) -> tuple[ProfileRecord, ...]:
    """Measure .tflite files in turn: latency, memory, heat; return a record for each.

    Of several targets and thread counts there is one for each combination, target by target. `duration` is the time of
    timed runs per process, `sustained` is in minutes, `end_to_end` an image whose decoding is timed, too. The verdict,
    valid or invalid with reasons, is in the record. `output` is a folder for the records, and what `resume` goes on
    from.

    Raises InputError and its kinds for bad input, and DeviceError and its kinds when a board fails; of several boards
    the others go on first, and `output` has their records.
    """
    from edgeeff import profiling
    from edgeeff.devices import profile as protocols

    _one_of("delegate", delegate, ("auto", "xnnpack", "none", "edgetpu"))
    if sustained is not None and not sustained > 0:
        raise InputError(f"--sustained {sustained:g} is no number of minutes above 0; take 15")
    asked = profiling.prepare(
        _paths(files),
        _names(target),
        threads=profiling.thread_counts(threads),
        delegate=delegate,
        protocol=protocols.protocol(
            quick=quick,
            duration_s=None if duration is None else seconds("--duration", duration),
            sustained_min=sustained,
        ),
        image=_path(end_to_end),
        keep=keep,
        output=_path(output),
        resume=resume,
        by_block=blocks,
    )
    with _watching(progress) as watch:
        measured = profiling.measure(asked, watch)
    if measured.problem is not None:
        raise measured.problem
    return measured.records


def evaluate(
    *models: File,
    baseline: File,
    data: File,
    labels: File | None = None,
    crop: Literal["center", "none"] = "center",
    input_range: str | tuple[float, float] | None = None,
    restrict: bool = False,
    target: str = "local",
    delegate: Delegate = "auto",
    batch: int = 16,
    workers: int | None = None,
    threads: int | None = None,
    scheduler: str | None = None,
    max_unreadable: float = 1.0,
    train: File | None = None,
    train_accuracy: str | float | None = None,
    gates: File | None = None,
    max_drop: str | float | None = None,
    min_accuracy: str | float | None = None,
    min_recall: str | float | None = None,
    min_precision: str | float | None = None,
    min_class_recall: str | float | Mapping[str, float] | Sequence[str] = (),
    max_class_recall_drop: str | float | None = None,
    min_agreement: str | float | None = None,
    seed: int = 0,
    output: File | None = None,
    resume: bool = False,
    progress: bool = False,
) -> tuple[EvaluationRecord, ...]:
    """Judge quantized models against the float baseline on the same images; return a record for each.

    `max_drop` and `max_class_recall_drop` are in points, the other gates fractions from 0 to 1, or percentages as text;
    `min_class_recall` is a limit for every class, or limits by class name. `gates` is a TOML file with such gates. What
    came of them is in the record: `passed` and `gates`. `max_unreadable` is in percent, `output` a folder for the
    records, and what `resume` goes on from. The work is done by processes of this machine, `workers` of them.

    Raises InputError and its kinds for models, images and labels that cannot be used, DeviceError and its kinds when a
    board or the cluster of a `scheduler` fails, MissingExtraError for what is not installed.
    """
    from edgeeff.devices import targets
    from edgeeff.evaluation import engine
    from edgeeff.evaluation import gates as gating

    _one_of("crop", crop, ("center", "none"))
    _one_of("delegate", delegate, ("auto", "xnnpack", "none", "edgetpu"))
    for option, value, least in (("--seed", seed, 0), ("--workers", workers, 1), ("--threads", threads, 1)):
        _at_least(option, value, least)
    if not 0 <= max_unreadable <= 100:
        raise InputError(f"--max-unreadable {max_unreadable:g} is no percentage from 0 to 100; take 1")
    asked = gating.parse(
        min_class_recall=_class_limits(min_class_recall),
        max_drop=max_drop,
        min_accuracy=min_accuracy,
        min_recall=min_recall,
        min_precision=min_precision,
        max_class_recall_drop=max_class_recall_drop,
        min_agreement=min_agreement,
    )
    if gates is not None:
        asked = gating.merge(gating.from_file(Path(gates)), asked)
    plan = engine.Plan(
        models=_paths(models),
        baseline=Path(baseline),
        data=Path(data),
        labels=_path(labels),
        crop=crop,
        input_range=value_range(input_range),
        restrict=restrict,
        batch=batch,
        workers=workers,
        threads=threads,
        scheduler=scheduler,
        delegate=delegate,
        max_unreadable=max_unreadable / 100,
        train=_path(train),
        train_accuracy=gating.fraction("--train-accuracy", train_accuracy),
        gates=asked,
        seed=seed,
    )
    board = targets.LOCAL if target == targets.LOCAL.name else targets.find(target)
    with _bars(progress) as bars:
        return engine.evaluate(plan, target=board, output=_path(output), resume=resume, progress=bars)


def pick(
    budget: str | float,
    *,
    target: str | Sequence[str] = "local",
    family: Family = "b",
    scheme: str = "int8",
    percentile: int = 90,
    threads: int | None = None,
    resolution: int | None = None,
    max_memory: str | float | None = None,
    max_size: str | float | None = None,
    min_top1: str | float | None = None,
    end_to_end: File | None = None,
    records: File | None = None,
    models: File | None = None,
    quick: bool = False,
    fresh: bool = False,
    output: File = "edgeeff-pick",
    progress: bool = False,
) -> PickRecord:
    """Find the largest network of a family whose latency is within the budget, such as "30ms" or 0.03.

    `target` is where to measure, or "recorded:NAME"; of several the slowest decides. `min_top1` is in percent. What is
    measured is kept in the folder `output`, used again by the next call, and the record lies there, too; recorded
    targets write nothing. `winner` of the record is None when nothing fits.

    Raises InputError and its kinds for what makes no sense, and what `convert` and `profile` raise.
    """
    from edgeeff.files import make_folder, write_atomic
    from edgeeff.picking import pick as picking
    from edgeeff.results import PickLimits, to_json

    _one_of("family", family, ("b", "v2", "lite", "edgetpu", "phi"))
    _one_of("percentile", str(percentile), ("50", "90", "99"))
    for option, value, least in (("--threads", threads, 1), ("--resolution", resolution, 32)):
        _at_least(option, value, least)
    limits = PickLimits(
        budget_s=seconds("--budget", budget),
        percentile=percentile,
        end_to_end=end_to_end is not None,
        max_memory_bytes=None if max_memory is None else size("--max-memory", max_memory),
        max_size_bytes=None if max_size is None else size("--max-size", max_size),
        min_top1=None if min_top1 is None else percent("--min-top1", min_top1, "78"),
    )
    if quick and percentile == 99:
        raise InputError("--quick measures too few runs for --percentile 99; take 90, or leave --quick away")
    if end_to_end is not None and percentile == 99:
        raise InputError("--end-to-end runs too few images for --percentile 99; take 90")
    folder = Path(output)
    request = picking.Request(
        family=family,
        limits=limits,
        scheme=scheme,
        names=_names(target),
        threads=threads,
        resolution=resolution,
        image=_path(end_to_end),
        output=folder,
        records=_path(records),
        models=_path(models),
        quick=quick,
        fresh=fresh,
    )
    record = picking.run(request, _showing) if progress else picking.run(request)
    if any(not name.startswith("recorded:") for name in record.targets):
        name = f"{family}_{scheme}.{'+'.join(record.targets).replace(':', '-')}.pick.json"
        make_folder(folder)
        write_atomic(folder / name, to_json(record).encode("utf-8"))
    return record


def predict(
    file: File,
    *,
    target: str = "local",
    records: File | None = None,
    percentile: int = 50,
    threads: int | None = None,
) -> PredictionRecord:
    """Predict how long a .tflite file takes on a target, without running it; `records` is a folder of measured ones.

    Raises ModelError for a file that cannot be read, MissingExtraError without what reads it, and InputError where
    nothing is known of the target.
    """
    from edgeeff.picking import predict as predicting

    _one_of("percentile", str(percentile), ("50", "90", "99"))
    _at_least("--threads", threads, 1)
    return predicting.predict(Path(file), target, folder=_path(records), percentile=percentile, threads=threads)


@overload
def compare(first: EvaluationRecord, second: EvaluationRecord) -> EvaluationComparison: ...
@overload
def compare(first: ProfileRecord, second: ProfileRecord, *, force: bool = False) -> Comparison: ...
def compare(
    first: EvaluationRecord | ProfileRecord, second: EvaluationRecord | ProfileRecord, *, force: bool = False
) -> EvaluationComparison | Comparison:
    """Say which of two evaluations is better, or how a latency changed from the first measurement to the second.

    Evaluations that share images are compared image by image. With `force` measurements are compared although device,
    runtime, threads or emulation differ.

    Raises InputError for records that cannot be compared.
    """
    from edgeeff.results import EvaluationRecord, ProfileRecord

    if isinstance(first, EvaluationRecord) and isinstance(second, EvaluationRecord):
        from edgeeff.evaluation import compare as comparing

        return comparing.compare(first, second)
    if isinstance(first, ProfileRecord) and isinstance(second, ProfileRecord):
        from edgeeff.devices import figures

        return figures.compare(first, second, force=force)
    kinds = " and ".join(str(getattr(one, "schema", type(one).__name__)) for one in (first, second))
    raise InputError(f"cannot compare {kinds}: give two evaluations or two profiles")


@overload
def read_record(path: File) -> Record: ...
@overload
def read_record(path: File, kind: type[RecordKind]) -> RecordKind: ...
def read_record(path: File, kind: type[Record] | None = None) -> Record:
    """Read a record that edgeeff wrote: as one of `kind`, a class of `edgeeff.results`, or whichever it is.

    Raises RecordError for a file that is missing, no record, of a newer schema version, damaged or of another kind.
    """
    from edgeeff.results import read_record as read

    record = read(Path(path))
    if kind is not None and not isinstance(record, kind):
        raise RecordError(f"{path} is a record of {record.schema}; give one of {kind.schema}")
    return record


# --- Arguments --------------------------------------------------------------------------------------------------------


def _path(given: File | None) -> Path | None:
    return None if given is None else Path(given)


def _paths(given: Sequence[File]) -> tuple[Path, ...]:
    if not given:
        raise InputError("no file is given: name a .tflite file")
    return tuple(Path(one) for one in given)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise InputError(f"{option} {value}: take {least} or more")


def _one_of(what: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise UnknownNameError(what, value, known)


def _goal(min_agreement: str | float | None, max_drop: float | None, max_latency: str | float | None) -> Goal | None:
    """Read what mixed precision has to reach; None where nothing was asked."""
    from edgeeff.results import Goal

    if (min_agreement, max_drop, max_latency) == (None, None, None):
        return None
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise InputError(f"--max-drop {max_drop:g} is out of range: give points from 0 to 100, e.g. 1.0")
    share = None if min_agreement is None else percent("--min-agreement", min_agreement, "98") / 100
    ratio, limit_s = (None, None) if max_latency is None else ratio_or_seconds("--max-latency", max_latency)
    return Goal(min_agreement=share, max_drop=max_drop, max_latency=ratio, max_latency_s=limit_s)


def _finetune(
    folder: Path | None, steps: int | None, prune: float | None, cluster: int | None, *, learn_labels: bool
) -> Finetune | None:
    """Read what to fine-tune with; None where nobody asked for it."""
    if folder is None:
        if steps is not None or prune or cluster or learn_labels:
            raise InputError("--steps, --learn-labels, --prune and --cluster are for training: give --finetune DIR")
        return None
    from edgeeff.converters import qat
    from edgeeff.evaluation import dataset, labels

    _at_least("--steps", steps, 1)

    def told(classes: int, names: Sequence[str] | None) -> dict[str, int]:
        data = dataset.open_dataset(folder)
        return dict(zip(data.names, labels.map_classes(data, classes, names).indices, strict=True))

    return qat.Finetune(
        folder, steps or qat.DEFAULT_STEPS, told if learn_labels else None, sparsity=prune or 0.0, clusters=cluster or 0
    )


def _class_limits(limits: str | float | Mapping[str, float] | Sequence[str]) -> tuple[str, ...]:
    """Return limits of classes as options say them: NAME=0.9, or 0.9 for every class."""
    if isinstance(limits, Mapping):
        return tuple(f"{name}={limit}" for name, limit in limits.items())
    return (str(limits),) if isinstance(limits, (str, int, float)) else tuple(limits)


# --- Progress ---------------------------------------------------------------------------------------------------------


@contextmanager
def _bars(shown: bool) -> Iterator[Progress | None]:
    if not shown:
        yield None
        return
    from edgeeff.progress import Bars

    with Bars() as bars:
        yield bars


@contextmanager
def _watching(shown: bool) -> Iterator[Watch]:
    from edgeeff.devices import profile as profiling

    if not shown:
        yield profiling.unwatched
        return
    from edgeeff.devices.profile_view import Live

    with Live() as live:
        yield live.watch


def _showing(bench: Bench) -> None:
    """Let the bench of a pick show on standard error what it does."""
    bench.watching = lambda: _watching(shown=True)
    bench.converting = lambda _name: _bars(shown=True)
