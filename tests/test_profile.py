"""The measuring protocol: fresh processes in turn, on this machine, over SSH, and on boards that fail in every way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeeff.devices import profile, runner, setup
from edgeeff.devices.profile import FULL, QUICK, Case, Outcome, Plan, Protocol, measure, measure_all, protocol, wait
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.errors import DeviceError, DroppedError, EdgeeffError, InputError, ModelError, OutputError, TimeLimitError
from edgeeff.results import ModelFile, Runtime, read_record, this_device, to_json
from tests.boards import board
from tests.scripted import EDGE_TPU_LIBRARY, Answer, Lab, edge_tpu_story, story

SMALL = {"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05}
SHORT = Protocol("quick", processes=2, options=SMALL)
KILLED = -9


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, ...]:
    paths = (tmp_path / "a.tflite", tmp_path / "b.tflite")
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def measured(lab: Lab, plan: Plan, output: Path | None = None, **options: Any) -> tuple[Outcome, ...]:
    return asyncio.run(measure_all(lab.targets, plan, output=output, connect=lab.connect, **options))


# --- For real ---------------------------------------------------------------------------------------------------------


def test_a_model_is_measured_here(tiny_float_tflite: Path, tmp_path: Path) -> None:
    ticks: list[None] = []
    (record,) = measure([tiny_float_tflite], threads=2, protocol=SHORT, tick=lambda: ticks.append(None))
    assert len(ticks) == SHORT.processes
    assert record.model == ModelFile.of(tiny_float_tflite)
    assert record.device == this_device()
    assert record.runtime is not None
    assert (record.runtime.name, record.runtime.delegate) == ("ai-edge-litert", "xnnpack")
    assert (record.threads, record.mode, record.target) == (2, "quick", "local")
    latency = record.latency
    assert latency.processes == SHORT.processes
    assert latency.runs >= SHORT.processes * SHORT.options["runs"]
    assert 0 < latency.min_s <= latency.interval_s[0] <= latency.p50_s <= latency.interval_s[1] < 0.1
    assert record.runtime_rss_bytes < record.peak_rss_bytes
    assert record.pss_bytes is not None
    assert record.pss_bytes <= record.peak_rss_bytes
    assert record.throughput_per_s == pytest.approx(1 / latency.mean_s, rel=0.8)
    assert record.verdict is not None
    assert record.options["duration_s"] == SHORT.options["duration_s"]
    (tmp_path / "record.json").write_text(to_json(record), encoding="utf-8")
    assert read_record(tmp_path / "record.json") == record


def test_over_ssh_nothing_is_left_on_the_board_unless_it_is_kept(
    tiny_float_tflite: Path, tmp_path: Path, ssh_home: Path
) -> None:
    async def twice() -> list[Outcome]:
        async with board(tmp_path / "board", ssh_home) as there:
            (tmp_path / "board" / "tmp").mkdir()
            there.environment["TMPDIR"] = str(tmp_path / "board" / "tmp")
            there.noisy("echo 'Welcome to the board!'; echo 'MOTD' >&2")
            target = Target("pi", there.target().url, python=sys.executable, emulated=True)
            outcomes: list[Outcome] = []
            for keep in (False, True):
                plan = Plan((tiny_float_tflite,), protocol=Protocol("quick", 1, SMALL), keep=keep)
                outcomes += await measure_all([target], plan)
                files = sorted(path for path in there.home.rglob("*") if path.is_file() and path.name != "noise")
                found.append([str(path.relative_to(there.home)) for path in files])
            return outcomes

    found: list[list[str]] = []
    for outcome in asyncio.run(asyncio.wait_for(twice(), 60)):
        assert not outcome.failures
        (record,) = outcome.records
        assert record.model.path == str(tiny_float_tflite)
        assert record.target == "pi"
        assert record.device.emulated
    nothing, kept = found
    assert nothing == []
    sha256 = ModelFile.of(tiny_float_tflite).sha256
    assert f"{profile.MODELS}/{sha256}.tflite" in kept
    assert any(path.startswith(f"{setup.FOLDER}/runner-") for path in kept)


def test_the_image_is_timed_from_its_file(tiny_float_tflite: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(image)
    plan = Plan((tiny_float_tflite,), protocol=Protocol("quick", 1, SMALL | {"image_runs": 3}), image=image)
    (outcome,) = asyncio.run(measure_all([LOCAL], plan))
    (record,) = outcome.records
    steps = record.end_to_end
    assert steps is not None
    assert (steps.image, steps.runs) == (str(image), 3)
    assert 0 < steps.decode_s < steps.total_s <= steps.total_p90_s


def test_a_sustained_measurement_has_its_minutes(tiny_float_tflite: Path) -> None:
    plan = Plan((tiny_float_tflite,), protocol=Protocol("sustained", 1, SMALL | {"sustained_min": 0.005}))
    (outcome,) = asyncio.run(measure_all([LOCAL], plan))
    (record,) = outcome.records
    (minute,) = record.minutes
    assert (minute.minute, minute.runs) == (1, record.latency.runs)
    assert minute.p50_s == pytest.approx(record.latency.p50_s, rel=1e-2)  # single latencies are rounded


def test_a_model_that_is_none_is_the_users_fault(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"the runtime cannot load .*bad\.tflite"):
        measure([bad], protocol=SHORT)


def test_an_interruption_ends_the_process_there(tiny_float_tflite: Path) -> None:
    pids: list[int] = []

    async def interrupted() -> None:
        begun = asyncio.Event()

        def watch(_target: str, _case: Case | None, event: dict[str, Any]) -> None:
            if event["event"] == "imported":
                pids.append(event["pid"])
                begun.set()

        plan = Plan((tiny_float_tflite,), protocol=Protocol("full", 1, SMALL | {"duration_s": 60.0}))
        task = asyncio.ensure_future(measure_all([LOCAL], plan, watch=watch))
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    (pid,) = pids
    assert not Path(f"/proc/{pid}").exists()


# --- What is run ------------------------------------------------------------------------------------------------------


def test_cases_are_measured_in_turn_a_fresh_process_each(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi", answer=lambda options, number: Answer(story(number * 1e-3)))
    (outcome,) = measured(lab, Plan(models, (1, 4), "none", SHORT))
    pi = lab.boards["pi"]
    remotes = [f"{profile.MODELS}/{ModelFile.of(path).sha256}.tflite" for path in models]
    turn = [(remote, threads) for remote in remotes for threads in (1, 4)]
    assert [(asked["model"], asked["threads"]) for asked in pi.asked] == turn * 2
    assert all(asked["delegate"] == "none" and asked["runs"] == SMALL["runs"] for asked in pi.asked)
    assert [remote for remote in pi.puts if remote.startswith(profile.MODELS)] == remotes
    assert [(record.model.path, record.threads) for record in outcome.records] == [
        (str(path), threads) for path in models for threads in (1, 4)
    ]
    first = outcome.records[0]
    assert first.latency.process_p50_s == (0.001, 0.005)  # processes 1 and 5 of 8
    assert first.device.name == "Raspberry Pi 4 Model B Rev 1.4"
    assert first.runtime == Runtime("tflite-runtime", "2.14.0")
    assert (first.pss_bytes, first.model_bytes, first.peak_rss_bytes) == (31_000_000, 4_000_000, 50_000_000)
    assert (first.page_cache, first.packages) == ("warm", {"numpy": "1.26.4"})
    assert pi.closed
    assert not pi.files


def test_a_model_that_is_on_the_board_is_not_sent_and_stays(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi")
    remote = f"{profile.MODELS}/{ModelFile.of(models[0]).sha256}.tflite"
    lab.boards["pi"].files[remote] = models[0].read_bytes()
    measured(lab, Plan(models, protocol=SHORT))
    assert remote not in lab.boards["pi"].puts
    assert list(lab.boards["pi"].files) == [remote]


def test_between_two_models_the_board_cools_down(models: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "COOL_STEP_S", 0.0)
    seen: list[tuple[str, float]] = []

    def watch(_target: str, case: Case | None, event: dict[str, Any]) -> None:
        if event["event"] == "cooling":
            assert case is not None
            seen.append((case.model.path, event["temperature_c"]))

    lab = Lab.of("pi")
    lab.boards["pi"].temperatures = [60.0, 52.0, 48.0, 47.0, 45.0]  # it began at 45
    measured(lab, Plan(models, protocol=Protocol("full", 2, SMALL, cool_limit_s=60.0)), watch=watch)
    assert seen == [(str(models[1]), 60.0), (str(models[1]), 52.0)]
    assert lab.boards["pi"].temperatures == []


def test_cooling_down_has_a_limit(models: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "COOL_STEP_S", 0.02)
    lab = Lab.of("pi")
    lab.boards["pi"].temperatures = [70.0] * 1000
    (outcome,) = measured(lab, Plan(models, protocol=Protocol("full", 1, SMALL, cool_limit_s=0.1)))
    assert len(outcome.records) == 2
    assert len(lab.boards["pi"].temperatures) < 999


def test_where_no_temperature_is_told_nobody_waits(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi", answer=lambda options, number: Answer(story(temperature_c=None)))
    (outcome,) = measured(lab, Plan(models, protocol=Protocol("full", 2, SMALL, cool_limit_s=60.0)))
    assert len(outcome.records) == 2  # asking would have failed: there are no answers


@pytest.mark.parametrize("chosen", [FULL, QUICK, SHORT, protocol(sustained_min=15)])
def test_the_time_limit_leaves_room_for_the_slowest(chosen: Protocol) -> None:
    options = runner.DEFAULTS | chosen.options
    slowest = options["warmup_limit_s"] + max(options["duration_s"], options["runs"] * 5.0)  # 5 s each
    assert slowest + options["sustained_min"] * 60 < chosen.time_limit_s < 2 * 3600


def test_quick_is_quicker_than_full() -> None:
    assert QUICK.processes < FULL.processes
    assert set(QUICK.options) <= set(runner.DEFAULTS)
    assert all(QUICK.options[name] < runner.DEFAULTS[name] for name in QUICK.options)


def test_what_is_less_than_full_is_called_quick() -> None:
    assert protocol() == FULL
    assert protocol(quick=True) == QUICK
    assert protocol(duration_s=20).mode == "full"
    assert protocol(duration_s=9.9).mode == "quick"
    assert protocol(quick=True, duration_s=20).mode == "quick"
    assert protocol(sustained_min=15).processes == 1
    with pytest.raises(InputError, match="neither --quick nor --duration"):
        protocol(quick=True, sustained_min=1)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_missing_model_is_a_readable_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.tflite"
    with pytest.raises(ModelError) as caught:
        measure([missing], protocol=SHORT)
    assert str(caught.value) == f"cannot read the model {missing}: No such file or directory"


def test_two_files_of_one_name_would_share_a_record(models: tuple[Path, ...], tmp_path: Path) -> None:
    other = tmp_path / "other" / "a.tflite"
    other.parent.mkdir()
    other.write_bytes(b"other")
    with pytest.raises(InputError, match=r"several files are called a\.tflite"):
        measure([*models, other], protocol=SHORT)


def test_nothing_is_refused(models: tuple[Path, ...]) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        measure([], protocol=SHORT)


def test_a_missing_image_is_refused(models: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the image"):
        measured(Lab.of("pi"), Plan(models, protocol=SHORT, image=tmp_path / "none.jpg"))


def test_a_folder_that_cannot_be_made_is_refused(models: tuple[Path, ...]) -> None:
    with pytest.raises(OutputError, match="choose another with --output"):
        measured(Lab.of("pi"), Plan(models, protocol=SHORT), output=models[0] / "in a file")


# --- How it fails -----------------------------------------------------------------------------------------------------

Failing = tuple[Answer, type[EdgeeffError], str]
NO_FIT = runner.mismatch_help("tflite-runtime", "2.14.0", EDGE_TPU_LIBRARY)
FAILING: dict[str, Failing] = {
    "a status": (
        Answer([], 1, "".join(f"line {number}\n" for number in range(100))),
        DeviceError,
        "measuring MODEL on pi failed with status 1:\nline 95\nline 96\nline 97\nline 98\nline 99",
    ),
    "a signal": (Answer([], -11, "INFO\n"), DeviceError, "measuring MODEL on pi failed with SIGSEGV:\nINFO"),
    "a crash on an Edge TPU": (
        Answer(edge_tpu_story()[:3], -11, "INFO\n"),
        DeviceError,
        f"measuring MODEL on pi crashed with SIGSEGV while it was loaded for the Edge TPU. {NO_FIT}. It said:\nINFO",
    ),
    "a crash on an Edge TPU, as a shell tells it": (
        Answer(edge_tpu_story()[:5], 128 + 6),
        DeviceError,
        f"measuring MODEL on pi crashed with SIGABRT while it ran on the Edge TPU. {NO_FIT}",
    ),
    "an Edge TPU that does not answer": (
        Answer(edge_tpu_story()[:3], -signal.SIGALRM),
        DeviceError,
        "measuring MODEL on pi was ended: the Edge TPU did not answer within 60 s; unplug it and plug it in again, or "
        "restart the board, and see that its supply is strong enough",
    ),
    "killed by the kernel": (
        Answer(story()[:2], KILLED),
        DeviceError,
        "measuring MODEL on pi ended with SIGKILL: the kernel does that when memory runs out. The file has 0.0 MB "
        "and 900 MB were available when it was last seen; take a smaller model, or stop other programs there",
    ),
    "killed, as a shell tells it": (
        Answer([], 137),
        DeviceError,
        "measuring MODEL on pi ended with SIGKILL: the kernel does that when memory runs out. The file has 0.0 MB; "
        "take a smaller model, or stop other programs there",
    ),
    "no JSON": (
        Answer(["Illegal something", "and more"]),
        DeviceError,
        "measuring MODEL on pi gave no figures but said:\n  Illegal something\n  and more",
    ),
    "nothing": (Answer([]), DeviceError, "measuring MODEL on pi gave no figures but said: nothing"),
    "only a beginning": (Answer(story()[:-1]), DeviceError, "measuring MODEL on pi gave no figures but said: nothing"),
    "an error with a name": (
        Answer(["Welcome!", {"event": "error", "kind": "runtime", "message": "no runtime"}], 1, "noise\n"),
        DeviceError,
        "pi: no runtime",
    ),
    "the model's error": (
        Answer([{"event": "error", "kind": "edgetpu-model", "message": "REMOTE is compiled for the Edge TPU"}], 1),
        ModelError,
        "pi: MODEL is compiled for the Edge TPU",
    ),
    "it hangs": (
        Answer(raises=TimeLimitError("long")),
        TimeLimitError,
        f"measuring MODEL on pi took longer than {SHORT.time_limit_s:.0f} s and was ended",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_model_that_fails_is_named_and_the_others_are_measured(name: str, models: tuple[Path, ...]) -> None:
    answer, kind, message = FAILING[name]
    bad, good = models
    remote = f"{profile.MODELS}/{ModelFile.of(bad).sha256}.tflite"
    answer.said = [
        item | {"message": item["message"].replace("REMOTE", remote)}
        if isinstance(item, dict) and item["event"] == "error"
        else item
        for item in answer.said
    ]
    lab = Lab.of("pi", answer=lambda options, number: answer if options["model"] == remote else Answer())
    (outcome,) = measured(lab, Plan(models, protocol=SHORT))
    (failure,) = outcome.failures
    assert type(failure.error) is kind
    assert str(failure.error) == message.replace("MODEL", str(bad))
    assert failure.case == Case(ModelFile.of(bad), 1)
    assert [record.model.path for record in outcome.records] == [str(good)]
    assert sum(asked["model"] == remote for asked in lab.boards["pi"].asked) == 1  # it is not tried again


def test_a_crash_after_everything_was_said_costs_nothing(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi", answer=lambda options, number: Answer(story(), -11))
    (outcome,) = measured(lab, Plan(models[:1], protocol=SHORT))
    assert len(outcome.records) == 1
    lab = Lab.of("pi", answer=lambda options, number: Answer(story(), 1, "an error"))
    (outcome,) = measured(lab, Plan(models[:1], protocol=SHORT))
    assert "failed with status 1:\nan error" in str(outcome.failures[0].error)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: [*said[:1], *said[2:]],  # no import
        lambda said: [event | {"load_s": None} if event["event"] == "loaded" else event for event in said],
        lambda said: [event | {"latencies_s": []} if event["event"] == "latencies" else event for event in said],
        lambda said: [event | {"latencies_s": [0.0]} if event["event"] == "latencies" else event for event in said],
        lambda said: [event | {"latencies_s": ["x"]} if event["event"] == "latencies" else event for event in said],
        lambda said: [event | {"cpus": 3} if event["event"] == "state" else event for event in said],
    ],
)
def test_what_is_not_understood_is_an_error(models: tuple[Path, ...], change: Callable[[Any], Any]) -> None:
    lab = Lab.of("pi", answer=lambda options, number: Answer(change(story())))
    (outcome,) = measured(lab, Plan(models[:1], protocol=SHORT))
    (failure,) = outcome.failures
    assert type(failure.error) is DeviceError
    assert not outcome.records


def test_without_a_runtime_setup_is_proposed(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi")
    broken = {"name": "tflite-runtime", "version": "2.14.0", "works": False, "problem": "needs NumPy 1"}
    lab.boards["pi"].probe = lab.boards["pi"].probe | {"runtimes": [broken]}
    (outcome,) = measured(lab, Plan(models, protocol=SHORT))
    (failure,) = outcome.failures
    assert "edgeeff devices setup pi" in str(failure.error)
    assert "needs NumPy 1" in str(failure.error)


# --- Going on ---------------------------------------------------------------------------------------------------------


def lost(after: int) -> Callable[[dict[str, Any], int], Answer]:
    """The board is gone in the process after so many."""
    return lambda options, number: Answer(
        story(number * 1e-3) if number <= after else story()[:3],
        raises=DroppedError("pi: the connection was lost") if number > after else None,
    )


def test_a_lost_board_keeps_what_was_measured_and_goes_on(models: tuple[Path, ...], tmp_path: Path) -> None:
    plan = Plan(models, protocol=Protocol("quick", 3, SMALL))
    output = tmp_path / "out"
    (outcome,) = measured(Lab.of("pi", answer=lost(after=3)), plan, output)
    (failure,) = outcome.failures
    assert isinstance(failure.error, DroppedError)
    assert failure.case is None
    assert not outcome.records
    partial = output / "pi.partial.jsonl"
    assert len(partial.read_text().splitlines()) == 3
    with partial.open("a") as file:
        file.write('{"key": {"sha')  # the power went while a line was written

    again = Lab.of("pi", answer=lambda options, number: Answer(story((number + 3) * 1e-3)))
    (outcome,) = measured(again, plan, output, resume=True)
    assert not outcome.failures
    assert len(again.boards["pi"].asked) == 3
    assert [record.latency.process_p50_s for record in outcome.records] == [
        (0.001, 0.003, 0.005),
        (0.002, 0.004, 0.006),
    ]
    assert sorted(path.name for path in output.iterdir()) == [
        "a.pi.t1.quick.profile.json",
        "b.pi.t1.quick.profile.json",
    ]
    assert read_record(output / "a.pi.t1.quick.profile.json") == outcome.records[0]


@pytest.mark.parametrize("different", ["model", "threads", "options", "delegate", "runtime", "device"])
def test_only_the_same_measurement_goes_on(models: tuple[Path, ...], tmp_path: Path, different: str) -> None:
    def plan() -> Plan:
        return Plan(
            models[:1],
            (2,) if different == "threads" else (1,),
            "none" if different == "delegate" else "auto",
            Protocol("quick", 2, SMALL | ({"runs": 6} if different == "options" else {})),
        )

    original = Plan(models[:1], protocol=Protocol("quick", 2, SMALL))
    measured(Lab.of("pi", answer=lost(after=1)), original, tmp_path)
    if different == "model":
        models[0].write_bytes(b"another")
    lab = Lab.of("pi")
    pi = lab.boards["pi"]
    if different == "runtime":
        pi.probe = pi.probe | {"runtimes": [pi.probe["runtimes"][0] | {"version": "2.13.0"}]}
    if different == "device":
        pi.probe = pi.probe | {"board": "Raspberry Pi 5"}
    (outcome,) = measured(lab, plan(), tmp_path, resume=True)
    assert len(pi.asked) == 2
    assert not outcome.failures


def test_without_resume_it_begins_anew(models: tuple[Path, ...], tmp_path: Path) -> None:
    plan = Plan(models[:1], protocol=SHORT)
    measured(Lab.of("pi", answer=lost(after=1)), plan, tmp_path)
    lab = Lab.of("pi")
    measured(lab, plan, tmp_path)
    assert len(lab.boards["pi"].asked) == 2


@given(dropped=st.lists(st.integers(0, 5), max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_often_it_is_lost_every_process_counts_once(
    dropped: list[int], models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("out")
    plan = Plan(models, (1, 2), protocol=Protocol("quick", 2, SMALL))
    done = 0
    for after in dropped:
        lab = Lab.of("pi", answer=lost(after))
        measured(lab, plan, output, resume=True)
        # Once all are measured the partial results are gone, and the next command begins anew.
        done = done + after if done + after < 8 else 0
    lab = Lab.of("pi")
    (outcome,) = measured(lab, plan, output, resume=True)
    assert len(lab.boards["pi"].asked) == 8 - done
    assert [record.latency.processes for record in outcome.records] == [2] * 4
    assert not (output / "pi.partial.jsonl").exists()


def test_an_ending_signal_lets_the_work_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[int] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait(work())
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cleaned == [1]


def test_the_work_may_be_done_in_a_thread() -> None:
    async def work() -> int:
        return 7

    with ThreadPoolExecutor() as pool:
        assert pool.submit(wait, work()).result() == 7


def test_when_nothing_can_be_written_the_other_boards_are_ended(models: tuple[Path, ...], tmp_path: Path) -> None:
    lab = Lab.of("pi1", "pi2")

    def block(options: dict[str, Any], number: int) -> Answer:
        (tmp_path / "pi1.partial.jsonl").mkdir(exist_ok=True)
        return Answer()

    lab.boards["pi1"].answer = block
    with pytest.raises(OutputError, match="cannot keep what was measured"):
        measured(lab, Plan(models, protocol=FULL), tmp_path)
    assert all(board.closed for board in lab.boards.values())
    assert lab.open == 0


# --- Fleets -----------------------------------------------------------------------------------------------------------


def test_a_board_that_fails_does_not_stop_the_others(models: tuple[Path, ...], tmp_path: Path) -> None:
    lab = Lab.of("pi1", "pi2", "pi3", answer=lambda options, number: Answer())
    lab.boards["pi2"].answer = lost(after=1)
    one, two, three = measured(lab, Plan(models, protocol=SHORT), tmp_path)
    assert (len(one.records), len(two.records), len(three.records)) == (2, 0, 2)
    assert [failure.target for failure in profile.failures((one, two, three))] == ["pi2"]
    assert {path.name for path in tmp_path.glob("*.partial.jsonl")} == {f"pi{n}.partial.jsonl" for n in (1, 2, 3)}

    again = Lab.of("pi1", "pi2", "pi3")
    outcomes = measured(again, Plan(models, protocol=SHORT), tmp_path, resume=True)
    assert [len(board.asked) for board in again.boards.values()] == [0, 3, 0]
    assert [len(outcome.records) for outcome in outcomes] == [2, 2, 2]
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_connections_are_bounded(models: tuple[Path, ...]) -> None:
    lab = Lab.of(*(f"pi{number}" for number in range(40)))
    outcomes = measured(lab, Plan(models, protocol=SHORT), at_once=7)
    assert lab.most == 7
    assert [outcome.target for outcome in outcomes] == list(lab.boards)
    assert all(len(outcome.records) == 2 for outcome in outcomes)


def test_partial_results_are_json_lines(models: tuple[Path, ...], tmp_path: Path) -> None:
    measured(Lab.of("pi", answer=lost(after=1)), Plan(models, protocol=SHORT), tmp_path)
    (line,) = (tmp_path / "pi.partial.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept["key"]["sha256"] == ModelFile.of(models[0]).sha256
    assert kept["events"] == story(1e-3)


def test_a_model_that_a_power_cut_took_apart_is_sent_again(models: tuple[Path, ...]) -> None:
    lab = Lab.of("pi")
    pi = lab.boards["pi"]
    broken, whole = (f"{profile.MODELS}/{ModelFile.of(model).sha256}.tflite" for model in models[:2])
    pi.files = {broken: b"", whole: models[1].read_bytes()}
    (outcome,) = measured(lab, Plan(models[:2], protocol=Protocol("quick", 1)))
    assert not outcome.failures
    assert broken in pi.puts
    assert whole not in pi.puts
