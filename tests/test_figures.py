"""What is made of figures: records, the fleet's summary, comparisons."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgeeff.devices import figures, validity
from edgeeff.devices.figures import Run
from edgeeff.errors import DeviceError, InputError
from edgeeff.results import CompiledFile, Device, EdgeTpuExecutable, EdgeTpuOperator, ModelFile, ProfileRecord, Runtime
from tests.scripted import edge_tpu_story, story

DEVICE = Device("Raspberry Pi 4", "aarch64", "Linux 6.6", "Cortex-A72", 4)
MODEL = ModelFile("a/b0.tflite", "ab" * 32, 5_000_000)


def change(event: str, **fields: Any) -> list[dict[str, Any]]:
    return [item | fields if item["event"] == event else item for item in story()]


def record(*latencies_s: float, **options: Any) -> ProfileRecord:
    return made([Run.of(story(latency)) for latency in latencies_s], **options)


def made(runs: list[Run], **options: Any) -> ProfileRecord:
    fields: dict[str, Any] = {
        "model": MODEL,
        "threads": 1,
        "mode": "full",
        "options": {},
        "target": "pi4",
        "device": DEVICE,
        "conditions": validity.Conditions(runs=20),
    }
    return figures.record(runs, **fields | options)


# --- Records ----------------------------------------------------------------------------------------------------------


def test_figures_of_processes_are_medians_and_peaks_are_peaks() -> None:
    runs = [
        Run.of([*change("loaded", load_s=load)[:-1], story()[-1] | {"peak_rss_bytes": peak}])
        for load, peak in ((0.5, 100), (0.1, 300), (0.2, 200))
    ]
    found = made(runs)
    assert (found.load_s, found.peak_rss_bytes) == (0.2, 300)
    assert found.latency.processes == 3
    assert found.throughput_per_s == pytest.approx(100)
    assert found.board is not None
    assert (found.board.samples, found.board.start_temperature_c, found.board.throttled) == (3, 45.0, ())
    assert found.verdict is not None
    assert found.verdict.valid


@pytest.mark.parametrize(
    ("fractions", "word"),
    [
        ([1.0, 0.95], "warm"),
        ([0.0, 0.05], "cold"),
        ([0.0, 1.0], "mixed"),
        ([0.5, 0.5], "mixed"),
        ([None, 1.0], "unknown"),
        ([None], "unknown"),
    ],
)
def test_the_page_cache_has_a_word(fractions: list[float | None], word: str) -> None:
    assert made([Run.of(change("loaded", cached=fraction)) for fraction in fractions]).page_cache == word


def test_what_the_board_did_is_summed_up() -> None:
    cpus = [
        {
            "cpu": index,
            "governor": "ondemand",
            "driver": "cpufreq-dt",
            "current_hz": hertz,
            "limit_hz": 1_800_000_000,
            "hardware_hz": 1_800_000_000,
        }
        for index, hertz in enumerate((600_000_000, 1_800_000_000))
    ]
    found = made([Run.of(change("state", cpus=cpus, temperature_c=82.0, throttled=0b100, swap_used_bytes=7))])
    assert found.board is not None
    assert (found.board.min_hz, found.board.max_hz, found.board.max_temperature_c) == (6e8, 1.8e9, 82.0)
    assert found.board.throttled == ("throttled",)
    assert found.board.max_swap_used_bytes == 7
    assert found.verdict is not None
    assert not found.verdict.valid
    assert found.verdict.reasons[0].cause == "throttled"


def test_an_old_kernel_that_tells_little_is_no_error() -> None:
    said = story(temperature_c=None)
    for event in said:
        for name in ("pss_bytes", "anonymous_bytes", "cached", "numpy", "delegated_parts"):
            event.pop(name, None)
    found = made([Run.of(said)])
    assert (found.pss_bytes, found.model_bytes, found.page_cache) == (None, None, "unknown")


def test_a_sustained_measurement_is_not_judged_by_its_runs() -> None:
    minutes = [{"event": "minute", "minute": number, "p50_s": 0.01 * number, "runs": 15} for number in (1, 2)]
    said = story()
    said = [*said[:-1], *minutes, said[-1]]
    strict = validity.Conditions(runs=200)
    found = made([Run.of(said)], mode="sustained", conditions=strict)
    assert [minute.p50_s for minute in found.minutes] == [0.01, 0.02]
    assert found.time_to_throttle_s is None
    assert found.verdict is not None
    assert found.verdict.valid
    repeated = made([Run.of(said)], conditions=strict).verdict
    assert repeated is not None
    assert not repeated.valid


def test_the_time_to_throttle_is_from_the_first_timed_run() -> None:
    said = story()
    slowed = next(event for event in said if event.get("phase") == "measure") | {"throttled": 0b100, "at_s": 61.0}
    found = made([Run.of([*said[:-1], slowed, said[-1]])], mode="sustained")
    assert found.time_to_throttle_s == pytest.approx(60.0)


def test_end_to_end_is_pooled_over_processes() -> None:
    steps = {"decode_s": [1.0, 3.0], "resize_s": [2.0], "quantize_s": [1.0], "invoke_s": [4.0], "total_s": [8.0, 12.0]}
    said = story()
    run = Run.of([*said[:-1], {"event": "end_to_end", **steps}, said[-1]])
    found = made([run, run], image="photo.jpg").end_to_end
    assert found is not None
    assert (found.image, found.runs, found.decode_s, found.total_s) == ("photo.jpg", 4, 2.0, 10.0)
    assert made([run]).end_to_end is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_what_is_no_time_is_refused(value: float) -> None:
    with pytest.raises(DeviceError, match="no latencies, or some that are no times"):
        Run.of(change("latencies", latencies_s=[0.1, value]))


COMPILED = CompiledFile(
    (
        EdgeTpuOperator(
            0,
            0,
            14,
            None,
            (
                EdgeTpuExecutable("parameter-caching", "beagle", 4_000_000, "1" * 16),
                EdgeTpuExecutable("execution-only", "beagle", 250_000, "1" * 16),
            ),
        ),
    ),
    3,
)


def test_what_an_edge_tpu_does_once_is_apart() -> None:
    runs = [Run.of(edge_tpu_story(latency)) for latency in (0.010, 0.012, 0.014)]
    found = made(runs, compiled=COMPILED, conditions=validity.Conditions(runs=20, delegate="edgetpu"))
    use = found.edge_tpu
    assert use is not None
    assert use.edge_tpu is not None
    assert (use.edge_tpu.bus, use.edge_tpu.megabits_per_s, use.library.runtime) == ("pcie", 5000.0, 14)
    assert found.first_inference_s == 0.03  # in all of them
    assert use.parameter_upload_s == pytest.approx(0.018)
    assert (use.cached_parameter_bytes, use.streamed_parameter_bytes) == (4_000_000, 250_000)
    assert (use.cpu_operators, use.minimum_runtime) == (3, 14)
    assert (use.start_temperature_c, use.max_temperature_c) == (44.0, 44.0)
    quick = made([Run.of(edge_tpu_story(0.05, degrees=None))]).edge_tpu
    assert quick is not None
    assert (quick.parameter_upload_s, quick.max_temperature_c, quick.minimum_runtime) == (0.0, None, None)
    assert made([Run.of(story())]).edge_tpu is None


def test_a_library_that_is_not_understood_is_an_error() -> None:
    said = [event | {"says": 14} if event["event"] == "edge_tpu_library" else event for event in edge_tpu_story()]
    with pytest.raises(DeviceError, match="what the runner said is not understood"):
        Run.of(said)


# --- Fleets -----------------------------------------------------------------------------------------------------------


def test_one_board_is_no_fleet() -> None:
    assert figures.fleet([record(0.01), record(0.01, threads=2)]) == ()


def test_boards_are_grouped_by_file_and_threads() -> None:
    other = dataclasses.replace(MODEL, sha256="cd" * 32)
    records = [
        record(0.01, 0.03, target=target, threads=threads, model=model)
        for target in ("a", "b")
        for threads in (1, 4)
        for model in (MODEL, other)
    ]
    found = figures.fleet(records)
    assert [(one.threads, one.boards) for one in found] == [(1, 2), (1, 2), (4, 2), (4, 2)]
    assert all(one.between_s == 0 for one in found)
    assert found[0].within_s == pytest.approx(0.02 / 2**0.5)


def test_three_boards_cannot_tell_who_is_odd() -> None:
    latencies = (0.0100, 0.0101, 0.0102, 0.0500)
    odd = [record(latency, target=f"pi{index}") for index, latency in enumerate(latencies)]
    assert figures.fleet(odd)[0].outliers == ("pi3",)
    assert figures.fleet(odd[1:])[0].outliers == ()


# --- Comparisons ------------------------------------------------------------------------------------------------------


def test_a_comparison_of_single_processes_has_no_interval() -> None:
    assert figures.compare(record(0.01), record(0.02, 0.02)).interval is None
    found = figures.compare(record(0.01, 0.01), record(0.02, 0.02))
    assert (found.ratio, found.interval, found.differences) == (2.0, (2.0, 2.0), ())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": dataclasses.replace(DEVICE, name="Raspberry Pi 5")}, "device was Raspberry Pi 4"),
        ({"device": dataclasses.replace(DEVICE, emulated=True)}, "emulation was not emulated, is emulated"),
        ({"threads": 4}, "threads was 1, is 4"),
        ({"mode": "sustained"}, "kind was repeated, is sustained"),
    ],
)
def test_what_differs_is_named(options: dict[str, Any], words: str) -> None:
    before, after = record(0.01, 0.01), record(0.01, 0.01, **options)
    with pytest.raises(InputError, match=words):
        figures.compare(before, after)
    (difference,) = figures.compare(before, after, force=True).differences
    assert difference.startswith(words)


def test_runtime_and_delegate_count() -> None:
    before = record(0.01, 0.01)
    for runtime in (Runtime("tflite-runtime", "2.13.0"), Runtime("tflite-runtime", "2.14.0", "none"), None):
        with pytest.raises(InputError, match=r"runtime was|delegate was"):
            figures.compare(before, dataclasses.replace(before, runtime=runtime))


def test_the_link_and_the_library_of_an_edge_tpu_count() -> None:
    before = made([Run.of(edge_tpu_story())])
    use = before.edge_tpu
    assert use is not None
    on_usb = made([Run.of(edge_tpu_story(bus="usb", megabits_per_s=480.0))])
    with pytest.raises(InputError, match=r"Edge TPU was on pcie, 5000.0 Mbit/s, is on usb, 480.0 Mbit/s"):
        figures.compare(before, on_usb)
    library = dataclasses.replace(use.library, package="libedgetpu1-max")
    other = dataclasses.replace(before, edge_tpu=dataclasses.replace(use, library=library))
    with pytest.raises(InputError, match=r"libedgetpu was libedgetpu1-std 16.0, is libedgetpu1-max 16.0"):
        figures.compare(before, other)
    assert figures.compare(before, before).ratio == 1


def test_another_kernel_or_mode_does_not_count() -> None:
    after = record(0.01, 0.01, mode="quick", device=dataclasses.replace(DEVICE, system="Linux 6.12"))
    assert figures.compare(record(0.01, 0.01), after).ratio == 1
