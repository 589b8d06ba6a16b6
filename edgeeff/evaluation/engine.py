"""An evaluation from its options to its records: open both models, run them on every image, and make figures of it.

Images are streamed in batches through `workers`; what is done is kept in a `journal` until the records are written.
`board` has a model run elsewhere, and `record` makes figures of what was kept of every image.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import util
from pathlib import Path

import numpy as np

from edgeeff.calibration import audit, images
from edgeeff.calibration.audit import Fingerprint, Fingerprints
from edgeeff.converters import runtime
from edgeeff.devices import profile
from edgeeff.devices.profile import Delegate
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, ModelError
from edgeeff.evaluation import board, gates, labels, workers
from edgeeff.evaluation.board import Runs
from edgeeff.evaluation.classifier import Classifier, open_baseline, open_classifier
from edgeeff.evaluation.dataset import Dataset, Example, open_dataset
from edgeeff.evaluation.gates import Gates
from edgeeff.evaluation.journal import Journal
from edgeeff.evaluation.outcomes import join
from edgeeff.evaluation.record import Ran, Subject, judged, record
from edgeeff.evaluation.scoring import PACKAGES, Scored, Task
from edgeeff.evaluation.workers import Crew
from edgeeff.files import check_writable, make_folder, write_atomic
from edgeeff.progress import Progress, Silent
from edgeeff.results import EvaluationRecord, EvaluationTiming, Leak, this_device, to_json, versions

PACKAGES_NEEDED = ("ai_edge_litert", "flatbuffers", "PIL")
MAX_UNREADABLE = 0.01
BATCH = 16
NAMED = 5
"""Unreadable images that a message names."""
TRAIN_SAMPLE = 1000
"""Training images that the baseline's accuracy is measured on: within 3 points of that on all of them."""


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
        names = [model.stem for model in self.models]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            called = ", ".join(str(model) for model in self.models if model.stem in twice)
            raise InputError(f"the records of {called} would have the same name: evaluate them one by one")
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: take 1 image or more at a time")
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
    for package in PACKAGES_NEEDED:
        if util.find_spec(package) is None:
            raise MissingExtraError(f"{package}, needed to evaluate,", "evaluate")
    progress.stage("read the models")
    _ = target.address  # raises where nobody said how to reach it
    models = [open_classifier(path, crop=plan.crop, input_range=plan.input_range) for path in plan.models]
    # To convert a baseline takes the longest, so what is refused without it comes first.
    progress.stage("find the images")
    dataset = open_dataset(plan.data)
    training = None if plan.train is None else (images.find(plan.train, minimum_classes=1), open_dataset(plan.train))
    progress.stage("read the baseline")
    baseline = open_baseline(plan.baseline, progress, crop=plan.crop, input_range=plan.input_range)
    there = _is_there(plan, target)
    for model in models:
        _check_model(model, baseline, there=there)
    subject = _subject(plan, dataset, models, baseline)
    supports = None if subject.map is None else dict(Counter(subject.labels))
    gates.check(plan.gates, names=subject.names, classes=baseline.classes, supports=supports)
    if output is not None:
        make_folder(output)
        for path in plan.models:
            check_writable(output / file_name(path, target.name))

    seen = None if training is None else _training(*training, subject, baseline.classes)
    job = _Job(plan, subject, baseline, seen, target, output, progress, executor)
    passes = [(model,) for model in models] if there else [tuple(models)]
    journals = [_journal(job, _tasks(job, together), together, resume=resume) for together in passes]
    records: list[EvaluationRecord] = []
    try:
        for together, journal in zip(passes, journals, strict=True):
            records += _evaluated(job, together, journal)
    except KeyboardInterrupt:
        if output is None:
            raise
        raise KeyboardInterrupt("what was judged so far is kept; go on with --resume") from None
    for journal in journals:
        if journal is not None:
            journal.remove()
    return tuple(records)


@dataclass(frozen=True)
class _Training:
    """Images that the baseline was trained on."""

    files: list[images.ImageFile]
    examples: tuple[Example, ...]
    indices: tuple[int, ...] | None
    """The models' class of every class of theirs; None where these or the judged images have no labels."""


