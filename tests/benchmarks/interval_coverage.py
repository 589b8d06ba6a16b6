"""How often the intervals of an evaluation hold the truth: 95 % is what they promise.

    python -m tests.benchmarks.interval_coverage [--sets 20000] [--bootstrap-sets 200] [--seed 1]

Sets of images are drawn from models whose true figures are known. Beside each interval is what is naively done in its
place, on the same sets: Wald's interval (the normal one with the observed variance), and for means over classes the
percentiles of a bootstrap over all images. A set on which a figure is not defined, a precision of a class that a model
never says, does not count. `wrong` is how often the test of the same figure has a p-value of at most 5 % though the
true difference is 0.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeeff.evaluation import paired
from edgeeff.evaluation.metrics import counts, quantile, rates, wilson

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Z = quantile(0.95)
RESAMPLES = 200


@dataclass
class Tally:
    """How often an interval held the truth, and how wide it was; weights are sets."""

    held: float = 0
    width: float = 0
    sets: float = 0

    def add(self, interval: Interval, truth: float, weight: float = 1) -> None:
        self.held += weight * (interval[0] - 1e-12 <= truth <= interval[1] + 1e-12)
        self.width += weight * (interval[1] - interval[0])
        self.sets += weight


@dataclass
class Row:
    name: str
    ours: Tally = field(default_factory=Tally)
    naive: Tally = field(default_factory=Tally)
    rejected: float | None = None

    def __str__(self) -> str:
        ours, naive = self.ours, self.naive
        text = f"{self.name:70s} {ours.held / ours.sets:6.1%} {ours.width / ours.sets:8.4f}"
        text += f"   {naive.held / naive.sets:6.1%} {naive.width / naive.sets:8.4f}"
        return text if self.rejected is None else f"{text}   {self.rejected / ours.sets:6.1%}"


def main() -> None:
    """Print one line for every kind of set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20_000)
    parser.add_argument("--bootstrap-sets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    print(f"{'':70s} {'held':>6s} {'width':>8s}   {'naive':>6s} {'width':>8s}   {'wrong':>6s}")
    for n, share in ((20, 0.9), (50, 0.98), (500, 0.75), (5000, 0.75)):
        print(single(random, arguments.sets, n, share))
    for n, lost, gained in (
        (50, 0.01, 0.01), (50, 0.1, 0.05), (200, 0.02, 0.01), (500, 0.005, 0.005), (500, 0.06, 0.04),
        (500, 0.15, 0.05), (5000, 0.03, 0.02), (50_000, 0.03, 0.02),
    ):  # fmt: skip
        print(both(random, arguments.sets, "accuracy", n, 0.75, lost, gained))
    for n, lost, gained in ((5, 0.1, 0.1), (10, 0.1, 0.0), (20, 0.05, 0.05), (50, 0.05, 0.0)):
        print(both(random, arguments.sets, "recall of a class", n, 0.8, lost, gained))
    for n, drop in ((5, 0.0), (10, 0.0), (10, 0.1), (20, 0.0), (50, 0.0), (50, 0.1), (500, 0.05)):
        print(precision(random, arguments.sets // 4, n, drop))
    for sizes, accuracy, changed in (
        (np.full(5, 20), 0.8, 0.1), (np.full(5, 20), 0.95, 0.03), (np.array([100, 50, 20, 10, 5]), 0.8, 0.1),
        (np.full(10, 50), 0.8, 0.1), (np.full(20, 30), 0.97, 0.02), (np.full(100, 5), 0.8, 0.1),
        (np.full(100, 1), 0.8, 0.1),
    ):  # fmt: skip
        for row in means(random, arguments.bootstrap_sets, sizes, accuracy, changed):
            print(row, flush=True)


def wald(value: float, variance: float) -> Interval:
    """Return the interval of a figure that is taken for normal."""
    half = Z * math.sqrt(max(0.0, variance))
    return value - half, value + half


def single(random: np.random.Generator, sets: int, n: int, share: float) -> Row:
    """One proportion, by Wilson."""
    row = Row(f"accuracy of one model {share:.0%}, {n} images")
    for right, weight in zip(*np.unique(random.binomial(n, share, sets), return_counts=True), strict=True):
        p = right / n
        row.ours.add(wilson(int(right), n), share, weight)
        row.naive.add(wald(p, p * (1 - p) / n), share, weight)
    return row


def both(random: np.random.Generator, sets: int, what: str, n: int, share: float, lost: float, gained: float) -> Row:
    """A difference of two proportions of the same images, by Newcombe."""
    row = Row(f"{what}, {n} images, {lost:.1%} lost, {gained:.1%} gained", rejected=0.0 if lost == gained else None)
    drawn = random.multinomial(n, (share - lost, gained, lost, 1 - share - gained), sets)
    for table, weight in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        a, b, c, d = table.tolist()
        value = (b - c) / n
        row.ours.add(paired.newcombe(a, b, c, d), gained - lost, weight)
        row.naive.add(wald(value, ((b + c) / n - value**2) / n), gained - lost, weight)
        if row.rejected is not None:
            row.rejected += weight * (paired.mcnemar(b, c) <= 0.05)
    return row


def precision(random: np.random.Generator, sets: int, n: int, drop: float) -> Row:
    """A difference in precision of a class of which n images are drawn on average, beside nine times as many others."""
    row = Row(f"precision of a class, {n} images, {drop:.0%} less", rejected=0.0 if not drop else None)
    # Of the class and of others: both models say it, the baseline only, the model only, none does.
    hits = np.array([0.80, 0.05, 0.05, 0.10]) * 0.1
    false = np.array([0.012, 0.005, 0.005])
    said, wrong = hits[0] + hits[2], false[0] + false[2]
    before = (hits[0] + hits[1]) / (hits[0] + hits[1] + false[0] + false[1])
    more = said / (before - drop) - said - wrong  # more false ones of the model lower its precision
    cells = np.concatenate([hits, false + np.array([0, 0, more])])
    truth = said / (said + wrong + more) - before
    drawn = random.multinomial(10 * n, np.append(cells, 1 - cells.sum()), sets)
    for table, weight in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        r_both, r_first, r_second, _, w_both, w_first, w_second, _ = table.tolist()
        (r1, n1), (r2, n2) = (
            (r_both + right, r_both + right + w_both + wrong_)
            for right, wrong_ in ((r_second, w_second), (r_first, w_first))
        )
        if not n1 or not n2:
            continue
        found = paired.precision_difference((r1, n1), (r2, n2), r_both, w_both)
        p, q = r1 / n1, r2 / n2
        shared = (r_both * (1 - p) * (1 - q) + w_both * p * q) / (n1 * n2)
        row.ours.add(found.interval, truth, weight)
        row.naive.add(wald(p - q, p * (1 - p) / n1 + q * (1 - q) / n2 - 2 * shared), truth, weight)
        if row.rejected is not None:
            row.rejected += weight * (found.p_value is not None and found.p_value <= 0.05)
    return row


def means(
    random: np.random.Generator, sets: int, sizes: npt.NDArray[np.int64], accuracy: float, changed: float
) -> Iterator[Row]:
    """Means over classes; of the images, the share `changed` is judged anew by a model that is ten points worse."""
    size, n = len(sizes), int(sizes.sum())
    shape = f"{n} images of {size} classes" + (
        "" if sizes.min() == sizes.max() else f" ({sizes.min()} to {sizes.max()})"
    )
    rows = [
        Row(f"{name}, {shape}, {changed:.0%} judged anew")
        for name in ("balanced accuracy", "macro precision", "macro F1")
    ]
    first, other = (confusions(random, size, share) for share in (accuracy, accuracy - 0.1))
    second = (1 - changed) * first + changed * other
    truth = figures(sizes, sizes[:, None] * second) - figures(sizes, sizes[:, None] * first)
    labels = np.repeat(np.arange(size), sizes)

    def judged(shares: Floats) -> npt.NDArray[np.int64]:
        below = random.random(n)[:, None] > shares.cumsum(axis=1)[labels]
        return np.asarray(np.minimum(below.sum(axis=1), size - 1), np.int64)

    for seed in range(sets):
        before = judged(first)
        after = np.where(random.random(n) < changed, judged(other), before)
        found = paired.macro_differences(labels, before, after, size, seed=seed)
        naive = percentiles(random, labels, before, after, size)
        for at, row in enumerate(rows):
            row.ours.add(found[at].interval, truth[at])
            row.naive.add(naive[at], truth[at])
    yield from rows


def confusions(random: np.random.Generator, size: int, accuracy: float) -> Floats:
    """Return what a model makes of every class, as shares: its errors go to some classes more than to others."""
    errors = random.random((size, size)) ** 3
    np.fill_diagonal(errors, 0)
    errors *= (1 - accuracy) / errors.sum(axis=1, keepdims=True)
    return errors + accuracy * np.eye(size)


def figures(support: Floats | npt.NDArray[np.int64], matrix: Floats) -> Floats:
    """Return balanced accuracy, macro precision and macro F1 of a confusion matrix."""
    precision, recall, f1 = rates(support, matrix.sum(axis=0), np.diag(matrix))
    return np.array([recall.mean(), precision.mean(), f1.mean()])


def percentiles(
    random: np.random.Generator, labels: npt.NDArray[np.int64], before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64], size: int,
) -> list[Interval]:  # fmt: skip
    """Return the intervals of a plain bootstrap over images."""
    values = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(labels), len(labels))
        kept = labels[drawn]
        one, two = (counts(kept, said[drawn], size) for said in (before, after))
        present = one[0] > 0
        pair = [np.array([rate[present].mean() for rate in rates(*each)]) for each in (one, two)]
        values.append((pair[1] - pair[0])[[1, 0, 2]])
    low, high = np.percentile(values, (2.5, 97.5), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


if __name__ == "__main__":
    main()
