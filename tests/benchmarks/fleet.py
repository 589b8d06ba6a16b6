"""A fleet of simulated boards, some of them failing in every way that a board can, measured with `edgeeff profile`.

    python -m tests.benchmarks.fleet [--boards 300] [--every 5] [--pace 0.3]

Each board is an SSH server on 127.0.0.1 with a folder of its own; all of them live in one process beside the one that
measures. Its commands run in a real shell, except that its python3 replays what devices/runner.py said once on this
machine, with times that are multiplied by a factor of the board's own. One board in --every has a fault. Printed are
the boards by what came of them, the wall time, the memory of the measuring process, and the most connections that were
open at once; the exit status is 1 when a good board's figures are missing or wrong, a fault has not its own message,
something is left on a good board, or a limit was exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import asyncssh

from edgeeff import cli
from edgeeff.devices import profile, runner

WALL_LIMIT_S = 180.0
GROWTH_LIMIT_MB = 150.0
"""What measuring may add to the memory of a process that has imported everything."""
HANGING_LIMIT_S = 15.0
"""In place of the minutes that a real board may take for a process."""
TOOLS = ("cat", "dirname", "mkdir", "mktemp", "mv", "rm", "rmdir", "sh", "sleep", "wc")
"""What a board has besides its Python."""
RECORDING = {"warmup_s": 0.05, "duration_s": 0.002, "runs": 200}
BANNER = "echo 'Welcome to the board!'; echo '{\"not\": \"ours\"}'; echo 'MOTD' >&2"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a board: the error that has to come of it, and words that it has to say."""

    error: str
    words: str
    python: str | None = ""
    """What its python3 does instead of replaying a run, as a script; None where it has none."""
    tools: tuple[tuple[str, str], ...] = ()
    """Scripts in place of some of its tools."""


HALF = 'cat "$BOARD/half.jsonl"'
FAULTS: dict[str, Fault] = {
    "refused": Fault("UnreachableError", "refuses connections"),
    "silent": Fault("UnreachableError", "no answer from"),
    "host key unknown": Fault("HostKeyError", "is not known"),
    "host key changed": Fault("HostKeyError", "HAS CHANGED"),
    "wrong key": Fault("LoginError", "with any of your keys"),
    "no Python": Fault("NoCommandError", "there is no 'python3'", python=None),
    "Python 3.7": Fault("DeviceError", "Python 3.9 or later", python='cat "$BOARD/old.jsonl"; exit 1'),
    "NumPy 2": Fault("DeviceError", "edgeeff devices setup"),
    "disk full": Fault("StorageError", "disk is full", tools=(("cat", "exec /bin/cat > /dev/full"),)),
    "read-only home": Fault(
        "StorageError",
        "file system there is read-only",
        tools=(("mkdir", "echo \"mkdir: cannot create directory '.cache': Read-only file system\" >&2; exit 1"),),
    ),
    "custom operator": Fault("ModelError", "custom operator", python='cat "$BOARD/operator.jsonl"; exit 1'),
    "killed by the kernel": Fault("DeviceError", "SIGKILL: the kernel does that", python=f"{HALF}; kill -KILL $$"),
    "no JSON": Fault("DeviceError", "gave no figures", python="echo Illegal instruction; echo '<html>'"),
    "dropped": Fault("DroppedError", "the connection was lost", python=f"{HALF}; exec sleep 600"),
    "hanging": Fault("TimeLimitError", "was ended", python=f"{HALF}; exec sleep 600"),
}
UNREACHED = ("refused", "silent")
"""Behind these there is no SSH server."""
NOISY = "noisy"
FINE = "fine"
GOOD = (FINE, NOISY)


# --- The boards: a process of their own -------------------------------------------------------------------------------


@dataclass
class Count:
    """Connections that are open, and the most that were."""

    now: int = 0
    most: int = 0

    def add(self) -> None:
        """One more."""
        self.now += 1
        self.most = max(self.most, self.now)


