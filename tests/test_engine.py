"""An evaluation is the same however it is run, counts what a plain loop counts, and loses nothing when it is ended."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeeff.converters.float_model import finish
from edgeeff.errors import (
    CalibrationError,
    DeviceError,
    InputError,
    MissingExtraError,
    ModelError,
    OutputError,
    UnreachableError,
)
from edgeeff.evaluation import engine, scoring, workers
from edgeeff.evaluation.engine import Plan, evaluate
from edgeeff.evaluation.gates import Gates
from edgeeff.progress import Silent
from edgeeff.results import EvaluationRecord, read_record, to_dict
from tests import tiny
from tests.evaluation_desk import COUNT, NAMES, lay


class Here(Executor):
    """Run what is submitted at once, in this thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to who asks for the result
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay(tmp_path_factory.mktemp("desk"))


def plan(desk: Path, **changes: Any) -> Plan:
    return replace(Plan((desk / "int8.tflite",), desk / "float.tflite", desk / "val"), **changes)


def judged(made: Plan, **options: Any) -> EvaluationRecord:
    (record,) = evaluate(made, **({"executor": Here()} | options))
    return record


def without_time(record: EvaluationRecord) -> dict[str, Any]:
    document: dict[str, Any] = to_dict(record)
    del document["timing"], document["created"]
    return document


# --- What is counted --------------------------------------------------------------------------------------------------


def test_counts_are_those_of_a_plain_loop(desk: Path) -> None:
    record = judged(plan(desk))
    labels, ours, theirs = [], [], []
    for path in sorted((desk / "val").glob("*/*.png")):
        with Image.open(path) as opened:
            pixels = np.asarray(opened)
        labels.append(NAMES.index(path.parent.name))
        ours.append(int(tiny.run((desk / "float.tflite").read_bytes(), pixels).argmax()))
        theirs.append(int(tiny.run((desk / "int8.tflite").read_bytes(), pixels).argmax()))
    assert list(record.images.labels) == labels
    assert list(record.images.baseline) == ours
    assert list(record.images.model) == theirs
    assert record.baseline_metrics is not None and record.model_metrics is not None
    assert record.baseline_metrics.top1 == np.mean(np.equal(labels, ours)) == pytest.approx(50 / 60)
    assert record.model_metrics.top1 == np.mean(np.equal(labels, theirs))
    assert record.paired.agreement == np.mean(np.equal(ours, theirs))
    assert sum(count for _, _, count in record.confusion) == COUNT
    assert record.data.images == COUNT and record.data.classes == 5 and record.names == NAMES


def test_a_model_against_itself_differs_in_nothing(desk: Path) -> None:
    record = judged(plan(desk, models=(desk / "float.tflite",)))
    assert record.paired.agreement == 1.0
    assert record.paired.divergence.kl_mean == 0.0
    assert record.paired.top1 is not None and record.paired.top1.value == 0.0
    assert record.paired.flips == ()


