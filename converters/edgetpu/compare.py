"""Holds the compiler's table of operators against what was foreseen.

The table tells types, counts and statuses, not which operator is meant: of each type as many are taken to agree as can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from edgeeff.results import Disagreement, Forecast, ForecastCheck, OperatorStatus, OperatorVerdict

STRANDED = "More than one subgraph is not supported"
"""What the compiler says of an operator that it left because one before it was left."""


def compare(foreseen: Forecast, statuses: Iterable[OperatorStatus]) -> ForecastCheck | None:
    """Return where both agree and where they do not; None when the compiler gave no table."""
    said: dict[str, list[OperatorStatus]] = {}
    for status in statuses:
        said.setdefault(status.name, []).append(status)
    if not said:
        return None
    known: dict[str, Counter[OperatorVerdict]] = {}
    for line in foreseen.operators:
        known.setdefault(line.name, Counter())[line.verdict] += line.count
    agreed = settled = stranded = 0
    disagreements: list[Disagreement] = []
    uncounted: list[str] = []
    for name in dict.fromkeys([*known, *said]):
        verdicts, lines = known.get(name, Counter()), said.get(name, [])
        if verdicts.total() != sum(line.count for line in lines):
            uncounted.append(name)
            continue
        mapped = sum(line.count for line in lines if line.mapped)
        left = sum(line.count for line in lines if not line.mapped and line.status != STRANDED)
        stranded += sum(line.count for line in lines if line.status == STRANDED)
        agreed += min(mapped, verdicts["mapped"]) + min(left, verdicts["not mapped"])
        # More than was foreseen of a kind: the unknown ones account for some, the rest contradicts.
        beyond: dict[OperatorVerdict, int] = {
            "not mapped": max(0, mapped - verdicts["mapped"]),
            "mapped": max(0, left - verdicts["not mapped"]),
        }
        explained = min(sum(beyond.values()), verdicts["unknown"])
        settled += explained
        for foretold, count in beyond.items():
            if count > explained:
                otherwise = tuple(
                    line.status
                    for line in lines
                    if line.mapped == (foretold == "not mapped") and line.status != STRANDED
                )
                disagreements.append(Disagreement(name, count - explained, foretold, otherwise))
    return ForecastCheck(agreed, settled, stranded, tuple(disagreements), tuple(uncounted))
