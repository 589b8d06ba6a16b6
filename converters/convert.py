"""The whole way from a variant, a phi or a model file to a verified .tflite file and its record.

This module only orders the steps; each step is a module beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from edgeeff import results, scaling, weights
from edgeeff.calibration import images, synthetic
from edgeeff.calibration.ranges import RULES, Rule
from edgeeff.calibration.survey import Survey
from edgeeff.converters import (
    distill,
    float_model,
    inspect,
    metadata,
    mixed,
    preflight,
    qat,
    quantize,
    recover,
    runtime,
    schemes,
    timing,
    verify,
)
from edgeeff.converters.edgetpu import exact
from edgeeff.converters.float_model import FloatModel, Head
from edgeeff.converters.inspect import Inspection
from edgeeff.converters.metadata import Metadata
from edgeeff.converters.qat import Finetune
from edgeeff.converters.quantize import IoType
from edgeeff.converters.recover import Effort
from edgeeff.converters.schemes import MIXED, Scheme
from edgeeff.converters.trace import Request, Traced
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.errors import CalibrationError, InputError, ModelError, OutputError, UnknownNameError
from edgeeff.files import check_writable, sha256, staged
from edgeeff.progress import Progress, Silent
from edgeeff.results import (
    CalibrationUse,
    Check,
    ConversionRecord,
    Finetuning,
    Forecast,
    Goal,
    Mixed,
    ModelFile,
    Recovery,
)
from edgeeff.version import __version__

DEFAULT_SAMPLES = 128
PROBES = 16
MOST_KEPT_BYTES = 64e6
"""What decoded calibration images may take: they are asked for several times."""
MADE, BETTER = "images made by edgeeff", "photographs from your own camera are better: --calibration DIR"
FEWEST_TAUGHT = 16
"""Images that show classes, without which weights are not tuned; at least half of all images are such then."""
PLAIN_ENOUGH = 0.05
"""Divergence on dead leaves, where no class is clear: Lite0 has 0.023 with plain ranges, B0 1.6, and 0.14 at best."""
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """What is converted: exactly one of a variant's name, a phi, or the path of a model."""

    variant: str | None = None
    phi: float | None = None
    model: Path | None = None
    weights: str | None = None
    """"imagenet", "none" or a file; None means imagenet for variants and none for a phi, which nobody has trained."""
    classes: int | None = None
    resolution: int | None = None
    alpha: float = scaling.ALPHA
    beta: float = scaling.BETA
    gamma: float = scaling.GAMMA

    def __post_init__(self) -> None:
        given = [value for value in (self.variant, self.phi, self.model) if value is not None]
        if len(given) != 1:
            raise InputError("say what to convert with exactly one of --variant NAME, --phi NUMBER or --model PATH")
        if self.model is not None and (self.weights, self.classes) != (None, None):
            raise InputError("--weights and --classes are for --variant and --phi; a model file brings its own")
        if self.classes is not None and self.classes < 2:
            raise InputError(f"a classifier has at least 2 classes, not {self.classes}")

    @property
    def network(self) -> scaling.Network | None:
        """The network's description, None for a model file."""
        if self.variant is not None:
            return scaling.network(self.variant, resolution=self.resolution)
        if self.phi is not None:
            return scaling.phi_network(self.phi, self.resolution, alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        return None

    @property
    def name(self) -> str:
        """A short name for files and messages."""
        network, model = self.network, self.model
        if network is not None or model is None:
            return "" if network is None else network.name
        return model.stem.strip(".") or model.resolve().stem  # "." and ".." name nothing


CALIBRATORS: Mapping[str, Rule | None] = {"auto": None} | {
    rule.name.lower().replace("/", "-").replace(" ", "-"): rule for rule in RULES
}
"""What --calibrator may be: auto, min-max, l2, percentile-99.99 and so on."""


@dataclass(frozen=True)
class Calibration:
    """Which images set the activation ranges: those of a folder, or synthetic ones when it is None."""

    folder: Path | None = None
    samples: int = DEFAULT_SAMPLES
    seed: int = 0
    calibrator: str | None = None
    """The rule that ranges are chosen by (`CALIBRATORS`); "auto" tries several. None is "auto", or min/max for
    networks that nobody has trained."""
    effort: Effort = "standard"
    """What "auto" may do beyond the ranges: see `recover`."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise CalibrationError(f"cannot calibrate with {self.samples} images: take 1 or more, such as 128")
        if self.calibrator is not None and self.calibrator not in CALIBRATORS:
            raise UnknownNameError("calibrator", self.calibrator, CALIBRATORS)
        if self.effort not in recover.PLANS:
            raise UnknownNameError("effort", self.effort, recover.PLANS)


@dataclass(frozen=True)
class Interface:
    """What the file takes and gives; None keeps the scheme's or the model's own."""

    input_type: IoType | None = None
    output_type: IoType | None = None
    head: Head | None = None
    input_range: tuple[float, float] | None = None
    labels: Path | None = None


def default_output(source: Source, scheme: str) -> Path:
    """Return the file name that is used when none is given, e.g. b2_int8.tflite, in the current folder."""
    return Path(f"{source.name}_{scheme}.tflite")


def scheme_for(scheme: str | None, goal: Goal | None) -> Scheme:
    """Return the scheme that is meant: mixed where there is a goal, and otherwise int8 unless it is named.

    Raises InputError for a goal that makes no sense or does not go with the scheme, UnknownNameError.
    """
    chosen = schemes.scheme(scheme or ("int8" if goal is None else MIXED))
    if goal is not None:
        mixed.check(goal)
        if chosen.name != MIXED:
            raise InputError(
                f"--scheme {chosen.name} has no precisions to mix for a goal: leave --scheme away, or the goal"
            )
    elif chosen.name == MIXED:
        raise InputError(f"--scheme mixed needs a goal: give {mixed.GOALS}")
    return chosen


def for_edge_tpu(interface: Interface, scheme: str | None, goal: Goal | None, target: str | None) -> Interface:
    """Return the input and output types that the Edge TPU needs, uint8 where nothing is said.

    Raises InputError for options that contradict it, UnknownNameError.
    """
    why = "the Edge TPU computes in full int8 only"
    if goal is not None or target is not None:
        raise InputError(
            f"--edge-tpu mixes no precisions, {why}: leave --min-agreement, --max-drop, --max-latency and --target away"
        )
    if scheme is not None and schemes.scheme(scheme) != recover.INT8:
        raise InputError(f"--edge-tpu does not go with --scheme {scheme}, {why}: leave --scheme away")
    for end, dtype in (("input", interface.input_type), ("output", interface.output_type)):
        if dtype == "float32":
            raise InputError(
                f"--edge-tpu does not go with --{end}-type float32, which leaves operators to the CPU: say uint8 or "
                f"int8, or leave --{end}-type away"
            )
    input_type = interface.input_type or recover.INT8.input_type
    return replace(interface, input_type=input_type, output_type=interface.output_type or input_type)


def convert(
    source: Source,
    *,
    scheme: str | None = None,
    goal: Goal | None = None,
    target: str | None = None,
    edge_tpu: bool = False,
    finetune: Finetune | None = None,
    calibration: Calibration | None = None,
    interface: Interface | None = None,
    output: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ConversionRecord:
    """Convert, verify, and write the .tflite file and its record (the same name, ending in .json).

    With a `goal` precisions are mixed, and latencies measured on `target`, or here; a goal that is not met is no error,
    the record says so. Without a number of `threads` there are two, and one where latencies are measured. With
    `finetune` the network is trained for int8, on images that take the place of the calibration's; what was learned is
    kept beside the output until the file is written, and taken up by the same call. For the `edge_tpu` the file is full
    int8 in the words of its compiler, and the record says what that would make of it.

    Raises InputError and its kinds for bad input, DeviceError when the target is lost, MissingExtraError without the
    host packages, VerificationError when what came out does not hold; nothing is written then, and files that were
    there stay as they were.
    """
    calibration, interface = calibration or Calibration(), interface or Interface()
    if edge_tpu:
        interface = for_edge_tpu(interface, scheme, goal, target)
    chosen, board = scheme_for(scheme, goal), _board(target, goal)
    output = _output(output or default_output(source, chosen.name), source)
    threads = threads if threads is not None else 2 if goal is None else 1
    if threads < 1:
        raise InputError(f"cannot calibrate with {threads} threads: take 1 or more")
    record_path = output.with_suffix(".json")
    clock = Silent()
    progress = _Both(clock, progress or Silent())
    network = source.network
    float_model.require_host()
    if network is not None:
        weights.check(network, _weights(source))
    if interface.labels is not None and not interface.labels.is_file():
        raise InputError(f"cannot read the labels {interface.labels}: there is no such file")
    if finetune is not None:
        _check_finetune(source, chosen, calibration)
    drawn = _draw(calibration, finetune)
    check_writable(output)
    check_writable(record_path)
    _check_is_record(record_path)

    model, embedded = _float_model(source, interface, progress, calibration.seed)
    labels = _labels(source, interface, model, embedded)
    input_type, output_type = interface.input_type or chosen.input_type, interface.output_type or "float32"
    quantize.check_output_type(chosen, output_type, model.head)

    height, width = model.resolution
    types = (input_type, output_type)
    probes = list(_probes(drawn, calibration, finetune, height, width))
    if finetune is not None and drawn is not None:
        made = _finetuned(model, finetune, drawn, labels, calibration, types, output, threads, progress)
    elif goal is not None:
        made = _mixed(model, goal, board, source, drawn, calibration, types, threads, progress)
    else:
        made = _quantized(model, chosen, source, drawn, calibration, types, threads, progress)
    use = made.use
    content = metadata.embed(
        exact.rewrite(made.content) if edge_tpu else made.content,
        name=f"EfficientNet {source.name}" if network is not None else source.name,
        description=f"Image classifier with {model.classes} classes, {chosen.name}, converted by edgeeff",
        labels=labels,
        contract=metadata.InputContract(height, width, 3, input_type),
        provenance={
            "edgeeff": __version__,
            # Names without folders: the file goes to others.
            "source": source.name if source.model is None else source.model.resolve().name,
            "weights": Path(_weights(source)).name,
            "scheme": chosen.name,
            "calibration": {"kind": use.kind, "count": use.count, "seed": use.seed},
            "head": model.head,
        },
        output_name="logit" if model.head == "logits" else "probability",
    )
    progress.stage("verify")
    verification = verify.verify(content, chosen, model, probes)
    session = runtime.Session(content)
    inspection = _inspect(content)
    forecast = preflight.foresee(content) if edge_tpu else None
    clock.finish()
    record = ConversionRecord(
        runtime=runtime.runtime(),
        device=results.this_device(),
        packages=model.packages
        | ({} if made.finetuning is None else made.finetuning.packages)
        | results.versions("ai-edge-litert", "litert-quantizer", "numpy"),
        model=ModelFile(str(output), hashlib.sha256(content).hexdigest(), len(content)),
        source=source.name if source.model is None else str(source.model),
        source_sha256=_source_sha256(source),
        weights=_weights(source),
        scheme=chosen.name,
        classes=model.classes,
        resolution=model.resolution,
        output=model.head,
        input_contract=session.input,
        output_contract=session.output,
        macs=inspection.macs,
        float_size_bytes=len(model.content),
        calibration=use,
        agreement=verification.agreement,
        checks=(*verification.checks, _delegated(inspection)),
        warnings=(
            *_warnings(chosen, verification.agreement, use, (input_type, output_type)),
            *(() if made.recovery is None else made.recovery.warnings),
            *(() if made.mixed is None else _mixed_warnings(made.mixed, use)),
            *(() if made.finetuning is None else made.finetuning.warnings),
            *(() if forecast is None else _edge_tpu_warnings(forecast)),
        ),
        seconds={stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
        recovery=made.recovery,
        mixed=made.mixed,
        finetuning=None
        if made.finetuning is None
        else replace(made.finetuning, compressed_bytes=qat.compressed_bytes(content)),
        edge_tpu=forecast,
    )
    with staged(record_path, results.to_json(record).encode()), staged(output, content):
        pass
    if finetune is not None:
        qat.forget(output)
    return record


def _board(target: str | None, goal: Goal | None) -> Target:
    """Return where latencies are measured; raises InputError where there is nothing to measure them for."""
    if target is not None and goal is None:
        raise InputError(f"--target is where the latencies for a goal are measured: give {mixed.GOALS}")
    return LOCAL if target is None else timing.board(target)


def _output(path: Path, source: Source) -> Path:
    """Return where the file goes; raises InputError for a name that is none of a .tflite or the model's own."""
    if path.suffix != ".tflite":
        raise InputError(f"--output {path} does not end in .tflite")
    if source.model is not None and path.resolve() == source.model.resolve():
        raise InputError(f"--output {path} is the model itself, which would be lost: give another name")
    return path


def _check_finetune(source: Source, scheme: Scheme, calibration: Calibration) -> None:
    """Raise InputError for what does not go with fine-tuning, MissingExtraError without its packages."""
    qat.require()
    if scheme.name != recover.INT8.name:
        raise InputError(f"--finetune trains for int8, not for {scheme.name}: leave --scheme and goals away")
    if calibration.folder is not None:
        raise InputError("the images of --finetune set the activation ranges, too: leave --calibration away")
    if source.model is None and _weights(source) == "none":
        raise InputError(
            f"--finetune needs a trained network, and {source.name} would get random weights: there is nothing to teach"
        )


def float_file(
    source: Source, interface: Interface, progress: Progress, seed: int = 0
) -> tuple[FloatModel, tuple[str, ...] | None]:
    """Return the float model that a source becomes, and the names of its classes where somebody says them.

    Raises what `convert` raises for a source that cannot be read or built.
    """
    if source.network is not None:
        weights.check(source.network, _weights(source))
    if source.model is None or source.model.suffix.lower() != ".tflite":
        float_model.require_host()
    model, embedded = _float_model(source, interface, progress, seed)
    return model, _labels(source, interface, model, embedded)


def _float_model(
    source: Source, interface: Interface, progress: Progress, seed: int
) -> tuple[FloatModel, Metadata | None]:
    """Return the float model, and the metadata in it when it came as a .tflite file."""
    embedded = None
    if source.model is not None and source.model.suffix.lower() == ".tflite":
        try:
            content = source.model.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {source.model}: {error.strerror}") from error
        embedded = metadata.read(content)
        # Every file of ours takes pixels 0..255, those without any preprocessing inside too.
        traced = Traced(preprocesses=embedded is not None and embedded.provenance is not None)
    else:
        if source.model is not None:
            _check_model_path(source.model)
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
            path = Path(folder) / "float.tflite"
            traced = float_model.trace(_request(source, path, seed), progress.stage)
            content = path.read_bytes()
    progress.stage("prepare the graph")
    model = float_model.finish(content, traced, head=interface.head, input_range=interface.input_range)
    if source.resolution is not None and model.resolution != (source.resolution, source.resolution):
        height, width = model.resolution
        raise ModelError(
            f"the model takes {height} x {width} pixels, --resolution says {source.resolution}: leave --resolution away"
        )
    return model, embedded


def _request(source: Source, output: Path, seed: int) -> Request:
    network = source.network
    return Request(
        output=str(output),
        statistics=str(output.with_suffix(".npz")),
        variant=source.variant,
        phi=source.phi,
        model=None if source.model is None else str(source.model.resolve()),
        weights=_weights(source),
        classes=_classes(source, network),
        resolution=source.resolution,
        seed=seed,
        alpha=source.alpha,
        beta=source.beta,
        gamma=source.gamma,
    )


def _classes(source: Source, network: scaling.Network | None) -> int:
    if source.classes is not None:
        return source.classes
    return 1000 if network is None else network.published.classes


def _weights(source: Source) -> str:
    if source.model is not None:
        return "as in the model"
    return source.weights or ("imagenet" if source.variant is not None else "none")


def _source_sha256(source: Source) -> str | None:
    if source.model is not None:
        return sha256(source.model) if source.model.is_file() else None
    weights = Path(_weights(source))
    return sha256(weights) if weights.is_file() else None


def _check_model_path(path: Path) -> None:
    if not path.exists():
        raise ModelError(f"cannot read the model {path}: there is no such file or folder")
    if path.is_file() and path.suffix.lower() not in float_model.KERAS_SUFFIXES:
        raise ModelError(
            f"cannot tell what {path} is by its name: give a .keras or .h5 file, a SavedModel folder or a float .tflite"
        )


def _check_is_record(path: Path) -> None:
    """Refuse to replace a .json file that only happens to have the record's name."""
    if not path.exists():
        return
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not str(document.get("schema")).startswith("edgeeff/"):
        raise OutputError(
            f"{path} is there already and no record of edgeeff, which would be written there: choose another --output"
        )


def _labels(
    source: Source, interface: Interface, model: FloatModel, embedded: Metadata | None
) -> tuple[str, ...] | None:
    if interface.labels is not None:
        return metadata.read_labels(interface.labels, model.classes)
    if embedded is not None:
        return embedded.labels
    if source.variant is None:
        return None
    names = metadata.imagenet_labels()
    if model.classes == len(names):
        return names
    # Some ImageNet networks were trained with a class 0 for "none of these".
    return ("background", *names) if model.classes == len(names) + 1 else None


def _inspect(content: bytes) -> Inspection:
    with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
        path = Path(folder) / "finished.tflite"
        path.write_bytes(content)
        return inspect.inspect(path)


def _delegated(inspection: Inspection) -> Check:
    """Say how much of the file XNNPACK takes here; slow is no failure, so this check always passes."""
    delegation = inspection.delegation
    if delegation is None:
        return Check("XNNPACK", passed=True, detail=f"could not be asked: {inspection.runtime_error}")
    detail = f"{len(delegation.taken)} of {len(inspection.operators)} operators in {delegation.partitions} partition(s)"
    if delegation.left:
        first = delegation.left[0]
        name = inspection.operators[first.operator].name
        detail += f"; {len(delegation.left)} left to slower kernels, first {name}: {first.reason}"
    return Check("XNNPACK", passed=True, detail=detail)


def _draw(calibration: Calibration, finetune: Finetune | None) -> images.Sample | None:
    """Draw the calibration images and, behind them, the probe images that verification uses, all different.

    For fine-tuning the images that judge come first (`qat.apart`). None where there is no folder.
    """
    if finetune is not None:
        drawn = images.sample(images.find(finetune.folder), qat.MOST_IMAGES, calibration.seed)
        qat.apart(len(drawn.files))
        return drawn
    if calibration.folder is None:
        return None
    return images.sample(images.find(calibration.folder), calibration.samples + PROBES, calibration.seed)


def _probes(
    drawn: images.Sample | None, calibration: Calibration, finetune: Finetune | None, height: int, width: int
) -> Iterable[Image]:
    """Images that neither set the ranges nor taught anything, as far as there are any left."""
    if drawn is None:
        return synthetic.images(PROBES, height, width, seed=calibration.seed + 1)
    if finetune is not None:
        files = drawn.files[: qat.apart(len(drawn.files))][:PROBES]
    else:
        files = drawn.files[calibration.samples :] or drawn.files[-PROBES:]
    return (images.load(file.path, height, width) for file in files)


@dataclass(frozen=True)
class _Made:
    """A quantized file, and what is said of how it was made."""

    content: bytes
    use: CalibrationUse
    recovery: Recovery | None = None
    mixed: Mixed | None = None
    finetuning: Finetuning | None = None


def _quantized(
    model: FloatModel,
    chosen: Scheme,
    source: Source,
    drawn: images.Sample | None,
    calibration: Calibration,
    types: tuple[IoType, IoType],
    threads: int,
    progress: Progress,
) -> _Made:
    """Quantize by a scheme: as it is, with ranges, or with all that keeps the accuracy of int8."""
    input_type, output_type = types
    if not chosen.calibrated:
        use = CalibrationUse(kind="none", count=0, seed=calibration.seed, note="this scheme needs no calibration")
        progress.stage(f"quantize to {chosen.name}")
        return _Made(quantize.quantize(model, chosen, None, input_type=input_type, output_type=output_type), use)
    rule = _rule(source, calibration) if chosen.name == recover.INT8.name else RULES[0]
    use, pixels = _calibration_images(model, drawn, calibration)
    if rule == RULES[0] or (rule is None and drawn is None):
        progress.stage(f"calibrate with {use.count} {'synthetic images' if drawn is None else 'images'}", use.count)
        ranges = quantize.collect_ranges(model, pixels, threads=threads, tick=progress.tick)
        if drawn is None:
            ranges = synthetic.widen(ranges, model.logits)
        if rule is not None or _is_plain_enough(model, ranges, calibration.seed):
            progress.stage(f"quantize to {chosen.name}")
            return _Made(quantize.quantize(model, chosen, ranges, input_type=input_type, output_type=output_type), use)
        use, pixels = _telling_images(model, calibration, threads, progress)
    content, recovery = recover.recover(
        model,
        pixels if isinstance(pixels, Sequence) else list(pixels),
        calibration.effort if drawn is not None or use.distilled >= FEWEST_TAUGHT else "quick",
        calibration.seed,
        progress,
        input_type=input_type,
        output_type=output_type,
        threads=threads,
        rule=rule,
        # What weights learn from images that show no class, they unlearn of photographs.
        synthetic=drawn is None and use.distilled < FEWEST_TAUGHT,
    )
    return _Made(content, replace(use, method=recovery.chosen), recovery)


def _mixed(
    model: FloatModel,
    goal: Goal,
    board: Target,
    source: Source,
    drawn: images.Sample | None,
    calibration: Calibration,
    types: tuple[IoType, IoType],
    threads: int,
    progress: Progress,
) -> _Made:
    """Mix precisions for a goal, timed on a board or here."""
    rule = _rule(source, calibration)
    use, pixels = (
        _calibration_images(model, drawn, calibration)
        if drawn is not None or rule is not None
        else _telling_images(model, calibration, threads, progress)
    )
    pixels = pixels if isinstance(pixels, Sequence) else list(pixels)
    progress.stage(f"measure the float file on {board.name}")
    timer = timing.timer(model.content, pixels[0], board, threads)
    found = mixed.explore(
        model,
        pixels,
        seed=calibration.seed,
        threads=threads,
        timer=timer,
        rule=rule,
        synthetic=drawn is None and not use.distilled,
        plan=recover.PLANS[calibration.effort] if drawn is not None and rule is None else None,
        goals=(goal,),
        input_type=types[0],
        output_type=types[1],
        progress=progress,
    )
    content, report = found.settle(goal)
    return _Made(content, replace(use, method=f"{found.rule}, wider by block"), mixed=report)


def _finetuned(
    model: FloatModel,
    finetune: Finetune,
    drawn: images.Sample,
    names: Sequence[str] | None,
    calibration: Calibration,
    types: tuple[IoType, IoType],
    output: Path,
    threads: int,
    progress: Progress,
) -> _Made:
    """Train for int8 on the images that were drawn."""
    content, finetuning = qat.finetune(
        model,
        _Photographs(drawn.files, *model.resolution),
        _taught_labels(finetune, drawn, model, names),
        finetune,
        qat.checkpoints(output),
        plan=recover.PLANS[calibration.effort],
        seed=calibration.seed,
        threads=threads,
        input_type=types[0],
        output_type=types[1],
        progress=progress,
    )
    use = CalibrationUse(
        kind="folder",
        count=len(drawn.files),
        seed=calibration.seed,
        folder=str(finetune.folder),
        method=finetuning.chosen,
        note=f"{finetuning.judging_images} of these were kept apart and taught nothing",
        images=images.manifest(drawn.files),
    )
    return _Made(content, use, finetuning=finetuning)


def _taught_labels(
    finetune: Finetune, drawn: images.Sample, model: FloatModel, names: Sequence[str] | None
) -> qat.Labels | None:
    """Return the class index of each image that was drawn; None where nobody wants to learn from labels."""
    if finetune.classes is None:
        return None
    if drawn.files[0].label is None:
        raise InputError(
            f"{finetune.folder} has no class folders to learn labels from: sort the images into them, or leave "
            "--learn-labels away"
        )
    index = finetune.classes(model.classes, names)
    return np.array([index[file.label or ""] for file in drawn.files], np.int64)


def _rule(source: Source, calibration: Calibration) -> Rule | None:
    """Return the rule that ranges are chosen by, None for the one that suits best."""
    untrained = source.model is None and _weights(source) == "none"
    return CALIBRATORS[calibration.calibrator or ("min-max" if untrained else "auto")]


def _is_plain_enough(model: FloatModel, ranges: quantize.Ranges, seed: int) -> bool:
    """Say whether ranges of dead leaves, from the smallest to the largest value, do: that takes seconds."""
    leaves = list(synthetic.images(PROBES, *model.resolution, seed=seed))
    return recover.Judge(model, leaves, leaves[:1]).learned_divergence(model, ranges) < PLAIN_ENOUGH


def _telling_images(
    model: FloatModel, calibration: Calibration, threads: int, progress: Progress
) -> tuple[CalibrationUse, Sequence[Image]]:
    """Make images that show what the network was trained with, as far as it says that; the others are dead leaves."""
    count, seed = min(calibration.samples, distill.searchable(model)), calibration.seed
    made, why = distill.images(model, count, seed, threads, progress)
    if len(made) >= FEWEST_TAUGHT:
        count = min(count, 2 * len(made))
    sorts = {"from batch-normalization statistics": len(made), "dead leaves": count - len(made)}
    how = ", ".join(f"{number} {sort}" for sort, number in sorts.items() if number) + (why and f"; {why}")
    use = CalibrationUse(
        kind="synthetic", count=count, seed=seed, distilled=len(made), note=f"{MADE} ({how}); {BETTER}"
    )
    # Those that images were made from would be a second showing.
    leaves = itertools.islice(synthetic.images(count, *model.resolution, seed=seed), len(made), None)
    return use, [*made, *leaves]


def _calibration_images(
    model: FloatModel, drawn: images.Sample | None, calibration: Calibration
) -> tuple[CalibrationUse, Iterable[Image]]:
    """Return what is said of the images, and the images, which are made or decoded as they are asked for."""
    height, width = model.resolution
    if drawn is None:
        count, seed = calibration.samples, calibration.seed
        use = CalibrationUse(kind="synthetic", count=count, seed=seed, note=f"{MADE} (dead leaves); {BETTER}")
        return use, synthetic.images(count, height, width, seed=seed)
    files = drawn.files[: calibration.samples]
    notes = []
    if len(files) < calibration.samples:
        notes.append(f"{calibration.samples} asked for, {len(files)} found")
    if len(drawn.files) <= calibration.samples:
        notes.append("the file was verified on images out of these, for want of others")
    photographs = _Photographs(files, height, width)
    survey = photographs.survey()
    use = CalibrationUse(
        kind="folder",
        count=len(files),
        seed=calibration.seed,
        folder=str(calibration.folder),
        note="; ".join(notes),
        images=tuple((file.key, survey.prints[file.key].sha256) for file in files),
        survey=survey.summary(),
    )
    return use, photographs


class _Photographs(Sequence[Image]):
    """Image files that are decoded when they are asked for, and not again where there is room for what came of it."""

    def __init__(
        self,
        files: Sequence[images.ImageFile],
        height: int,
        width: int,
        kept: dict[images.ImageFile, Image] | None = None,
    ) -> None:
        self._files, self._size = files, (height, width)
        self._kept: dict[images.ImageFile, Image] = {} if kept is None else kept

    def survey(self) -> Survey:
        """Look at all of them; raises CalibrationError for one that cannot be read."""
        height, width = self._size
        survey = Survey(height, width)
        room = int(MOST_KEPT_BYTES / (3 * height * width))
        for file in self._files:
            data, pixels, traits = images.look(file.path, height, width)
            survey.add(file, data, pixels, traits)
            if len(self._kept) < room:
                self._kept[file] = pixels
        return survey

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Image]: ...

    def __getitem__(self, index: int | slice) -> Image | Sequence[Image]:
        if isinstance(index, slice):
            return _Photographs(self._files[index], *self._size, self._kept)
        file = self._files[index]
        return self._kept[file] if file in self._kept else images.load(file.path, *self._size)


