"""What the terminal shows, as blocks of a page: the same tables and the same sentences, said once.

Views print to a console; `Pages` is one that keeps what it is given. What a table or a sentence says is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from edgeeff.reporting.page import Block, Cell, Column, Commands, Facts, Line, Lines, Row, Table, Tone

TONES: tuple[tuple[str, Tone], ...] = (("red", "bad"), ("yellow", "warn"), ("green", "good"))
NEXT = "next:"


class Pages(Console):
    """A console that keeps what is printed, as blocks."""

    def __init__(self) -> None:
        super().__init__(quiet=True, highlight=False)
        self.blocks: list[Block] = []

    def print(self, *objects: Any, **_options: Any) -> None:
        """Keep a table as a table, and each line of a text as a sentence."""
        for one in objects:
            if isinstance(one, TerminalTable):
                self.blocks += _from_table(one)
            else:
                self.blocks += _from_text(str(one))


def shown(view: Callable[[Console], None]) -> tuple[Block, ...]:
    """Return what a view prints, sentences that follow each other as one block."""
    pages = Pages()
    view(pages)
    together: list[Block] = []
    for block in pages.blocks:
        last = together[-1] if together else None
        if isinstance(block, Lines) and isinstance(last, Lines):
            together[-1] = Lines(last.lines + block.lines)
        elif isinstance(block, Commands) and isinstance(last, Commands):
            together[-1] = Commands(last.commands + block.commands)
        else:
            together.append(block)
    return tuple(together)


def from_table(view: TerminalTable, caption: str, *, note: str = "", brief: bool = False) -> Table | None:
    """Return a table of the terminal with a caption; None when it has no rows."""
    columns = tuple(
        Column(_plain(column.header), figures=column.justify == "right" and index > 0)
        for index, column in enumerate(view.columns)
    )
    cells = [list(column.cells) for column in view.columns]
    rows = tuple(
        Row(tuple(map(_cell, row)), strong="bold" in str(style.style or ""))
        for row, style in zip(zip(*cells, strict=True), view.rows, strict=True)
    )
    return Table(caption, columns, rows, note, brief) if rows else None


def sentence(markup: str) -> Line:
    """Return a sentence of the terminal: what it begins with in colour is its tone, and comes first where it is a name
    before a colon."""
    text = Text.from_markup(markup)
    tone = _tone(text)
    plain = text.plain.strip()
    name, colon, rest = plain.partition(":")
    if tone and colon and text.spans and text.spans[0].start == 0 and text.spans[0].end in {len(name), len(name) + 1}:
        return Line(rest.strip(), tone, name)
    return Line(plain, tone)


def following(line: str) -> Block:
    """Return what a view says comes next: a command, with what it is for behind four spaces, or a sentence."""
    said = line.strip()[len(NEXT) :].strip()
    if not said.startswith("edgeeff "):
        return Lines((Line(said, lead="next"),))
    command, _, purpose = said.partition("    ")
    return Commands(((command, purpose.strip()),))


def _from_table(view: TerminalTable) -> Iterator[Block]:
    if any(_plain(column.header) for column in view.columns):
        found = from_table(view, "")
        if found is not None:
            yield found
        return
    names, texts = (list(column.cells) for column in view.columns)
    rows = tuple((_plain(name), _plain(text)) for name, text in zip(names, texts, strict=True))
    if rows:
        yield Facts(rows)


def _from_text(markup: str) -> Iterator[Block]:
    for one in _paragraphs(markup):
        if one.lower().startswith(NEXT):
            yield following(one)
        elif one:
            yield Lines((sentence(one),))


def _paragraphs(markup: str) -> Iterable[str]:
    # A tag may be open over several lines, and only single lines are told apart here.
    return [markup.strip()] if "[" in markup else [line.strip() for line in markup.splitlines()]


def _cell(content: Any) -> Cell:
    text = Text.from_markup(str(content))
    return Cell(text.plain.strip(), _tone(text))


def _plain(content: Any) -> str:
    return Text.from_markup(str(content)).plain.strip()


def _tone(text: Text) -> Tone:
    styles = " ".join([str(text.style), *(str(span.style) for span in text.spans)])
    return next((tone for colour, tone in TONES if colour in styles), "")
