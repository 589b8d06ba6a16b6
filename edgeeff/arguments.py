"""What functions of the Python API are given, as the code behind them takes it: text, numbers and lists of any kind.

What cannot be is refused with the words of the command line. Progress is shown here, too, where it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgeeff.errors import InputError, RecordError, UnknownNameError
from edgeeff.quantities import percent, ratio_or_seconds, value_range

if TYPE_CHECKING:
    from edgeeff.converters.qat import Finetune
    from edgeeff.devices.profile import Watch
    from edgeeff.overlays import Plan as OverlayPlan
    from edgeeff.picking.measure import Bench
    from edgeeff.progress import Progress
    from edgeeff.results import Goal, ProfileRecord, Record

    RecordKind = TypeVar("RecordKind", bound=Record)

File = str | os.PathLike[str]


def path(given: File | None) -> Path | None:
    """Return a path where there is one."""
    return None if given is None else Path(given)


def paths(given: Sequence[File]) -> tuple[Path, ...]:
    """Return paths; raises InputError without any."""
    if not given:
        raise InputError("no file is given: name a .tflite file")
    return tuple(Path(one) for one in given)


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several as several."""
    return (given,) if isinstance(given, str) else tuple(given)


def at_least(option: str, value: int | None, least: int) -> None:
    """Raise InputError for a number that is too small; None is none."""
    if value is not None and value < least:
        raise InputError(f"{option} {value}: take {least} or more")


def one_of(what: str, value: str | None, known: Sequence[str]) -> None:
    """Raise UnknownNameError for a word that is not known; None is none."""
    if value is not None and value not in known:
        raise UnknownNameError(what, value, known)


def goal(min_agreement: str | float | None, max_drop: float | None, max_latency: str | float | None) -> Goal | None:
    """Read what mixed precision has to reach; None where nothing was asked."""
    from edgeeff.results import Goal

    if (min_agreement, max_drop, max_latency) == (None, None, None):
        return None
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise InputError(f"--max-drop {max_drop:g} is out of range: give points from 0 to 100, e.g. 1.0")
    share = None if min_agreement is None else percent("--min-agreement", min_agreement, "98") / 100
    ratio, limit_s = (None, None) if max_latency is None else ratio_or_seconds("--max-latency", max_latency)
    return Goal(min_agreement=share, max_drop=max_drop, max_latency=ratio, max_latency_s=limit_s)


def finetune(
    folder: Path | None, steps: int | None, prune: float | None, cluster: int | None, *, learn_labels: bool
) -> Finetune | None:
    """Read what to fine-tune with; None where nobody asked for it."""
    if folder is None:
        if steps is not None or prune or cluster or learn_labels:
            raise InputError("--steps, --learn-labels, --prune and --cluster are for training: give --finetune DIR")
        return None
    from edgeeff.converters import qat
    from edgeeff.evaluation import dataset, labels

    at_least("--steps", steps, 1)

    def told(classes: int, names: Sequence[str] | None) -> dict[str, int]:
        data = dataset.open_dataset(folder)
        return dict(zip(data.names, labels.map_classes(data, classes, names).indices, strict=True))

    return qat.Finetune(
        folder, steps or qat.DEFAULT_STEPS, told if learn_labels else None, sparsity=prune or 0.0, clusters=cluster or 0
    )


def class_limits(limits: str | float | Mapping[str, float] | Sequence[str]) -> tuple[str, ...]:
    """Return limits of classes as options say them: NAME=0.9, or 0.9 for every class."""
    if isinstance(limits, Mapping):
        return tuple(f"{name}={limit}" for name, limit in limits.items())
    return (str(limits),) if isinstance(limits, (str, int, float)) else tuple(limits)


def record(path: Path, kind: type[RecordKind]) -> RecordKind:
    """Read a record of a kind; raises RecordError for another one, and for what is none."""
    from edgeeff.converters.inspect import Inspection
    from edgeeff.converters.preflight import Preflight
    from edgeeff.results import read_record

    found = read_record(path, more=(Inspection, Preflight))
    if not isinstance(found, kind):
        raise RecordError(f"{path} is a record of {found.schema}; give one of {kind.schema}")
    return found


def overlay_plan(
    file: Path,
    output: Path | None,
    profile: Path | ProfileRecord | None,
    baseline: Path | None,
    data: Path | None,
    input_range: str | tuple[float, float] | None,
) -> OverlayPlan | None:
    """Read what overlays for Model Explorer are asked for; None where none are."""
    if output is None:
        asked = {"--profile": profile, "--baseline": baseline, "--data": data, "--input-range": input_range}
        given = [name for name, value in asked.items() if value is not None]
        if given:
            raise InputError(f"{', '.join(given)}: give --model-explorer OUT.json, too; overlays are written there")
        return None
    from edgeeff import overlays
    from edgeeff.results import ProfileRecord

    measured = record(profile, ProfileRecord) if isinstance(profile, Path) else profile
    plan = overlays.Plan(file, output, measured, baseline, data, value_range(input_range))
    overlays.check(plan)
    return plan


def write_overlays(plan: OverlayPlan, *, progress: bool) -> dict[Path, str]:
    """Write overlays; return what each file shows."""
    from edgeeff import overlays

    with bars(progress) as shown:
        return overlays.write(*overlays.of_file(plan, shown), plan.output)


# --- Progress ---------------------------------------------------------------------------------------------------------


@contextmanager
def bars(shown: bool) -> Iterator[Progress | None]:
    """Show bars on standard error while this lasts, where it is a terminal; None where they are not wanted."""
    if not shown:
        yield None
        return
    from edgeeff.progress import Bars

    with Bars() as shown_bars:
        yield shown_bars


@contextmanager
def watching(shown: bool) -> Iterator[Watch]:
    """Show measurements on standard error while this lasts."""
    from edgeeff.devices import profile as profiling

    if not shown:
        yield profiling.unwatched
        return
    from edgeeff.devices.profile_view import Live

    with Live() as live:
        yield live.watch


def showing(bench: Bench) -> None:
    """Let the bench of a pick show on standard error what it does."""
    bench.watching = lambda: watching(shown=True)
    bench.converting = lambda _name: bars(shown=True)
