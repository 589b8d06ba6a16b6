"""What a report is made of: verdicts first, then chapters of sections, and these of blocks.

Nothing here knows records or formats: sections are made elsewhere, and so is what a browser or a pull request shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar, Literal, TypeAlias

Tone = Literal["", "good", "warn", "bad"]
"""What a verdict or a sentence says of the thing; always said in words, too."""
Width = Literal["wide", "narrow"]


@dataclass(frozen=True)
class Mark:
    """A verdict of one word, or a few."""

    word: str
    tone: Tone = ""


@dataclass(frozen=True)
class Line:
    """A sentence; `lead` comes before it, such as the cause of a finding."""

    text: str
    tone: Tone = ""
    lead: str = ""


@dataclass(frozen=True)
class Lines:
    """Sentences that belong together."""

    kind: ClassVar[str] = "lines"

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Facts:
    """Names, and what is said of each."""

    kind: ClassVar[str] = "facts"

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Commands:
    """What to type next, and what each command is for."""

    kind: ClassVar[str] = "commands"

    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Column:
    """A column's heading; figures stand to the right."""

    name: str
    figures: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell; `share` draws a bar beside the text, 0 to 1."""

    text: str
    tone: Tone = ""
    share: float | None = None


@dataclass(frozen=True)
class Row:
    """A row; the chosen one of several is strong."""

    cells: tuple[Cell, ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Figures with their names; `brief` says that a pull request wants to see it."""

    kind: ClassVar[str] = "table"

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    brief: bool = False

    @property
    def broad(self) -> bool:
        """Whether it is too broad for a phone: columns of words may become narrow, but not all of them."""
        widest = (
            max(len(word) for word in (*column.name.split(), "", *(row.cells[index].text for row in self.rows)))
            for index, column in enumerate(self.columns)
        )
        return len(self.columns) > 2 and sum(map(min, widest, repeat(20))) + 2 * len(self.columns) > 44


@dataclass(frozen=True)
class Plot:
    """A picture of figures; `draw` returns it as SVG for a wide or a narrow page, when that is wanted."""

    kind: ClassVar[str] = "plot"

    caption: str
    said: str
    """The same for who does not see it."""
    draw: Callable[[Width], str]


@dataclass(frozen=True)
class Picture:
    """An image in the page itself, and what is to be known of it."""

    uri: str
    """A data URI."""
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """Images side by side."""

    kind: ClassVar[str] = "pictures"

    caption: str
    pictures: tuple[Picture, ...]


Block: TypeAlias = Lines | Facts | Commands | Table | Plot | Pictures


@dataclass(frozen=True)
class Part:
    """Blocks under a heading of their own; `folded` ones are opened by who wants them."""

    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """What one record says."""

    anchor: str
    title: str
    mark: Mark
    summary: str
    """One sentence with the figures that count, for the top of the page."""
    labels: tuple[str, ...]
    """Where figures are no measurements of now: "emulated", "recorded", "predicted"."""
    conclusion: tuple[Line, ...]
    """What a reader should make of it."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Chapter:
    """All sections of one kind, and what they say together."""

    title: str
    sections: tuple[Section, ...]
    parts: tuple[Part, ...] = ()
    """What comes before the sections."""

    @property
    def anchor(self) -> str:
        """Return its name in the page's address."""
        return slug(self.title)


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    headline: Mark
    against: tuple[tuple[str, Section], ...]
    """The results that say no with their chapters' titles, where there are others, too."""
    warnings: tuple[str, ...]
    """What holds for several sections, such as that some are emulated."""
    models: Table | None
    """A row for each model of which several records speak."""
    chapters: tuple[Chapter, ...]
    provenance: tuple[Part, ...]

    def sections(self) -> Iterator[Section]:
        """Return the sections in the order of the page."""
        for chapter in self.chapters:
            yield from chapter.sections


def slug(text: str) -> str:
    """Return what may stand in a page's address for a heading."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def counted(count: int, noun: str) -> str:
    """Write a number of things, with the noun in the plural where there are more or none."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def part(title: str, *blocks: Block | None, folded: bool = False) -> Iterator[Part]:
    """Return a part of the blocks that there are; nothing where there are none."""
    there = tuple(block for block in blocks if block is not None)
    if there:
        yield Part(title, there, folded)


def lines(texts: Iterable[str | Line]) -> Lines | None:
    """Return sentences as a block; None where there are none."""
    there = tuple(Line(text) if isinstance(text, str) else text for text in texts)
    return Lines(there) if there else None


def table(
    caption: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[str | Cell] | Row],
    *,
    words: Iterable[int] = (0,),
    note: str = "",
    brief: bool = False,
) -> Table | None:
    """Return a table, None without rows; columns whose indices are in `words` hold words, the others figures."""
    whole = tuple(
        row if isinstance(row, Row) else Row(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row))
        for row in rows
    )
    if not whole:
        return None
    left = set(words)
    named = tuple(Column(name, index not in left) for index, name in enumerate(columns))
    return Table(caption, named, whole, note, brief)
