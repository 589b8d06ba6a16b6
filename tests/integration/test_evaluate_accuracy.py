"""What `edgeeff evaluate` says of networks with real weights: a collapse by its name, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeeff.converters.convert import Calibration, Source, convert
from edgeeff.evaluation.engine import Plan, evaluate
from edgeeff.evaluation.gates import Gates

pytestmark = pytest.mark.accuracy


def test_a_collapse_is_named_and_refused_and_float16_passes(shared: Path, tmp_path: Path) -> None:
    baseline = shared / "models" / "efficientnetb0_imagenette.keras"
    calibration = Calibration(shared / "data" / "imagenette" / "calibration", calibrator="min-max")
    quantized, half = tmp_path / "int8.tflite", tmp_path / "half.tflite"
    # The ranges of the extremes, which are what collapses; the file is made all the same.
    convert(Source(model=baseline), calibration=calibration, output=quantized)
    convert(Source(model=baseline), scheme="float16", output=half)
    plan = Plan((quantized, half), baseline, shared / "data" / "imagenette" / "evaluation", gates=Gates(max_drop=0.01))
    collapsed, kept = evaluate(plan)
    assert collapsed.baseline_metrics is not None and collapsed.model_metrics is not None
    assert collapsed.baseline_metrics.top1 == pytest.approx(0.699, abs=0.003)
    assert collapsed.model_metrics.top1 < 0.4
    assert collapsed.findings[0].cause == "collapse"
    assert not collapsed.passed
    assert kept.passed
    assert "collapse" not in {finding.cause for finding in kept.findings}


def test_lite0_in_int8_has_no_significant_difference(shared: Path, tmp_path: Path) -> None:
    quantized, baseline = tmp_path / "lite0_int8.tflite", tmp_path / "lite0_float32.tflite"
    convert(
        Source(variant="lite0"),
        calibration=Calibration(shared / "data" / "imagenette" / "calibration", calibrator="min-max"),
        output=quantized,
    )
    convert(Source(variant="lite0"), scheme="float32", output=baseline)
    (record,) = evaluate(Plan((quantized,), baseline, shared / "data" / "imagenet-sample"))
    assert record.data.matched_by == "synsets"
    assert record.baseline_metrics is not None and record.baseline_metrics.top1 == pytest.approx(0.88, abs=0.003)
    assert record.paired.top1 is not None and record.paired.top1.p_value is not None
    assert record.paired.top1.p_value > 0.05
    assert record.paired.agreement > 0.93
    assert not any(change.recall is not None and (change.recall.p_adjusted or 1) < 0.05 for change in record.by_class)
