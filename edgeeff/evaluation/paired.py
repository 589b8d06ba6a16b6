"""Two models on the same images: how much they differ, and how sure that is.

Every difference is the model's figure minus the baseline's. A proportion has a score interval and an exact test where
there is one; a mean over classes has a bootstrap interval. What one model is like by itself is `metrics`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgeeff.evaluation.metrics import Counts, Indices, counts, quantile, rates, score_interval, wilson
from edgeeff.evaluation.outcomes import TOP, Divergences, Floats, Outcomes
from edgeeff.results import ClassMetrics, ClassResult, Difference, Divergence, Flip, Paired

RESAMPLES = 1000
LARGEST = 10**9
"""Images beyond which nobody goes on."""
_BLOCK = 50_000
"""Images that are resampled at once: more do not fit into a CPU's cache, and take longer."""
_FARTHEST = 40.0
"""Standard deviations at which a p-value is 0 in double precision."""


# --- Two models -------------------------------------------------------------------------------------------------------


def paired(
    labels: Indices, baseline: Outcomes, model: Outcomes, divergences: Divergences, classes: int, *, seed: int = 0
) -> Paired:
    """Compare two models on the same images; there must be one at least, and labels are -1 for none.

    Two images without a best class do not agree, and are no flip. The seed is that of the bootstrap.
    """
    images = len(labels)
    agreeing = int(((baseline.top1 == model.top1) & model.finite & baseline.finite).sum())
    labelled = labels >= 0
    unlabelled = Paired(
        images=images,
        agreement=agreeing / images,
        agreement_interval=wilson(agreeing, images),
        divergence=_divergence(divergences),
        confidence=mean_difference(model.confidence - baseline.confidence),
        flips=_flips(baseline.top1, model.top1, classes),
    )
    if not labelled.any():
        return unlabelled
    table = fourfold((model.top1 == labels)[labelled], (baseline.top1 == labels)[labelled])
    both, gained, lost, neither = table
    top5 = fourfold(model.rank[labelled] < TOP, baseline.rank[labelled] < TOP)
    balanced, precision, f1 = macro_differences(
        labels[labelled], baseline.top1[labelled], model.top1[labelled], classes, seed=seed
    )
    judged = sum(table)
    return replace(
        unlabelled,
        both_right=both,
        baseline_only_right=lost,
        model_only_right=gained,
        both_wrong=neither,
        top1=proportion_difference(*table),
        top5=proportion_difference(*top5) if classes > TOP else None,
        balanced_accuracy=balanced,
        macro_precision=precision,
        macro_f1=f1,
        smallest_difference=smallest_difference((gained + lost) / judged, judged),
    )


def by_class(
    labels: Indices, baseline: Outcomes, model: Outcomes, names: Sequence[str], classes: int
) -> tuple[ClassResult, ...]:
    """Compare two models class by class: every class with a labelled image, or of which either model says one is.

    Recalls are compared like accuracies, within the images of the class; precisions by `precision_difference`. Both
    are corrected for the number of classes, each on its own, by `holm`; see `correct_recalls` for which are tested. A
    class without a name has its index for one.
    """
    known = labels >= 0
    labels, before, after = labels[known], baseline.top1[known], model.top1[known]
    had, has = before == labels, after == labels
    support, said_before, right_before = counts(labels, before, classes)
    _, said_after, right_after = counts(labels, after, classes)

    def tally(chosen: npt.NDArray[np.bool_], of: Indices = labels) -> list[int]:
        found: list[int] = np.bincount(of[chosen], minlength=classes).tolist()
        return found

    both, gained, lost = tally(had & has), tally(has & ~had), tally(had & ~has)
    both_wrong = tally((before == after) & ~has & (after >= 0), after)
    f1 = [rates(support, said, right)[2] for said, right in ((said_before, right_before), (said_after, right_after))]
    chosen = np.flatnonzero((support > 0) | (said_before > 0) | (said_after > 0)).tolist()
    recalls = {
        c: proportion_difference(both[c], gained[c], lost[c], int(support[c]) - both[c] - gained[c] - lost[c])
        for c in chosen
        if support[c]
    }
    precisions = {
        c: precision_difference(
            (int(right_after[c]), int(said_after[c])),
            (int(right_before[c]), int(said_before[c])),
            both[c],
            both_wrong[c],
        )
        for c in chosen
        if said_after[c] and said_before[c]
    }
    recalls = correct_recalls(recalls, {c: gained[c] + lost[c] for c in recalls})
    precisions = corrected(precisions)

    def one(c: int, said: Counts, right: Counts, scores: Floats) -> ClassMetrics:
        return ClassMetrics(
            precision=int(right[c]) / int(said[c]) if said[c] else None,
            recall=int(right[c]) / int(support[c]) if support[c] else None,
            f1=float(scores[c]),
            predicted=int(said[c]),
        )

    return tuple(
        ClassResult(
            index=c,
            name=names[c] if c < len(names) else str(c),
            support=int(support[c]),
            baseline=one(c, said_before, right_before, f1[0]),
            model=one(c, said_after, right_after, f1[1]),
            lost=lost[c],
            gained=gained[c],
            recall=recalls.get(c),
            precision=precisions.get(c),
        )
        for c in chosen
    )


