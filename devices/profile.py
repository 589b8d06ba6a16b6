"""The measuring protocol: fresh processes in turn, cool-downs between models, on one board or on many at once.

`runner` is what runs in each process, `setup` brings it to a board, `transport` starts it there; `figures` makes
records of what the processes say, and `partial` keeps that until everything is measured. Files and thread counts that
are to be compared are measured in turn, a process each, so that a board that drifts drifts for all of them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgeeff.devices import events, figures, runner, setup, validity
from edgeeff.devices import transport as transports
from edgeeff.devices.events import Event
from edgeeff.devices.figures import Run
from edgeeff.devices.partial import Partial
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.devices.transport import Transport
from edgeeff.errors import (
    DeviceError,
    DroppedError,
    EdgeeffError,
    InputError,
    ModelError,
    NoCommandError,
    OutputError,
    TimeLimitError,
)
from edgeeff.files import make_folder, write_atomic
from edgeeff.results import CompiledFile, Device, ModelFile, ProfileRecord, Runtime, this_device, to_json

START_LIMIT_S = 180.0
"""Time that a process may take to import, load and end: an emulated board imports for half a minute."""
SLOWEST_RUN_S = 10.0
"""A process whose runs take longer than this counts as hung; it is far beyond B7 on one core."""
DIGEST_LIMIT_S = 60.0
"""Time for the sha256 of a file there: the slowest boards read and digest some 20 MB in a second."""
COOL_STEP_S = 5.0
"""How often the temperature is read while the board cools down."""
AT_ONCE = 64
"""Boards that are measured at the same time, each over one connection."""
LIMIT_C = 80.0
"""Where boards begin to slow down that nothing else is known of."""
FULL_PROCESSES = 5
MODELS = f"{setup.FOLDER}/models"
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
"""How a process ends that libraries break which do not fit each other."""

Result = TypeVar("Result")
Delegate = Literal["auto", "xnnpack", "none", "edgetpu"]
Connect = Callable[[Target], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True)
class Protocol:
    """How long and how often to measure."""

    mode: str
    processes: int
    options: dict[str, float] = field(default_factory=dict)
    """What differs from the runner's own defaults."""
    cool_limit_s: float = 0.0
    """How long to wait between two models for the board to be as cool as at the beginning."""

    @property
    def time_limit_s(self) -> float:
        """How long one process may take before it counts as hung."""
        options = runner.DEFAULTS | self.options
        measuring = options["warmup_limit_s"] + options["duration_s"] + options["sustained_min"] * 60
        return float(START_LIMIT_S + measuring + (options["runs"] + options["image_runs"]) * SLOWEST_RUN_S)


FULL = Protocol("full", processes=FULL_PROCESSES, cool_limit_s=120.0)
QUICK = Protocol("quick", processes=3, options={"warmup_s": 0.3, "runs": 20, "duration_s": 1.0, "warmup_limit_s": 5.0})

PARTS = Protocol("quick", processes=3, options={"warmup_s": 0.2, "runs": 20, "duration_s": 0.4, "warmup_limit_s": 3.0})
"""For the many parts of one network, each a difference of two."""


def protocol(*, quick: bool = False, duration_s: float | None = None, sustained_min: float | None = None) -> Protocol:
    """Return the protocol that is asked for; what measures less than the full one does is called quick.

    A sustained measurement is one process that lasts by the clock. Raises InputError for what does not go together.
    """
    if sustained_min is not None:
        if quick or duration_s is not None:
            raise InputError("--sustained lasts by the clock: it goes with neither --quick nor --duration")
        return Protocol("sustained", 1, {"sustained_min": sustained_min}, FULL.cool_limit_s)
    chosen = QUICK if quick else FULL
    if duration_s is None:
        return chosen
    mode = "quick" if duration_s < runner.DEFAULTS["duration_s"] else chosen.mode
    return replace(chosen, mode=mode, options=chosen.options | {"duration_s": duration_s})


@dataclass(frozen=True)
class Plan:
    """What to measure on every board, and how."""

    files: tuple[Path, ...]
    threads: tuple[int, ...] = (1,)
    delegate: Delegate = "auto"
    protocol: Protocol = FULL
    image: Path | None = None
    """For end-to-end runs, from this file to scores."""
    keep: bool = False
    """Leave files and runner on the board, for the next time."""
    compiled: Mapping[str, CompiledFile] = field(default_factory=dict)
    """What files for the Edge TPU say of themselves, by their paths, where that was read."""