@dataclass
class Board:
    """One simulated board in its folder."""

    folder: Path
    fault: str
    environment: dict[str, str]
    running: set[asyncio.subprocess.Process] = field(default_factory=set)

    def end(self) -> None:
        """End what its commands left: one that is cut off does not notice by itself."""
        for child in self.running:
            _kill(child)

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run a command in a shell and carry its input and outputs."""
        command = process.command or ""
        if self.fault == NOISY:
            command = f"{BANNER}; {command}"
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", command),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.folder / "home",
            env=self.environment,
            start_new_session=True,
        )
        assert child.stdin and child.stdout and child.stderr
        self.running.add(child)
        feeding = asyncio.ensure_future(_carry(process.stdin, child.stdin))
        feeding.add_done_callback(partial(_close, child.stdin))
        try:
            cut = b'"imported"' if self.fault == "dropped" else None
            await asyncio.gather(_carry(child.stdout, process.stdout, cut), _carry(child.stderr, process.stderr))
            if process.is_closing():
                _kill(child)
            status = await child.wait()
        finally:
            _kill(child)
            self.running.discard(child)
            feeding.cancel()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)


async def _carry(source: Any, sink: Any, cut: bytes | None = None) -> None:
    """Carry bytes until either side has had enough; the connection is lost after a piece that contains `cut`."""
    with suppress(ConnectionError, asyncssh.Error, asyncssh.SignalReceived):
        while not sink.is_closing() and (piece := await source.read(1 << 16)):
            sink.write(piece)
            await sink.drain()
            if cut is not None and cut in piece:
                sink.get_extra_info("connection").abort()


def _close(sink: asyncio.StreamWriter, _done: Any) -> None:
    sink.close()


def _kill(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


@asynccontextmanager
async def listening(board: Board, users: bytes, count: Count) -> AsyncIterator[dict[str, Any]]:
    """Run a board's server; give its port, and what the measuring side knows of its host key."""
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    known = {"host key unknown": None, "host key changed": other}.get(board.fault, key)
    allowed = other.export_public_key() if board.fault == "wrong key" else users

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            count.add()

        def connection_lost(self, exc: Exception | None) -> None:
            count.now -= 1

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[key],
        authorized_client_keys=asyncssh.import_authorized_keys(allowed.decode("ascii")),
        process_factory=board.serve,
        encoding=None,
        login_timeout=WALL_LIMIT_S,
    )
    port = server.get_port()
    line = f"[127.0.0.1]:{port} {known.export_public_key().decode('ascii')}" if known else ""
    try:
        yield {"port": port, "known_hosts": line}
    finally:
        server.close()
        board.end()


@asynccontextmanager
async def unreached(fault: str, count: Count) -> AsyncIterator[dict[str, Any]]:
    """Hold a port at which nobody listens, or one that takes connections and says nothing."""
    import socket

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count.add()
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        count.now -= 1
        writer.close()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if fault == "refused":
            yield {"port": taken.getsockname()[1], "known_hosts": ""}
            return
        server = await asyncio.start_server(say_nothing, sock=taken)
        yield {"port": taken.getsockname()[1], "known_hosts": ""}
        server.close()


