"""The whole audit: one pass over the images, by their pixels and, where there is a network, by what they make of it.

What is looked at is computed in `calibration.survey`, `calibration.extremes` and `calibration.audit`; here the pass is
made, and it is said what the figures mean. Without a network nothing but Pillow is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import audit as fingerprints
from edgeeff.calibration import images
from edgeeff.calibration.audit import Fingerprint
from edgeeff.calibration.extremes import FIRST, Extremes, short
from edgeeff.calibration.images import ImageFile
from edgeeff.calibration.survey import Survey, empty_classes, listed
from edgeeff.errors import CalibrationError, InputError
from edgeeff.evaluation.dataset import Dataset, open_dataset
from edgeeff.evaluation.labels import map_classes
from edgeeff.progress import Progress, Silent
from edgeeff.results import (
    AuditRecord,
    Finding,
    Leak,
    RangeAudit,
    SetSummary,
    this_device,
    versions,
)

if TYPE_CHECKING:
    from edgeeff.auditing.network import Network

SIDE = 224
"""Of the square that images are looked at in when no network says otherwise."""
SAMPLES = 512
"""Images that go through the network unless more are asked for: the ranges of more are hardly wider."""
FEW_LEAKS = 0.01
"""Share of the evaluation images that may be in the calibration set before its figures are not to be believed."""
ALONE = 0.1
"""Share of the tensors whose range a single image sets that makes it an outlier."""
STABLE, STABLE_LOWEST = 0.8, 0.5
"""How alike the ranges of both halves are in a set that is large enough, of half of the tensors and of nine in ten."""
FEW_CLASSES = 0.5
"""Share of the network's classes without images that is worth a word."""


@dataclass(frozen=True)
class Plan:
    """What is to be looked at."""

    folder: Path
    against: Path | None = None
    """What the model will be judged with: whatever `edgeeff evaluate` takes."""
    samples: int = SAMPLES
    """Distinct images that go through the network, the first ones that `edgeeff convert` would draw."""
    seed: int = 0


def check(plan: Plan) -> None:
    """Refuse folders that cannot be used, before a network is built for them; raises CalibrationError."""
    images.find(plan.folder, minimum_classes=1)
    if plan.against is not None:
        open_dataset(plan.against)


def audit(plan: Plan, network: Network | None = None, progress: Progress | None = None) -> AuditRecord:
    """Look at every image of a folder once, and say whether the set is fit to calibrate `network` with.

    Memory does not grow with the number of images but for a few hundred bytes of each. Raises CalibrationError for a
    folder or an evaluation set that cannot be used at all, ModelError when LiteRT cannot run the network,
    MissingExtraError without Pillow. What is wrong with single images is in the record.
    """
    progress, begin = progress or Silent(), time.perf_counter()
    files = images.find(plan.folder, minimum_classes=1)
    order = images.sample(files, len(files), plan.seed).files
    dataset = None if plan.against is None else open_dataset(plan.against)
    height, width = (SIDE, SIDE) if network is None else network.model.resolution
    survey = Survey(height, width)
    runner = None if network is None else _Runner(network)
    progress.stage(f"look at {len(files):,} images", len(files), "images")
    for file in order:
        _look(file, survey, runner, plan.samples, (height, width))
        progress.tick()
    progress.stage("compare the images")
    summary = survey.summary(_empty(plan.folder, files))
    if not summary.images:
        raise CalibrationError(f"no image in {plan.folder} can be used: {'; '.join(_reasons(summary))}")
    looked = time.perf_counter()
    leaks, judged = _leaks(plan, dataset, survey.prints, (height, width), progress)
    compared = time.perf_counter()
    ranges = None if runner is None else runner.ranges()
    found = [
        *summary.findings,
        *_leak_findings(plan, leaks, judged),
        *(() if network is None else _class_findings(plan.folder, network)),
        *(() if ranges is None else _range_findings(ranges)),
    ]
    found.sort(key=lambda finding: not finding.serious)
    return AuditRecord(
        runtime=None if network is None else network.runtime,
        device=this_device(),
        packages=versions("numpy", "pillow", *(() if network is None else ("ai-edge-litert",))),
        folder=str(plan.folder),
        seed=plan.seed,
        against=None if plan.against is None else str(plan.against),
        against_images=judged,
        model=None if network is None else network.file,
        resolution=(height, width),
        # Said once, for the whole audit.
        pixels=replace(summary, findings=()),
        ranges=ranges,
        leaks=leaks,
        findings=tuple(found),
        verdict="unfit" if any(one.serious for one in found) else "usable" if found else "fit",
        images=tuple((key, one.sha256) for key, one in survey.prints.items()),
        seconds={"images": round(looked - begin, 3), "evaluation set": round(compared - looked, 3)},
    )