def test_several_models_get_a_record_each(desk: Path, tmp_path: Path) -> None:
    models = (desk / "int8.tflite", desk / "half.tflite")
    records = evaluate(plan(desk, models=models), executor=Here(), output=tmp_path)
    assert [record.model.path for record in records] == [str(path) for path in models]
    assert without_time(records[0]) == without_time(judged(plan(desk)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "half.local.evaluation.json",
        "int8.local.evaluation.json",
    ]
    assert read_record(tmp_path / "half.local.evaluation.json") == records[1]


def test_images_without_labels_give_agreement_only(desk: Path, tmp_path: Path) -> None:
    for path in (desk / "val").glob("*/*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = judged(plan(desk, data=tmp_path))
    assert record.model_metrics is None and record.by_class == () and record.confusion == ()
    assert record.paired.top1 is None
    assert record.paired.agreement == judged(plan(desk)).paired.agreement
    with pytest.raises(InputError, match="max-drop"):
        judged(plan(desk, data=tmp_path, gates=Gates(max_drop=0.01)))


def test_restricted_answers_are_of_classes_that_have_images(desk: Path, tmp_path: Path) -> None:
    rows = [f"{path},{NAMES.index(path.parent.name)}" for path in sorted((desk / "val").glob("class[01]/*.png"))]
    (tmp_path / "some.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    free = judged(plan(desk, data=tmp_path / "some.csv"))
    record = judged(plan(desk, data=tmp_path / "some.csv", restrict=True))
    assert {*record.images.model, *record.images.baseline} == {0, 1}
    assert {*free.images.baseline} > {0, 1}
    assert record.baseline_metrics is not None and free.baseline_metrics is not None
    assert record.baseline_metrics.top1 >= free.baseline_metrics.top1


def test_scores_that_are_no_numbers_are_wrong_and_counted(desk: Path, tmp_path: Path) -> None:
    broken = finish(tiny.classifier())
    from edgeeff.converters.graph import Graph

    graph = Graph(broken.content)
    (index,) = (i for i, one in enumerate(graph.model.subgraphs[0].tensors) if one.name == b"dense/bias")
    values = np.array(graph.constant(index))
    values[2] = np.nan
    graph.model.buffers[graph.tensor(index).buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    (tmp_path / "broken.tflite").write_bytes(graph.content())
    record = judged(plan(desk, models=(tmp_path / "broken.tflite",), input_range=(0, 255)))
    assert record.model_outputs.not_finite == COUNT
    assert record.model_metrics is not None and record.model_metrics.top1 == 0.0
    assert set(record.images.model) == {-1} and set(record.images.kl) == {-1.0}
    json.dumps(to_dict(record), allow_nan=False)


def test_what_a_file_does_not_say_is_told_by_an_option(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.tflite").write_bytes(tiny.classifier(preprocessing=()))
    with pytest.raises(ModelError, match="--input-range"):
        judged(plan(desk, models=(tmp_path / "bare.tflite",)))
    record = judged(plan(desk, models=(tmp_path / "bare.tflite",), input_range=(-1.0, 1.0)))
    assert record.preprocessing.source == "options"
    assert record.preprocessing.mean == pytest.approx((127.5,) * 3)
    with Image.open(desk / "val" / record.images.keys[0]) as opened:
        pixels = np.asarray(opened)
    scores = tiny.run((tmp_path / "bare.tflite").read_bytes(), pixels / np.float32(127.5) - 1)
    assert record.images.model[0] == scores.argmax()
    assert record.images.model_confidence[0] == pytest.approx(scores.max(), abs=1e-5)


def test_the_range_that_is_given_is_for_the_files_that_can_take_it(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.tflite").write_bytes(tiny.classifier(preprocessing=()))
    record = judged(plan(desk, models=(tmp_path / "bare.tflite",), input_range=(-1.0, 1.0)))
    assert (record.preprocessing.source, record.baseline_preprocessing.source) == ("options", "layers")
    assert record.baseline_preprocessing.std == (1.0, 1.0, 1.0)


# --- However it is run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_change_nothing(desk: Path, batch: int) -> None:
    assert without_time(judged(plan(desk, batch=batch))) == without_time(judged(plan(desk)))


def test_threads_of_one_executor_change_nothing(desk: Path) -> None:
    with ThreadPoolExecutor(3) as executor:
        assert without_time(judged(plan(desk, batch=3, workers=3), executor=executor)) == without_time(
            judged(plan(desk))
        )


def test_processes_change_nothing_even_when_one_is_killed(desk: Path) -> None:
    killed: list[int] = []

    class Killing(Silent):
        def tick(self) -> None:
            if not killed:
                import multiprocessing

                killed.append(multiprocessing.active_children()[0].pid or 0)
                os.kill(killed[0], signal.SIGKILL)

    record = judged(plan(desk, batch=4, workers=2), executor=None, progress=Killing())
    assert killed and without_time(record) == without_time(judged(plan(desk)))
    assert record.timing.workers == 2 and record.timing.threads >= 1


def test_processes_are_not_interrupted_by_the_terminal_even_when_they_begin() -> None:
    with workers.pool(1) as executor:
        blocked = executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_processes_that_keep_dying_are_given_up(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "score", _die)
    monkeypatch.setattr(workers, "LOSSES", 0)
    with pytest.raises(DeviceError, match=r"keep dying.*--workers 1"):
        judged(plan(desk, workers=1), executor=None)


def _die(_task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_scheduler_that_is_not_there_is_said(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CONNECT_LIMIT_S", 0.5)
    with pytest.raises(UnreachableError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        judged(plan(desk, scheduler="tcp://127.0.0.1:9"), executor=None)


# --- Ended before the end ---------------------------------------------------------------------------------------------


class Ending(Silent):
    """Interrupt after so many images; count those that were judged."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.count, self._after = 0, after

    def tick(self) -> None:
        self.count += 1
        if self.count == self._after:
            raise KeyboardInterrupt


def test_what_is_done_is_kept_and_gone_on_with(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []

    def watched(task: Any) -> Any:
        scored.append(task.start)
        return original(task)

    original = scoring.score
    monkeypatch.setattr(workers, "score", watched)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        judged(plan(desk, batch=10), output=tmp_path, progress=Ending(25))
    done = len(scored)
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]
    record = judged(plan(desk, batch=10), output=tmp_path, resume=True)
    assert len(scored) < done + 6
    assert without_time(record) == without_time(judged(plan(desk)))
    assert [path.name for path in tmp_path.iterdir()] == ["int8.local.evaluation.json"]


def test_other_images_are_not_gone_on_with(desk: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        judged(plan(desk, batch=10), output=tmp_path, progress=Ending(25))
    (tmp_path / "few.csv").write_text(f"file,label\n{next((desk / 'val').glob('*/*.png'))},3\n")
    assert judged(plan(desk, data=tmp_path / "few.csv"), output=tmp_path, resume=True).data.images == 1


def test_a_full_disk_ends_it_with_what_to_do(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "a":
            raise OSError(28, "No space left on device")
        return original(path, mode, **options)

    original = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        judged(plan(desk), output=tmp_path)


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_few_unreadable_images_are_listed_many_refused(desk: Path, tmp_path: Path) -> None:
    rows = [f"{path},{NAMES.index(path.parent.name)}" for path in sorted((desk / "val").glob("*/*.png"))]
    (tmp_path / "torn.png").write_bytes((desk / "val").glob("*/*.png").__next__().read_bytes()[:60])
    (tmp_path / "set.csv").write_text("\n".join(["file,label", *rows, "torn.png,2"]) + "\n")
    with pytest.raises(CalibrationError, match=r"1 of .* --max-unreadable:\n- cannot read the image torn\.png"):
        judged(plan(desk, data=tmp_path / "set.csv"))
    record = judged(plan(desk, data=tmp_path / "set.csv", max_unreadable=0.02))
    assert record.data.images == COUNT
    assert [name for name, _ in record.data.unreadable] == ["torn.png"]
    assert any(finding.cause == "unreadable-images" for finding in record.findings)


def test_a_file_that_goes_on_the_way_is_unreadable(desk: Path, tmp_path: Path) -> None:
    rows = []
    for path in sorted((desk / "val").glob("*/*.png")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        rows.append(f"{path.name},{NAMES.index(path.parent.name)}")
    (tmp_path / "set.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    gone = tmp_path / rows[-1].split(",")[0]

    class Deleting(Silent):
        def tick(self) -> None:
            gone.unlink(missing_ok=True)

    record = judged(plan(desk, data=tmp_path / "set.csv", batch=4, max_unreadable=0.05), progress=Deleting())
    assert [name for name, _ in record.data.unreadable] == [gone.name]
    assert record.data.images == COUNT - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "nothing to evaluate"),
        ({"models": (Path("a/x.tflite"), Path("b/x.tflite"))}, "the records of a/x.tflite, b/x.tflite would have"),
        ({"models": (Path("x.tflite"), Path("x.lite"))}, "the records of x.tflite, x.lite would have the same name"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:9"}, "give one of them"),
    ],
)
def test_plans_that_make_no_sense_are_refused(desk: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(desk, **changes)


def test_what_is_missing_is_named_with_the_extra_that_brings_it(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtraError, match=r"flatbuffers, needed to evaluate, .*'edgeeff\[evaluate\]'"):
        judged(plan(desk))


def test_a_place_for_records_that_is_a_file_is_refused(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot make the folder .*--output"):
            judged(plan(desk), output=output)


def test_pipes_are_not_waited_for(desk: Path, tmp_path: Path) -> None:
    for path in sorted((desk / "val").glob("*/*.png")):
        (tmp_path / "val" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / path.parent.name / path.name).symlink_to(path)
    os.mkfifo(tmp_path / "val" / "class0" / "pipe.png")
    record = judged(plan(desk, data=tmp_path / "val", max_unreadable=0.05))
    assert [name for name, _ in record.data.unreadable] == ["class0/pipe.png"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CalibrationError, match="pipe is a pipe or a device"):
        judged(plan(desk, data=tmp_path / "pipe"))
    with pytest.raises(ModelError, match="pipe or a device"):
        judged(plan(desk, models=(tmp_path / "pipe",)))


def test_an_address_that_is_none_is_said_at_once(desk: Path) -> None:
    with pytest.raises(InputError, match=r"--scheduler there is no address: write tcp://HOST:PORT"):
        judged(plan(desk, scheduler="there"), executor=None)


def test_a_batch_may_be_of_any_size(desk: Path, tmp_path: Path) -> None:
    from edgeeff.converters.graph import Graph

    graph = Graph((desk / "float.tflite").read_bytes())
    for tensor in graph.model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) in {2, 4} and tensor.shape[0] == 1:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    (tmp_path / "any.tflite").write_bytes(graph.content())
    assert judged(plan(desk, models=(tmp_path / "any.tflite",))).paired.agreement == 1.0


def test_models_of_other_classes_are_refused(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "seven.tflite").write_bytes(tiny.classifier(classes=7))
    with pytest.raises(ModelError, match=r"seven\.tflite has 7 classes and the baseline .* has 5"):
        judged(plan(desk, models=(tmp_path / "seven.tflite",)))


@pytest.mark.parametrize("name", ["missing.tflite", "missing.keras", "notes.txt"])
def test_baselines_that_cannot_be_read_are_refused(desk: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ModelError, match=name):
        judged(plan(desk, baseline=tmp_path / name))


def test_labels_that_match_no_class_are_refused(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\nelk\n")
    with pytest.raises(InputError, match="class0"):
        judged(plan(desk, labels=tmp_path / "names.txt"))


def test_gates_are_judged_and_kept(desk: Path) -> None:
    record = judged(plan(desk, gates=Gates(min_agreement=0.5, min_accuracy=0.99)))
    assert [(gate.gate, gate.passed) for gate in record.gates] == [("min-accuracy", False), ("min-agreement", True)]
    assert not record.passed


def test_training_images_that_are_in_the_set_are_found(desk: Path, tmp_path: Path) -> None:
    for path in sorted((desk / "val").glob("*/*.png"))[::10]:
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    record = judged(plan(desk, train=tmp_path, workers=1), executor=None)
    (leakage,) = (finding for finding in record.findings if finding.cause == "leakage")
    assert leakage.serious and leakage.figures["train_exact"] == COUNT / 10
    assert "6 among the training images (6 the same bytes, 0 nearly the same)" in leakage.text


def test_training_images_that_cannot_be_used_are_said_before_any_work(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "a.png").write_bytes(b"")
    for folder, message in ((tmp_path / "missing", "there is no folder"), (tmp_path, "'ant'")):
        progress = Ending(1)
        with pytest.raises(InputError, match=message):
            judged(plan(desk, train=folder), progress=progress)
        assert progress.count == 0


def test_trials_keep_every_image(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH_TRYING_S", 0.0)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    made: list[int] = []
    monkeypatch.setattr(workers, "_Processes", lambda count: _Inline(count, made))
    record = judged(plan(desk, batch=2), executor=None)
    assert made == [2, 1]
    assert without_time(record) == without_time(judged(plan(desk)))


class _Inline:
    """Processes that are this one."""

    def __init__(self, count: int, made: list[int]) -> None:
        made.append(count)

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def run(self, tasks: Sequence[Any]) -> Iterator[Any]:
        return map(scoring.score, tasks)


def test_records_are_named_after_model_and_target() -> None:
    assert engine.file_name(Path("x/b0_int8.tflite"), "pi4") == "b0_int8.pi4.evaluation.json"


# --- On a board -------------------------------------------------------------------------------------------------------


def test_a_board_runs_the_model_and_is_compared_with_the_host(desk: Path, tmp_path: Path) -> None:
    record = judged(plan(desk, delegate="xnnpack"), output=tmp_path)
    here = judged(plan(desk))
    assert record.images == here.images
    assert record.kernels is not None and here.kernels is None
    assert (record.kernels.images, record.kernels.agreement, record.kernels.same_scores) == (COUNT, 1.0, 1.0)
    assert record.kernels.max_difference == 0.0
    assert record.runtime is not None and record.runtime.delegate == "xnnpack"
    assert [path.name for path in tmp_path.iterdir()] == ["int8.local.evaluation.json"]


def test_a_board_gets_what_a_foreign_file_takes(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.tflite").write_bytes(tiny.classifier(preprocessing=()))
    made = plan(desk, models=(tmp_path / "bare.tflite",), input_range=(-1.0, 1.0))
    there = judged(replace(made, delegate="none"))
    assert there.images.model == judged(made).images.model
    assert there.kernels is not None and there.kernels.max_difference < 1e-5


def test_an_evaluation_on_a_board_is_gone_on_with(desk: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        judged(plan(desk, batch=10, delegate="none"), output=tmp_path, progress=Ending(25))
    progress = Ending(10**6)
    record = judged(plan(desk, batch=10, delegate="none"), output=tmp_path, resume=True, progress=progress)
    assert progress.count == COUNT  # those of before count, too
    assert (record.images.keys, record.images.model) == (
        judged(plan(desk)).images.keys,
        judged(plan(desk)).images.model,
    )
