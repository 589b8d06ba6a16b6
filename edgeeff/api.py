"""The Python API: what the commands do, as functions that return the records which `--json` prints.

Each function takes what its command takes, under the same names, and the command calls the same function or what is
behind it. Paths are text or Path; a duration is text with its unit or a number of seconds, a size text or a number of
bytes. What is no error on the command line but an exit code, a gate or a budget that says no, is in the record. Errors
are classes of `edgeeff.errors`; a message names an argument as the command line does. Nothing is written where no
`output` is given, but by those that make files, and by `pick`, which would measure again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from edgeeff import arguments
from edgeeff.arguments import File
from edgeeff.errors import InputError
from edgeeff.quantities import percent, seconds, size, value_range

if TYPE_CHECKING:
    from edgeeff.converters.inspect import Inspection
    from edgeeff.converters.preflight import Preflight
    from edgeeff.results import (
        AuditRecord,
        Comparison,
        CompilationRecord,
        ConversionRecord,
        DiagnosisRecord,
        EvaluationComparison,
        EvaluationRecord,
        PickRecord,
        PredictionRecord,
        ProfileRecord,
        Record,
        WrittenReport,
    )

    RecordKind = TypeVar("RecordKind", bound=Record)

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
        arguments.at_least(option, value, least)
    types = ("float32", "uint8", "int8")
    arguments.one_of("input type", input_type, types)
    arguments.one_of("output type", output_type, types)
    source = conversion.Source(
        variant=variant,
        phi=phi,
        model=arguments.path(model),
        weights=None if weights is None else os.fspath(weights),
        classes=classes,
        resolution=resolution,
    )
    interface = conversion.Interface(
        input_type=input_type,
        output_type=output_type,
        head=None if logits is None else "logits" if logits else "softmax",
        input_range=value_range(input_range),
        labels=arguments.path(labels),
    )
    with arguments.bars(progress) as bars:
        return conversion.convert(
            source,
            scheme=scheme,
            goal=arguments.goal(min_agreement, max_drop, max_latency),
            target=target,
            edge_tpu=edge_tpu,
            finetune=arguments.finetune(arguments.path(finetune), steps, prune, cluster, learn_labels=learn_labels),
            calibration=conversion.Calibration(arguments.path(calibration), samples, seed, calibrator, effort),
            interface=interface,
            output=arguments.path(output),
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

    arguments.one_of("delegate", delegate, ("auto", "xnnpack", "none", "edgetpu"))
    if sustained is not None and not sustained > 0:
        raise InputError(f"--sustained {sustained:g} is no number of minutes above 0; take 15")
    asked = profiling.prepare(
        arguments.paths(files),
        arguments.names(target),
        threads=profiling.thread_counts(threads),
        delegate=delegate,
        protocol=protocols.protocol(
            quick=quick,
            duration_s=None if duration is None else seconds("--duration", duration),
            sustained_min=sustained,
        ),
        image=arguments.path(end_to_end),
        keep=keep,
        output=arguments.path(output),
        resume=resume,
        by_block=blocks,
    )
    with arguments.watching(progress) as watch:
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

    arguments.one_of("crop", crop, ("center", "none"))
    arguments.one_of("delegate", delegate, ("auto", "xnnpack", "none", "edgetpu"))
    for option, value, least in (("--seed", seed, 0), ("--workers", workers, 1), ("--threads", threads, 1)):
        arguments.at_least(option, value, least)
    if not 0 <= max_unreadable <= 100:
        raise InputError(f"--max-unreadable {max_unreadable:g} is no percentage from 0 to 100; take 1")
    asked = gating.parse(
        min_class_recall=arguments.class_limits(min_class_recall),
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
        models=arguments.paths(models),
        baseline=Path(baseline),
        data=Path(data),
        labels=arguments.path(labels),
        crop=crop,
        input_range=value_range(input_range),
        restrict=restrict,
        batch=batch,
        workers=workers,
        threads=threads,
        scheduler=scheduler,
        delegate=delegate,
        max_unreadable=max_unreadable / 100,
        train=arguments.path(train),
        train_accuracy=gating.fraction("--train-accuracy", train_accuracy),
        gates=asked,
        seed=seed,
    )
    board = targets.LOCAL if target == targets.LOCAL.name else targets.find(target)
    with arguments.bars(progress) as bars:
        return engine.evaluate(plan, target=board, output=arguments.path(output), resume=resume, progress=bars)


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

    arguments.one_of("family", family, ("b", "v2", "lite", "edgetpu", "phi"))
    arguments.one_of("percentile", str(percentile), ("50", "90", "99"))
    for option, value, least in (("--threads", threads, 1), ("--resolution", resolution, 32)):
        arguments.at_least(option, value, least)
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
        names=arguments.names(target),
        threads=threads,
        resolution=resolution,
        image=arguments.path(end_to_end),
        output=folder,
        records=arguments.path(records),
        models=arguments.path(models),
        quick=quick,
        fresh=fresh,
    )
    record = picking.run(request, arguments.showing) if progress else picking.run(request)
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

    arguments.one_of("percentile", str(percentile), ("50", "90", "99"))
    arguments.at_least("--threads", threads, 1)
    return predicting.predict(
        Path(file), target, folder=arguments.path(records), percentile=percentile, threads=threads
    )


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


def audit(
    folder: File,
    *,
    against: File | None = None,
    model: File | None = None,
    variant: str | None = None,
    weights: File | None = None,
    labels: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    samples: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> AuditRecord:
    """Say whether the images of a folder are good to calibrate with, as `edgeeff calibrate` does.

    `against` are the images that the model will be judged with. `model`, which may be a conversion's record, or
    `variant` is the network to calibrate; without one the images alone are looked at. What is wrong is in the record:
    `verdict` and `findings`.

    Raises CalibrationError for folders without images that can be used, InputError and its kinds for other bad input,
    MissingExtraError for what is not installed.
    """
    from edgeeff.auditing import audit as auditing
    from edgeeff.progress import Silent

    if model is not None and variant is not None:
        raise InputError("--model and --variant both name the network: give one of them")
    for option, value, least in (("--samples", samples, 1), ("--seed", seed, 0)):
        arguments.at_least(option, value, least)
    plan = auditing.Plan(Path(folder), arguments.path(against), samples, seed)
    auditing.check(plan)
    with arguments.bars(progress) as bars:
        network = None
        if model is not None or variant is not None:
            from edgeeff.auditing.network import open_network, source_of

            source = source_of(arguments.path(model), variant, None if weights is None else os.fspath(weights))
            network = open_network(source, arguments.path(labels), value_range(input_range), bars or Silent())
        return auditing.audit(plan, network, bars)


def diagnose(
    quantized: File,
    *,
    baseline: File,
    data: File | None = None,
    labels: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    samples: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> DiagnosisRecord:
    """Say why a quantized file is not what its float model is, on the same images.

    Without `data` edgeeff makes the images. `cause` of the record is the one thing to mend, None where nothing is
    wrong.

    Raises ModelError for what is no classifier or cannot run here, CalibrationError for images that cannot be used,
    InputError for labels that do not fit, MissingExtraError for what is not installed.
    """
    from edgeeff.diagnosis import diagnose as diagnosing

    for option, value, least in (("--samples", samples, 2), ("--seed", seed, 0)):
        arguments.at_least(option, value, least)
    plan = diagnosing.Plan(
        model=Path(quantized),
        baseline=Path(baseline),
        data=arguments.path(data),
        labels=arguments.path(labels),
        input_range=value_range(input_range),
        samples=samples,
        seed=seed,
    )
    with arguments.bars(progress) as bars:
        return diagnosing.diagnose(plan, bars)


@overload
def inspect(
    file: File,
    *,
    edge_tpu: Literal[False] = False,
    model_explorer: File | None = None,
    profile: File | ProfileRecord | None = None,
    baseline: File | None = None,
    data: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    progress: bool = False,
) -> Inspection: ...
@overload
def inspect(
    file: File,
    *,
    edge_tpu: Literal[True],
    model_explorer: File | None = None,
    profile: File | ProfileRecord | None = None,
    baseline: File | None = None,
    data: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    progress: bool = False,
) -> Preflight: ...
def inspect(
    file: File,
    *,
    edge_tpu: bool = False,
    model_explorer: File | None = None,
    profile: File | ProfileRecord | None = None,
    baseline: File | None = None,
    data: File | None = None,
    input_range: str | tuple[float, float] | None = None,
    progress: bool = False,
) -> Inspection | Preflight:
    """Say what is in a .tflite file and what XNNPACK takes of it, or what the Edge TPU's compiler would make of it.

    `model_explorer` is the first of the overlay files that are written then. Latency by operator is among them with the
    `profile`, a record with blocks, and the error of each tensor with the `baseline`, on the images of `data`.

    Raises ModelError for a file that cannot be read, and with `edge_tpu` for one that was compiled already;
    MissingExtraError without LiteRT; for overlays InputError and its kinds.
    """
    from edgeeff.converters import inspect as inspection

    measured = Path(profile) if isinstance(profile, (str, os.PathLike)) else profile
    plan = arguments.overlay_plan(
        Path(file),
        arguments.path(model_explorer),
        measured,
        arguments.path(baseline),
        arguments.path(data),
        input_range,
    )
    found = inspection.inspect(Path(file))
    judged = None
    if edge_tpu:
        from edgeeff.converters import preflight

        judged = preflight.check(found)
    if plan is not None:
        arguments.write_overlays(plan, progress=progress)
    return judged or found


def compile(  # noqa: A001 - the command's name, and nobody needs the other one here
    *files: File,
    compiler: File | None = None,
    output: File = ".",
    min_runtime: int | None = None,
    segments: int | None = None,
    intermediate_tensors: str | Sequence[str] | None = None,
    multiple_subgraphs: bool = False,
    search_delegate: bool = False,
    search_step: int | None = None,
    timeout: int | None = None,
    time_limit: str | float = "1800s",
    progress: bool = False,
) -> CompilationRecord:
    """Compile int8 files for the Edge TPU, several together, with Google's edgetpu_compiler.

    `output` is the folder for what comes out, its record and what the compiler printed. `timeout` is the compiler's own
    limit for a part, in seconds; `time_limit` ends it in any case.

    Raises MissingProgramError without a compiler, ModelError for a file that cannot be compiled, TimeLimitError and
    DeviceError when the compiler fails for other reasons, OutputError where nothing can be written.
    """
    from edgeeff.converters import preflight, workload
    from edgeeff.converters.edgetpu import compiler as driver

    for option, value, least in (
        ("--min-runtime", min_runtime, 1),
        ("--segments", segments, 2),
        ("--search-step", search_step, 1),
        ("--timeout", timeout, 1),
    ):
        arguments.at_least(option, value, least)
    options = driver.Options(
        min_runtime=min_runtime,
        segments=segments,
        intermediate_tensors=None if intermediate_tensors is None else ",".join(arguments.names(intermediate_tensors)),
        multiple_subgraphs=multiple_subgraphs,
        search_delegate=search_delegate,
        search_step=search_step,
        timeout_s=timeout,
    )
    with arguments.bars(progress) as bars:
        return driver.compile_files(
            arguments.paths(files),
            Path(output),
            compiler=arguments.path(compiler),
            options=options,
            time_limit_s=seconds("--time-limit", time_limit),
            work_of=workload.try_compiled,
            foresee=preflight.try_foresee,
            progress=bars,
        )


def report(
    *records: File | Record,
    output: File | None = None,
    format: Literal["html", "md"] | None = None,  # noqa: A002 - the option's name
    title: str | None = None,
    thumbnails: File | None = None,
) -> WrittenReport:
    """Write records, or the files that hold them, as one page for people, like `edgeeff report`.

    Without `output` the page is report.html or report.md here; without `format` it is what `output` ends like, else
    HTML. `thumbnails` is the folder with the images that were judged, or "record" for where the records say they are.

    Raises InputError and its kinds for what is no record or no place for a page, OutputError where it cannot be
    written, MissingExtraError without the extra report.
    """
    from edgeeff.reporting import writing

    arguments.one_of("format", format, ("html", "md"))
    given = [Path(one) if isinstance(one, (str, os.PathLike)) else one for one in records]
    where = None if thumbnails is None else os.fspath(thumbnails)
    return writing.write(given, arguments.path(output), kind=format, title=title, thumbnails=where)


@overload
def read_record(path: File) -> Record: ...
@overload
def read_record(path: File, kind: type[RecordKind]) -> RecordKind: ...
def read_record(path: File, kind: type[Record] | None = None) -> Record:
    """Read a record that edgeeff wrote: as one of `kind`, which is the class of a record, or whichever it is.

    Raises RecordError for a file that is missing, no record, of a newer schema version, damaged or of another kind.
    """
    from edgeeff.results import Record

    return arguments.record(Path(path), kind or Record)