def _look(file: ImageFile, survey: Survey, runner: _Runner | None, samples: int, size: tuple[int, int]) -> None:
    try:
        data = images.read(file.path)
        pixels, traits = images.examine(data, file.key, *size)
    except CalibrationError as error:
        survey.refuse(file, str(error))
        return
    except OSError as error:
        survey.refuse(file, f"cannot read it: {error.strerror}")
        return
    new = survey.add(file, data, pixels, traits)
    if runner is not None and new and runner.extremes.count < samples:
        runner.add(file.key, pixels)


def _empty(folder: Path, files: Sequence[ImageFile]) -> tuple[str, ...]:
    try:
        return empty_classes(folder, files)
    except OSError as error:
        raise CalibrationError(f"cannot list {folder} ({error.strerror}): check its permissions") from error


def _reasons(summary: SetSummary) -> Iterator[str]:
    return (reason for _, reason in summary.refused[:3])


# --- Against the evaluation set ---------------------------------------------------------------------------------------


def _leaks(
    plan: Plan, dataset: Dataset | None, known: dict[str, Fingerprint], size: tuple[int, int], progress: Progress
) -> tuple[tuple[Leak, ...], int]:
    """Return the images of the evaluation set that are in the calibration set, and how many could be read."""
    if dataset is None:
        return (), 0
    if plan.against is not None and plan.against.resolve() == plan.folder.resolve():
        return tuple(Leak("exact", "calibration", name, name) for name in known), len(known)
    progress.stage(f"compare with {len(dataset.examples):,} evaluation images", len(dataset.examples), "images")
    new: dict[str, Fingerprint] = {}
    for example in dataset.examples:
        try:
            data = example.read()
            new[example.key] = fingerprints.fingerprint(data, images.decode(data, example.key, *size))
        except CalibrationError:  # which of them cannot be read is for `edgeeff evaluate` to say
            pass
        progress.tick()
    return fingerprints.duplicates(known, new, "calibration"), len(new)


def _leak_findings(plan: Plan, leaks: Sequence[Leak], judged: int) -> Iterator[Finding]:
    if plan.against is None:
        return
    if plan.against.resolve() == plan.folder.resolve():
        yield Finding(
            "same-folder",
            True,
            f"the evaluation folder is the calibration folder, {plan.folder}: what is measured there says nothing of "
            "other images",
            "judge with images that were not calibrated with",
            {"images": float(judged)},
        )
        return
    if not judged:
        yield Finding(
            "no-evaluation-images",
            True,
            f"no image of {plan.against} can be read, so none could be compared",
            "look what edgeeff evaluate says of them",
            {"images": 0.0},
        )
    if leaks:
        exact = sum(leak.kind == "exact" for leak in leaks)
        named = [f"{leak.image} (here {leak.other})" for leak in leaks]
        yield Finding(
            "leaked-images",
            len(leaks) > FEW_LEAKS * judged,
            f"{len(leaks):,} of {judged:,} evaluation images are in the calibration set, {exact:,} as the same file, "
            f"{len(leaks) - exact:,} nearly: {listed(named)}",
            "take them out of one of the two: on them the quantized model looks better than it is",
            {"leaks": float(len(leaks)), "exact": float(exact)},
        )


# --- With a network ---------------------------------------------------------------------------------------------------


