"""A report for a pull request: the verdicts, the tables that decide, and nothing to look at.

What names files and classes is anybody's, so it is written as text that Markdown and HTML in it leave alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from edgeeff.render import printable
from edgeeff.reporting.page import Chapter, Line, Lines, Page, Section, Table, Tone

SIGNS: dict[Tone, str] = {"good": "✅", "warn": "⚠️", "bad": "❌", "": "▫️"}
_MARKUP = re.compile(r"[\\`*\[\]|~<&$#]|(?<!\w)_|_(?!\w)|^[-+>](?=\s|$)|^>|(?<=^\d)[.)](?=\s)")
"""Underscores within words are text, and what makes a list or a quotation does so at the beginning only."""


def render(page: Page) -> str:
    """Return the page in GitHub's Markdown, ending in a newline."""
    return "\n".join(_lines(page)).rstrip("\n") + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield f"## {text(page.title)}"
    yield ""
    yield f"{SIGNS[page.headline.tone]} **{text(page.headline.word)}**"
    yield ""
    for warning in page.warnings:
        yield f"> ⚠️ {text(warning)}"
        yield ""
    yield "| | result | verdict | |"
    yield "|---|---|---|---|"
    for chapter in page.chapters:
        for one in chapter.sections:
            labels = "".join(f" ({text(label.upper())})" for label in one.labels)
            verdict = f"{SIGNS[one.mark.tone]} {text(one.mark.word)}{labels}"
            yield f"| {text(chapter.title)} | {text(one.title)} | {verdict} | {text(one.summary)} |"
    yield ""
    if page.models is not None:
        yield from _table(page.models)
    for chapter in page.chapters:
        yield from _chapter(chapter)
    yield f"_{text(page.subtitle)}_"


def _chapter(chapter: Chapter) -> Iterator[str]:
    told = [(one, list(_section(one))) for one in chapter.sections]
    above = [line for part in chapter.parts for block in part.blocks for line in _block(block)]
    if not above and not any(body for _, body in told):
        return
    yield f"### {text(chapter.title)}"
    yield ""
    yield from above
    for one, body in told:
        if body:
            yield f"<details{' open' if one.mark.tone == 'bad' else ''}><summary>{_in_html(one.title)}</summary>"
            yield ""
            yield from body
            yield "</details>"
            yield ""


def _section(section: Section) -> Iterator[str]:
    for line in section.conclusion:
        yield f"- {_sentence(line)}"
    if section.conclusion:
        yield ""
    for part in section.parts:
        for block in part.blocks:
            yield from _block(block)


def _block(block: object) -> Iterator[str]:
    if isinstance(block, Table) and block.brief:
        yield from _table(block)
    elif isinstance(block, Lines) and any(line.tone == "bad" for line in block.lines):
        yield from (f"- {_sentence(line)}" for line in block.lines)
        yield ""


def _sentence(line: Line) -> str:
    lead = f"**{text(line.lead)}:** " if line.lead else ""
    sign = f"{SIGNS[line.tone]} " if line.tone else ""
    return f"{sign}{lead}{text(line.text)}"


def _table(table: Table) -> Iterator[str]:
    yield f"**{text(table.caption)}**"
    yield ""
    yield _row(column.name for column in table.columns)
    yield "|" + "|".join("--:" if column.figures else "---" for column in table.columns) + "|"
    for row in table.rows:
        cells = (text(cell.text) for cell in row.cells)
        yield "| " + " | ".join(f"**{cell}**" if row.strong and cell else cell for cell in cells) + " |"
    yield ""
    if table.note:
        yield text(table.note)
        yield ""


def _row(cells: Iterator[str]) -> str:
    return "| " + " | ".join(text(cell) for cell in cells) + " |"


def text(words: str) -> str:
    """Return words as Markdown shows them: nothing in them is markup, and they stay on one line."""
    return _MARKUP.sub(lambda found: f"\\{found.group()}", " ".join(printable(words).split()))


def _in_html(words: str) -> str:
    """Return words for the few places where HTML stands in Markdown."""
    return escape(" ".join(printable(words).split()))
