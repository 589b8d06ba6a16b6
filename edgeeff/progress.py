"""How far a long command is: shown on standard error, and gone when that is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol


class Progress(Protocol):
    """Where long work says what it is doing."""

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a stage of `total` steps, 0 where that is unknown; the stage before is done.

        With a unit the steps are so small that how many come in a second says something.
        """

    def tick(self) -> None:
        """One step of the stage is done."""


class Silent:
    """Progress that nobody watches, but that keeps the time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = 0.0

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a stage."""
        self.finish()
        self._stage, self._since = text, time.perf_counter()

    def tick(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """End the last stage."""
        if self._stage is not None:
            spent = time.perf_counter() - self._since
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent
            self._stage = None


class Bars:
    """Progress as one line at a time on standard error; use it as a context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            # The stream itself: what others print is turned away from sys.stderr for a while, the bars are not.
            console=Console(file=sys.stderr),
            transient=True,
            # Rich would call a pipe a terminal where FORCE_COLOR is set, as CI services do. A closed one is None.
            disable=sys.stderr is None or not sys.stderr.isatty(),
        )
        self._task = self._bars.add_task("", total=None, visible=False, count="")
        self._done, self._total, self._since, self._unit = 0, 0, 0.0, ""

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Show a new stage."""
        self._bars.remove_task(self._task)
        self._done, self._total, self._since, self._unit = 0, total, time.perf_counter(), unit
        self._task = self._bars.add_task(text, total=total or None, count=self._count)

    def tick(self) -> None:
        """Move the bar by one."""
        self._done += 1
        self._bars.update(self._task, advance=1, count=self._count)

    @property
    def _count(self) -> str:
        """How far a stage of known length is and how long the rest may take; nothing for the others."""
        if not self._total:
            return ""
        count = f"{self._done}/{self._total}"
        spent = time.perf_counter() - self._since
        if not self._done or spent <= 0:
            return count
        rate = f", {self._done / spent:.0f} {self._unit}/s" if self._unit else ""
        return f"{count}{rate}, {spent / self._done * (self._total - self._done):.0f} s left,"
