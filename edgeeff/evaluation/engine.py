"""An evaluation from its options to its records: open both models, run them on every image, and make figures of it.

Images are streamed in batches through `workers`; what is done is kept in a `journal` until the records are written. On
a board the model runs there, on the pixels that are decoded here, while the baseline runs here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgeeff.calibration import audit, images
from edgeeff.calibration.audit import Fingerprint, Fingerprints
from edgeeff.converters import runtime
from edgeeff.devices import profile, score
from edgeeff.devices.profile import Delegate
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.errors import CalibrationError, InputError, ModelError
from edgeeff.evaluation import findings, gates, labels, metrics, workers
from edgeeff.evaluation.classifier import Classifier, open_baseline, open_classifier, stored_values
from edgeeff.evaluation.dataset import Dataset, open_dataset
from edgeeff.evaluation.gates import Gates
from edgeeff.evaluation.journal import Journal
from edgeeff.evaluation.labels import ClassMap
from edgeeff.evaluation.outcomes import Divergences, Integers, Outcomes, divergences, join, probabilities
from edgeeff.evaluation.paired import by_class, paired
from edgeeff.evaluation.scoring import PACKAGES, Scored, Scores, Task, judge
from edgeeff.evaluation.workers import Crew
from edgeeff.files import check_writable, write_atomic
from edgeeff.progress import Progress, Silent
from edgeeff.results import (
    DataUse,
    Device,
    EvaluationRecord,
    EvaluationTiming,
    ImageOutcomes,
    Kernels,
    Leak,
    Runtime,
    this_device,
    to_json,
    versions,
)

MAX_UNREADABLE = 0.01
BATCH = 16
NAMED = 5
"""Unreadable images that a message names."""
TRAIN_SAMPLE = 1000
"""Training images that the baseline's accuracy is measured on: within 3 points of that on all of them."""
DIGITS = 16
"""Of every image's sha256, in the record: no two of a billion images are alike in them by chance."""


Runs = Iterator[tuple[Scored, Crew]]


@dataclass(frozen=True)
class Plan:
    """What to evaluate, and how."""

    models: tuple[Path, ...]
    baseline: Path
    data: Path
    labels: Path | None = None
    """Class names by index, one a line; None takes the model's own."""
    crop: str = "center"
    input_range: tuple[float, float] | None = None
    """What black and white are for a model that does not say."""
    restrict: bool = False
    """Count only the classes that have an image as answers."""
    batch: int = BATCH
    workers: int | None = None
    threads: int | None = None
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers are used instead of this machine's processes."""
    delegate: Delegate = "auto"
    max_unreadable: float = MAX_UNREADABLE
    train: Path | None = None
    """Training images, to look for leaks and for a baseline that only remembers them."""
    train_accuracy: float | None = None
    gates: Gates = field(default_factory=Gates)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("nothing to evaluate: give a .tflite file")
        names = [model.name for model in self.models]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise InputError(f"several models are called {', '.join(twice)}: their records would have the same name")
        if self.scheduler is not None and self.workers is not None:
            raise InputError("--workers is for this machine, --scheduler for a cluster: give one of them")


def file_name(model: Path, target: str) -> str:
    """Return the name of a model's record: b2_int8.local.evaluation.json."""
    return f"{model.stem}.{target}.evaluation.json"


