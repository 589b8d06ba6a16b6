"""Gates as JUnit XML, which CI systems show as tests: one suite for each model, one test for each gate.

The shape is what Jenkins, GitLab and GitHub's actions all read: of the two schemas in use, JUnit's own of Ant and that
of Jenkins' xUnit plugin, what both allow.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from edgeeff.results import EvaluationRecord, GateResult

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, not even escaped."""


def to_junit(records: Sequence[EvaluationRecord]) -> bytes:
    """Return the gates of all records as one JUnit XML document in UTF-8.

    A gate that said no is a failure with its sentence; findings are the suite's output. Characters that XML cannot hold
    are written as in Python, e.g. \\x00.
    """
    gates = [gate for record in records for gate in record.gates]
    root = ElementTree.Element("testsuites", {"name": "edgeeff evaluate", **_counts(gates)})
    for number, record in enumerate(records):
        root.append(_suite(record, number))
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(record: EvaluationRecord, number: int) -> ElementTree.Element:
    # Neither a time zone nor fractions of a second are in Ant's schema; it means UTC.
    created = datetime.datetime.fromisoformat(record.created).astimezone(datetime.timezone.utc)
    name = _text(f"{record.model.path} on {record.target}")
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": name,
            "package": "edgeeff",
            "id": str(number),
            "hostname": _text(record.device.name) or "localhost",
            "timestamp": created.strftime("%Y-%m-%dT%H:%M:%S"),
            "time": f"{record.timing.seconds:.3f}",
            **_counts(record.gates),
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (
        ("edgeeff", record.edgeeff_version),
        ("model sha256", record.model.sha256),
        ("baseline", record.baseline.path),
        ("baseline sha256", record.baseline.sha256),
        ("data", record.data.path),
        ("images", str(record.paired.images)),
        ("emulated", str(record.device.emulated).lower()),
    ):
        ElementTree.SubElement(properties, "property", name=key, value=_text(value))
    for gate in record.gates:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=_text(gate.gate), time="0")
        if not gate.passed:
            failure = ElementTree.SubElement(case, "failure", type="gate", message=_text(gate.text))
            failure.text = _text(gate.text)
    output = [
        f"{'serious' if one.serious else 'note'}, {one.cause}: {one.text}\n  {one.advice}" for one in record.findings
    ]
    ElementTree.SubElement(suite, "system-out").text = _text("\n".join(output))
    ElementTree.SubElement(suite, "system-err")
    return suite


def _counts(gates: Sequence[GateResult]) -> dict[str, str]:
    return {"tests": str(len(gates)), "failures": str(sum(not gate.passed for gate in gates)), "errors": "0"}


def _text(value: str) -> str:
    """Write what XML cannot hold, as a file name's stray bytes, as Python does."""
    return _FORBIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), value)
