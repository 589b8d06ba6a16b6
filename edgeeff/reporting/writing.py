"""From records to the file of a report: what is refused before anything is made, and what is said of it afterwards.

What stands in it is left to `records`, how it looks to `html` and `markdown`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeeff.errors import InputError
from edgeeff.files import check_writable, write_atomic
from edgeeff.reporting import html, markdown
from edgeeff.reporting import records as reports
from edgeeff.reporting.page import Page
from edgeeff.reporting.thumbnails import Thumbnails
from edgeeff.results import Record, ReportedResult, WrittenReport

ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md"}
WHERE_THEY_WERE = "record"


def write(
    given: Sequence[Path | Record],
    output: Path | None = None,
    *,
    kind: str | None = None,
    title: str | None = None,
    thumbnails: str | None = None,
) -> WrittenReport:
    """Write records, or the files that hold them, as one page; `kind` is "html", "md", or None for `output`'s ending.

    Raises InputError for what cannot be a report, and what `render` raises; OutputError where nothing can be written.
    """
    kind = kind or ENDINGS.get(output.suffix.lower() if output is not None else "", "html")
    output = output or Path(f"report.{kind}")
    _spare([one for one in given if isinstance(one, Path)], output)
    check_writable(output)
    page, data = _made(given, kind, title, thumbnails)
    write_atomic(output, data)
    return WrittenReport(
        report=str(output),
        format=kind,
        size_bytes=len(data),
        headline=page.headline.word,
        results=tuple(
            ReportedResult(title=one.title, verdict=one.mark.word, labels=one.labels, summary=one.summary)
            for one in page.sections()
        ),
    )


def render(
    given: Sequence[Path | Record], *, kind: str | None = None, title: str | None = None, thumbnails: str | None = None
) -> bytes:
    """Return the page in UTF-8.

    Raises InputError without records, for images that cannot be used and for a page that is too large, RecordError for
    what is no record, MissingExtraError without what makes a page.
    """
    return _made(given, kind or "html", title, thumbnails)[1]


def _made(given: Sequence[Path | Record], kind: str, title: str | None, thumbnails: str | None) -> tuple[Page, bytes]:
    if kind == "html":
        html.check()
    pictures = None
    if thumbnails is not None:
        if kind == "md":
            raise InputError("--thumbnails are for pages: leave it away with --format md")
        pictures = Thumbnails(None if thumbnails == WHERE_THEY_WERE else Path(thumbnails))
        pictures.check()
    page = reports.build(reports.read(given), title=title, thumbnails=pictures)
    return page, html.render(page) if kind == "html" else markdown.render(page).encode("utf-8", "replace")


def _spare(records: Sequence[Path], output: Path) -> None:
    """Refuse to write over a record; raises InputError."""
    for record in records:
        if output.exists() and record.exists() and output.samefile(record):
            raise InputError(f"--output {output} is one of the records: give another file")
    if output.suffix.lower() == ".json":
        raise InputError(f"--output {output} ends like a record: give a file ending in .html or .md")
