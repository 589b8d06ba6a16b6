"""Int8 that keeps its accuracy: what the float network computes for unlabelled images decides how it is quantized.

No recipe is best for every network, so several are tried, each is quantized for real, and the file whose scores come
closest to the float file's on images kept apart is the one that is handed over; the report says what each gave. The
cheap ones come first: rules for the ranges (`choose_ranges`), then weights fitted to int8 maps by least squares
(`refit`). As the effort allows, weights, biases and ranges are then tuned by replaying the network in TensorFlow
(`reconstruct`, in a process of its own). What cannot be done for a network is said in warnings, not in errors: there
always is a file.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import ranges as rules
from edgeeff.calibration.ranges import After, Histogram, Rule
from edgeeff.calibration.synthetic import widen
from edgeeff.converters import float_model, quantize, reconstruct, refit, replay
from edgeeff.converters.compress import Compression
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import IoType, Ranges
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import scheme
from edgeeff.errors import CalibrationError, ModelError
from edgeeff.progress import Progress, Silent
from edgeeff.results import Attempt, Fidelity, Recovery

Image = npt.NDArray[np.uint8]
Images = Sequence[Image]
"""Images (height, width, 3), which may be decoded anew each time one is asked for: few are held at once."""
Effort = Literal["quick", "standard", "thorough"]

Role = Literal["linear", "gated", "squeezed", "activated", "bent next"]
"""What a tensor is: read by swish or sigmoid, its result, of one pixel, multiplied by a gate, or on the way between."""

NOTABLE, WORTH_A_CHANGE = 0.95, 0.998
"""Divergences that differ by less, as a ratio, are as good as each other; in the search, which asks the same images."""
REACH = 1
"""How many rules to either side, from careful to bold, a part tries when its role has found its own."""
MOST_SEARCHED = 128
"""Images that rules for roles are searched with: fewer fit the images, more take longer."""
KEPT_APART = 0.25
"""Share of the images that judges and teaches nothing."""
MOST_JUDGES = 128
MOST_PUPILS, LEAST_PUPILS, MOST_PUPILS_BYTES = 512, 32, 300e6
"""Images that weights are tuned on, and what they may take in memory."""
MOST_PUPILS_WORK, MOST_VIEWS_WORK = 1.5e12, 3.5e12
"""What computing the whole network once for all of them may take in TensorFlow, and for all their views in LiteRT, in
the units of `replay.work`."""
UNIT_OPERATORS = ("LOGISTIC", "SOFTMAX")
"""Their outputs have a fixed scale of 1/256, whatever range is given."""
LEAST_SCORE = 1e-6
"""Scores below this are taken for it: an int8 softmax knows nothing smaller."""
INT8 = scheme("int8")
BATCH = 16
GOOD_ENOUGH = 0.02
"""Divergence below which no other ranges are looked for: the best of a network with swish have ten times that."""
CLOSE = 0.003
"""Divergence below which weights are not tuned: those of an EfficientNet-Lite come from 0.012 to 0.003 by that."""
ALIKE = 0.9
"""Agreement that goes with it."""
FITTED = "weights fitted"

CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from edgeeff.converters.reconstruct import main; sys.exit(main())"
)


@dataclass(frozen=True)
class Plan:
    """How long an effort learns; see `reconstruct.Request`."""

    work: float
    most_steps: int
    views: int
    finish_steps: int
    finish_share: float


PLANS: Mapping[Effort, Plan | None] = {
    "quick": None,
    "standard": Plan(work=2.5e12, most_steps=500, views=1500, finish_steps=300, finish_share=1 / 16),
    "thorough": Plan(work=8e12, most_steps=1500, views=2500, finish_steps=800, finish_share=1 / 16),
}


class Judge:
    """Compares quantized files with the float file on images."""

    def __init__(self, model: FloatModel, learned: Images, kept_apart: Images, threads: int = 1) -> None:
        """Decode the images, once, and run the float file; raises ModelError when LiteRT cannot."""
        self._threads, self._head = threads, model.head
        self._learned, self._kept_apart = list(learned), list(kept_apart)
        session = Session(model.content, threads=threads)
        self._expected = {
            id(images): self._probabilities(session, images) for images in (self._learned, self._kept_apart)
        }

    def attempt(self, name: str, model: FloatModel, ranges: Ranges) -> Attempt:
        """Quantize a float model, whose weights may be tuned, for real, and compare."""
        start = time.perf_counter()
        session = self._quantized(model, ranges)
        fidelity = self._fidelity(session, self._kept_apart)
        learned = self._fidelity(session, self._learned)
        return Attempt(name, fidelity, learned, round(time.perf_counter() - start, 3))

    def learned_divergence(self, model: FloatModel, ranges: Ranges) -> float:
        """The divergence on the images that are learned from."""
        return self._fidelity(self._quantized(model, ranges), self._learned).divergence

    def _quantized(self, model: FloatModel, ranges: Ranges) -> Session:
        content = quantize.quantize(model, INT8, ranges, input_type="uint8", output_type="float32")
        return Session(content, threads=self._threads)

    def _fidelity(self, session: Session, images: Images) -> Fidelity:
        found, expected = self._probabilities(session, images), self._expected[id(images)]
        exact, near = (
            clipped / clipped.sum(axis=1, keepdims=True)
            for clipped in (np.maximum(scores, LEAST_SCORE) for scores in (expected, found))
        )
        divergence = (exact * np.log(exact / near)).sum(axis=1)
        best = found == found.max(axis=1, keepdims=True)
        return Fidelity(
            images=len(found),
            divergence=float(np.mean(divergence)),
            agreement=float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
            ties=float(np.mean(best.sum(axis=1) > 1)),
        )

    def _probabilities(self, session: Session, images: Images) -> npt.NDArray[np.float64]:
        scores = np.stack([session.run(image) for image in images]).astype(np.float64)
        if self._head == "softmax":
            return scores
        powers: npt.NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
        powers /= powers.sum(axis=1, keepdims=True)
        return powers


def recover(
    model: FloatModel,
    images: Images,
    effort: Effort = "standard",
    seed: int = 0,
    progress: Progress | None = None,
    *,
    input_type: IoType = "uint8",
    output_type: IoType = "float32",
    threads: int = 2,
    rule: Rule | None = None,
    synthetic: bool = False,
) -> tuple[bytes, Recovery]:
    """Quantize a float model to int8 with as little loss as the effort allows; return the file and the report.

    A `rule` is used as it is, and nothing else tried. Images that are `synthetic` show no class, so that the logits are
    given more room than they say.
    A quarter of the images is kept apart to judge. The result depends on the images, the seed and the number of threads
    alone. Raises CalibrationError when there is no image or a value is not finite, MissingExtraError where TensorFlow
    is needed and missing, and what `quantize` raises.
    """
    progress = progress or Silent()
    learning, judging = split(images, seed)
    judge = Judge(model, learning[:MOST_SEARCHED], judging, threads)
    ranges, best, attempts = choose_ranges(
        model, learning, judge, rule=rule, synthetic=synthetic, threads=threads, progress=progress
    )
    chosen, warnings = (model, ranges), list[str]()
    may_learn = rule is None and not synthetic and not _is_close(best, CLOSE)
    if may_learn:
        try:
            fitted = fit(model, ranges, learning, seed=seed, threads=threads, progress=progress)
            attempts = (*attempts, judge.attempt(FITTED, fitted, ranges))
            if attempts[-1].fidelity.divergence < best.fidelity.divergence:
                best, chosen = attempts[-1], (fitted, ranges)
        except ModelError as error:
            warnings.append(f"the weights were not fitted: {error}")
    plan = PLANS[effort] if may_learn and not _is_close(best, CLOSE) else None
    if plan is not None and (obstacles := replay.obstacles(Graph(model.content))):
        warnings.append(f"the weights were not tuned: {', '.join(obstacles)} cannot be replayed")
    elif plan is not None:
        try:
            for name, changed, its_ranges in tune(
                model, ranges, learning, plan, seed=seed, threads=threads, progress=progress
            ):
                attempt = judge.attempt(name, changed, its_ranges)
                attempts = (*attempts, attempt)
                if attempt.fidelity.divergence < best.fidelity.divergence:
                    best, chosen = attempt, (changed, its_ranges)
        except ModelError as error:
            warnings.append(f"the weights were not tuned: {error}")
    content = quantize.quantize(chosen[0], INT8, chosen[1], input_type=input_type, output_type=output_type)
    return content, Recovery(effort, seed, len(learning), len(judging), attempts, best.name, tuple(warnings))


def split(images: Images, seed: int) -> tuple[Images, Images]:
    """Divide images into those that teach and those that judge; a single one has to do both.

    Raises CalibrationError when there is none.
    """
    if not images:
        raise CalibrationError("no calibration image was given; activation ranges need at least one")
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    kept = min(MOST_JUDGES, max(1, round(len(images) * KEPT_APART)))
    return _Part(images, order[kept:] or order), _Part(images, order[:kept])


def choose_ranges(
    model: FloatModel,
    images: Images,
    judge: Judge,
    *,
    rule: Rule | None = None,
    synthetic: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[Ranges, Attempt, tuple[Attempt, ...]]:
    """Try the rules of `calibration.ranges` on a model; return the best ranges, theirs and all attempts.

    First one rule for all tensors; then, from the best of these, the rule that suits each role that a tensor can play
    (`_role`), and last each role at each resolution, searched on the images themselves. The output is never clipped,
    nor the input and its preprocessing; tensors that share a scale share a range. Of attempts that are about as good
    the most careful is taken. A `rule` that is given is the only one; and where the first, most careful one is good
    enough, no other is tried.
    """
    progress = progress or Silent()
    progress.stage(f"collect activation ranges from {len(images)} images", len(images))
    choices = _Choices.collect(model, images, threads, progress, synthetic=synthetic)
    first = rule or rules.RULES[0]
    ranges = choices.ranges(dict.fromkeys(choices.parts, first))
    attempt = judge.attempt(first.name, model, ranges)
    if rule is not None or _is_close(attempt, GOOD_ENOUGH):
        return ranges, attempt, (attempt,)
    progress.stage("choose activation ranges", len(rules.RULES) + 2 * len(choices.parts))
    tried: list[tuple[Attempt, dict[Part, Rule]]] = []
    for each in rules.RULES:
        chosen = dict.fromkeys(choices.parts, each)
        tried.append((judge.attempt(each.name, model, choices.ranges(chosen)), chosen))
        progress.tick()
    _, chosen = _settle(tried)
    search = _Search(model, choices, judge, chosen)
    for role in dict.fromkeys(part.role for part in choices.parts):
        parts = [part for part in choices.parts if part.role == role]
        for each in rules.RULES:
            search.improve(parts, each)
        for _ in parts:
            progress.tick()
    tried.append((judge.attempt("a rule for each role", model, choices.ranges(search.chosen)), search.chosen))
    for part in choices.parts:
        at = rules.RULES.index(search.chosen[part])
        for each in rules.RULES[max(0, at - REACH) : at + REACH + 1]:
            search.improve([part], each)
        progress.tick()
    name = "a rule for each role and resolution"
    tried.append((judge.attempt(name, model, choices.ranges(search.chosen)), search.chosen))
    attempt, chosen = _settle(tried)
    return choices.ranges(chosen), attempt, tuple(attempt for attempt, _ in tried)


def _is_close(attempt: Attempt, divergence: float) -> bool:
    return all(one.divergence < divergence and one.agreement >= ALIKE for one in (attempt.fidelity, attempt.learned))


class _Search:
    """Rules of parts, changed where that brings the scores of some images notably closer."""

    def __init__(self, model: FloatModel, choices: _Choices, judge: Judge, chosen: dict[Part, Rule]) -> None:
        self._model, self._choices, self._judge = model, choices, judge
        self.chosen = chosen
        self._least = self._divergence(chosen)

    def improve(self, parts: Iterable[Part], rule: Rule) -> bool:
        """Give parts another rule, if that helps."""
        changed = {**self.chosen, **dict.fromkeys(parts, rule)}
        if changed == self.chosen:
            return False
        found = self._divergence(changed)
        if found >= self._least * WORTH_A_CHANGE:
            return False
        self.chosen, self._least = changed, found
        return True

    def _divergence(self, chosen: Mapping[Part, Rule]) -> float:
        return self._judge.learned_divergence(self._model, self._choices.ranges(chosen))


@dataclass(frozen=True)
class Part:
    """The tensors of a network that play one role at one resolution."""

    role: Role
    side: int


@dataclass(frozen=True)
class _Choices:
    """Histograms of a model's tensors, and what its graph says of them."""

    histograms: dict[int, Histogram]
    """By tensor index, of those that have a range of their own."""
    names: dict[int, tuple[str, ...]]
    """All tensors that share this one's scale."""
    after: dict[int, After]
    part: dict[int, Part]
    known: Ranges
    """Those of the input, the preprocessing and the logits."""
    spans: dict[tuple[int, Rule], rules.Range] = field(default_factory=dict)
    """What was chosen before, which is asked for again and again."""

    @classmethod
    def collect(
        cls, model: FloatModel, images: Images, threads: int, progress: Progress, *, synthetic: bool
    ) -> _Choices:
        graph, known = Graph(model.content), quantize.known_ranges(model)
        root = replay.roots(graph)
        own = {graph.name(index): index for index, source in root.items() if index == source}
        fixed = {graph.name(int(o.outputs[0])) for o in graph.operators if graph.kind(o) in UNIT_OPERATORS}
        known |= dict.fromkeys(fixed, (0.0, 1.0))
        watched = {name: index for name, index in own.items() if name not in known}
        found = rules.collect(model.content, watched, images, threads=threads, tick=progress.tick)
        after = _after(graph)
        tied = {
            graph.name(index): known[name] for index, source in root.items() if (name := graph.name(source)) in known
        }
        logits = {model.logits: rules.choose(found[model.logits], rules.RULES[0])}
        return cls(
            {own[name]: histogram for name, histogram in found.items()},
            {index: tuple(graph.name(i) for i, at in root.items() if at == index) for index in watched.values()},
            after,
            {index: _part(graph, index, after) for index in watched.values() if graph.name(index) != model.logits},
            known | tied | (widen(logits, model.logits) if synthetic else logits),
        )

    @property
    def parts(self) -> list[Part]:
        """What the network has, in the order of computation."""
        return list(dict.fromkeys(self.part.values()))

    def ranges(self, chosen: Mapping[Part, Rule]) -> Ranges:
        """Return the ranges of all tensors, each by the rule for its part."""
        found: Ranges = {}
        for index, part in self.part.items():
            found |= dict.fromkeys(self.names[index], self._span(index, chosen[part]))
        return found | self.known

    def _span(self, index: int, rule: Rule) -> rules.Range:
        if (index, rule) not in self.spans:
            self.spans[index, rule] = rules.choose(self.histograms[index], rule, self.after[index])
        return self.spans[index, rule]


