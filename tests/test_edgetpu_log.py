from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters.edgetpu import log
from edgeeff.converters.edgetpu.log import FAILURES, parse
from edgeeff.results import CompilerLog, CompilerSummary, OperatorStatus
from tests import edge_tpu_files as files

MIB = 1 << 20
# Written here after the form of each version's output; the figures are made up.
VERSION_2_0 = """Edge TPU Compiler version 2.0.267685300

Model compiled successfully in 300 ms.

Input model: a.tflite
Input size: 5.00MiB
Output model: a_edgetpu.tflite
Output size: 5.50MiB
On-chip memory available for caching model parameters: 7.50MiB
On-chip memory used for caching model parameters: 5.25MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 9
Operation log: a_edgetpu.log
See the operation log file for individual operation details.
"""
VERSION_14 = """Edge TPU Compiler version 14.1.317412892
Input: a.tflite
Output: a_edgetpu.tflite

Operator                       Count      Status

CONV_2D                        11         Mapped to Edge TPU
CONV_2D                        2          More than one subgraph is not supported
STRIDED_SLICE                  4          Only Strided-Slice with unitary strides supported
"""
VERSION_15 = files.success("a").replace("16.0.384591198", "15.0.340273435").replace(files.ENDED, "")
SEGMENTS = files.success("a_segment_0_of_2") + files.success("a_segment_1_of_2")
SEARCH = (
    "Edge TPU Compiler version 16.0.384591198\nSearching for valid delegate with step 1\n"
    "Try to compile segment with 9 ops\nStarted a compilation timeout timer of 180 seconds.\n"
    f"{files.ENDED}Compilation failed! \nTry to compile segment with 8 ops\nIntermediate tensors: x,y\n"
) + files.success("a").removeprefix("Edge TPU Compiler version 16.0.384591198\n")
DYNAMIC = (
    files.BANNER
    + "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized "
    "tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite "
    f"interpreter.\n{files.ENDED}Compilation failed! \n"
)
ALL = [VERSION_2_0, VERSION_14, VERSION_15, SEGMENTS, SEARCH, DYNAMIC, files.success("a", "b", table=False)]


def test_an_output_of_version_16() -> None:
    seen = parse(files.success("a"))
    assert (seen.version, seen.succeeded, seen.seconds, seen.timeout_s) == ("16.0.384591198", True, 0.25, 180)
    assert (seen.attempts, seen.failures) == (0, ())
    assert seen.summaries == (
        CompilerSummary(
            input="a.tflite",
            input_bytes=4096,
            output="out/a_edgetpu.tflite",
            output_bytes=MIB * 3 // 2,
            on_chip_used_bytes=MIB * 9 // 4,
            on_chip_remaining_bytes=MIB * 11 // 2,
            off_chip_bytes=0,
            subgraphs=1,
            operators=7,
            operation_log="out/a_edgetpu.log",
            edge_tpu_operators=5,
            cpu_operators=2,
            statuses=(
                OperatorStatus("CONV_2D", 5, "Mapped to Edge TPU"),
                OperatorStatus("SOFTMAX", 2, "Operation is working on an unsupported data type"),
            ),
        ),
    )
    assert [status.mapped for status in seen.summaries[0].statuses] == [True, False]


def test_an_output_of_version_15_has_no_timer() -> None:
    seen = parse(VERSION_15.replace("Started a compilation timeout timer of 180 seconds.\n", ""))
    assert (seen.version, seen.succeeded, seen.timeout_s) == ("15.0.340273435", True, None)
    assert seen.summaries == parse(files.success("a")).summaries


def test_an_operation_log_does_not_say_how_it_ended() -> None:
    seen = parse(VERSION_14)
    assert (seen.version, seen.succeeded, seen.seconds) == ("14.1.317412892", None, None)
    (summary,) = seen.summaries
    assert (summary.input, summary.output, summary.on_chip_used_bytes) == ("a.tflite", "a_edgetpu.tflite", None)
    assert [(status.name, status.count) for status in summary.statuses if not status.mapped] == [
        ("CONV_2D", 2),
        ("STRIDED_SLICE", 4),
    ]


def test_version_2_0_says_what_is_available_not_what_remains() -> None:
    (summary,) = parse(VERSION_2_0).summaries
    assert summary.on_chip_available_bytes == MIB * 15 // 2
    assert summary.on_chip_used_bytes == MIB * 21 // 4
    assert summary.on_chip_remaining_bytes is None


@pytest.mark.parametrize(
    ("text", "outputs", "seconds"),
    [
        (files.success("a", "b"), ["out/a_edgetpu.tflite", "out/b_edgetpu.tflite"], 0.25),
        (SEGMENTS, ["out/a_segment_0_of_2_edgetpu.tflite", "out/a_segment_1_of_2_edgetpu.tflite"], 0.5),
    ],
)
def test_several_files_have_a_summary_each(text: str, outputs: list[str], seconds: float) -> None:
    seen = parse(text)
    assert [summary.output for summary in seen.summaries] == outputs
    assert all(len(summary.statuses) == 2 for summary in seen.summaries)
    assert (seen.succeeded, seen.seconds) == (True, seconds)


def test_what_failed_on_the_way_of_a_search_is_no_failure() -> None:
    seen = parse(SEARCH)
    assert (seen.succeeded, seen.attempts, seen.failures) == (True, 2, ())


