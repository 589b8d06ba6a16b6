"""The command `edgeeff report`: records as one page for people.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeeff.command import common, print_json
from edgeeff.errors import InputError

if TYPE_CHECKING:
    from edgeeff.report.page import Page

PATH = click.Path(path_type=Path)
ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md"}
WHERE_THEY_WERE = "record"


@click.command()
@click.argument("records", nargs=-1, type=PATH, metavar="RECORD.json...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="The page, or - for standard output.  [default: report.html or .md]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md"]),
    help="A page for a browser, or Markdown for a pull request.  [default: as the output file ends, else html]",
)
@click.option("--title", metavar="TEXT", help="Heading of the page.  [default: the files that it is about]")
@click.option(
    "--thumbnails",
    metavar="DIR|record",
    help="Show the images whose class changed, from this folder, or from where the record says that they are.",
)
@common
def report(
    records: tuple[Path, ...],
    output: Path | None,
    kind: str | None,
    title: str | None,
    thumbnails: str | None,
    as_json: bool,
) -> None:
    """Turn records into one page that needs no network.

    RECORD.json... are what convert, profile, evaluate, pick and other commands wrote, in any mix. Verdicts come first;
    then what was done, latency in ms, accuracy in percent and points, the pick, and what every figure is from. HTML
    needs the extra report, Markdown nothing. DIR is the folder with the images that were judged.

    \b
    Examples:
      edgeeff report lite0_int8.json -o report.html
      edgeeff report *.json -o report.html --thumbnails photos/
      edgeeff report *.evaluation.json --format md -o -
    """
    from edgeeff.files import check_writable, write_atomic
    from edgeeff.render import printable
    from edgeeff.report import records as reports
    from edgeeff.report.thumbnails import Thumbnails

    kind = kind or ENDINGS.get(output.suffix.lower() if output is not None else "", "html")
    output = output or Path(f"report.{kind}")
    printed = str(output) == "-"
    if printed and as_json:
        raise InputError("--json and --output - both want standard output: give --output FILE")
    if not printed:
        _spare(records, output)
        check_writable(output)
    if kind == "html":
        from edgeeff.report import html

        html.check()
    pictures = None
    if thumbnails is not None:
        if kind == "md":
            raise InputError("--thumbnails are for pages: leave it away with --format md")
        pictures = Thumbnails(None if thumbnails == WHERE_THEY_WERE else Path(thumbnails))
        pictures.check()
    page = reports.build(reports.read(records), title=title, thumbnails=pictures)
    data = _rendered(page, kind)
    if printed:
        click.echo(data, nl=False)
        return
    write_atomic(output, data)
    if as_json:
        print_json(
            {
                "report": str(output),
                "format": kind,
                "size_bytes": len(data),
                "results": [{"title": one.title, "verdict": one.mark.word} for one in page.sections()],
            }
        )
        return
    click.echo(printable(f"{page.headline.word}."))
    for one in page.sections():
        labels = "".join(f" ({label.upper()})" for label in one.labels)
        click.echo(printable(f"  {one.mark.word}{labels}: {one.title}: {one.summary}"))
    click.echo(f"{output}: {len(data) / 1e3:.0f} kB")


def _spare(records: tuple[Path, ...], output: Path) -> None:
    """Refuse to write over a record; raises InputError."""
    for record in records:
        if output.exists() and record.exists() and output.samefile(record):
            raise InputError(f"--output {output} is one of the records: give another file")
    if output.suffix.lower() == ".json":
        raise InputError(f"--output {output} ends like a record: give a file ending in .html or .md")


def _rendered(page: Page, kind: str) -> bytes:
    from edgeeff.report import html, markdown

    return html.render(page) if kind == "html" else markdown.render(page).encode("utf-8", "replace")
