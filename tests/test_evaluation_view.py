"""How evaluations and their comparisons look in a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from edgeeff.evaluation import view
from edgeeff.evaluation.findings import find
from edgeeff.evaluation.gates import judge, parse
from edgeeff.results import (
    Device,
    Difference,
    Divergence,
    EvaluationComparison,
    EvaluationRecord,
    Finding,
    GateResult,
    Kernels,
    Metrics,
    Outputs,
    Runtime,
)
from tests.evaluations import HEALTHY, IMAGES, UNLABELLED, changed, evaluation, one_class

Golden = Callable[[str, str], None]
COMPARISON = EvaluationComparison(
    first="b0_int8.tflite",
    second="b0_mixed.tflite",
    shared_images=IMAGES,
    paired=True,
    top1=Difference(0.0105, (0.004, 0.017), 0.0021),
    agreement=0.951,
    first_only_right=12,
    second_only_right=33,
    by_class=(
        ("cat", Difference(0.03, (-0.01, 0.07), 0.2, 0.8)),
        ("dog", Difference(0.0, (-0.01, 0.01), 1.0, 1.0)),
        ("fox", Difference(-0.02, (-0.05, 0.01), 0.3, 0.9)),
        ("owl", Difference(0.1, (0.05, 0.15), 0.0001, 0.0004)),
    ),
    warnings=("the first ran on local, the second on pi4",),
)


def printed(*records: EvaluationRecord, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    view.render(records, console)
    return text_of(console)


def compared(comparison: EvaluationComparison) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    view.render_comparison(comparison, console)
    return text_of(console)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def judged(record: EvaluationRecord, **options: Any) -> EvaluationRecord:
    gates = judge(parse(**options), record)
    record = replace(record, gates=gates, passed=all(gate.passed for gate in gates))
    return replace(record, findings=find(record))


def collapsed() -> EvaluationRecord:
    """The swish network of which min/max calibration left nothing."""
    classes = [one_class(index, lost=132) for index in range(10)]
    sure = [replace(one, recall=replace(one.recall, p_value=0.0, p_adjusted=0.0)) for one in classes if one.recall]
    spoiled = Metrics(0.225, (0.2073, 0.2438), 0.71, 0.225, 0.301, 0.225, 0.198, 0.301, 0.225, 0.198, 0.085)
    return judged(
        evaluation(
            model__path="out/b0_minmax.tflite",
            model_metrics=spoiled,
            model_outputs=Outputs(0.31, 0.002, 0.1, 6, 0.62, 0),
            by_class=tuple(sure),
            paired=replace(
                HEALTHY.paired,
                agreement=0.23,
                agreement_interval=(0.2121, 0.249),
                divergence=Divergence(3.1, 2.7, 8.2, 0.77),
                confidence=Difference(-0.5651, (-0.575, -0.555), 0.0),
                both_right=450,
                baseline_only_right=1320,
                model_only_right=0,
                both_wrong=230,
                top1=Difference(-0.66, (-0.68, -0.639), 0.0),
                top5=Difference(-0.282, (-0.302, -0.262), 0.0),
                balanced_accuracy=Difference(-0.66, (-0.68, -0.639)),
                macro_precision=Difference(-0.585, (-0.61, -0.56)),
                macro_f1=Difference(-0.687, (-0.71, -0.66)),
            ),
        ),
        max_drop="1",
    )


def test_a_healthy_model(golden: Golden) -> None:
    golden("evaluation_healthy.txt", printed(judged(HEALTHY, max_drop="1.0", min_agreement="95%")))


def test_a_model_that_collapsed(golden: Golden) -> None:
    golden("evaluation_collapsed.txt", printed(collapsed()))


def test_an_unlabelled_set_on_a_board(golden: Golden) -> None:
    host, board = Runtime("ai-edge-litert", "2.3.0"), Runtime("tflite-runtime", "2.14.0")
    record = changed(
        UNLABELLED,
        target="pi4",
        device=Device("Raspberry Pi 4", "aarch64", "Linux 6.6", "Cortex-A72", 4, emulated=True),
        runtime=board,
        kernels=Kernels(500, 0.998, 0.41, 0.0117, host, board),
        data__notes=("no labels were found",),
    )
    golden("evaluation_board.txt", printed(record))


def test_several_models_are_first_side_by_side(golden: Golden) -> None:
    golden("evaluation_models.txt", printed(judged(HEALTHY, max_drop="1.0"), collapsed()))


def test_a_comparison(golden: Golden) -> None:
    golden("evaluation_comparison.txt", compared(COMPARISON))


def test_nothing_evaluated_is_nothing_printed() -> None:
    assert printed() == ""


@pytest.mark.parametrize("record", [HEALTHY, UNLABELLED, collapsed()])
def test_tables_fit_in_80_columns(record: EvaluationRecord) -> None:
    long = changed(record, model__path="efficientnet_v2_b3_int8_with_a_name_that_is_long.tflite")
    tables = [line for line in printed(long, long).splitlines() if line.startswith(" ")]
    rows = [line for line in tables if not line.startswith("  ")]
    assert rows
    assert max(map(len, rows)) <= 80


def test_classes_that_surely_changed_come_first() -> None:
    gained, lost = one_class(0, gained=20), one_class(1, lost=2)
    assert gained.recall is not None
    sure = replace(gained, recall=replace(gained.recall, p_adjusted=0.001))
    unchanged, empty = one_class(2), one_class(3, support=0, right=0, predicted=5)
    record = evaluation(by_class=(unchanged, lost, sure, empty, *(one_class(i, lost=1) for i in range(4, 10))))
    assert [one.name for one in view.worst_classes(record)] == ["cat", "dog", "hen", "cow", "bee"]
    text = printed(record)
    assert "recall changed significantly in 1 of 9 classes" in text
    assert "+10.0" in text


def test_without_a_change_no_class_is_listed() -> None:
    assert "recall of" not in printed(evaluation(by_class=(one_class(0), one_class(1))))


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference(-0.03, (-0.04, -0.02), 1e-9), "top-1: significantly lower (McNemar p < 0.001;"),
        (Difference(0.03, (0.02, 0.04), 0.01), "top-1: significantly higher (McNemar p = 0.010;"),
        (Difference(-0.0001, (-0.01, 0.01), 1.0), "top-1: no significant difference (McNemar p = 1.000;"),
        (Difference(0.0, (-0.01, 0.01)), "top-1: no significant difference (McNemar p unknown;"),
    ],
)
def test_a_difference_has_its_word(difference: Difference, words: str) -> None:
    assert words in printed(evaluation(paired__top1=difference))


def test_what_to_do_next() -> None:
    def next_line(*records: EvaluationRecord) -> str:
        return printed(*records).splitlines()[-1]

    serious = Finding("leakage", True, "text", "advice", {})
    assert next_line(HEALTHY) == "next: edgeeff profile out/b0_int8.tflite    how fast it is"
    assert next_line(changed(HEALTHY, target="pi4")).startswith("next: edgeeff profile out/b0_int8.tflite --target pi4")
    assert next_line(HEALTHY, collapsed()).startswith("next: edgeeff diagnose out/b0_minmax.tflite --baseline ")
    assert next_line(changed(HEALTHY, findings=(serious,))).startswith("next: see to leakage above")
    assert "evaluate on more images, as many as said above" in next_line(judged(HEALTHY, max_drop="0.5"))
    assert "--scheme int16x8" in next_line(judged(HEALTHY, min_accuracy="95%"))
    better = changed(HEALTHY, model__path="better.tflite", model_metrics__top1=0.9)
    assert "better.tflite" in next_line(HEALTHY, better)


def test_markup_in_names_is_text() -> None:
    gate = GateResult("min-class-recall [red]", 0.9, 0.1, 0.05, passed=False, text="[red]: no")
    finding = Finding("leakage", False, "[bold]a.jpg", "[/]", {})
    odd = evaluation(
        model__path="[bold]x.tflite",
        names=("[dim]", *HEALTHY.names[1:]),
        by_class=(replace(one_class(0, lost=3), name="[dim]"),),
        gates=(gate,),
        findings=(finding,),
    )
    text = printed(odd, odd)
    for part in ("[bold]x.tflite against", "[dim] -> dog", "gate [red]: no", "leakage: [bold]a.jpg", "-> [/]"):
        assert part in text


def test_evaluations_of_different_images_are_said_to_be_so() -> None:
    apart = replace(
        COMPARISON, paired=False, shared_images=0, agreement=None, first_only_right=None, second_only_right=None
    )
    text = compared(apart)
    assert "no image that both saw: the intervals are those of two independent sets" in text
    assert "only the first has right" not in text
    unlabelled = compared(replace(COMPARISON, top1=None, by_class=()))
    assert "2,000 images that both saw, same best class on 95.1 %" in unlabelled
    assert "top-1" not in unlabelled


def test_names_do_not_steer_the_terminal() -> None:
    shown = printed(changed(HEALTHY, names=("\x1b[2J[red]", *HEALTHY.names[1:])))
    assert "\x1b" not in shown
