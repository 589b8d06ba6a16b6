"""The compiler's table against what was foreseen; tables and counts are made up, the words are the compiler's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeeff.converters.edgetpu import log
from edgeeff.converters.edgetpu.compare import STRANDED, compare
from edgeeff.results import (
    CpuShare,
    Disagreement,
    Forecast,
    ForecastCheck,
    ForeseenOperators,
    OperatorStatus,
    OperatorVerdict,
)

MAPPED = "Mapped to Edge TPU"
LEFT = "Operation not supported"
NOBODY = CpuShare(None, "", 0, 0.0)


def foreseen(*lines: tuple[str, int, OperatorVerdict]) -> Forecast:
    operators = tuple(ForeseenOperators(name, count, verdict) for name, count, verdict in lines)
    return Forecast("unknown", operators, 1, NOBODY, NOBODY, 0, 0)


def checked(forecast: Forecast, *statuses: tuple[str, int, str]) -> ForecastCheck:
    check = compare(forecast, [OperatorStatus(*status) for status in statuses])
    assert check is not None
    return check


def test_both_agree() -> None:
    forecast = foreseen(("ADD", 3, "mapped"), ("GELU", 2, "not mapped"))
    assert checked(forecast, ("ADD", 3, MAPPED), ("GELU", 2, LEFT)) == ForecastCheck(5, 0, 0, (), ())


def test_what_is_left_after_another_says_nothing() -> None:
    forecast = foreseen(("ADD", 3, "mapped"), ("GELU", 2, "not mapped"))
    check = checked(forecast, ("ADD", 1, MAPPED), ("ADD", 2, STRANDED), ("GELU", 1, LEFT), ("GELU", 1, STRANDED))
    assert check == ForecastCheck(2, 0, 3, (), ())


@pytest.mark.parametrize(
    ("verdict", "status", "disagreement"),
    [("mapped", LEFT, "mapped"), ("not mapped", MAPPED, "not mapped")],
)
def test_both_ways_to_be_wrong(verdict: OperatorVerdict, status: str, disagreement: OperatorVerdict) -> None:
    check = checked(foreseen(("ADD", 3, verdict)), ("ADD", 3, status))
    assert check == ForecastCheck(0, 0, 0, (Disagreement("ADD", 3, disagreement, (status,)),), ())


def test_unknown_ones_are_settled_and_excuse_no_more_than_they_are() -> None:
    forecast = foreseen(("ADD", 3, "mapped"), ("ADD", 2, "unknown"))
    assert checked(forecast, ("ADD", 4, MAPPED), ("ADD", 1, LEFT)) == ForecastCheck(3, 2, 0, (), ())
    wrong = checked(forecast, ("ADD", 1, MAPPED), ("ADD", 4, LEFT))
    assert wrong == ForecastCheck(1, 2, 0, (Disagreement("ADD", 2, "mapped", (LEFT,)),), ())


def test_other_numbers_are_not_compared() -> None:
    forecast = foreseen(("ADD", 3, "mapped"), ("PAD", 1, "mapped"))
    assert checked(forecast, ("ADD", 2, LEFT), ("SUB", 1, MAPPED)) == ForecastCheck(0, 0, 0, (), ("ADD", "PAD", "SUB"))


def test_without_a_table_there_is_nothing_to_compare() -> None:
    assert compare(foreseen(("ADD", 1, "mapped")), []) is None


@pytest.mark.accuracy
def test_a_real_log_does_not_contradict_what_is_known(shared: Path) -> None:
    """tiny YOLO by compiler 14.1: a RESIZE_NEAREST_NEIGHBOR, which is unknown to us, strands all behind it."""
    text = (shared / "edge_tpu" / "compiler-logs" / "v14_1_opfile.log").read_text()
    (summary,) = log.parse(text).summaries
    forecast = foreseen(
        ("CONCATENATION", 1, "mapped"),
        ("MAX_POOL_2D", 6, "mapped"),
        ("RESIZE_NEAREST_NEIGHBOR", 1, "unknown"),
        ("CONV_2D", 13, "mapped"),
        ("QUANTIZE", 3, "mapped"),
        ("QUANTIZE", 1, "not mapped"),
    )
    assert compare(forecast, summary.statuses) == ForecastCheck(20, 1, 4, (), ())