def evaluate(
    plan: Plan,
    *,
    target: Target = LOCAL,
    output: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> tuple[EvaluationRecord, ...]:
    """Judge every model of a plan against the baseline; return a record for each, in order.

    With `output`, a folder, records are written there, and until they are, what is done, so that `resume` can go on
    from it. With `executor`, of anybody's, its workers do the work, `plan.workers` of them (1 where that is None);
    otherwise processes of this machine do, or the cluster that the plan names.

    Raises InputError and its kinds for models, images and labels that cannot be used or do not fit, DeviceError and its
    kinds for a board or a cluster that fails, MissingExtraError for what is not installed. A gate that says no is not
    raised: it is in the record.
    """
    progress = progress or Silent()
    progress.stage("read the models")
    _ = target.address  # raises where nobody said how to reach it
    models = [open_classifier(path, crop=plan.crop, input_range=plan.input_range) for path in plan.models]
    baseline = open_baseline(plan.baseline, progress, crop=plan.crop, input_range=plan.input_range)
    there = target.name != LOCAL.name or plan.delegate != "auto"
    for model in models:
        _check_model(model, baseline, there=there)
    progress.stage("find the images")
    dataset = open_dataset(plan.data)
    subject = _subject(plan, dataset, models, baseline)
    supports = None if subject.map is None else dict(Counter(subject.labels))
    gates.check(plan.gates, names=subject.names, classes=baseline.classes, supports=supports)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for path in plan.models:
            check_writable(output / file_name(path, target.name))

    passes = [(model,) for model in models] if there else [tuple(models)]
    records: list[EvaluationRecord] = []
    journals: list[Journal] = []
    for together in passes:
        tasks = _tasks(plan, subject, baseline, together, there=there)
        gathered = _Gathered(subject, plan.max_unreadable, progress)
        if output is not None:
            name = Path(file_name(Path(together[0].file.path), target.name)).stem
            journals.append(Journal(output, name, _identity(tasks, target), resume=resume))
            for scored in journals[-1].found():
                gathered.add(scored)
        progress.stage("judge the images", len(dataset.examples), unit="images")
        for _ in range(gathered.seen):
            progress.tick()
        left = [task for task in tasks if task.start not in gathered.parts]
        keep = journals[-1].keep if journals else None
        if there:
            ran = profile.wait(_on_board(plan, target, together[0], _runs(plan, left, executor), left, gathered, keep))
        else:
            _here(_runs(plan, left, executor), gathered, keep)
            ran = _Ran(this_device(), runtime.runtime())
        whole = gathered.whole()
        leaks = _leaks(plan, subject, whole, baseline, together, progress)
        train_accuracy = _train_accuracy(plan, subject, baseline, progress)
        progress.stage("make figures of it")
        for place, model in enumerate(together):
            record = _record(plan, subject, whole, place, model, baseline, target, ran, gathered)
            records.append(_judged(plan, record, model, leaks[place], train_accuracy, subject))
            if output is not None:
                path = output / file_name(Path(model.file.path), target.name)
                write_atomic(path, to_json(records[-1]).encode("utf-8"))
    for journal in journals:
        journal.remove()
    return tuple(records)


# --- What is judged ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """The images, and the model's class of each."""

    dataset: Dataset
    map: ClassMap | None
    labels: tuple[int, ...]
    names: tuple[str, ...]
    allowed: tuple[int, ...] | None
    matched_by: str
    notes: tuple[str, ...]


def _check_model(model: Classifier, baseline: Classifier, *, there: bool) -> None:
    if model.classes != baseline.classes:
        raise ModelError(
            f"{model.file.path} has {model.classes} classes and the baseline {baseline.file.path} has "
            f"{baseline.classes}: they are not the same network"
        )
    if model.edge_tpu and not there:
        raise ModelError(
            f"{model.file.path} is compiled for the Edge TPU, which alone can run it: give the board that has one with "
            "--target, or --delegate edgetpu for one at this machine"
        )
    if baseline.edge_tpu:
        raise ModelError(f"the baseline {baseline.file.path} is compiled for the Edge TPU: give the float model")


def _subject(plan: Plan, dataset: Dataset, models: Sequence[Classifier], baseline: Classifier) -> _Subject:
    said = next((one.labels for one in (*models, baseline) if one.labels is not None), None)
    if plan.labels is not None:
        said = labels.read_labels(plan.labels)
    found = labels.map_classes(dataset, baseline.classes, said)
    if dataset.kind == "unlabelled":
        if plan.restrict:
            raise InputError("--restrict counts only classes that have an image, but these images have no labels")
        return _Subject(dataset, None, (-1,) * len(dataset.examples), found.names, None, found.how, found.notes)
    # Where nobody names the model's classes, tables have the names of the folders.
    names = found.names or (dataset.names if found.how == "sorted order" else ())
    each = tuple(found.indices[example.label] if example.label >= 0 else -1 for example in dataset.examples)
    allowed = tuple(sorted({label for label in each if label >= 0})) if plan.restrict else None
    return _Subject(dataset, found, each, names, allowed, found.how, found.notes)


def _tasks(
    plan: Plan, subject: _Subject, baseline: Classifier, models: tuple[Classifier, ...], *, there: bool
) -> list[Task]:
    if plan.batch < 1:
        raise InputError(f"--batch {plan.batch}: take 1 image or more at a time")
    # What only an Edge TPU can run is not run here beside the board.
    here = tuple(model for model in models if not model.edge_tpu)
    marked = plan.train is not None or any(_calibrated(model) for model in models)
    examples = subject.dataset.examples
    return [
        Task(
            start=start,
            examples=examples[start : start + plan.batch],
            labels=subject.labels[start : start + plan.batch],
            baseline=baseline,
            models=here,
            threads=plan.threads or 1,
            allowed=subject.allowed,
            fingerprints=marked,
            board=models[0] if there else None,
        )
        for start in range(0, len(examples), plan.batch)
    ]


def _calibrated(model: Classifier) -> bool:
    return model.calibration is not None and bool(model.calibration.images)


def _identity(tasks: Sequence[Task], target: Target) -> str:
    """Return a digest of all that has to be the same for a batch to count in another run."""
    digest = hashlib.sha256()
    first = tasks[0]
    models = [[one.sha256, str(one.preprocessing), one.logits] for one in (first.baseline, *first.models)]
    board = None if first.board is None else first.board.sha256
    head = [models, board, target.name, str(target.address), first.allowed, first.fingerprints]
    digest.update(json.dumps([head, versions(*PACKAGES)]).encode("utf-8"))
    for task in tasks:
        for example, label in zip(task.examples, task.labels, strict=True):
            line = f"{task.start}\0{example.key}\0{example.path}\0{example.offset}\0{example.size}\0{label}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# --- Running it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ran:
    """What ran the model."""

    device: Device
    runtime: Runtime


class _Gathered:
    """Batches that are done, the time they took, and an end to it where too many images cannot be read."""

    def __init__(self, subject: _Subject, max_unreadable: float, progress: Progress) -> None:
        self.parts: dict[int, Scored] = {}
        self.crew = Crew(1)
        self.seen = 0
        self._subject, self._progress = subject, progress
        self._limit = max_unreadable
        self._unreadable: list[tuple[int, str]] = []
        self._begin = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self._fresh = 0
        self._end = self._begin

    def add(self, scored: Scored) -> None:
        """Take a batch; raises CalibrationError once more images than allowed cannot be read."""
        self.parts[scored.start] = replace(scored, raw=None)
        self.seen += len(scored.positions) + len(scored.unreadable)
        self._unreadable += scored.unreadable
        self._check(self._limit * len(self._subject.dataset.examples))

    def fresh(self, scored: Scored, crew: Crew) -> None:
        """Take a batch that was judged now."""
        self.crew, self._end = crew, time.perf_counter()
        self._fresh += len(scored.positions)
        if self._first is None and len(self.parts) >= crew.workers:
            self._first = self._end, self._fresh  # before, workers were starting and loading
        for _ in range(len(scored.positions) + len(scored.unreadable)):
            self._progress.tick()
        self.add(scored)

    def whole(self) -> Scored:
        """Return all batches as one, in the order of the set; raises CalibrationError when none could be read."""
        parts = [self.parts[start] for start in sorted(self.parts)]
        models = range(len(parts[0].models))
        unreadable = tuple(one for part in parts for one in part.unreadable)
        if not any(len(part.positions) for part in parts):
            self._check(-1.0)
        kernels = [part.kernels for part in parts if part.kernels is not None]
        decode_s, baseline_s, model_s = np.sum([part.seconds for part in parts], axis=0)
        return Scored(
            start=0,
            positions=np.concatenate([part.positions for part in parts]),
            digests=tuple(digest for part in parts for digest in part.digests),
            unreadable=unreadable,
            baseline=join([part.baseline for part in parts]),
            models=tuple(join([part.models[place] for part in parts]) for place in models),
            divergences=tuple(join([part.divergences[place] for part in parts]) for place in models),
            fingerprints=tuple(mark for part in parts for mark in part.fingerprints),
            seconds=(float(decode_s), float(baseline_s), float(model_s)),
            versions=parts[0].versions,
            kernels=np.concatenate(kernels) if kernels else None,
        )

    def timing(self, whole: Scored) -> EvaluationTiming:
        """Return where the time went, of what was judged now; images per second are those of workers that had begun."""
        seconds = self._end - self._begin
        since, before = self._first or (self._begin, 0)
        if self._fresh <= before or self._end <= since:
            since, before = self._begin, 0
        spent = self._end - since
        return EvaluationTiming(
            seconds=seconds,
            images_per_s=(self._fresh - before) / spent if spent > 0 else 0.0,
            workers=self.crew.workers,
            threads=self.crew.threads,
            decode_s=whole.seconds[0],
            baseline_s=whole.seconds[1],
            model_s=whole.seconds[2],
        )

    def _check(self, limit: float) -> None:
        count = len(self._unreadable)
        if count <= limit:
            return
        examples = self._subject.dataset.examples
        listed = "".join(f"\n- {examples[position].key}: {reason}" for position, reason in self._unreadable[:NAMED])
        more = f"\n- and {count - NAMED} more" if count > NAMED else ""
        raise CalibrationError(
            f"{count} of the {self.seen} images that were read so far cannot be used, more than {self._limit:.3g} of "
            f"all {len(examples)}; replace them, or allow more with --max-unreadable:{listed}{more}"
        )


def _here(runs: Runs, gathered: _Gathered, keep: Callable[[Scored], None] | None) -> None:
    for scored, crew in runs:
        if keep is not None:
            keep(scored)
        gathered.fresh(scored, crew)


def _runs(plan: Plan, tasks: Sequence[Task], executor: Executor | None) -> Runs:
    if not tasks:
        return iter(())
    if executor is not None:
        return workers.run_with(executor, plan.workers or 1, tasks)
    if plan.scheduler is not None:
        return workers.run_there(plan.scheduler, tasks)
    return workers.run_here(tasks, workers=plan.workers, threads=plan.threads)


async def _on_board(
    plan: Plan,
    target: Target,
    model: Classifier,
    runs: Runs,
    tasks: Sequence[Task],
    gathered: _Gathered,
    keep: Callable[[Scored], None] | None,
) -> _Ran:
    """Run the model of every task on a board, on the pixels that are decoded here; two batches are on their way."""
    table = stored_values(model)
    async with score.scoring(target, Path(model.path), delegate=plan.delegate, table=table) as board:

        async def there(scored: Scored) -> Scored:
            if scored.raw is None or not len(scored.positions):
                return scored
            begin = time.perf_counter()
            theirs = await board.scores(scored.raw.pixels)
            return _with_board(scored, theirs, model, tasks, time.perf_counter() - begin)

        waiting: list[tuple[asyncio.Task[Scored], Crew]] = []

        async def finish() -> None:
            done, crew = waiting.pop(0)
            scored = await done
            if keep is not None:
                keep(scored)
            gathered.fresh(scored, crew)

        try:
            async with aclosing(_in_thread(runs)) as arriving:
                async for scored, crew in arriving:
                    waiting.append((asyncio.ensure_future(there(scored)), crew))
                    if len(waiting) > 1:
                        await finish()
            while waiting:
                await finish()
        finally:
            for one, _ in waiting:
                one.cancel()
            await asyncio.gather(*(one for one, _ in waiting), return_exceptions=True)
        return _Ran(board.device, board.runtime)


async def _in_thread(runs: Runs) -> AsyncGenerator[tuple[Scored, Crew], None]:
    """Wait for each result in a thread, so that the board is served meanwhile."""
    end = object()
    try:
        while True:
            waiting = asyncio.ensure_future(asyncio.to_thread(next, runs, end))
            try:
                item = await asyncio.shield(waiting)
            except asyncio.CancelledError:
                await asyncio.wait([waiting])  # the iterator must not be closed while the thread is in it
                raise
            if item is end:
                return
            yield item  # type: ignore[misc]
    finally:
        close = getattr(runs, "close", None)
        if close is not None:
            close()


def _with_board(scored: Scored, theirs: Scores, model: Classifier, tasks: Sequence[Task], seconds: float) -> Scored:
    """Put what the board said in the place of what the same file said here, and how they differ beside it."""
    raw = scored.raw
    if raw is None:
        return scored
    task = next(task for task in tasks if task.start == scored.start)
    known = np.array([task.labels[position - task.start] for position in scored.positions], np.int32)
    found, q = judge(theirs, known, model, task.allowed)
    _, p = judge(raw.baseline, known, task.baseline, task.allowed)
    kernels = np.full((len(known), 3), np.nan)
    if raw.model is not None:
        host = probabilities(raw.model, logits=model.logits)
        board = probabilities(theirs, logits=model.logits)
        kernels[:, 0] = raw.model.argmax(axis=1) == theirs.argmax(axis=1)
        kernels[:, 1] = (raw.model == theirs).all(axis=1)
        kernels[:, 2] = np.abs(host - board).max(axis=1)
    return replace(
        scored,
        models=(found,),
        divergences=(divergences(p, q),),
        kernels=kernels,
        seconds=(scored.seconds[0], scored.seconds[1], seconds),
    )


# --- Leaks and training images ----------------------------------------------------------------------------------------


def _leaks(
    plan: Plan, subject: _Subject, whole: Scored, baseline: Classifier, models: Sequence[Classifier], progress: Progress
) -> list[tuple[Leak, ...]]:
    """Return, for each model, the images that were seen before: in calibration, in training, or twice in this set."""
    examples = subject.dataset.examples
    keys = [examples[position].key for position in whole.positions]
    marks = whole.fingerprints or tuple(Fingerprint(digest, 0, b"") for digest in whole.digests)
    new = dict(zip(keys, marks, strict=True))
    common: tuple[Leak, ...] = audit.repeats(new)
    if plan.train is not None:
        known = _fingerprints(images.find(plan.train, minimum_classes=1), plan, baseline, progress)
        common += audit.duplicates(known.known, new, "training")
    found = []
    for model in models:
        own: tuple[Leak, ...] = ()
        if model.calibration is not None and model.calibration.images:
            files = audit.calibration_files(model.calibration)
            own = audit.against_calibration(model.calibration, new, _fingerprints(files, plan, baseline, progress))
        found.append(common + own)
    return found


def _fingerprints(
    files: Sequence[images.ImageFile], plan: Plan, baseline: Classifier, progress: Progress
) -> Fingerprints:
    if not files:
        return Fingerprints()
    progress.stage("look for images that were seen before", len(files))
    wanted = baseline.preprocessing
    with workers.pool(plan.workers or workers.cores()) as executor:
        crop: images.Crop = "none" if wanted.crop == "none" else "center"
        return audit.fingerprints(
            files, executor, height=wanted.height, width=wanted.width, crop=crop, progress=progress
        )


def _train_accuracy(plan: Plan, subject: _Subject, baseline: Classifier, progress: Progress) -> float | None:
    """Return the baseline's top-1 on training images: as given, or measured on a sample of the folder."""
    if plan.train_accuracy is not None or plan.train is None or subject.map is None:
        return plan.train_accuracy
    dataset = open_dataset(plan.train)
    if dataset.kind == "unlabelled":
        return None
    found = labels.map_classes(dataset, baseline.classes, subject.names or None)
    order = sorted(
        dataset.examples,
        key=lambda one: hashlib.sha256(f"{plan.seed}/{one.key}".encode("utf-8", "surrogateescape")).digest(),
    )[:TRAIN_SAMPLE]
    progress.stage("judge the baseline on training images", len(order), unit="images")
    right = count = 0
    tasks = [
        Task(
            start=start,
            examples=tuple(order[start : start + plan.batch]),
            labels=tuple(found.indices[one.label] for one in order[start : start + plan.batch]),
            baseline=baseline,
            models=(),
        )
        for start in range(0, len(order), plan.batch)
    ]
    for scored, _ in workers.run_here(tasks, workers=plan.workers, threads=plan.threads):
        right += int((scored.baseline.rank == 0).sum())
        count += len(scored.positions)
        for _ in range(len(scored.positions) + len(scored.unreadable)):
            progress.tick()
    return right / count if count else None


# --- Records ----------------------------------------------------------------------------------------------------------


def _record(
    plan: Plan,
    subject: _Subject,
    whole: Scored,
    place: int,
    model: Classifier,
    baseline: Classifier,
    target: Target,
    ran: _Ran,
    gathered: _Gathered,
) -> EvaluationRecord:
    known = np.array([subject.labels[position] for position in whole.positions], np.int32)
    theirs, ours, apart = whole.models[place], whole.baseline, whole.divergences[place]
    classes = baseline.classes
    labelled = subject.map is not None
    names = subject.names
    return EvaluationRecord(
        runtime=ran.runtime,
        device=ran.device,
        packages=whole.versions,
        model=model.file,
        baseline=baseline.file,
        target=target.name,
        data=_data(plan, subject, whole, known),
        classes=classes,
        names=names,
        preprocessing=model.preprocessing,
        baseline_preprocessing=baseline.preprocessing,
        model_macs=model.macs,
        baseline_macs=baseline.macs,
        model_outputs=metrics.outputs(theirs, classes),
        baseline_outputs=metrics.outputs(ours, classes),
        model_metrics=metrics.metrics(known, theirs, classes) if labelled else None,
        baseline_metrics=metrics.metrics(known, ours, classes) if labelled else None,
        paired=paired(known, ours, theirs, apart, classes, seed=plan.seed),
        by_class=by_class(known, ours, theirs, names, classes) if labelled else (),
        confusion=metrics.cells(metrics.confusion(known, theirs.top1, classes)) if labelled else (),
        baseline_confusion=metrics.cells(metrics.confusion(known, ours.top1, classes)) if labelled else (),
        kernels=_kernels(whole, ran.runtime),
        findings=(),
        gates=(),
        passed=True,
        images=_images(subject, whole, known, ours, theirs, apart),
        timing=gathered.timing(whole),
    )


def _judged(
    plan: Plan,
    record: EvaluationRecord,
    model: Classifier,
    leaks: Sequence[Leak],
    train_accuracy: float | None,
    subject: _Subject,
) -> EvaluationRecord:
    """Return a record with its gates judged and its pitfalls named."""
    judged = gates.judge(plan.gates, record)
    record = replace(record, gates=judged, passed=all(one.passed for one in judged))
    suspicion = None
    if record.baseline_metrics is not None:
        matrix = np.zeros((record.classes, record.classes), np.int64)
        for right, said, count in record.baseline_confusion:
            matrix[right, said] = count
        suspicion = labels.suspect(matrix)
    return replace(
        record, findings=findings.find(record, leaks=leaks, train_accuracy=train_accuracy, suspicion=suspicion)
    )


def _data(plan: Plan, subject: _Subject, whole: Scored, known: Integers) -> DataUse:
    digest = hashlib.sha256()
    for one, label in zip(whole.digests, known, strict=True):
        digest.update(f"{one} {label}\n".encode())
    examples = subject.dataset.examples
    return DataUse(
        kind=subject.dataset.kind,
        path=str(plan.data),
        images=len(whole.positions),
        classes=len({int(label) for label in known if label >= 0}),
        sha256=digest.hexdigest(),
        unreadable=tuple((examples[position].key, reason) for position, reason in whole.unreadable),
        matched_by=subject.matched_by,
        notes=subject.notes,
    )


def _kernels(whole: Scored, there: Runtime) -> Kernels | None:
    if whole.kernels is None or np.isnan(whole.kernels).all():
        return None
    same, exact, apart = whole.kernels.T
    return Kernels(
        images=len(same),
        agreement=float(same.mean()),
        same_scores=float(exact.mean()),
        max_difference=float(np.nanmax(apart)),
        host=runtime.runtime(),
        board=there,
    )


def _images(
    subject: _Subject, whole: Scored, known: Integers, ours: Outcomes, theirs: Outcomes, apart: Divergences
) -> ImageOutcomes:
    examples = subject.dataset.examples

    def rounded(values: Iterable[float]) -> tuple[float, ...]:
        return tuple(-1.0 if np.isnan(value) else round(float(value), 6) for value in values)

    return ImageOutcomes(
        keys=tuple(examples[position].key for position in whole.positions),
        sha256=tuple(digest[:DIGITS] for digest in whole.digests),
        labels=tuple(known.tolist()),
        baseline=tuple(ours.top1.tolist()),
        model=tuple(theirs.top1.tolist()),
        baseline_rank=tuple(ours.rank.tolist()),
        model_rank=tuple(theirs.rank.tolist()),
        baseline_confidence=rounded(ours.confidence),
        model_confidence=rounded(theirs.confidence),
        kl=rounded(apart.kl),
    )