def fit(
    model: FloatModel,
    ranges: Ranges,
    images: Images,
    *,
    compression: Compression | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> FloatModel:
    """Fit the last convolution of each block by least squares, as `refit` does; raises ModelError where that fails.

    With a `compression` the weights of pointwise convolutions become as it says.
    """
    progress = progress or Silent()
    progress.stage(f"{'compress' if compression else 'fit'} the weights of each block", len(refit.blocks(model)))
    pupils = np.stack(list(images[: min(_pupils(Graph(model.content)), refit.MOST_VIEWS)]))
    return refit.refit(model, ranges, pupils, compression=compression, seed=seed, threads=threads, tick=progress.tick)


def tune(
    model: FloatModel,
    ranges: Ranges,
    images: Images,
    plan: Plan,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
    exact: bool = False,
) -> list[tuple[str, FloatModel, Ranges]]:
    """Tune weights, biases and ranges in a TensorFlow process; return its checkpoints: names, models and ranges.

    With `exact` every block learns by itself, as mixed precision needs it: the range of what a block is given is its
    own, and its residual sum stays in float.

    Raises ModelError when that process fails, MissingExtraError when there is no TensorFlow.
    """
    progress = progress or Silent()
    float_model.require_host()
    graph = Graph(model.content)
    used = images[: _pupils(graph)]
    found: list[tuple[str, FloatModel, Ranges]] = []
    with tempfile.TemporaryDirectory(prefix="edgeeff-") as name:
        folder = Path(name)
        (folder / "float.tflite").write_bytes(model.content)
        (folder / "ranges.json").write_text(json.dumps(ranges), encoding="utf-8")
        np.save(folder / "images.npy", np.stack(list(used)))
        request = reconstruct.Request(
            folder=name,
            logits=model.logits,
            fixed=(*quantize.known_ranges(model), model.logits),
            work=plan.work,
            most_steps=plan.most_steps,
            finish_steps=0 if exact else plan.finish_steps,
            finish_side=int(max(model.resolution) * plan.finish_share),
            batch=BATCH,
            threads=threads,
            seed=seed,
            views=_views(graph, len(used), plan.views),
            exact=exact,
        )
        float_model.converse(CHILD, reconstruct.encode(request), lambda answer: _show(answer, progress))
        for checkpoint in reconstruct.CHECKPOINTS:
            path = folder / f"{checkpoint}.npz"
            if path.exists():
                found.append((f"{checkpoint} tuned", *tuned(model, ranges, path)))
    return found


def _show(answer: Mapping[str, Any], progress: Progress) -> None:
    if "stage" in answer:
        progress.stage(str(answer["stage"]), int(answer.get("total", 0)))
    elif "step" in answer:
        progress.tick()


def tuned(model: FloatModel, ranges: Ranges, path: Path) -> tuple[FloatModel, Ranges]:
    """Put what a checkpoint holds into the float model and its ranges."""
    graph, changed = Graph(model.content), dict(ranges)
    root = replay.roots(graph)
    with np.load(path) as arrays:
        for key, values in arrays.items():
            kind, _, number = key.partition("/")
            if kind == "weights":
                graph.set_constant(int(number), values)
            elif kind == "range":
                low, high = (float(value) for value in values)
                changed |= {graph.name(index): (low, high) for index, source in root.items() if source == int(number)}
    return replace(model, content=graph.content()), changed


def _settle(tried: Sequence[tuple[Attempt, dict[Part, Rule]]]) -> tuple[Attempt, dict[Part, Rule]]:
    """The first attempt, they come from careful to bold, that the best is not notably better than.

    A few rules hardly learn images by heart, so all images are asked: those kept apart alone are few.
    """
    divergences = [
        np.average([part.divergence for part in parts], weights=[part.images for part in parts])
        for parts in ((attempt.fidelity, attempt.learned) for attempt, _ in tried)
    ]
    return next(
        choice
        for choice, divergence in zip(tried, divergences, strict=True)
        if divergence * NOTABLE <= min(divergences)
    )


def _part(graph: Graph, index: int, after: Mapping[int, After]) -> Part:
    shape = graph.shape(index)
    if len(shape) < 4 or shape[1:3] == (1, 1):
        return Part("squeezed", 1)
    return Part(_role(graph, index, after), max(shape[1:3]))


def _role(graph: Graph, index: int, after: Mapping[int, After]) -> Role:
    """Say what a tensor with more than one pixel is in its network."""
    producer = graph.producer(index)
    if producer is None:
        return "linear"
    if after[index] != "itself":
        return "bent next"
    if graph.kind(producer) == "MUL":
        first, second = (graph.producer(int(source)) for source in producer.inputs)
        gates = [
            int(other.inputs[0]) for other in (first, second) if other is not None and graph.kind(other) == "LOGISTIC"
        ]
        return "activated" if gates and gates[0] in producer.inputs else "gated"
    bent = graph.activation(producer) != "NONE" or graph.kind(producer) in ("HARD_SWISH", "RELU", "RELU6")
    return "activated" if bent else "linear"


def _after(graph: Graph) -> dict[int, After]:
    """Say of each computed tensor what it is read by: swish is a LOGISTIC, and a MUL with its result."""
    found: dict[int, After] = {}
    for operator in graph.operators:
        index = int(operator.outputs[0])
        readers = graph.consumers(index)
        gates = {int(reader.outputs[0]) for reader in readers if graph.kind(reader) == "LOGISTIC"}
        others = [reader for reader in readers if graph.kind(reader) != "LOGISTIC"]
        if gates and not others:
            found[index] = "sigmoid"
        elif gates and all(graph.kind(o) == "MUL" and {*map(int, o.inputs)} - {index} <= gates for o in others):
            found[index] = "swish"
        else:
            found[index] = "itself"
    return found


def _pupils(graph: Graph) -> int:
    """How many images a network can learn from: the larger it is, the more time and memory each takes."""
    in_memory = MOST_PUPILS_BYTES / float(np.prod(graph.shape(graph.inputs[0])))
    in_time = MOST_PUPILS_WORK / (2 * replay.work(graph, 0, len(graph.operators)))
    return int(min(MOST_PUPILS, in_memory, max(in_time, LEAST_PUPILS))) or 1


def _views(graph: Graph, pupils: int, most: int) -> int:
    """How many views of them it can learn from, each as it is and mirrored at least."""
    return int(max(2 * pupils, min(most, MOST_VIEWS_WORK / replay.work(graph, 0, len(graph.operators)))))


class _Part(Sequence[Image]):
    """Some of the images, still decoded only when asked for."""

    def __init__(self, images: Images, order: Sequence[int]) -> None:
        self._images, self._order = images, order

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> Images: ...

    def __getitem__(self, index: int | slice) -> Image | Images:
        if isinstance(index, slice):
            return _Part(self._images, self._order[index])
        return self._images[self._order[index]]

    def __len__(self) -> int:
        return len(self._order)