def _warnings(
    scheme: Scheme, agreement: results.Agreement, use: CalibrationUse, types: tuple[IoType, IoType]
) -> tuple[str, ...]:
    warnings = []
    if scheme.slow_on_cpu:
        warnings.append(f"{scheme.name}: {scheme.summary}")
    if use.kind == "synthetic":
        warnings.append(f"calibrated with {use.count} synthetic {use.note}")
    if verify.is_doubtful(agreement):
        warnings.append(
            f"{scheme.name} and float agree on the best class of only {agreement.same_top1:.0%} of {agreement.images} "
            f"probe images, the correlation of their scores is {agreement.correlation:.2f}: measure it on labelled "
            "images before you use it"
        )
    if use.survey is not None:
        warnings += [f"{finding.cause}: {finding.text}: {finding.advice}" for finding in use.survey.findings]
    refused = [end for end, dtype in zip(("input", "output"), types, strict=True) if dtype == "int8"]
    if refused:
        warnings.append(
            f"MediaPipe's ImageClassifier refuses an int8 {' and an int8 '.join(refused)}; uint8 says the same"
        )
    return tuple(warnings)


def _mixed_warnings(found: Mixed, use: CalibrationUse) -> Iterator[str]:
    if use.kind == "synthetic":
        yield (
            f"the agreement was estimated on images that {'no camera took' if use.distilled else 'show no class'}, "
            "which says little of photographs: give --calibration DIR"
        )
    if found.timed_on.device.emulated:
        yield "EMULATED: a program stood in for the board, so no latency here is a real board's"
    yield from found.warnings


def _edge_tpu_warnings(forecast: Forecast) -> Iterator[str]:
    """Say which operators the Edge TPU does not take, and what to do; and what makes the network a poor fit."""
    for line in forecast.operators:
        if line.verdict != "mapped":
            said = "does not take" if line.verdict == "not mapped" else "may not take"
            fix = f"; {line.fix}" if line.fix else ""
            where = ", ".join(line.places)
            yield (
                f"the Edge TPU {said} {line.count} {line.name} ({where}): {line.reason}{fix} (known from {line.source})"
            )
    yield from forecast.advice


class _Both:
    """Progress that is both timed and shown."""

    def __init__(self, clock: Silent, shown: Progress) -> None:
        self._clock, self._shown = clock, shown

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        self._clock.stage(text, total, unit)
        self._shown.stage(text, total, unit)

    def tick(self) -> None:
        self._shown.tick()
