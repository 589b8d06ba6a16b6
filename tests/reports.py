"""Records as a project has them after a while, for pages that are looked at: every figure is made up."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgeeff.results import (
    Attempt,
    BlockLatency,
    BoardSummary,
    ConversionRecord,
    EndToEnd,
    EvaluationRecord,
    Fidelity,
    Finding,
    Finetuning,
    GateResult,
    Goal,
    ImageOutcomes,
    Latency,
    Minute,
    MixedPoint,
    MixedTrial,
    ModelFile,
    ProfileRecord,
    Reason,
    Record,
    Recovery,
    Verdict,
)
from tests.evaluations import evaluation, judged_images
from tests.picks import PICK
from tests.test_results import AUDIT, COMPILATION, CONVERSION, DEMO, DIAGNOSIS, PREDICTION, PROBE, PROFILE

BLOCKS = ("stem", *(f"block{stage}{letter}" for stage in range(1, 8) for letter in "ab"), "top")
LEVELS = ("dynamic", "expansion", "inner", "whole")
INT8 = ModelFile("out/b0_int8.tflite", "ab" * 32, 6_200_000)
MIXED = ModelFile("out/b0_mixed.tflite", "5a" * 32, 8_100_000)


def tried(name: str, divergence: float, agreement: float, seconds: float) -> Attempt:
    return Attempt(
        name, Fidelity(32, divergence, agreement, 0.03), Fidelity(96, divergence / 2, agreement, 0.0), seconds
    )


RECOVERED = dataclasses.replace(
    CONVERSION,
    model=INT8,
    scheme="int8",
    mixed=None,
    warnings=(),
    recovery=Recovery(
        "standard",
        0,
        96,
        32,
        (
            tried("min/max", 2.1026, 0.2813, 0.8),
            tried("L2", 0.6678, 0.5, 0.9),
            tried("percentile 99.99", 0.383, 0.6563, 0.7),
            tried("blocks tuned", 0.1151, 0.875, 343.1),
            tried("last blocks tuned together", 0.0321, 0.9375, 106.2),
        ),
        "last blocks tuned together",
        (),
    ),
    finetuning=Finetuning(
        teacher="float",
        seed=0,
        steps=400,
        steps_taken=300,
        best_step=250,
        batch=16,
        images=96,
        judging_images=32,
        before=tried("as it was", 0.12, 0.875, 1.0),
        after=tried("fine-tuned", 0.03, 0.9375, 200.0),
        chosen="fine-tuned",
        divergences=tuple((step, 0.12 * 0.99**step + 0.02) for step in range(0, 301, 50)),
        accuracy_before=None,
        accuracy_after=None,
        simulation_correlation=0.999,
        resumed_at=None,
        pruned_share=None,
        clusters=None,
        compressed_layers=0,
        packages={"tensorflow": "2.21.0"},
        warnings=(),
    ),
)


def mixed() -> ConversionRecord:
    """Return a conversion with a goal, with as many blocks and points as there are."""
    old = CONVERSION.mixed
    assert old is not None
    points = tuple(
        MixedPoint(
            f"{step} steps",
            {
                block: "float" if index >= 3 * step else "dynamic" if index >= 2 * step else "whole"
                for index, block in enumerate(BLOCKS)
            },
            0.0004 * step**2,
            1 - 0.005 * step,
            1 - 0.006 * step,
            1 - 0.009 * step,
            128,
            0.0625 * (1 - 0.08 * step),
            1 - 0.08 * step,
            21_300_000 - 2_400_000 * step,
            chosen=step == 3,
        )
        for step in range(7)
    )
    trials = tuple(
        MixedTrial(block, level, 10.0 ** (-4 + 0.6 * number + 0.04 * ((7 * index) % 11)), 1 - 0.012 * number)
        for index, block in enumerate(BLOCKS)
        for number, level in enumerate(LEVELS)
    )
    goal = Goal(min_agreement=0.98, max_latency=0.8)
    return dataclasses.replace(
        CONVERSION,
        model=MIXED,
        warnings=(),
        mixed=dataclasses.replace(
            old, goal=goal, met=True, shortfall=None, points=points, trials=trials, tuned=BLOCKS[:3]
        ),
    )


def profile(target: str, ms: float, *, model: ModelFile = INT8, emulated: bool = False) -> ProfileRecord:
    """Return a measurement of five processes around a p50."""
    spread = (0.99, 1.0, 1.005, 1.01, 0.995)
    at = tuple(ms / 1e3 * factor for factor in spread)
    device = dataclasses.replace(PROFILE.device, name=f"Raspberry Pi {target[-1]} Model B", emulated=emulated)
    reasons = (Reason("neighbours", False, "other processes kept 0.1 CPUs busy on average", {"cpus": 0.1}),)
    return dataclasses.replace(
        PROFILE,
        device=device,
        model=model,
        mode="full",
        target=target,
        latency=Latency(
            ms / 1e3,
            ms * 1.08 / 1e3,
            ms * 1.01 / 1e3,
            ms * 0.96 / 1e3,
            (min(at), max(at)),
            5000,
            5,
            p99_s=ms * 1.3 / 1e3,
            mad_s=ms * 0.01 / 1e3,
            outliers=12,
            process_p50_s=at,
            process_p90_s=tuple(one * 1.08 for one in at),
            process_p99_s=tuple(one * 1.3 for one in at),
        ),
        page_cache="warm",
        pss_bytes=78_000_000,
        model_bytes=22_000_000,
        throughput_per_s=1e3 / ms,
        board=BoardSummary(120, 48.0, 63.5, 6e8, 1.8e9, (), 0.12, 3_000_000_000, 0),
        verdict=Verdict(valid=True, reasons=reasons),
    )


def sustained() -> ProfileRecord:
    """Return a measurement that slowed the board down, with blocks and an image."""
    once = profile("pi4", 31.2)
    minutes = tuple(
        Minute(number, (0.031 if number < 6 else 0.044) + 0.0003 * (number % 3), 1900) for number in range(12)
    )
    share = [1 / (2 + index) for index in range(len(BLOCKS))]
    return dataclasses.replace(
        once,
        mode="sustained",
        minutes=minutes,
        time_to_throttle_s=352.0,
        end_to_end=EndToEnd("photos/cat/1.jpg", 30, 0.0112, 0.0031, 0.0004, 0.0312, 0.0459, 0.0481),
        blocks=tuple(
            BlockLatency(name, 4, 12_000_000, 0.0312 * part / sum(share), part / sum(share))
            for name, part in zip(BLOCKS, share, strict=True)
        ),
        verdict=Verdict(
            valid=False,
            reasons=(
                Reason("throttled", True, "the CPU was slowed down after 352 s; cool the board", {"seconds": 352.0}),
            ),
        ),
    )


def judged() -> EvaluationRecord:
    """Return the evaluation of a model that changed some answers, with every image."""
    random = np.random.default_rng(7)
    labels = np.repeat(np.arange(10), 40)
    float_scores = random.normal(size=(400, 10)) + 2.2 * np.eye(10)[labels]
    int8_scores = float_scores + 0.55 * random.normal(size=(400, 10)) - 0.8 * np.eye(10)[3]
    found = judged_images(labels, float_scores, int8_scores)
    best = float_scores.argmax(1), int8_scores.argmax(1)
    sure = [
        np.exp(s - s.max(1, keepdims=True)).max(1) / np.exp(s - s.max(1, keepdims=True)).sum(1)
        for s in (float_scores, int8_scores)
    ]
    columns = ImageOutcomes(
        keys=tuple(f"{found.names[label]}/{index}.png" for index, label in enumerate(labels)),
        sha256=tuple(f"{index:016x}" for index in range(400)),
        labels=tuple(map(int, labels)),
        baseline=tuple(map(int, best[0])),
        model=tuple(map(int, best[1])),
        baseline_rank=(0,) * 400,
        model_rank=(0,) * 400,
        baseline_confidence=tuple(map(float, sure[0])),
        model_confidence=tuple(map(float, sure[1])),
        kl=(0.01,) * 400,
    )
    top1 = found.paired.top1
    assert top1 is not None
    gate = GateResult(
        "max-drop", 0.02, top1.value, top1.interval[0], False, "max-drop 2.0: no: top-1 may be lower", 4000
    )
    weak = Finding("weak-class", False, "recall of owl is 41 %, that of all classes 73 %", "add images of owls", {})
    return dataclasses.replace(found, model=INT8, images=columns, gates=(gate,), passed=False, findings=(weak,))


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
"""A name that a page or a pull request must show as it is."""


def hostile() -> tuple[Record, ...]:
    """Return records whose names are markup of every kind."""
    names = (
        HOSTILE,
        "`|` *b* _i_ ~s~ [a](http://b)",
        "&amp; $x^2$ {{ 7*7 }} {% raw %}",
        "\u202egpj.\x1b[31mexe",
        "x" * 200,
    )
    base = judged()
    renamed = (*names, *base.names[len(names) :])
    classes = tuple(dataclasses.replace(one, name=renamed[one.index]) for one in base.by_class)
    file = dataclasses.replace(INT8, path=f"out/{HOSTILE}.tflite")
    data = dataclasses.replace(base.data, path=HOSTILE, notes=(HOSTILE,))
    found = Finding("collapse", True, f"line one {HOSTILE}\nline two", HOSTILE, {})
    judgement = dataclasses.replace(base, model=file, names=renamed, by_class=classes, data=data, findings=(found,))
    plan = mixed()
    plans = plan.mixed
    assert plans is not None
    trials = tuple(dataclasses.replace(one, block=f"$\\frac{{{one.block}}}$ <b>") for one in plans.trials)
    return (
        judgement,
        dataclasses.replace(plan, model=file, warnings=(HOSTILE,), mixed=dataclasses.replace(plans, trials=trials)),
        dataclasses.replace(profile("pi4", 31.2, model=file), target=HOSTILE),
        dataclasses.replace(PICK, targets=(HOSTILE,), warnings=(HOSTILE,)),
    )


def project() -> tuple[Record, ...]:
    """Return records of every part of a project."""
    return (
        RECOVERED,
        mixed(),
        profile("pi4", 31.2),
        profile("pi5", 12.4),
        profile("pi3", 88.0),
        profile("pi4", 27.9, model=MIXED),
        sustained(),
        judged(),
        evaluation(model=MIXED, gates=()),
        PICK,
    )


def every_kind() -> tuple[Record, ...]:
    """Return a record of every kind that results define, and one of an emulated board."""
    return (DEMO, *project(), profile("pi4", 250.0, emulated=True), PREDICTION, COMPILATION, AUDIT, DIAGNOSIS, PROBE)
