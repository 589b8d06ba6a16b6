from __future__ import annotations

import math

import pytest

from edgeeff.converters.edgetpu import estimate
from edgeeff.converters.edgetpu.estimate import MODEL, Work, before_compiling, of_compiled, only_sending, work
from tests.benchmarks import edgetpu_estimate as bench

MB = 1_000_000


def test_the_numbers_are_those_of_a_fit_to_the_published_figures() -> None:
    figures = bench.published()
    fitted = bench.fit(figures, {figure.network: bench.network(figure.network) for figure in figures})
    for name, now, there in bench.numbers(fitted):
        assert there == pytest.approx(now, rel=0.005), name


def test_every_published_figure_is_inside_its_interval() -> None:
    figures = bench.published()
    assert len(figures) == 33
    for figure in figures:
        network = bench.network(figure.network)
        times = before_compiling(network.work, round(network.parameter_bytes)).times
        (seen,) = (time for time, link in zip(times, MODEL.links, strict=True) if link.key == figure.link)
        low, high = seen.estimated_interval_s
        assert low < figure.seconds < high, figure


def test_intervals_are_as_wide_as_the_worst_network_that_was_left_out() -> None:
    figures = bench.published()
    names = dict.fromkeys(figure.network for figure in figures)
    known = {name: bench.network(name) for name in names}
    errors: dict[str, list[float]] = {}
    for name in names:
        model = bench.fit([figure for figure in figures if figure.network != name], known)
        for figure in figures:
            if figure.network == name:
                ratio = bench.predict(model, known[name], figure.link) / figure.seconds
                errors.setdefault(figure.link, []).append(ratio)
    for link in MODEL.links:
        assert bench.factors(errors)[link.key] == pytest.approx(link.factor, rel=0.05)
        assert link.factor >= bench.factors(errors)[link.key]


def test_work_is_summed_by_kind() -> None:
    seen = work([("CONV_2D", 500), ("DEPTHWISE_CONV_2D", 30), ("ADD", 0), ("FULLY_CONNECTED", 7)], 99)
    assert seen == Work(convolution_macs=507, depthwise_macs=30, transferred_bytes=99, left_out=())


def test_what_no_published_network_has_is_named() -> None:
    seen = work(
        [("CONV_2D", 5), ("LOGISTIC", 0), ("MUL", 0), ("LOGISTIC", 0)],
        1,
        on_the_cpu=[("CONV_2D", 900), ("DEQUANTIZE", 0), ("SOFTMAX", 0)],
    )
    assert (seen.convolution_macs, seen.left_out) == (5, ("LOGISTIC", "MUL", "1 operator on the CPU"))
    assert before_compiling(seen, 0).left_out == seen.left_out


def test_before_compiling_what_is_sent_is_a_range() -> None:
    small = before_compiling(Work(0, 0, 0), 2 * MB)
    assert (small.streamed_parameter_bytes, small.expected_streamed_parameter_bytes) == ((0, 2 * MB), 0)
    large = before_compiling(Work(0, 0, 0), 20 * MB)
    assert large.streamed_parameter_bytes == (20 * MB - estimate.MOST_ON_CHIP_BYTES, 20 * MB)
    assert large.expected_streamed_parameter_bytes == round(20 * MB - MODEL.resident_bytes)
    for link, few, many in zip(MODEL.links, small.times, large.times, strict=True):
        assert few.estimated_streaming_s == (0, 2 * MB / link.bytes_per_s)
        assert few.estimated_s == link.overhead_s
        assert many.estimated_s == pytest.approx(link.overhead_s + (20 * MB - MODEL.resident_bytes) / link.bytes_per_s)
        low, high = many.estimated_interval_s
        assert math.sqrt(low * high) == pytest.approx(many.estimated_s)


def test_a_compiled_file_says_what_it_sends() -> None:
    done = Work(827_000_000, 20_100_000, 0)
    seen = of_compiled(done, 3 * MB)
    assert seen.streamed_parameter_bytes == (3 * MB, 3 * MB)
    for link, time in zip(MODEL.links, seen.times, strict=True):
        assert time.estimated_s == pytest.approx(link.overhead_s + 3 * MB / link.bytes_per_s + 2e-3)
        assert time.estimated_streaming_s == (3 * MB / link.bytes_per_s,) * 2


def test_sending_over_usb_2_costs_more_than_ten_times_as_much() -> None:
    times = {time.link: time.estimated_streaming_s[1] for time in of_compiled(only_sending(0), MB).times}
    assert times["USB 2"] > 10 * times["USB 3"]
    assert of_compiled(only_sending(0), MB).left_out == (estimate.COMPUTING,)


def test_nothing_computes_faster_than_the_peak() -> None:
    assert MODEL.depthwise_macs_per_s < MODEL.convolution_macs_per_s < estimate.PEAK_MACS_PER_S