@dataclass(frozen=True)
class Case:
    """One file at one thread count."""

    model: ModelFile
    threads: int


@dataclass(frozen=True)
class Failure:
    """What could not be measured: one case, or everything that a board was to do where `case` is None."""

    target: str
    case: Case | None
    error: EdgeeffError


@dataclass(frozen=True)
class Outcome:
    """What came of one board."""

    target: str
    records: tuple[ProfileRecord, ...]
    failures: tuple[Failure, ...]


Watch = Callable[[str, "Case | None", Event], None]
"""Called with a target's name, the case and an event: the runner's, and those of this module: sending, process (its
number, of how many), cooling, measured, failed, finished."""


def unwatched(_target: str, _case: Case | None, _event: Event) -> None:
    """Watch nothing."""


def measure(
    files: Sequence[Path], *, threads: int = 1, protocol: Protocol = FULL, tick: Callable[[], None] = lambda: None
) -> tuple[ProfileRecord, ...]:
    """Measure files on this machine; one record for each file, in order.

    `tick` is called after every process. Raises DeviceError when a measuring process fails, with the end of what it
    said, or takes too long; ModelError when the model is the cause.
    """

    def watch(_target: str, _case: Case | None, event: Event) -> None:
        if event["event"] == "measured":
            tick()

    plan = Plan(tuple(files), (threads,), protocol=protocol)
    (outcome,) = wait(measure_all([LOCAL], plan, watch=watch, device=this_device()))
    for failure in outcome.failures:
        raise failure.error
    return outcome.records


def wait(work: Coroutine[Any, Any, Result]) -> Result:
    """Run asynchronous work to its end; an ending signal cancels it, so that it cleans up, then KeyboardInterrupt.

    A signal's handler that raises would strike anywhere, also where the work is cleaning up already. Signals that are
    not turned into KeyboardInterrupt are left alone.
    """
    # Only the main thread may ask; from Python 3.11 on asyncio does the same for Ctrl-C by itself.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ours = [number for number in numbers if signal.getsignal(number) is signal.default_int_handler]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    interrupted = False

    async def main() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end() -> None:
            nonlocal interrupted
            interrupted = True
            if task is not None:
                task.cancel()

        for number in ours:
            loop.add_signal_handler(number, end)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)


async def measure_all(
    targets: Sequence[Target],
    plan: Plan,
    *,
    output: Path | None = None,
    resume: bool = False,
    watch: Watch = unwatched,
    connect: Connect | None = None,
    at_once: int = AT_ONCE,
    device: Device | None = None,
) -> tuple[Outcome, ...]:
    """Measure on every target, several at the same time; a board that fails does not stop the others.

    With `output`, a folder, records are written there as they are complete, and until everything is, what the
    processes said; `resume` goes on from that. With `device` nobody asks the board who it is.

    Raises InputError when the plan makes no sense, ModelError for a file that cannot be read and OutputError where
    nothing can be written; what happens on a board is in its outcome.
    """
    cases = _cases(plan)
    reach = connect or transports.connect
    if output is not None:
        make_folder(output)
    stores = {target.name: Partial(output, target.name, resume=resume) for target in targets if output is not None}
    limit = asyncio.Semaphore(at_once)

    async def one(target: Target) -> Outcome:
        async with limit:
            return await _measure_on(target, plan, cases, stores.get(target.name), output, watch, reach, device)

    outcomes = await _together([one(target) for target in targets])
    if not any(outcome.failures for outcome in outcomes):
        for store in stores.values():
            store.remove()
    return tuple(outcomes)


