"""The command `edgeeff report`: records as one page for people.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeeff.command import common, print_json
from edgeeff.errors import InputError

PATH = click.Path(path_type=Path)


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
    kind: Any,
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
    from edgeeff import api
    from edgeeff.render import printable

    if str(output) == "-":
        from edgeeff.reporting import writing

        if as_json:
            raise InputError("--json and --output - both want standard output: give --output FILE")
        click.echo(writing.render(records, kind=kind, title=title, thumbnails=thumbnails), nl=False)
        return
    said = api.report(*records, output=output, format=kind, title=title, thumbnails=thumbnails)
    if as_json:
        print_json(said)
        return
    click.echo(printable(f"{said.headline}."))
    for one in said.results:
        labels = "".join(f" ({label.upper()})" for label in one.labels)
        click.echo(printable(f"  {one.verdict}{labels}: {one.title}: {one.summary}"))
    click.echo(f"{said.report}: {said.size_bytes / 1e3:.0f} kB")
