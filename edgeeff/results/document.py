"""Records as JSON documents: written, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from edgeeff.errors import RecordError
from edgeeff.results.audit import AuditRecord
from edgeeff.results.compilation import CompilationRecord
from edgeeff.results.conversion import ConversionRecord
from edgeeff.results.demo import DemoRecord
from edgeeff.results.diagnosis import DiagnosisRecord
from edgeeff.results.evaluation import EvaluationRecord
from edgeeff.results.pick import PickRecord, PredictionRecord
from edgeeff.results.probe import ProbeRecord
from edgeeff.results.profile import ProfileRecord
from edgeeff.results.record import Record

RECORDS: dict[str, type[Record]] = {
    cls.schema: cls
    for cls in (
        ConversionRecord,
        ProfileRecord,
        DemoRecord,
        ProbeRecord,
        EvaluationRecord,
        PickRecord,
        PredictionRecord,
        AuditRecord,
        DiagnosisRecord,
        CompilationRecord,
    )
}


def to_dict(value: Any) -> Any:
    """Turn dataclasses, also those inside, into plain JSON types; every record has its schema and version first."""
    import msgspec

    return _with_schema(value, msgspec.to_builtins(value))


def to_json(value: Any) -> str:
    """Write a dataclass as one JSON document, indented by two, ending in a newline.

    What is no Unicode in a file name becomes a question mark. Raises ValueError for a number that is not finite.
    """
    text = json.dumps(to_dict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")


def read_record(path: Path, *, more: Iterable[type[Record]] = ()) -> Record:
    """Read a record of any kind; `more` are kinds that others than results define.

    Raises RecordError when the file is missing, no JSON, no record of edgeeff, of a newer schema version, or when a
    field is missing or of the wrong type (the message names the field).
    """
    import msgspec

    if path.is_fifo():  # it would be waited for
        raise RecordError(f"cannot read the record {path}: it is a pipe, not a file")
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read the record {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no JSON document ({error}); give a record written by edgeeff") from error
    known = RECORDS | {cls.schema: cls for cls in more}
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in known:
        raise RecordError(f"{path} is no record of edgeeff: its schema is {schema!r}, known are {', '.join(known)}")
    _check_versions(document, path, known)
    try:
        return msgspec.convert(document, known[schema])
    except msgspec.ValidationError as error:
        raise RecordError(f"{path} is no valid {schema} record: {error}") from error


def _with_schema(value: Any, plain: Any) -> Any:
    """Put the heads of records into `plain`, which is `value` in JSON types."""
    if isinstance(value, Record):
        head: dict[str, Any] = {"schema": value.schema, "schema_version": value.schema_version}
        return head | {key: _with_schema(getattr(value, key), item) for key, item in plain.items()}
    if is_dataclass(value):
        return {key: _with_schema(getattr(value, key), item) for key, item in plain.items()}
    if isinstance(value, dict):
        pairs = zip(plain.items(), value.values(), strict=True)
        return {key: _with_schema(inner, item) for (key, item), inner in pairs}
    if isinstance(value, (list, tuple)):
        return [_with_schema(inner, item) for inner, item in zip(value, plain, strict=True)]
    return plain


def _check_versions(document: Any, path: Path, known: Mapping[str, type[Record]]) -> None:
    """Raise RecordError when the record, or one inside it, has no version or one that is newer than this edgeeff."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        if not isinstance(item, dict):
            continue
        waiting += item.values()
        cls = known.get(str(item.get("schema")))
        if cls is None:
            continue
        version = item.get("schema_version")
        if type(version) is not int or version < 1:
            raise RecordError(f"{path} has no valid schema_version for {cls.schema} ({version!r})")
        if version > cls.schema_version:
            raise RecordError(
                f"{path} is {cls.schema} version {version}; this edgeeff reads up to {cls.schema_version}: "
                "install a newer one"
            )