def fourfold(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Count the images of which both hold, the first only, the second only, and neither."""
    both, first_only, second_only = (int(held.sum()) for held in (first & second, first & ~second, second & ~first))
    return both, first_only, second_only, len(first) - both - first_only - second_only


def _flips(baseline: Indices, model: Indices, classes: int) -> tuple[Flip, ...]:
    flipped = (baseline != model) & (baseline >= 0) & (model >= 0)
    pairs, images = np.unique(baseline[flipped].astype(np.int64) * classes + model[flipped], return_counts=True)
    order = np.argsort(-images, kind="stable")
    return tuple(
        Flip(pair // classes, pair % classes, count)
        for pair, count in zip(pairs[order].tolist(), images[order].tolist(), strict=True)
    )


def _divergence(divergences: Divergences) -> Divergence:
    kl = divergences.kl[~np.isnan(divergences.kl)]
    variation = divergences.total_variation[~np.isnan(divergences.total_variation)]
    if not len(kl):
        return Divergence(-1.0, -1.0, -1.0, -1.0)
    median, p95 = np.percentile(kl, (50, 95))
    return Divergence(float(kl.mean()), float(median), float(p95), float(variation.mean()))


# --- Differences of proportions ---------------------------------------------------------------------------------------


def proportion_difference(both: int, first_only: int, second_only: int, neither: int) -> Difference:
    """Return the first proportion minus the second, of the same images, with Newcombe's interval and McNemar's test."""
    n = both + first_only + second_only + neither
    interval = newcombe(both, first_only, second_only, neither)
    return Difference((first_only - second_only) / n, interval, mcnemar(first_only, second_only))


def newcombe(
    both: float, first_only: float, second_only: float, neither: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the first proportion minus the second, of the same images.

    Source: Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired
    data (1998), method 10: Wilson's intervals of both, joined with their correlation phi, corrected for continuity.
    """
    n = both + first_only + second_only + neither
    first, second = both + first_only, both + second_only
    scale = math.sqrt(first * (n - first) * second * (n - second))
    product = both * neither - first_only * second_only
    if product > 0:
        product = max(0.0, product - n / 2)
    return square_and_add((first, n), (second, n), product / scale if scale > 0 else 0.0, quantile(confidence))


def independent_difference(first: tuple[int, int], second: tuple[int, int]) -> Difference:
    """Return the first proportion minus the second, of different images; each is given as successes and images.

    Source: Newcombe, Interval estimation for the difference between independent proportions (1998), method 10. The
    p-value is that of the interval; see `p_value`.
    """
    return _joined(first, second, 0.0)


def precision_difference(
    first: tuple[int, int], second: tuple[int, int], both_right: int, both_wrong: int
) -> Difference:
    """Return the first model's precision of a class minus the second's; each as right images and images it said.

    The two precisions have different denominators, but many images in common: `both_right` and `both_wrong` are the
    images that both say are of this class. Their covariance is that of Moskowitz and Pepe, Comparing the predictive
    values of diagnostic tests (2006), in the words of Kosinski, A weighted generalized score statistic for comparison
    of predictive values (2013). The interval is not Wald's, which is too short with few images, but joins Wilson's of
    both with that correlation, as Zou and Donner, Construction of confidence limits about effect measures (2008), do;
    the p-value is that of the interval, see `p_value`.
    """
    (right_1, said_1), (right_2, said_2) = first, second
    p, q = right_1 / said_1, right_2 / said_2
    covariance = (both_right * (1 - p) * (1 - q) + both_wrong * p * q) / (said_1 * said_2)
    scale = math.sqrt(p * (1 - p) / said_1 * q * (1 - q) / said_2)
    return _joined(first, second, covariance / scale if scale > 0 else 0.0)


def square_and_add(
    first: tuple[float, float], second: tuple[float, float], correlation: float, z: float
) -> tuple[float, float]:
    """Return the interval of the first proportion minus the second, made of the score intervals of both.

    Each is given as successes and images. Without a correlation this is the interval of independent proportions.
    """
    p, q = first[0] / first[1], second[0] / second[1]
    (p_low, p_high), (q_low, q_high) = score_interval(*first, z), score_interval(*second, z)

    def joined(left: float, right: float) -> float:
        return math.sqrt(max(0.0, left * left - 2 * correlation * left * right + right * right))

    return max(-1.0, p - q - joined(p - p_low, q_high - q)), min(1.0, p - q + joined(p_high - p, q - q_low))


def p_value(value: float, interval: Callable[[float], tuple[float, float]]) -> float:
    """Return the two-sided p-value that belongs to an interval: that of the confidence at which it ends at 0.

    The interval is a function of its width in standard deviations.
    """
    if value == 0:
        return 1.0
    end = 0 if value > 0 else 1
    near, far = 0.0, _FARTHEST
    while far - near > 1e-9:
        z = (near + far) / 2
        if interval(z)[end] * value > 0:
            near = z
        else:
            far = z
    return math.erfc(near / math.sqrt(2))


def _joined(first: tuple[int, int], second: tuple[int, int], correlation: float) -> Difference:
    def interval(z: float) -> tuple[float, float]:
        return square_and_add(first, second, correlation, z)

    value = first[0] / first[1] - second[0] / second[1]
    return Difference(value, interval(quantile(0.95)), p_value(value, interval))


# --- Tests and sizes --------------------------------------------------------------------------------------------------


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: the discordant images as fair coins.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions or percentages (1947).
    """
    n, few = first_only + second_only, min(first_only, second_only)
    if 2 * few == n:
        return 1.0
    # Term by term from the largest, as logarithms, because 2 ** n is beyond a double from a thousand images on.
    term = math.exp(math.lgamma(n + 1) - math.lgamma(few + 1) - math.lgamma(n - few + 1) - n * math.log(2))
    total = 0.0
    for k in range(few, -1, -1):
        total += term
        term *= k / (n - k + 1)
        if term < total * 1e-17:
            break
    return min(1.0, 2 * total)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = largest
    return adjusted


def correct_recalls(differences: dict[int, Difference], discordant: dict[int, int]) -> dict[int, Difference]:
    """Adjust the p-values of classes' recalls, tested by McNemar's test, for the number of those that can be low.

    With fewer than six discordant images the exact test's p-value is above 5 % whatever they say, so that such a class
    cannot be called different by mistake and need not be paid for: Tarone, A modified Bonferroni method for discrete
    data (1990). Its adjusted p-value is 1.
    """
    tested = {key: found for key, found in differences.items() if discordant[key] >= fewest_discordant()}
    adjusted = corrected(tested)
    return {key: adjusted.get(key, replace(found, p_adjusted=1.0)) for key, found in differences.items()}


def corrected(differences: dict[int, Difference]) -> dict[int, Difference]:
    """Adjust the p-values of classes' differences for their number, by `holm`."""
    adjusted = holm([found.p_value for found in differences.values() if found.p_value is not None])
    return {key: replace(found, p_adjusted=p) for (key, found), p in zip(differences.items(), adjusted, strict=True)}


def fewest_discordant(alpha: float = 0.05) -> int:
    """Return how many discordant images, all for the same model, make McNemar's exact test significant."""
    return math.ceil(1 - math.log2(alpha))


def smallest_difference(discordant_rate: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the difference in accuracy that n images with so many discordant ones show with that power.

    (z(1 - alpha / 2) + z(power)) * sqrt(rate / n), the normal approximation of McNemar's test: Miettinen, The matched
    pairs design in the case of all-or-none responses (1968), to first order. With few discordant images that is too
    good to be true: it is never below what the exact test needs, six images at 5 %.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return min(1.0, max(z * math.sqrt(discordant_rate / n), fewest_discordant(alpha) / n))


def images_needed(
    both: int, first_only: int, second_only: int, neither: int, limit: float, confidence: float = 0.95
) -> int | None:
    """Return how many images with the same shares it takes until the lower end of `newcombe` is -limit.

    None where these images are enough already, and where more would not help: the difference itself is not above
    -limit, or so near that a billion images do not decide.
    """
    n = both + first_only + second_only + neither

    def clear(images: int) -> bool:
        a, b, c, d = (count * images / n for count in (both, first_only, second_only, neither))
        return newcombe(a, b, c, d, confidence)[0] >= -limit

    if (first_only - second_only) / n <= -limit or clear(n):
        return None
    too_few, enough = n, 2 * n
    while not clear(enough):
        if enough > LARGEST:
            return None
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if clear(middle) else (middle, enough)
    return enough


# --- Means ------------------------------------------------------------------------------------------------------------


def mean_difference(differences: Floats) -> Difference:
    """Return the mean of paired differences, each between -1 and 1, with Student's interval and test.

    Student's distribution is approximated from the normal one (0.003 % off with 30 images, 0.5 % with five): Wallace,
    Bounds on normal approximations to Student's and the chi-square distributions (1959). One image tells nothing.
    """
    value, freedom = float(differences.mean()), len(differences) - 1
    if freedom == 0:
        return Difference(value, (-1.0, 1.0))
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    width = math.sqrt(freedom * math.expm1((quantile(0.95) / scale) ** 2 / freedom))
    interval = max(-1.0, value - width * error), min(1.0, value + width * error)
    if error == 0:
        return Difference(value, interval, 1.0 if value == 0 else 0.0)
    z = scale * math.sqrt(freedom * math.log1p((value / error) ** 2 / freedom))
    return Difference(value, interval, math.erfc(z / math.sqrt(2)))


def macro_differences(
    labels: Indices, baseline: Indices, model: Indices, classes: int, *, seed: int = 0
) -> tuple[Difference, Difference, Difference]:
    """Return the differences in balanced accuracy, macro precision and macro F1; every image must have a label.

    The means are over the classes that the set has, at the shares that it has them, so images are resampled within
    their class: a rare class is in every resample. Of n images n - 1 are drawn and count for n, or few images would
    vary too little: Rao and Wu, Resampling inference with complex survey data (1988). The only image of a class
    cannot vary by itself; such classes lend each other what the models made of their image.

    Where the models hardly ever differ, resamples hardly do either, and their percentiles are far too sure: with two
    discordant images in 600 they held the truth in 77 % of simulated sets. So the interval is the normal one,
    of the resamples' variance and of two discordant images more, wherever they may be, which is what Bonett and
    Price, Adjusted Wald confidence interval for a difference of binomial proportions based on paired data (2012), add
    for accuracies. tests/benchmarks/interval_coverage.py shows what comes of it.
    """
    present, labels = np.unique(labels, return_inverse=True)
    size = len(present)
    place = np.full(classes + 1, size)  # of classes that the set does not have, and of no class (-1): beyond the last
    place[present] = np.arange(size)
    before, after = place[baseline], place[model]
    images = np.bincount(labels)
    stratum = np.where(images[labels] > 1, labels, size)
    order = np.lexsort((after, before, labels, stratum))  # the images' own order must not matter
    labels, before, after, stratum = (column[order] for column in (labels, before, after, stratum))
    start, members = (column[stratum] for column in _runs(stratum, size + 1))
    # A slot is a place in the resample: all images of the single ones, all but the first of every class.
    slot = (stratum == size) | (np.arange(len(labels)) != start)
    start, members, slots = start[slot], members[slot], labels[slot]
    weight = np.where(stratum[slot] == size, 1.0, members / np.maximum(members - 1, 1))
    hits = [(said == labels, said) for said in (before, after)]

    def macro(right: Floats | Counts, said: Floats | Counts) -> Floats:
        precision, recall, f1 = rates(images, said[..., :size], right)
        return np.stack([recall.mean(axis=-1), precision.mean(axis=-1), f1.mean(axis=-1)], axis=-1)

    def resampled(drawn: npt.NDArray[np.intp], hit: npt.NDArray[np.bool_], said: Indices) -> Floats:
        right = hit[drawn]
        now = np.where(right, slots, said[drawn])
        return macro(
            _count_rows(np.broadcast_to(slots, drawn.shape), weight * right, size),
            _count_rows(now, np.broadcast_to(weight, drawn.shape), size + 1),
        )

    found = [
        macro(np.bincount(labels[hit], minlength=size), np.bincount(said, minlength=size + 1)) for hit, said in hits
    ]
    generator = np.random.default_rng(seed)
    differences = np.empty((RESAMPLES, 3))
    rows = max(1, _BLOCK // max(1, len(slots)))
    for index in range(0, RESAMPLES, rows):
        uniform = generator.random((min(rows, RESAMPLES - index), len(slots)))
        drawn = start + (uniform * members).astype(np.intp)
        first, second = (resampled(drawn, hit, said) for hit, said in hits)
        differences[index : index + rows] = second - first
    # An image turns a mean over classes by about 1 / (classes * images of its class).
    flips = 2 / len(labels) * float((1 / images).sum()) / size**2
    half = quantile(0.95) * np.sqrt(differences.var(axis=0, ddof=1) + flips)
    balanced, precision, f1 = (
        Difference(value, (max(-1.0, value - wide), min(1.0, value + wide)))
        for value, wide in zip((found[1] - found[0]).tolist(), half.tolist(), strict=True)
    )
    return balanced, precision, f1


def _count_rows(values: Indices, weights: Floats, size: int) -> Floats:
    """Return a weighted bincount of every row."""
    rows = len(values)
    keys = values + size * np.arange(rows)[:, None]
    found = np.bincount(keys.ravel(), weights=weights.ravel(), minlength=rows * size)
    return np.asarray(found, np.float64).reshape(rows, size)


def _runs(values: Indices, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the run of each value begins in a sorted column, and how long it is."""
    lengths = np.bincount(values, minlength=size)
    return np.cumsum(lengths) - lengths, lengths