async def serve(folder: Path) -> None:
    """Run the boards of a folder, print where they are, and at the end of standard input what they saw."""
    users = (folder / "user" / ".ssh" / "id_ed25519.pub").read_bytes()
    fleet = json.loads((folder / "fleet.json").read_text())
    count = Count()
    made: list[Board] = []

    def busy() -> list[str]:
        """Boards on which something runs that should have ended; who lost the connection can end nothing."""
        return [board.folder.name for board in made if board.running and board.fault != "dropped"]

    async with AsyncExitStack() as stack:
        found = {}
        for name, fault in fleet.items():
            board = folder / "boards" / name
            path = f"{board / 'bin'}:{folder / 'tools'}"
            home = str(board / "home")
            environment = {"PATH": path, "HOME": home, "TMPDIR": home, "BOARD": str(board)}
            made.append(Board(board, fault, environment))
            one = unreached(fault, count) if fault in UNREACHED else listening(made[-1], users, count)
            found[name] = await stack.enter_async_context(one)
        print(json.dumps(found), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for _ in range(50):  # the ends of connections and processes may still be on their way
            if count.now or busy():
                await asyncio.sleep(0.1)
        seen = {"most": count.most, "left": count.now, "busy": busy()}
    print(json.dumps(seen), flush=True)


# --- Making them ------------------------------------------------------------------------------------------------------


@cache
def record() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the real runner here; return its answer to the probe, and what it said while it measured."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(runner.RELU)
        for options in ({"mode": "probe"}, {"model": str(model), **RECORDING}):
            command = [sys.executable, runner.__file__, json.dumps(options)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            said.append([json.loads(line) for line in done.stdout.splitlines()])
    return said[0][0], said[1]


def scaled(events: Sequence[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Multiply the times of runs."""

    def one(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "latencies":
            return event | {"latencies_s": [value * factor for value in event["latencies_s"]]}
        if event["event"] == "done":
            return event | {name: event[name] * factor for name in ("wall_s", "cpu_s")}
        return event

    return [one(event) for event in events]


def factor_of(number: int) -> float:
    """Return a board's own factor, 0.95 to 1.05."""
    return 0.95 + 0.1 * (number * 37 % 101) / 100


def make(folder: Path, fleet: Mapping[str, str], pace_s: float) -> dict[str, float]:
    """Make folders, keys and what each board will say; return the median of the runs by board."""
    probe, events = record()
    (folder / "model.tflite").write_bytes(runner.RELU)
    (folder / "fleet.json").write_text(json.dumps(fleet))
    (folder / "config").mkdir()
    ssh = folder / "user" / ".ssh"
    ssh.mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(ssh / "id_ed25519")
    key.write_public_key(ssh / "id_ed25519.pub")
    (folder / "tools").mkdir()
    for tool in TOOLS:
        (folder / "tools" / tool).symlink_to(str(shutil.which(tool)))
    medians = {}
    for number, (name, fault) in enumerate(fleet.items()):
        board = folder / "boards" / name
        (board / "home").mkdir(parents=True)
        (board / "bin").mkdir()
        kind = FAULTS.get(fault)
        said = scaled(events, factor_of(number))
        medians[name] = statistics.median(
            value for event in said if event["event"] == "latencies" for value in event["latencies_s"]
        )
        answer = probe | {"hostname": name, "board": None}
        if fault == "NumPy 2":
            broken = {"name": "tflite-runtime", "version": "2.14.0", "works": False, "problem": "it needs NumPy 1"}
            answer |= {"runtimes": [broken]}
        old = {"event": "error", "kind": "python", "message": "edgeeff needs Python 3.9 or later; this is 3.7.3"}
        operator = {"event": "error", "kind": "operator", "message": "the model has a custom operator, Frobnicate"}
        half = next(index for index, event in enumerate(said) if event["event"] == "loaded")
        for file, lines in {
            "probe": [answer],
            "run": said,
            "half": said[:half],
            "old": [old],
            "operator": [operator],
        }.items():
            (board / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if kind is None or kind.python is not None:
            run = (kind.python if kind else "") or 'exec cat "$BOARD/run.jsonl"'
            known = 'exec cat "$BOARD/probe.jsonl"' if fault != "Python 3.7" else run
            answering = f'case "$2" in *probe*) {known};; esac'
            _executable(board / "bin" / "python3", f"{answering}\nsleep {pace_s}\n{run}")
        for tool, script in kind.tools if kind else ():
            _executable(board / "bin" / tool, script)
    return medians


def _executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@contextmanager
def boards(folder: Path) -> Iterator[dict[str, Any]]:
    """Run the boards in a process of their own, and make them known; gives what they saw when they have ended."""
    seen: dict[str, Any] = {}
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            found = json.loads(process.stdout.readline())
            config = folder / "config"
            (config / "known_hosts").write_text("".join(one["known_hosts"] for one in found.values()))
            (config / "targets.toml").write_text(
                "".join(
                    f'[{name}]\nurl = "ssh://pi@127.0.0.1:{one["port"]}"\nemulated = true\n'
                    for name, one in found.items()
                )
            )
            yield seen
            process.stdin.close()
            seen |= json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


# --- Measuring them ---------------------------------------------------------------------------------------------------


class Impatient(profile.Protocol):
    """The quick protocol, whose processes may not take as long as on a slow board."""

    @property
    def time_limit_s(self) -> float:
        """How long one process may take."""
        return HANGING_LIMIT_S


@dataclass(frozen=True)
class Result:
    """What came of a fleet."""

    status: int
    document: dict[str, Any]
    stderr: str
    problems: tuple[str, ...]
    wall_s: float
    most: int
    """Connections at once."""
    memory_mb: tuple[float, float]
    """The measuring process's peak, before and after."""


def measure(folder: Path, fleet: Mapping[str, str], pace_s: float) -> Result:
    """Make a fleet and measure it with the command itself, in this process; compare with what has to come of it."""
    medians = make(folder, fleet, pace_s)
    output = folder / "records"
    arguments = ["profile", str(folder / "model.tflite"), "--quick", "--json", "--output", str(output)]
    arguments += [word for name in fleet for word in ("--target", name)]
    environment = {"HOME": str(folder / "user"), "EDGEEFF_CONFIG": str(folder / "config"), "SSH_AUTH_SOCK": ""}
    quick = Impatient("quick", profile.QUICK.processes, profile.QUICK.options)
    collected, errors = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(collected, "utf-8")
    with mock.patch.dict(os.environ, environment), mock.patch.object(profile, "QUICK", quick):
        del os.environ["SSH_AUTH_SOCK"]
        with boards(folder) as seen:
            before = _peak_mb()
            begin = time.perf_counter()
            with redirect_stdout(out), redirect_stderr(errors):
                status = _status(arguments)
            wall = time.perf_counter() - begin
            after = _peak_mb()
    out.flush()
    said = collected.getvalue()
    document = json.loads(said) if said else {"records": [], "failures": []}
    problems = list(differences(folder, fleet, medians, document))
    if status != (3 if set(fleet.values()) - set(GOOD) else 0):
        problems.append(f"the exit status is {status}")
    if noise := [line for line in errors.getvalue().splitlines() if "Traceback" in line or "never retrieved" in line]:
        problems.append(f"standard error has {noise}")
    if seen["left"]:
        problems.append(f"{seen['left']} connections were left open")
    if seen["busy"]:
        problems.append(f"processes were left on {', '.join(seen['busy'])}")
    return Result(status, document, errors.getvalue(), tuple(problems), wall, seen["most"], (before, after))


def _status(arguments: list[str]) -> int:
    try:
        cli.main(arguments, prog_name="edgeeff", standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def differences(
    folder: Path, fleet: Mapping[str, str], medians: Mapping[str, float], document: dict[str, Any]
) -> Iterator[str]:
    """Yield what is not as it has to be."""
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in fleet}
    failures: dict[str, list[dict[str, Any]]] = {name: [] for name in fleet}
    for one in document["records"]:
        records[one["target"]].append(one)
    for one in document["failures"]:
        failures[one["target"]].append(one)
    for name, fault in fleet.items():
        kind = FAULTS.get(fault)
        if kind is None:
            measured = [one["latency"]["p50_s"] for one in records[name]]
            if len(measured) != 1 or abs(measured[0] / medians[name] - 1) > 1e-6:
                yield f"{name} ({fault}): p50 of {measured} s, not {medians[name]} s; failures: {failures[name]}"
            if not (folder / "records" / f"model.{name}.t1.quick.profile.json").exists():
                yield f"{name} ({fault}): its record was not written"
            if left := [path.name for path in (folder / "boards" / name / "home").rglob("*") if not path.is_dir()]:
                yield f"{name} ({fault}): left on the board: {', '.join(left)}"
            continue
        if records[name]:
            yield f"{name} ({fault}): there is a record"
        if [one["error"] for one in failures[name]] != [kind.error] or kind.words not in failures[name][0]["message"]:
            yield f"{name} ({fault}): failures {failures[name]}, not {kind.error} with '{kind.words}'"


def planned(count: int, every: int) -> dict[str, str]:
    """Return boards by name: every so many have a fault, all faults in turn; of the others one in ten is noisy."""
    fleet = {}
    faults = list(FAULTS)
    for number in range(count):
        good = NOISY if number % 10 == 9 else FINE
        fleet[f"board-{number:03d}"] = faults[number // every % len(faults)] if number % every == 0 else good
    return fleet


def main() -> None:
    """Print what came of the fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=300)
    parser.add_argument("--every", type=int, default=5, help="one board in so many has a fault")
    parser.add_argument("--pace", type=float, default=0.3, help="seconds that a measuring process takes on a board")
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    fleet = planned(arguments.boards, arguments.every)
    with tempfile.TemporaryDirectory(prefix="edgeeff-fleet-") as name:
        result = measure(Path(name), fleet, arguments.pace)
    report(fleet, result)
    problems = list(result.problems)
    before, after = result.memory_mb
    if result.wall_s > WALL_LIMIT_S:
        problems.append(f"it took more than {WALL_LIMIT_S:.0f} s")
    if result.most > profile.AT_ONCE:
        problems.append(f"more than {profile.AT_ONCE} connections were open at once")
    if after - before > GROWTH_LIMIT_MB:
        problems.append(f"measuring took more than {GROWTH_LIMIT_MB:.0f} MB")
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if problems else 0)


def report(fleet: Mapping[str, str], result: Result) -> None:
    """Print counts by cause, time, memory and connections."""
    there = Counter(fleet.values())
    measured = Counter(fleet[one["target"]] for one in result.document["records"])
    failed: dict[str, Counter[str]] = {}
    for one in result.document["failures"]:
        failed.setdefault(fleet[one["target"]], Counter())[one["error"]] += 1
    print(
        f"{len(fleet)} simulated boards: {measured.total()} measured, {sum(map(Counter.total, failed.values()))} failed"
    )
    for cause in (*GOOD, *FAULTS):
        if there[cause]:
            errors = ", ".join(f"{count} {error}" for error, count in failed.get(cause, Counter()).items())
            print(f"  {cause:22s} {there[cause]:4d} boards  {measured[cause]:4d} measured  {errors}")
    before, after = result.memory_mb
    print(f"wall time {result.wall_s:.1f} s   limit {WALL_LIMIT_S:.0f} s")
    print(f"peak memory {after:.0f} MB, {before:.0f} MB before measuring   limit {GROWTH_LIMIT_MB:.0f} MB more")
    print(f"connections at once: at most {result.most}   limit {profile.AT_ONCE}")
    print(f"exit status of edgeeff profile: {result.status}")


if __name__ == "__main__":
    main()