@dataclass(frozen=True)
class _Job:
    """What is the same for every model."""

    plan: Plan
    subject: Subject
    baseline: Classifier
    training: _Training | None
    target: Target
    output: Path | None
    progress: Progress
    executor: Executor | None

    @property
    def there(self) -> bool:
        """Whether the models are run as on a board, which this machine may be."""
        return _is_there(self.plan, self.target)

    @cached_property
    def train_accuracy(self) -> float | None:
        """The baseline's top-1 on training images."""
        return _train_accuracy(self)

    @cached_property
    def train_fingerprints(self) -> Fingerprints:
        """Those of all training images."""
        return Fingerprints() if self.training is None else _fingerprints(self, self.training.files)


def _evaluated(job: _Job, models: tuple[Classifier, ...], journal: Journal | None) -> Iterator[EvaluationRecord]:
    """Judge models that see the images together; yield their records, which are written where there is a folder."""
    plan, subject, progress = job.plan, job.subject, job.progress
    gathered = _Gathered(subject, plan.max_unreadable, progress)
    progress.stage("judge the images", len(subject.dataset.examples), unit="images")
    for scored in () if journal is None else journal.found():
        gathered.add(scored)
    ran = _run(job, models, gathered, journal)
    whole = gathered.whole()
    leaks = _leaks(job, whole, models)
    train_accuracy = job.train_accuracy
    progress.stage("make figures of it")
    for place, model in enumerate(models):
        made = record(
            subject,
            whole,
            place,
            model=model,
            baseline=job.baseline,
            target=job.target.name,
            ran=ran,
            timing=gathered.timing(whole),
            seed=plan.seed,
        )
        made = judged(made, plan.gates, leaks=leaks[place], train_accuracy=train_accuracy)
        if job.output is not None:
            path = job.output / file_name(Path(model.file.path), job.target.name)
            write_atomic(path, to_json(made).encode("utf-8"))
        yield made


# --- What is judged ---------------------------------------------------------------------------------------------------


def _is_there(plan: Plan, target: Target) -> bool:
    return target.name != LOCAL.name or plan.delegate != "auto"


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


def _subject(plan: Plan, dataset: Dataset, models: Sequence[Classifier], baseline: Classifier) -> Subject:
    said = next((one.labels for one in (*models, baseline) if one.labels is not None), None)
    if plan.labels is not None:
        said = labels.read_labels(plan.labels)
    found = labels.map_classes(dataset, baseline.classes, said)
    if dataset.kind == "unlabelled":
        if plan.restrict:
            raise InputError("--restrict counts only classes that have an image, but these images have no labels")
        return Subject(dataset, None, (-1,) * len(dataset.examples), found.names, None, found.how, found.notes)
    # Where nobody names the model's classes, tables have the names of the folders.
    names = found.names or (dataset.names if found.how == "sorted order" else ())
    each = tuple(found.indices[example.label] if example.label >= 0 else -1 for example in dataset.examples)
    allowed = tuple(sorted({label for label in each if label >= 0})) if plan.restrict else None
    return Subject(dataset, found, each, names, allowed, found.how, found.notes)


def _training(files: list[images.ImageFile], dataset: Dataset, subject: Subject, classes: int) -> _Training:
    indices = None
    if subject.map is not None and dataset.kind != "unlabelled":
        indices = labels.map_classes(dataset, classes, subject.names or None).indices
    return _Training(files, dataset.examples, indices)


def _tasks(job: _Job, models: tuple[Classifier, ...]) -> list[Task]:
    plan, subject = job.plan, job.subject
    # What only an Edge TPU can run is not run here beside the board.
    here = tuple(model for model in models if not model.edge_tpu)
    marked = plan.train is not None or any(_calibrated(model) for model in models)
    examples = subject.dataset.examples
    return [
        Task(
            start=start,
            examples=examples[start : start + plan.batch],
            labels=subject.labels[start : start + plan.batch],
            baseline=job.baseline,
            models=here,
            threads=plan.threads or 1,
            allowed=subject.allowed,
            fingerprints=marked,
            board=models[0] if job.there else None,
        )
        for start in range(0, len(examples), plan.batch)
    ]


def _journal(job: _Job, tasks: Sequence[Task], models: tuple[Classifier, ...], *, resume: bool) -> Journal | None:
    if job.output is None:
        return None
    name = Path(file_name(Path(models[0].file.path), job.target.name)).stem
    return Journal(job.output, name, _identity(tasks, job.target), resume=resume)


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


