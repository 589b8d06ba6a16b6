"""What is said of a report that was written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportedResult:
    """One result of a report."""

    title: str
    """What it is about."""
    verdict: str
    """In a word, or a few."""
    labels: tuple[str, ...]
    """Where figures are no measurements of now: "emulated", "recorded", "predicted"."""
    summary: str
    """One sentence with the figures that count."""


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written, and what it says first."""

    report: str
    """Path of the page."""
    format: str
    """"html" or "md"."""
    size_bytes: int
    """Size of the page, in bytes."""
    headline: str
    """What all results say together."""
    results: tuple[ReportedResult, ...]
    """Every result, in the order of the page."""