async def _together(work: Sequence[Any]) -> list[Outcome]:
    """Wait for all; when one raises or we are interrupted, the others are ended and waited for before we go."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except Exception:
        for task in tasks:
            task.cancel()
        raise
    finally:
        # When we are cancelled they are, too; once more would interrupt how they clean up.
        await asyncio.gather(*tasks, return_exceptions=True)


def _cases(plan: Plan) -> tuple[Case, ...]:
    if not plan.files or not plan.threads:
        raise InputError("nothing to measure: give a .tflite file and a number of threads")
    models = []
    for file in plan.files:
        try:
            models.append(ModelFile.of(file))
        except OSError as error:
            raise ModelError(f"cannot read the model {file}: {error.strerror}") from error
    names = [file.name for file in plan.files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"several files are called {', '.join(twice)}: their records would have the same name")
    if plan.image is not None and not plan.image.is_file():
        raise InputError(f"cannot read the image {plan.image}: there is no such file")
    return tuple(Case(model, threads) for model in models for threads in dict.fromkeys(plan.threads))


async def _measure_on(
    target: Target,
    plan: Plan,
    cases: Sequence[Case],
    store: Partial | None,
    output: Path | None,
    watch: Watch,
    connect: Connect,
    device: Device | None,
) -> Outcome:
    """Measure on one target; its errors become failures, but not those of writing here."""
    records: list[ProfileRecord] = []
    failures: list[Failure] = []
    try:
        async with AsyncExitStack() as stack:
            watch(target.name, None, {"event": "connecting"})
            transport = await stack.enter_async_context(connect(target))
            program = await stack.enter_async_context(setup.runner_on(transport, cache=plan.keep))
            if device is None:
                ready = await setup.ready(transport, target, program)
                python, who, runtime = ready.python, ready.probe.device, ready.probe.runtime
            else:
                python, who, runtime = await setup.find_python(transport, target), device, None
            watch(target.name, None, {"event": "sending"})
            files = [case.model for case in cases]
            if plan.image is not None:
                files.append(ModelFile.of(plan.image))
            there = await stack.enter_async_context(files_on(transport, target, files, keep=plan.keep))
            board = _Board(target, transport, [python, program], there, plan, who, runtime, store, watch)
            async for result in board.measure(cases):
                if isinstance(result, Failure):
                    failures.append(result)
                    watch(target.name, result.case, {"event": "failed", "message": str(result.error)})
                    continue
                if output is not None:
                    name = file_name(result.model.path, result.target, result.threads, plan)
                    write_atomic(output / name, to_json(result).encode("utf-8"))
                records.append(result)
    except OutputError:
        raise
    except EdgeeffError as error:
        failures.append(Failure(target.name, None, error))
        watch(target.name, None, {"event": "failed", "message": str(error)})
    watch(target.name, None, {"event": "finished"})
    return Outcome(target.name, tuple(records), tuple(failures))


@asynccontextmanager
async def files_on(
    transport: Transport, target: Target, files: Sequence[ModelFile], *, keep: bool
) -> AsyncIterator[dict[str, str]]:
    """Send files that are not there yet, named by their sha256; what was sent goes at the end, unless it is kept.

    Gives the paths there by the paths here.
    """
    if target.address is None:
        yield {file.path: str(Path(file.path).resolve()) for file in files}
        return
    there: dict[str, str] = {}
    sent: list[str] = []
    try:
        for file in files:
            remote = f"{MODELS}/{file.sha256}{Path(file.path).suffix}"
            if file.path not in there and not await _is_whole(transport, remote, file.sha256):
                sent.append(remote)
                await transport.put(Path(file.path), remote)
            there[file.path] = remote
        yield there
    finally:
        if not keep:
            with suppress(DeviceError):  # who cannot be reached any more keeps what it has
                for remote in sent:
                    await transport.remove(remote)
                await transport.run(["/bin/sh", "-c", _TIDY, "sh", MODELS, setup.FOLDER], time_limit_s=30)


async def _is_whole(transport: Transport, remote: str, sha256: str) -> bool:
    """Say whether a file is there with all its content: a power cut can leave its name and take the rest."""
    try:
        done = await transport.run(["sha256sum", remote], time_limit_s=DIGEST_LIMIT_S)
    except NoCommandError:
        return False
    return done.status == 0 and done.stdout.split()[:1] == [sha256]


_TIDY = 'rmdir -- "$@" 2>/dev/null; exit 0'
"""Removes the folders if nothing else is in them."""


@dataclass
class _Board:
    """One board that is ready to measure."""

    target: Target
    transport: Transport
    command: list[str]
    """Python and the runner there."""
    there: dict[str, str]
    plan: Plan
    device: Device
    runtime: Runtime | None
    """What measuring will use, where that was asked before."""
    store: Partial | None
    watch: Watch
    start_c: float | None = None
    """The temperature before the first process."""

    async def measure(self, cases: Sequence[Case]) -> AsyncIterator[ProfileRecord | Failure]:
        """Run all processes, the cases in turn; yield each one's record as it is complete, or its failure.

        Raises DroppedError and other failures of the board itself.
        """
        processes = self.plan.protocol.processes
        runs: dict[Case, list[Run]] = {}
        for case in cases:
            runs[case] = [Run.of(said) for said in self._found(case)][:processes]
            for run in runs[case][:1]:
                self._note_start(run)
        waiting = list(cases)
        before: Case | None = None
        for number in range(1, processes + 1):
            for case in tuple(waiting):
                if len(runs[case]) < number:
                    if before is not None and before.model != case.model:
                        await self._cool(case)
                    before = case
                    self.watch(self.target.name, case, {"event": "process", "number": number, "of": processes})
                    try:
                        run = await self._run(case)
                    except (DroppedError, OutputError):
                        raise
                    except (DeviceError, InputError) as error:
                        waiting.remove(case)
                        yield Failure(self.target.name, case, error)
                        continue
                    self._note_start(run)
                    runs[case].append(run)
                    self.watch(self.target.name, case, {"event": "measured", "number": number, "of": processes})
                if number == processes:
                    yield self._record(case, runs[case])

    def _key(self, case: Case) -> dict[str, Any]:
        plan = self.plan
        device, runtime = self.device, self.runtime
        return {
            "sha256": case.model.sha256,
            "threads": case.threads,
            "delegate": plan.delegate,
            "options": plan.protocol.options,
            "image": self.there.get(str(plan.image)) if plan.image else None,
            "target": self.target.name,
            "device": [device.name, device.machine, device.system, device.cpu, device.cores, device.emulated],
            "runtime": [runtime.name, runtime.version] if runtime else None,
        }

    def _found(self, case: Case) -> list[list[Event]]:
        return self.store.found(self._key(case)) if self.store is not None else []

    async def _run(self, case: Case) -> Run:
        """Run one measuring process to its end and keep what it said."""
        plan = self.plan
        options: dict[str, Any] = plan.protocol.options | {
            "model": self.there[case.model.path],
            "threads": case.threads,
            "delegate": plan.delegate,
        }
        if plan.image is not None:
            options["image"] = self.there[str(plan.image)]
        if case.model.path in plan.compiled:
            options["edge_tpu_runtime"] = plan.compiled[case.model.path].minimum_runtime
        said = await self._say(case, options, plan.protocol.time_limit_s)
        run = Run.of(said)
        if self.store is not None:
            self.store.keep(self._key(case), said)
        return run

    async def _say(self, case: Case, options: dict[str, Any], time_limit_s: float) -> list[Event]:
        what = f"measuring {case.model.path} on {self.target.name}"
        said: list[Event] = []
        other: deque[str] = deque(maxlen=5)
        problem: EdgeeffError | None = None
        try:
            async with self.transport.stream([*self.command, json.dumps(options)], time_limit_s=time_limit_s) as lines:
                async for line in lines:
                    event = events.parse(line)
                    if event is None:
                        other.append(line)
                        continue
                    problem = problem or events.error(event)
                    if event["event"] != "error":
                        said.append(event)
                        self.watch(self.target.name, case, event)
                status, complaints = lines.status, lines.stderr
        except TimeLimitError as error:
            raise TimeLimitError(f"{what} took longer than {time_limit_s:.0f} s and was ended") from error
        if problem is not None:
            raise self._in_our_words(problem, case)
        done = any(event["event"] == "done" for event in said)
        # Delegates may crash when they are taken down; all figures are there then.
        if status and not (done and _signal(status) in CRASHES):
            raise DeviceError(f"{what} {how_it_ended(status, complaints, said, case.model)}")
        if not done:
            text = "".join(f"\n  {line[:200]}" for line in other) or " nothing"
            raise DeviceError(f"{what} gave no figures but said:{text}")
        return said

    def _in_our_words(self, error: EdgeeffError, case: Case) -> EdgeeffError:
        """Name files as they are called here, and the board, where it is not this machine."""
        text = str(error).replace(self.there[case.model.path], case.model.path)
        if self.plan.image is not None:
            text = text.replace(self.there[str(self.plan.image)], str(self.plan.image))
        return type(error)(text if self.target.address is None else f"{self.target.name}: {text}")

    def _note_start(self, run: Run) -> None:
        states = run.observation.states
        if self.start_c is None and states:
            self.start_c = states[0].temperature_c

    async def _cool(self, case: Case) -> None:
        """Wait until the board is as cool as at the beginning, but not forever; the verdict tells when it is not."""
        if self.start_c is None or self.plan.protocol.cool_limit_s <= 0:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self.plan.protocol.cool_limit_s
        while True:
            done = await self.transport.run([*self.command, '{"mode": "state"}'], time_limit_s=START_LIMIT_S)
            state = next((event for event in map(events.parse, done.stdout.splitlines()) if event), {})
            degrees = state.get("temperature_c")
            if not isinstance(degrees, (int, float)) or degrees <= self.start_c + validity.COOLED_C:
                return
            if loop.time() >= end:
                return
            wanted = self.start_c + validity.COOLED_C
            self.watch(self.target.name, case, {"event": "cooling", "temperature_c": degrees, "wanted_c": wanted})
            await asyncio.sleep(COOL_STEP_S)

    def _record(self, case: Case, runs: Sequence[Run]) -> ProfileRecord:
        plan, facts = self.plan, self.target.facts
        options = runner.DEFAULTS | plan.protocol.options
        limits = (facts.soft_limit_c, facts.throttle_limit_c) if facts is not None else ()
        conditions = validity.Conditions(
            threads=case.threads,
            delegate=plan.delegate,
            runs=int(options["runs"]),
            limit_c=next((limit for limit in limits if limit is not None), LIMIT_C),
            start_c=self.start_c,
        )
        return figures.record(
            runs,
            model=case.model,
            threads=case.threads,
            mode=plan.protocol.mode,
            options={name: value for name, value in options.items() if isinstance(value, (int, float))}
            | {"threads": case.threads},
            target=self.target.name,
            device=self.device,
            conditions=conditions,
            image=str(plan.image) if plan.image is not None else None,
            compiled=plan.compiled.get(case.model.path),
        )


def _signal(status: int) -> int:
    """Return the signal that ended a process, as the system or as a shell tells it; 0 for none."""
    return -status if status < 0 else max(0, status - 128)


def how_it_ended(status: int, complaints: str, said: Sequence[Event], model: ModelFile) -> str:
    """Say how a process ended that failed without a word of its own."""
    if _signal(status) == signal.SIGKILL:
        free = next((event["available_bytes"] for event in reversed(said) if event.get("available_bytes")), None)
        room = f" and {free / 1e6:.0f} MB were available when it was last seen" if free else ""
        return (
            f"ended with SIGKILL: the kernel does that when memory runs out. The file has {model.size_bytes / 1e6:.1f} "
            f"MB{room}; take a smaller model, or stop other programs there"
        )
    name = f"status {status}"
    if status < 0:
        with suppress(ValueError):
            name = signal.Signals(-status).name
    end = "\n".join(complaints.strip().splitlines()[-5:])
    told = {event["event"]: event for event in said}
    if _signal(status) == signal.SIGALRM and "edge_tpu_library" in told:
        return (
            f"was ended: the Edge TPU did not answer within {runner.EDGE_TPU_LIMIT_S:.0f} s; unplug it and plug it in "
            "again, or restart the board, and see that its supply is strong enough"
        )
    if _signal(status) in CRASHES and {"edge_tpu_library", "imported"} <= told.keys():
        used = told["imported"]
        doing = "while it ran on the Edge TPU" if "loaded" in told else "while it was loaded for the Edge TPU"
        words = runner.mismatch_help(used["runtime"], used["version"], told["edge_tpu_library"])
        name = signal.Signals(_signal(status)).name
        return f"crashed with {name} {doing}. {words}{'. It said:' if end else ''}\n{end}".rstrip()
    return f"failed with {name}:\n{end}"


def failures(outcomes: Sequence[Outcome]) -> Iterator[Failure]:
    """Yield everything that could not be measured."""
    for outcome in outcomes:
        yield from outcome.failures


def file_name(model: str, target: str, threads: int, plan: Plan) -> str:
    """Return the name of a record's file: model, target, threads, and what is not as usual."""
    parts = [Path(model).name.removesuffix(".tflite"), target, f"t{threads}"]
    parts += [plan.delegate] if plan.delegate != "auto" else []
    parts += [plan.protocol.mode] if plan.protocol.mode != "full" else []
    return ".".join([*parts, "profile.json"])
