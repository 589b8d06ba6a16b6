"""Gates as JUnit XML: whole, valid, and with every character that a name may have."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.evaluation.findings import find
from edgeeff.evaluation.gates import judge, parse
from edgeeff.evaluation.junit import to_junit
from edgeeff.results import EvaluationRecord, GateResult
from tests.evaluations import HEALTHY, UNLABELLED, changed

CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "properties": ["property"],
    "property": [],
    "testcase": ["failure"],
    "failure": [],
    "system-out": [],
    "system-err": [],
}
"""What may be in what, in this order: what Ant's schema and that of Jenkins' xUnit plugin both allow."""
COUNT = r"\d+"
ATTRIBUTES = {
    "testsuites": {"name": ".+", "tests": COUNT, "failures": COUNT, "errors": COUNT},
    "testsuite": {
        "name": ".+",
        "package": ".+",
        "id": COUNT,
        "hostname": ".+",
        "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
        "time": r"\d+\.\d{3}",
        "tests": COUNT,
        "failures": COUNT,
        "errors": COUNT,
    },
    "properties": {},
    "property": {"name": ".+", "value": ".*"},
    "testcase": {"name": ".+", "classname": ".+", "time": COUNT},
    "failure": {"type": ".+", "message": ".+"},
    "system-out": {},
    "system-err": {},
}


def parsed(*records: EvaluationRecord) -> ElementTree.Element:
    """Parse the document and check that it has the shape that CI systems expect."""
    root = ElementTree.fromstring(to_junit(records))  # noqa: S314 our own
    assert root.tag == "testsuites"
    for element in root.iter():
        order = [CHILDREN[element.tag].index(child.tag) for child in element]
        assert order == sorted(order)
        expected = ATTRIBUTES[element.tag]
        assert set(element.attrib) == set(expected)
        for name, value in element.attrib.items():
            assert re.fullmatch(expected[name], value, re.DOTALL), (element.tag, name, value)
    return root


def judged(record: EvaluationRecord = HEALTHY) -> EvaluationRecord:
    gates = parse(max_drop="1.0", min_accuracy="95%", min_class_recall=["0.8"])
    return changed(record, gates=judge(gates, record), passed=False)


def test_a_gate_that_says_no_is_a_failure() -> None:
    root = parsed(judged(), UNLABELLED)
    assert root.attrib == {"name": "edgeeff evaluate", "tests": "3", "failures": "1", "errors": "0"}
    first, second = root
    assert first.get("name") == "out/b0_int8.tflite on local"
    assert [case.get("name") for case in first.iter("testcase")] == ["max-drop", "min-accuracy", "min-class-recall"]
    (failure,) = first.iter("failure")
    assert failure.get("message") == failure.text == judged().gates[1].text
    assert (second.get("tests"), second.get("id")) == ("0", "1")


def test_findings_are_the_suites_output() -> None:
    record = changed(HEALTHY, data__unreadable=(("a.jpg", "truncated"),))
    (output,) = parsed(changed(record, findings=find(record))).iter("system-out")
    assert output.text is not None
    assert output.text.startswith("note, unreadable-images: 1 image (0.0 %) could not be read and count")


def test_nothing_is_a_document_too() -> None:
    assert list(parsed()) == []


def test_times_are_utc() -> None:
    (suite,) = parsed(changed(HEALTHY, created="2026-01-31T23:30:00-02:00"))
    assert suite.get("timestamp") == "2026-02-01T01:30:00"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tab\there", "tab\there"),
        ("nul\0 bell\a escape\x1b[1m", "nul\\x00 bell\\x07 escape\\x1b[1m"),
        ("stray \udcff byte", "stray \\udcff byte"),
        ("<&\">'", "<&\">'"),
        ("müsli 猫 🐈", "müsli 猫 🐈"),
        ("]]>", "]]>"),
        ("no\ufffecharacter", "no\\ufffecharacter"),
    ],
)
def test_every_class_name_survives(name: str, shown: str) -> None:
    gate = GateResult(f"min-class-recall {name}", 0.9, 0.1, 0.05, passed=False, text=f"{name}: no")
    root = parsed(changed(HEALTHY, gates=(gate,), model__path=f"{name}.tflite"))
    (case,) = root.iter("testcase")
    assert case.get("name") == f"min-class-recall {shown}"
    (failure,) = case
    assert failure.text == f"{shown}: no"
    assert case.get("classname") == f"{shown}.tflite on local"


@settings(max_examples=40)
@given(st.text())
def test_no_name_breaks_the_document(name: str) -> None:
    gate = GateResult(f"min-class-recall {name}", 0.9, 0.1, 0.05, passed=False, text=f"{name}: no")
    parsed(changed(HEALTHY, gates=(gate,), device__name=name))


def test_the_document_looks_as_it_did(golden: Callable[[str, str], None]) -> None:
    record = changed(judged(), data__unreadable=(("cat/7.jpg", "truncated"),))
    golden("evaluation_junit.xml", to_junit([changed(record, findings=find(record))]).decode())