@pytest.mark.parametrize(
    ("line", "cause", "model_at_fault"),
    [
        (
            "ERROR: Didn't find op for builtin opcode 'EXP' version '2'. An older version may be",
            "does not know version 2 of EXP",
            True,
        ),
        ("ERROR: Encountered unresolved custom op: Foo.", "the operator Foo, which", True),
        ("Model not quantized", "computes in float", True),
        ("Compilation timeout. This is usually caused by large activations.", "limit of time", False),
        ("Internal compiler error. Aborting! ", "broke down", False),
    ],
)
def test_known_failures_have_a_cause_and_a_fix(line: str, cause: str, model_at_fault: bool) -> None:
    seen = parse(f"{files.BANNER}Invalid model: a.tflite\n{line}\n{files.ENDED}Compilation failed! \n")
    (failure,) = seen.failures
    assert cause in failure.cause
    assert (failure.line, failure.model_at_fault) == (line.strip(), model_at_fault)
    assert failure.fix
    assert failure.source
    assert seen.succeeded is False


def test_dynamic_shapes_are_the_cause_not_the_sentence_after_it() -> None:
    (failure,) = parse(DYNAMIC).failures
    assert "known only at run time" in failure.cause


def test_a_failure_without_a_reason_says_so() -> None:
    (failure,) = parse(f"{files.BANNER}{files.ENDED}Compilation failed! \n").failures
    assert failure.cause == "the compiler gives no reason"


def test_every_failure_of_the_table_has_a_source_and_as_many_groups_as_it_uses() -> None:
    for known in FAILURES:
        said = known.cause + known.fix
        assert known.source
        assert [f"{{{group}}}" in said for group in range(known.pattern.groups)] == [True] * known.pattern.groups


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_an_output_that_ends_at_any_line_gives_what_came_before(text: str) -> None:
    lines = text.splitlines(keepends=True)
    whole = parse(text)
    for end in range(len(lines) + 1):
        check_prefix(parse("".join(lines[:end])), whole)


def check_prefix(seen: CompilerLog, whole: CompilerLog) -> None:
    """Everything that was read stands in the whole log, too."""
    assert seen.version in {None, whole.version}
    assert len(seen.summaries) <= len(whole.summaries)
    for part, full in zip(seen.summaries, whole.summaries, strict=False):
        assert part.statuses == full.statuses[: len(part.statuses)]
        for name in ("input", "output", "input_bytes", "on_chip_used_bytes", "operators", "cpu_operators"):
            assert getattr(part, name) in {None, getattr(full, name)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("\n".join(ALL).splitlines()) | st.text(max_size=40), max_size=30))
def test_any_text_is_read(lines: list[str]) -> None:
    seen = parse("\n".join(lines))
    assert len(seen.summaries) <= len(lines)
    assert all(failure.cause for failure in seen.failures)


def test_figures_that_are_none_and_endless_lines_are_left() -> None:
    seen = parse(
        "Input model: a\nInput size: lots\nTotal number of operations: 1e9\nNumber of Edge TPU subgraphs: "
        + "9" * 5000
        + "\nCONV_2D 99999999999999999999 Mapped to Edge TPU\n"
        + "A" * 100_000
    )
    assert seen.summaries == (CompilerSummary(input="a"),)


def test_what_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LONGEST_LOG", 60)
    assert parse(files.success("a")).summaries == ()


# Real outputs


@pytest.mark.accuracy
def test_real_outputs_wherever_they_end(shared: Path) -> None:
    folder = shared / "edge_tpu" / "compiler-logs"
    for path in sorted(folder.iterdir()):
        lines = path.read_text().splitlines(keepends=True)
        whole = parse("".join(lines))
        assert whole.version is not None
        for end in range(len(lines) + 1):
            check_prefix(parse("".join(lines[:end])), whole)


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("name", "succeeded", "seconds", "mapped", "left", "used"),
    [
        ("v14_1_opfile.log", None, None, 19, 6, None),
        ("v15_stdout_partial.txt", True, 0.093, 1, 293, 0),
        ("v16_stdout_nosummary_table.txt", True, 1.524, 0, 0, round(4.21 * MIB)),
        ("v2_1_partial.txt", True, 12.264, 0, 0, round(6.86 * MIB)),
    ],
)
def test_real_outputs(
    shared: Path, name: str, succeeded: bool | None, seconds: float | None, mapped: int, left: int, used: int | None
) -> None:
    seen = parse((shared / "edge_tpu" / "compiler-logs" / name).read_text())
    (summary,) = seen.summaries
    assert (seen.succeeded, seen.seconds, summary.on_chip_used_bytes) == (succeeded, seconds, used)
    counts = [sum(item.count for item in summary.statuses if item.mapped is kind) for kind in (True, False)]
    assert counts == [mapped, left]


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("name", "cause"),
    [("v16_fail_customop.txt", "the operator Atan"), ("v16_fail_opversion.txt", "does not know version 3 of QUANTIZE")],
)
def test_real_failures(shared: Path, name: str, cause: str) -> None:
    seen = parse((shared / "edge_tpu" / "compiler-logs" / name).read_text())
    (failure,) = seen.failures
    assert cause in failure.cause
    assert seen.succeeded is False