class _Gathered:
    """Batches that are done, the time they took, and an end to it where too many images cannot be read."""

    def __init__(self, subject: Subject, max_unreadable: float, progress: Progress) -> None:
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
        for _ in range(len(scored.positions) + len(scored.unreadable)):
            self._progress.tick()
        self._check(self._limit * len(self._subject.dataset.examples))

    def fresh(self, scored: Scored, crew: Crew) -> None:
        """Take a batch that was judged now."""
        self.crew, self._end = crew, time.perf_counter()
        self._fresh += len(scored.positions)
        if self._first is None and len(self.parts) >= crew.workers:
            self._first = self._end, self._fresh  # before, workers were starting and loading
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
        if self._fresh < 2 * before or self._end <= since:
            since, before = self._begin, 0  # too few after the first to tell how fast they are
        spent = self._end - since
        return EvaluationTiming(
            seconds=seconds,
            images=self._fresh,
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
        images_in_all = len(self._subject.dataset.examples)
        listed = "".join(f"\n- {reason}" for _, reason in self._unreadable[:NAMED])
        more = f"\n- and {count - NAMED} more" if count > NAMED else ""
        raise CalibrationError(
            f"{count} of the {self.seen} images that were read so far cannot be used, more than {self._limit:.3g} of "
            f"all {images_in_all}; replace them, or allow more with --max-unreadable:{listed}{more}"
        )


def _run(job: _Job, models: tuple[Classifier, ...], gathered: _Gathered, journal: Journal | None) -> Ran:
    """Run everything that is not gathered yet; return what ran the models."""

    def take(scored: Scored, crew: Crew) -> None:
        if journal is not None:
            journal.keep(scored)
        gathered.fresh(scored, crew)

    left = [task for task in _tasks(job, models) if task.start not in gathered.parts]
    runs = _runs(job.plan, left, job.executor)
    if job.there:
        return Ran(*profile.wait(board.run_on(job.target, models[0], runs, left, take, delegate=job.plan.delegate)))
    for scored, crew in runs:
        take(scored, crew)
    return Ran(this_device(), runtime.runtime())


def _runs(plan: Plan, tasks: Sequence[Task], executor: Executor | None) -> Runs:
    if not tasks:
        return iter(())
    if executor is not None:
        return workers.run_with(executor, plan.workers or 1, tasks)
    if plan.scheduler is not None:
        return workers.run_there(plan.scheduler, tasks)
    return workers.run_here(tasks, workers=plan.workers, threads=plan.threads)


# --- Leaks and training images ----------------------------------------------------------------------------------------


def _leaks(job: _Job, whole: Scored, models: Sequence[Classifier]) -> list[tuple[Leak, ...]]:
    """Return, for each model, the images that were seen before: in calibration, in training, or twice in this set."""
    subject = job.subject
    examples = subject.dataset.examples
    keys = [examples[position].key for position in whole.positions]
    marks = whole.fingerprints or tuple(Fingerprint(digest, 0, b"") for digest in whole.digests)
    new = dict(zip(keys, marks, strict=True))
    common: tuple[Leak, ...] = audit.repeats(new)
    if job.training is not None:
        known = job.train_fingerprints
        common += audit.duplicates(known.known, new, "train")
    found = []
    for model in models:
        own: tuple[Leak, ...] = ()
        if model.calibration is not None and model.calibration.images:
            files = audit.calibration_files(model.calibration)
            own = audit.against_calibration(model.calibration, new, _fingerprints(job, files))
        found.append(common + own)
    return found


def _fingerprints(job: _Job, files: Sequence[images.ImageFile]) -> Fingerprints:
    if not files:
        return Fingerprints()
    job.progress.stage("look for images that were seen before", len(files))
    wanted = job.baseline.preprocessing
    with workers.pool(job.plan.workers or workers.cores()) as executor:
        crop: images.Crop = "none" if wanted.crop == "none" else "center"
        return audit.fingerprints(
            files, executor, height=wanted.height, width=wanted.width, crop=crop, progress=job.progress
        )


def _train_accuracy(job: _Job) -> float | None:
    """Return the baseline's top-1 on training images: as given, or measured on a sample of the folder."""
    plan, training, progress = job.plan, job.training, job.progress
    if plan.train_accuracy is not None or training is None or training.indices is None:
        return plan.train_accuracy
    order = sorted(
        training.examples,
        key=lambda one: hashlib.sha256(f"{plan.seed}/{one.key}".encode("utf-8", "surrogateescape")).digest(),
    )[:TRAIN_SAMPLE]
    progress.stage("judge the baseline on training images", len(order), unit="images")
    right = count = 0
    tasks = [
        Task(
            start=start,
            examples=tuple(order[start : start + plan.batch]),
            labels=tuple(training.indices[one.label] for one in order[start : start + plan.batch]),
            baseline=job.baseline,
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
