"""`edgeeff pick` and `edgeeff predict`: what is measured and kept on scripted boards, and what recorded ones answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeeff import cli
from edgeeff.converters import convert as converting
from edgeeff.devices import profile, targets, transport
from edgeeff.devices.profile import Protocol
from edgeeff.errors import DroppedError
from edgeeff.files import cache_folder
from edgeeff.picking import measure, pick, records
from edgeeff.picking.ladder import ladder
from edgeeff.results import EndToEnd, ModelFile, PickLimits, PickRecord, ProfileRecord, Reason, Verdict, read_record
from tests.scripted import Answer, Lab, story

LITE = ladder("lite", "int8")
RATE = 5e10
"""MACs per second of the boards that are made up here: lite0 7.7 ms, lite1 12, lite2 17, lite3 28, lite4 51."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a user works: a converted ladder, which here is a name for each network, and no targets yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    (tmp_path / "models").mkdir()
    for one in LITE:
        (tmp_path / "models" / one.file_name).write_bytes(one.name.encode() * 1000)
    return tmp_path


@pytest.fixture
def lab(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    """Scripted boards that are among the user's targets."""

    def make(*names: str, answer: Callable[[dict[str, Any], int], Answer] | None = None) -> Lab:
        made = Lab.of(*names, answer=answer or board())
        for target in made.targets:
            targets.add(target, replace_it=True)
        monkeypatch.setattr(transport, "connect", made.connect)
        return made

    return make


NAMES = {hashlib.sha256(one.name.encode() * 1000).hexdigest(): one for one in LITE}


def asked(options: dict[str, Any]) -> str:
    """The network that a process was to measure."""
    return NAMES[Path(options["model"]).stem].name


def board(rate: float = RATE, lost: int | None = None) -> Callable[[dict[str, Any], int], Answer]:
    """A board on which processes differ by half a percent; the process of that number finds the connection cut."""

    def answer(options: dict[str, Any], number: int) -> Answer:
        if number == lost:
            return Answer((), raises=DroppedError("pi4 was lost"))
        seconds = NAMES[Path(options["model"]).stem].macs / rate * (1 + 0.005 * (number % 2))
        return Answer(story(seconds))

    return answer


def edgeeff(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(cli.main, arguments, prog_name="edgeeff")


def picked(*arguments: str, status: int = 0) -> Any:
    done = edgeeff("pick", "--family", "lite", "--models", "models", "--json", *arguments)
    assert done.exit_code == status, done.stderr or done.stdout
    return json.loads(done.stdout)


def kept(folder: str = "edgeeff-pick") -> list[str]:
    return sorted(path.name for path in Path(folder).glob("*.profile.json"))


# --- Boards -----------------------------------------------------------------------------------------------------------


def test_few_networks_are_measured_and_their_records_are_kept(lab: Callable[..., Lab]) -> None:
    boards = lab("pi4")
    record = picked("--budget", "20ms", "--target", "pi4")
    assert (record["winner"], record["runner_up"], record["certain"]) == ("lite2", "lite3", True)
    assert record["command"] == "edgeeff convert --variant lite2 --scheme int8"
    assert record["margin"] == pytest.approx(1 - 17.2 / 20, abs=0.02)
    assert record["runner_up_margin"] < 0
    assert {asked(options) for options in boards.boards["pi4"].asked} == {"lite0", "lite2", "lite3"}
    assert record["measured"] == 3
    assert kept() == [f"{name}_int8.pi4.t1.quick.profile.json" for name in ("lite0", "lite2", "lite3")]
    written = read_record(Path("edgeeff-pick/lite_int8.pi4.pick.json"))
    assert isinstance(written, PickRecord)
    assert written.winner == "lite2"
    (latency_there,) = next(one for one in written.candidates if one.name == "lite3").latencies
    assert (latency_there.basis, latency_there.source) == ("measured", f"edgeeff-pick/{kept()[2]}")


def test_records_are_used_again_on_the_same_board_only(lab: Callable[..., Lab]) -> None:
    boards = lab("pi4")
    picked("--budget", "20ms", "--target", "pi4")
    processes = len(boards.boards["pi4"].asked)
    again = picked("--budget", "19ms", "--target", "pi4")
    assert (again["measured"], again["winner"]) == (0, "lite2")
    assert len(boards.boards["pi4"].asked) == processes
    assert {basis["basis"] for one in again["candidates"] for basis in one["latencies"]} == {"reused"}
    fresh = picked("--budget", "19ms", "--target", "pi4", "--fresh")
    assert fresh["measured"] == 3
    assert picked("--budget", "19ms", "--target", "pi4", "--threads", "4")["measured"] == 3
    # The same name leads to another board now.
    boards.boards["pi4"].probe = boards.boards["pi4"].probe | {"board": "Raspberry Pi 5 Model B Rev 1.0"}
    assert picked("--budget", "19ms", "--target", "pi4")["measured"] == 3


def test_a_board_that_disappears_keeps_what_was_measured(lab: Callable[..., Lab]) -> None:
    lab("pi4", answer=board(lost=8))
    done = edgeeff("pick", "--family", "lite", "--models", "models", "--budget", "20ms", "--target", "pi4")
    assert done.exit_code == 3
    assert "give the same command again to go on" in done.stderr
    assert kept() == ["lite0_int8.pi4.t1.quick.profile.json"]
    boards = lab("pi4")
    record = picked("--budget", "20ms", "--target", "pi4")
    assert (record["winner"], record["measured"]) == ("lite2", 2)
    assert len(boards.boards["pi4"].asked) == 10 - 2  # two processes of the second network were done before


def test_a_board_with_an_edge_tpu_is_measured_on_its_cpu_and_that_is_said(lab: Callable[..., Lab]) -> None:
    boards = lab("coral")
    targets.add(replace(boards.targets[0], board="coral-dev-board"), replace_it=True)
    record = picked("--budget", "5ms", "--target", "coral", status=1)
    assert "coral has an Edge TPU (PCIe); these are the latencies of its CPU" in record["warnings"][0]


def test_of_a_fleet_the_slowest_board_decides(lab: Callable[..., Lab]) -> None:
    boards = lab("fast", "slow")
    boards.boards["fast"].answer = board(2 * RATE)
    record = picked("--budget", "20ms", "--target", "fast", "--target", "slow")
    assert record["winner"] == "lite2"
    assert record["targets"] == ["fast", "slow"]
    winner = next(one for one in record["candidates"] if one["name"] == "lite2")
    assert [one["target"] for one in winner["latencies"]] == ["fast", "slow"]
    assert winner["latency_s"] == max(one["seconds"] for one in winner["latencies"])


def test_an_emulated_board_is_labelled_everywhere(lab: Callable[..., Lab]) -> None:
    lab("pi4")
    targets.add(targets.Target("pi4", "ssh://pi@pi4", python="python3", emulated=True), replace_it=True)
    record = picked("--budget", "20ms", "--target", "pi4")
    assert record["device"]["emulated"] is True
    assert record["warnings"][0].startswith("EMULATED")
    shown = edgeeff("pick", "--family", "lite", "--models", "models", "--budget", "20ms", "--target", "pi4").stdout
    assert "4 cores, EMULATED" in shown


def test_memory_is_checked_on_the_board(lab: Callable[..., Lab]) -> None:
    def hungry(options: dict[str, Any], number: int) -> Answer:
        return Answer([*story()[:-1], story()[-1] | {"peak_rss_bytes": 90_000_000}])

    lab("pi4", answer=hungry)
    record = picked("--budget", "20ms", "--target", "pi4", "--max-memory", "70MB", status=1)
    assert (record["winner"], record["decides"], record["measured"]) == (None, "memory", 1)
    assert record["changes"][0]["option"] == "--max-memory 90MB"
    smaller = record["candidates"][0]["predicted_memory_bytes"] // 2
    hopeless = picked("--budget", "20ms", "--target", "pi4", "--max-memory", f"{smaller}B", "--fresh", status=1)
    assert (hopeless["decides"], hopeless["measured"]) == ("memory", 0)


def test_a_file_that_nobody_has_is_converted_with_random_weights(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEEFF_CACHE", str(desk / "cache"))
    made: list[tuple[Any, Path]] = []

    def convert(source: Any, *, output: Path, **_options: Any) -> None:
        made.append((source, output))
        output.write_bytes(b"")

    monkeypatch.setattr(converting, "convert", convert)
    bench = measure.Bench([], 1, 90, desk)
    phi = ladder("phi", "float32", 64)[30]
    for one in (LITE[1], phi):
        assert bench.file(one) == cache_folder("ladders") / one.file_name
    bench.file(phi)
    assert [(source.variant, source.phi, source.weights, source.resolution) for source, _ in made] == [
        ("lite1", None, "none", 240),
        (None, 0.0, "none", 64),
    ]
    assert made[1][1].name == "phi0-64px_float32.tflite"


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_efforts_grow(percentile: int) -> None:
    def runs(protocol: Protocol) -> float:
        return protocol.processes * (protocol.options.get("duration_s") or 10.0)

    for quick in (True, False):
        lengths = [runs(one) for one in measure.Bench([], 1, percentile, Path(), quick=quick).protocols]
        assert lengths == sorted(set(lengths))


def test_this_machine_is_measured_without_connection(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def measure_all(boards: Any, plan: Any, **options: Any) -> Any:
        seen.append((boards, plan.files[0].name, options["device"]))
        raise DroppedError("enough")

    monkeypatch.setattr(profile, "measure_all", measure_all)
    done = edgeeff("pick", "--budget", "20ms", "--family", "lite", "--models", "models")
    assert done.exit_code == 3
    assert [(name, device is not None) for _, name, device in seen] == [("lite0_int8.tflite", True)]


def test_this_machine_is_measured_for_real(
    desk: Path, tiny_float_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="runs .tflite files")
    options = {"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05}
    monkeypatch.setattr(profile, "QUICK", Protocol("quick", 2, options))
    monkeypatch.setattr(measure, "SHORT", Protocol("quick", 3, options))  # when the first one is called invalid
    (desk / "models" / "lite0_int8.tflite").write_bytes(tiny_float_tflite.read_bytes())
    # Less than any network needs: one measurement says so.
    record = picked("--budget", "0.001us", "--quick", status=1)
    assert (record["measured"], record["candidates"][0]["by"], record["targets"]) == (1, "measured", ["local"])
    assert 0 < record["candidates"][0]["latency_s"] < 0.1
    assert record["candidates"][0]["size_bytes"] == tiny_float_tflite.stat().st_size
    assert picked("--budget", "0.001us", "--quick", status=1)["measured"] == 0  # its record is used again


# --- Recorded boards --------------------------------------------------------------------------------------------------


def recorded(*arguments: str, status: int = 0) -> Any:
    return picked("--target", "recorded:raspberry-pi-4", *arguments, status=status)


ROWS = [("int8", [32.08, 47.39, 64.61, 97.85, 182.69]), ("float32", [68.73, 98.67, 139.29, 211.46, 350.43])]


@pytest.mark.parametrize(("scheme", "p90_ms"), ROWS)
def test_the_right_network_is_picked_for_every_budget_between_published_ones(
    desk: Path, scheme: str, p90_ms: list[float]
) -> None:
    for number, (below, above) in enumerate(zip(p90_ms, [*p90_ms[1:], 400.0], strict=True)):
        for budget in (below * 1.001, (below + above) / 2, above * 0.999):
            assert recorded("--budget", f"{budget}ms", "--scheme", scheme)["winner"] == f"lite{number}"


def test_recorded_figures_are_labelled(desk: Path) -> None:
    record = recorded("--budget", "100ms")
    assert (record["winner"], record["threads"], record["measured"]) == ("lite3", 4, 0)
    assert record["recorded"] == [
        "MLPerf Inference v1.1, open division, edge, submitted by Krai: rpi4coral-fan.on-tflite-v2.5.0-ruy, single "
        "stream (github.com/mlcommons/inference_results_v1.1), 2021-09-22"
    ]
    assert {one["by"] for one in record["candidates"]} == {"recorded"}
    assert {basis["basis"] for one in record["candidates"] for basis in one["latencies"]} == {"recorded"}
    assert not (desk / "edgeeff-pick").exists()


def test_what_nobody_recorded_is_predicted_and_never_certain(desk: Path) -> None:
    done = edgeeff("pick", "--family", "b", "--budget", "300ms", "--target", "recorded:raspberry-pi-4", "--json")
    record = json.loads(done.stdout)
    assert record["winner"] is not None
    assert record["certain"] is False
    assert {one["by"] for one in record["candidates"]} == {"predicted"}


def test_own_records_are_recorded_targets_too(lab: Callable[..., Lab]) -> None:
    lab("pi4")
    picked("--budget", "20ms", "--target", "pi4")
    record = picked("--budget", "20ms", "--target", "recorded:pi4", "--records", "edgeeff-pick")
    assert (record["winner"], record["certain"], record["measured"]) == ("lite2", True, 0)
    assert record["recorded"][0].startswith("3 profile records in edgeeff-pick, 20")


OWN = """
name = "Board of ours"
source = "measured by us"
date = "2026-01-31"
threads = 2
[[rows]]
variant = "lite0"
scheme = "int8"
p50_s = 0.010
p90_s = 0.012
"""


def test_a_board_can_be_written_down(desk: Path) -> None:
    (desk / "config" / "recorded").mkdir(parents=True)
    (desk / "config" / "recorded" / "ours.toml").write_text(OWN)
    record = picked("--budget", "15ms", "--target", "recorded:ours")
    assert (record["winner"], record["threads"], record["recorded"]) == ("lite0", 2, ["measured by us, 2026-01-31"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("variant", "variety"), "is no record of a board"),
        (("threads = 2", "threads = 0"), "no rows or no threads"),
        (("lite0", "lite9"), "unknown variant 'lite9'"),
        (("int8", "int4"), "unknown scheme of a recorded row 'int4'"),
        (("0.010", "0.0"), "not above zero"),
        (("threads = 2", 'threads = 2\nboard = "pi-4"'), "unknown board in "),
    ],
)
def test_a_board_that_is_written_down_wrongly_is_refused(desk: Path, change: tuple[str, str], reason: str) -> None:
    (desk / "ours.toml").write_text(OWN.replace(*change))
    done = edgeeff("pick", "--family", "lite", "--budget", "15ms", "--target", "recorded:ours", "--records", str(desk))
    assert done.exit_code == 2
    assert reason in done.stderr


@pytest.mark.parametrize("percentile", [50, 90])
def test_from_image_to_scores_counts_what_is_not_the_network(percentile: int) -> None:
    golden = read_record(Path(__file__).parent / "golden" / "profile_v2.json")
    assert isinstance(golden, ProfileRecord)
    steps = EndToEnd("x.jpg", 30, 0.01, 0.004, 0.001, 0.051, total_s=0.066, total_p90_s=0.08)
    latency = replace(golden.latency, process_p50_s=(0.049, 0.05, 0.051), process_p90_s=(0.061, 0.0625, 0.064))
    record = replace(golden, model=ModelFile("b0_int8.tflite", "0" * 64, 1), latency=latency, end_to_end=steps)
    figure = records.of_profile(record, Path("x.profile.json"))
    total, alone = {50: (0.066, 0.05), 90: (0.08, 0.0625)}[percentile]
    reading = figure.reading("pi4", percentile, "measured", end_to_end=True)
    assert reading is not None
    assert reading.seconds == total
    assert reading.overhead_s == pytest.approx(total - alone)
    assert reading.interval is not None
    assert reading.interval[1] / reading.seconds == pytest.approx(1.05, abs=0.02)
    assert figure.reading("pi4", 99, "measured", end_to_end=True) is None
    assert figure.reading("pi4", 99, "measured") is None  # too few runs


def test_an_invalid_measurement_tells_its_first_reason() -> None:
    golden = read_record(Path(__file__).parent / "golden" / "profile_v2.json")
    assert isinstance(golden, ProfileRecord)
    named = replace(golden, model=ModelFile("b0_int8.tflite", "0" * 64, 1))
    for verdict, told in (
        (None, (True, None)),
        (Verdict(True, (Reason("unobserved", False, "nothing seen", {}),)), (True, None)),
        (Verdict(False, (Reason("drift", True, "p50 rose", {}), Reason("x", False, "y", {}))), (False, "p50 rose")),
    ):
        figure = records.of_profile(replace(named, verdict=verdict), Path("x.profile.json"))
        reading = figure.reading("pi4", 50, "measured")
        assert reading is not None
        (latency,) = reading.latencies
        assert (latency.valid, latency.reason) == told


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_nothing_fits_and_what_would(desk: Path) -> None:
    record = recorded("--budget", "20ms", status=1)
    assert (record["winner"], record["command"], record["decides"]) == (None, None, "latency")
    changes = {one["kind"]: one for one in record["changes"]}
    assert changes["budget"]["option"] == "--budget 32.1ms"
    assert changes["resolution"]["interval_s"][1] <= 0.02
    pixels = int(changes["resolution"]["option"].split()[1])
    assert recorded("--budget", "20ms", "--resolution", str(pixels))["winner"] == "lite0"


def test_the_change_of_budget_would_do(desk: Path) -> None:
    record = recorded("--budget", "40ms")
    (option,) = (one["option"] for one in record["changes"] if one["kind"] == "budget")
    assert recorded(*option.split())["winner"] == record["runner_up"] == "lite1"


def test_contradictory_limits_say_which_one_decides(desk: Path) -> None:
    done = edgeeff(
        "pick", "--family", "lite", "--budget", "50ms", "--min-top1", "79", "--target", "recorded:raspberry-pi-4"
    )
    assert done.exit_code == 1
    assert done.stderr == (
        "edgeeff: the limits contradict each other, and latency decides: --min-top1 79 asks for lite3 or larger, but "
        "lite3 takes 97.9 ms, more than the budget of 50.0 ms\n"
    )
    assert "--min-top1 75.9" in done.stdout
    record = recorded("--budget", "1s", "--max-size", "3MB", "--min-top1", "79", status=1)
    assert record["decides"] == "size"


def test_an_accuracy_that_nobody_reached_is_said_at_once(desk: Path) -> None:
    done = edgeeff("pick", "--budget", "1s", "--min-top1", "90", "--target", "recorded:raspberry-pi-4")
    assert done.exit_code == 1
    assert "no network of family b has a top-1 of 90 %: the best has 84.3 %" in done.stderr


def test_much_work_for_little_accuracy_is_named(desk: Path) -> None:
    request = pick.Request("b", PickLimits(60.0, 90), names=("recorded:raspberry-pi-4",))
    record = pick.run(request)
    assert record.winner == "b7"
    assert "b7 has 2.0 times the MACs of b6 for 0.3 points of top-1: consider b6" in record.warnings
    assert pick.run(pick.Request("lite", PickLimits(0.1, 90), names=request.names)).warnings == ()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--budget", "30"], "has no unit"),
        (["--budget", "0ms"], "above zero"),
        (["--budget", "30ms", "--max-size", "8"], "has no unit"),
        (["--budget", "30ms", "--min-top1", "0.78"], "is no percentage from 1 to 100"),
        (["--budget", "30ms", "--min-top1", "high"], "is no percentage"),
        (["--budget", "30ms", "--scheme", "mixed"], "'mixed' cannot be picked"),
        (["--budget", "30ms", "--scheme", "int16x8"], "no latency is predicted for 'int16x8'"),
        (["--budget", "30ms", "--family", "phi", "--min-top1", "70"], "nobody published a top-1 of the family phi"),
        (["--budget", "30ms", "--resolution", "200", "--min-top1", "70"], "nobody published a top-1 at another"),
        (["--budget", "30ms", "--target", "pi9"], "unknown target 'pi9'"),
        (["--budget", "30ms", "--target", "raspberry-pi-4"], "--target recorded:raspberry-pi-4"),
        (["--budget", "30ms", "--target", "raspberry-pi-5"], "not one that it can reach"),
        (["--budget", "30ms", "--target", "recorded:pi9"], "unknown recorded target 'pi9'"),
        (["--budget", "30ms", "--target", "recorded:raspberry-pi-4", "--threads", "1"], "4 threads, not with 1"),
        (["--budget", "30ms", "--target", "recorded:raspberry-pi-4", "--end-to-end", "x.jpg"], "is measured"),
        (
            ["--budget", "30ms", "--delegate", "edgetpu"],
            "edgeeff profile --delegate edgetpu, and pick from their figures",
        ),
        (["--budget", "30ms", "--delegate", "edgetpu"], "estimated by edgeeff inspect FILE --edge-tpu"),
        (["--budget", "30ms", "--quick", "--percentile", "99"], "too few runs"),
        (["--budget", "30ms", "--end-to-end", "x.jpg", "--percentile", "99"], "too few images"),
        (["--budget", "30ms", "--plot", "x.jpg"], "ends in none of .png, .svg"),
        (["--budget", "30ms", "--plot", "none/x.svg"], "cannot write none/x.svg"),
        (["--budget", "30ms", "--target", "recorded:x", "--records", "none"], "none is no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(desk: Path, arguments: list[str], reason: str) -> None:
    done = edgeeff("pick", *arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not (desk / "edgeeff-pick").exists()


# --- Predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_file(desk: Path, tiny_float_tflite: Path) -> Iterator[Path]:
    pytest.importorskip("ai_edge_litert", reason="reads .tflite files")
    yield tiny_float_tflite


def test_a_file_is_predicted_from_what_was_recorded(tiny_file: Path) -> None:
    done = edgeeff("predict", str(tiny_file), "--target", "recorded:raspberry-pi-4", "--json")
    record = json.loads(done.stdout)
    assert record["schema"] == "edgeeff/prediction"
    assert record["fitted"] == [f"lite{number}" for number in range(5)]
    assert (record["threads"], record["scheme"], len(record["recorded"])) == (4, "float32", 1)
    low, high = record["interval_s"]
    assert 0 < low < record["predicted_s"] < high < 0.02


def test_a_file_for_the_edge_tpu_is_not_predicted(tiny_file: Path) -> None:
    from tests import edge_tpu_files  # makes files with LiteRT's schema

    path = tiny_file.with_name("m_edgetpu.tflite")
    path.write_bytes(edge_tpu_files.WHOLE)
    done = edgeeff("predict", str(path), "--target", "recorded:raspberry-pi-4")
    assert done.exit_code == 2
    assert "is compiled for the Edge TPU" in done.stderr


def test_a_file_is_predicted_from_facts_alone_with_a_wide_interval(tiny_file: Path) -> None:
    done = edgeeff("predict", str(tiny_file), "--target", "raspberry-pi-5", "--threads", "4")
    assert done.exit_code == 0
    assert "fitted on nothing that was measured: the published facts of raspberry-pi-5" in done.stdout


def test_without_records_and_facts_nothing_is_predicted(tiny_file: Path) -> None:
    done = edgeeff("predict", str(tiny_file))
    assert done.exit_code == 2
    assert "nothing in float32 is known of local" in done.stderr


def test_no_file_is_no_prediction(desk: Path) -> None:
    done = edgeeff("predict", "none.tflite", "--target", "recorded:raspberry-pi-4")
    assert (done.exit_code, done.stderr) == (
        2,
        "edgeeff: cannot read the model none.tflite: No such file or directory\n",
    )