class _Runner:
    """Runs the float network on images and keeps the extremes of its tensors."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._session = network.session()
        self.extremes = Extremes(list(network.watched), [network.blocks[name] for name in network.watched])

    def add(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._session.run(pixels)
        values = [self._session.tensor(index) for index in self._network.watched.values()]
        low, high = np.array([one.min() for one in values]), np.array([one.max() for one in values])
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise CalibrationError(
                f"the network computes values that are not finite for {name}: its weights are broken or its input is "
                "not what it was trained on (--input-range)"
            )
        self.extremes.add(name, low, high)

    def ranges(self) -> RangeAudit | None:
        """What the images did to the ranges; None for too few to say."""
        if self.extremes.count < FIRST:
            return None
        stability = self.extremes.stability()
        return RangeAudit(
            model=self._network.name,
            sha256=self._network.sha256,
            images=self.extremes.count,
            tensors=len(self.extremes.names),
            stability=stability.median,
            stability_lowest=stability.lowest,
            least_stable=stability.worst,
            lone=self.extremes.lone(),
            growth=self.extremes.growth(),
            enough=self.extremes.enough(),
        )


def _range_findings(ranges: RangeAudit) -> Iterator[Finding]:
    alone = [one for one in ranges.lone if one.tensors > ALONE * ranges.tensors]
    if alone:
        named = [
            f"{one.image} ({one.tensors:,}, most of all '{short(one.worst)}', {one.worst_ratio:.0%} without it)"
            for one in alone
        ]
        yield Finding(
            "lone-images",
            False,
            f"single images make the ranges of many of {ranges.tensors:,} tensors a tenth wider or more: "
            f"{listed(named)}",
            "look at them: if they are not what the camera sees (test charts, noise, wrong colours), take them away; "
            "if they are, leave the choice of ranges to --calibrator auto, which may clip what is rare",
            {"images": float(len(alone)), "tensors": float(alone[0].tensors)},
        )
    if ranges.stability < STABLE or ranges.stability_lowest < STABLE_LOWEST:
        worst = [f"{one.block or 'tensor'} '{short(one.tensor)}' {one.ratio:.0%}" for one in ranges.least_stable]
        yield Finding(
            "unstable-ranges",
            ranges.stability < STABLE_LOWEST,
            f"both halves of the set give other ranges: the narrower is {ranges.stability:.0%} of the wider for the "
            f"median tensor, below {ranges.stability_lowest:.0%} for one in ten, least for {listed(worst)}",
            "take more images, or images that are more alike what the camera sees",
            {"stability": ranges.stability, "stability_lowest": ranges.stability_lowest},
        )
    if ranges.enough is None and len(ranges.growth) > 1:
        half = ranges.growth[-2]
        yield Finding(
            "more-images-matter",
            False,
            f"after {half.images:,} images the ranges of half of the tensors were at most {half.median:.0%} as wide as "
            f"those of all {ranges.images:,}, of one in ten {half.lowest:.0%}: they still grow",
            f"take {4 * half.images:,} images or more",
            {"images": float(ranges.images), "median": half.median, "lowest": half.lowest},
        )


def _class_findings(folder: Path, network: Network) -> Iterator[Finding]:
    """Hold the class folders against the network's classes."""
    dataset = open_dataset(folder)
    if dataset.kind == "unlabelled":
        return
    classes = network.model.classes
    if len(dataset.names) > classes:
        yield Finding(
            "unknown-classes",
            True,
            f"there are {len(dataset.names):,} class folders, the network has {classes:,} classes",
            "give the images that this network was trained for",
            {"folders": float(len(dataset.names)), "classes": float(classes)},
        )
        return
    try:
        mapped = map_classes(dataset, classes, network.labels)
    except InputError as error:
        # Calibration does not need the names: they only show whether these are the network's images.
        if network.labels is not None:
            yield Finding(
                "unknown-classes",
                False,
                str(error),
                "look whether these are images that this network was trained for",
                {"folders": float(len(dataset.names)), "classes": float(classes)},
            )
        return
    used = {example.label for example in dataset.examples}
    seen = {index for label, index in enumerate(mapped.indices) if index >= 0 and label in used}
    missing = [mapped.names[index] if mapped.names else str(index) for index in range(classes) if index not in seen]
    if len(missing) > FEW_CLASSES * classes:
        yield Finding(
            "missing-classes",
            False,
            f"{len(missing):,} of the network's {classes:,} classes have no image: {listed(missing)}",
            "add images of them, if the camera will see them",
            {"missing": float(len(missing)), "classes": float(classes)},
        )
