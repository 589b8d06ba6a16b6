"""Transports: what arrives on a board, what comes back, and what is said when it does not; both kinds alike."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.devices import transport
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.devices.transport import Transport
from edgeeff.errors import (
    DeviceError,
    DroppedError,
    HostKeyError,
    InputError,
    NoCommandError,
    OutputError,
    StorageError,
    TimeLimitError,
)
from tests.boards import Board, board, gone, in_a_loop

both = pytest.mark.parametrize("kind", ["local", "ssh"])


@asynccontextmanager
async def reached(kind: str, ssh_home: Path) -> AsyncIterator[tuple[Transport, Path]]:
    """A transport and the home folder on its other side."""
    if kind == "local":
        async with transport.connect(LOCAL) as here:
            yield here, Path.home()
    else:
        async with board(Path.home() / "board", ssh_home) as there, transport.connect(there.target()) as far:
            yield far, there.home


# --- Commands ---------------------------------------------------------------------------------------------------------


@both
@in_a_loop
async def test_a_command_gets_its_input_and_gives_its_outputs_and_status(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, home):
        done = await there.run(["sh", "-c", "cat; pwd; echo bad >&2; exit 3"], stdin=b"in\n", time_limit_s=10)
        assert (done.status, done.stdout, done.stderr) == (3, f"in\n{home}\n", "bad\n")
        assert await there.run(["cat"], time_limit_s=10) == transport.Completed(0, "", "")
        assert (await there.run(["sh", "-c", "kill -KILL $$"], time_limit_s=10)).status == -signal.SIGKILL


@both
@in_a_loop
async def test_a_file_can_be_the_input(kind: str, ssh_home: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 1_000_000)
    async with reached(kind, ssh_home) as (there, _):
        assert (await there.run(["wc", "-c"], stdin=tmp_path / "in", time_limit_s=10)).stdout.split() == ["1000000"]
        with pytest.raises(InputError, match=r"cannot read .*missing: No such file"):
            await there.run(["cat"], stdin=tmp_path / "missing", time_limit_s=10)


@both
@in_a_loop
async def test_input_that_fails_on_the_way_is_no_success(
    kind: str, ssh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(transport, "BytesIO", Failing)
    async with reached(kind, ssh_home) as (there, _):
        with pytest.raises(InputError, match="cannot read the input of a command: Input/output error"):
            await there.run(["wc", "-c"], stdin=bytes(1_000_000), time_limit_s=10)


@both
@in_a_loop
async def test_input_that_nobody_reads_does_not_matter(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, _):
        done = await there.run(["sh", "-c", "exec <&-; echo done"], stdin=bytes(10_000_000), time_limit_s=10)
    assert (done.status, done.stdout) == (0, "done\n")


@both
@in_a_loop
async def test_input_can_depend_on_what_is_said(kind: str, ssh_home: Path) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def talk() -> AsyncIterator[bytes]:
        yield b"1\n"
        while (last := int(await heard.get())) < 5:
            yield b"%d\n" % (2 * last)

    async with reached(kind, ssh_home) as (there, _):
        async with there.stream(["cat"], stdin=talk(), time_limit_s=math.inf) as lines:
            said = []
            async for line in lines:
                said.append(line)
                heard.put_nowait(line)
        assert (said, lines.status) == (["1", "2", "4", "8"], 0)
        # A command need not wait for the end of its input, nor does who leaves it.
        silent: asyncio.Queue[str] = asyncio.Queue()
        heard = silent
        assert (await there.run(["echo", "done"], stdin=talk(), time_limit_s=10)).stdout == "done\n"
        async with there.stream(["sleep", "60"], stdin=talk(), time_limit_s=math.inf):
            pass


@both
@in_a_loop
async def test_bytes_that_are_no_text_are_replaced(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, _):
        done = await there.run(["cat"], stdin=b"a\xffb\n", time_limit_s=10)
        async with there.stream(["cat"], stdin=b"a\xffb\n", time_limit_s=10) as lines:
            assert [line async for line in lines] == ["a\ufffdb"]
    assert done.stdout == "a\ufffdb\n"


@both
@in_a_loop
async def test_many_commands_at_once(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, _):
        running = (there.run(["echo", str(number)], time_limit_s=20) for number in range(20))
        assert [done.stdout for done in await asyncio.gather(*running)] == [f"{number}\n" for number in range(20)]


@both
@in_a_loop
async def test_a_command_that_is_not_there(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, home):
        (home / "script").write_text("echo hi\n")
        for command in ("no-such-command", "/no/such/command", f"{home}/script", str(home), "no such command"):
            with pytest.raises(NoCommandError, match=f"there is no command '{command}' that can be run"):
                await there.run([command, "x"], time_limit_s=10)
        # A command of its own that ends with the shell's status for that is something else.
        assert (await there.run(["sh", "-c", "exit 127"], time_limit_s=10)).status == 127


@both
@pytest.mark.parametrize("word", ["a\0b", "\udc80"])
@in_a_loop
async def test_words_that_no_command_can_get_are_refused(kind: str, ssh_home: Path, word: str) -> None:
    async with reached(kind, ssh_home) as (there, _):
        with pytest.raises(InputError, match="cannot be given to a command"):
            await there.run(["echo", word], time_limit_s=10)
        with pytest.raises(InputError, match="no command to run"):
            await there.run(["", word], time_limit_s=10)


@both
@in_a_loop
async def test_a_command_that_prints_too_much_is_ended(
    kind: str, ssh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "OUTPUT_LIMIT_BYTES", 1 << 20)
    async with reached(kind, ssh_home) as (there, _):
        with pytest.raises(DeviceError, match="'yes' printed more than 1 MiB and was ended"):
            await there.run(["yes"], time_limit_s=10)
        with pytest.raises(DeviceError, match="printed more than 1 MiB and was ended"):
            async with there.stream(["cat", "/dev/zero"], time_limit_s=10) as lines:
                await lines.__anext__()


@both
@in_a_loop
async def test_of_errors_the_end_is_kept(kind: str, ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ERRORS_KEPT_BYTES", 1000)
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done"
    async with reached(kind, ssh_home) as (there, _):
        done = await there.run(["sh", "-c", script], time_limit_s=10)
    assert len(done.stderr) == 1000
    assert done.stderr.endswith("line 1998\nline 1999\n")


# --- Streams ----------------------------------------------------------------------------------------------------------


@both
@in_a_loop
async def test_lines_come_while_the_command_runs(kind: str, ssh_home: Path) -> None:
    script = 'echo one; echo bad >&2; read word < "$1"; echo "$word"; printf "no end"; exit 4'
    async with reached(kind, ssh_home) as (there, home):
        os.mkfifo(home / "gate")
        async with there.stream(["sh", "-c", script, "sh", str(home / "gate")], time_limit_s=10) as lines:
            assert await lines.__anext__() == "one"
            (home / "gate").write_text("two\n")
            assert [line async for line in lines] == ["two", "no end"]
        assert (lines.status, lines.stderr) == (4, "bad\n")
        with pytest.raises(StopAsyncIteration):
            await lines.__anext__()


@both
@in_a_loop
async def test_long_lines_and_empty_ones(kind: str, ssh_home: Path) -> None:
    sent = ["", "x" * 300_000, "", "ü" * 100_000, "y"]
    sending = "\n".join(sent).encode()
    async with reached(kind, ssh_home) as (there, _), there.stream(["cat"], stdin=sending, time_limit_s=10) as lines:
        assert [line async for line in lines] == sent


BUSY = ["sh", "-c", "sleep 1000 & echo $!; echo $$; wait"]


@both
@in_a_loop
async def test_leaving_early_ends_the_command_and_its_children(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, _):
        async with there.stream(BUSY, time_limit_s=20) as lines:
            pids = [int(await lines.__anext__()), int(await lines.__anext__())]
        for pid in pids:
            await gone(pid)


@both
@in_a_loop
async def test_cancelling_ends_the_command_and_its_children(kind: str, ssh_home: Path) -> None:
    pids: asyncio.Queue[int] = asyncio.Queue()

    async def measure(there: Transport) -> None:
        async with there.stream(BUSY, time_limit_s=20) as lines:
            async for line in lines:
                pids.put_nowait(int(line))

    async with reached(kind, ssh_home) as (there, _):
        measuring = asyncio.ensure_future(measure(there))
        running = [await pids.get(), await pids.get()]
        measuring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await measuring
        for pid in running:
            await gone(pid)
        assert (await there.run(["true"], time_limit_s=10)).status == 0


@both
@in_a_loop
async def test_who_ignores_being_asked_is_killed(kind: str, ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GRACE_S", 0.3)
    stubborn = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.01; done"]
    async with reached(kind, ssh_home) as (there, _):
        async with there.stream(stubborn, time_limit_s=20) as lines:
            pid = int(await lines.__anext__())
        await gone(pid)


@both
@in_a_loop
async def test_a_time_limit_ends_the_command(kind: str, ssh_home: Path) -> None:
    async with reached(kind, ssh_home) as (there, home):
        busy = ["sh", "-c", 'echo $$ > "$1"; exec sleep 1000', "sh", str(home / "pid")]
        with pytest.raises(TimeLimitError, match=r"'sh -c .*' took longer than 0\.5 s and was ended"):
            await there.run(busy, time_limit_s=0.5)
        if (home / "pid").exists():
            await gone(int((home / "pid").read_text()))
        with pytest.raises(TimeLimitError):
            async with there.stream(["sleep", "1000"], time_limit_s=0.2) as lines:
                await lines.__anext__()


# --- Files ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["model.tflite", "a/b/c d", "-rf", 'it\'s; $(rm) `x` "y" \\ *\n!', "mödel"])
@in_a_loop
async def test_files_go_and_come_back(kind: str, ssh_home: Path, tmp_path: Path, name: str) -> None:
    content = os.urandom(200_001)
    (tmp_path / "local").write_bytes(content)
    async with reached(kind, ssh_home) as (there, home):
        assert not await there.exists(name)
        for _ in range(2):  # the second replaces the first
            await there.put(tmp_path / "local", name)
        assert (home / name).read_bytes() == content
        assert [path.name for path in (home / name).parent.iterdir() if path.is_file()] == [Path(name).name]
        assert await there.exists(name)
        await there.get(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        await there.remove(name)
        assert not await there.exists(name)
        await there.remove(name)


@both
@in_a_loop
async def test_an_empty_file_is_a_file_and_a_folder_is_removed_whole(kind: str, ssh_home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    async with reached(kind, ssh_home) as (there, home):
        await there.put(tmp_path / "empty", "folder/empty")
        await there.get("folder/empty", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b""
        (home / "folder" / "link").symlink_to("nowhere")
        assert await there.exists("folder/link")
        await there.remove("folder")
        assert not (home / "folder").exists()


@both
@in_a_loop
async def test_files_may_be_larger_than_what_commands_print(
    kind: str, ssh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "OUTPUT_LIMIT_BYTES", 1000)
    (tmp_path / "local").write_bytes(bytes(100_000))
    async with reached(kind, ssh_home) as (there, _):
        await there.put(tmp_path / "local", "there")
        await there.get("there", tmp_path / "back")
    assert (tmp_path / "back").stat().st_size == 100_000


@both
@in_a_loop
async def test_what_cannot_be_written_there_says_why(kind: str, ssh_home: Path, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x")
    async with reached(kind, ssh_home) as (there, home):
        (home / "folder").mkdir()
        (home / "file").touch()
        for name, reason in {
            "folder": "it is a folder on the board",
            "file/x": "a part of the path is a file on the board",
            "x" * 300: "the name is too long for the board",
        }.items():
            with pytest.raises(StorageError, match=re.escape(f"{there.name}: {name}: {reason}")):
                await there.put(tmp_path / "local", name)
        assert sorted(path.name for path in home.iterdir() if "x" in path.name) == []


@both
@in_a_loop
async def test_what_cannot_be_read_there_says_why(kind: str, ssh_home: Path, tmp_path: Path) -> None:
    async with reached(kind, ssh_home) as (there, home):
        (home / "folder").mkdir()
        with pytest.raises(StorageError, match="missing: it is not there on the board"):
            await there.get("missing", tmp_path / "back")
        with pytest.raises(StorageError, match="folder: it is a folder on the board"):
            await there.get("folder", tmp_path / "back")
        (home / "here").touch()
        with pytest.raises(OutputError, match="the folder does not exist"):
            await there.get("here", tmp_path / "no" / "folder")
    assert not (tmp_path / "back").exists()


@both
@in_a_loop
async def test_what_cannot_be_read_here_is_not_sent(kind: str, ssh_home: Path, tmp_path: Path) -> None:
    async with reached(kind, ssh_home) as (there, home):
        with pytest.raises(InputError, match=r"cannot read .*missing: No such file"):
            await there.put(tmp_path / "missing", "there")
        with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
            await there.put(tmp_path, "there")
        assert not (home / "there").exists()


@both
@pytest.mark.parametrize("name", ["", "/", ".", "..", "../..", "//"])
@in_a_loop
async def test_some_folders_are_never_removed(kind: str, ssh_home: Path, name: str) -> None:
    async with reached(kind, ssh_home) as (there, _):
        with pytest.raises(ValueError, match="is not to be removed"):
            await there.remove(name)


@pytest.mark.parametrize(
    ("command", "script", "reason"),
    [
        ("cat", "exec /bin/cat > /dev/full", "the board's disk is full"),
        ("mkdir", "echo \"mkdir: cannot create directory 'models': Read-only file system\" >&2; exit 1", "read-only"),
        ("mkdir", "echo \"mkdir: cannot create directory 'models': Permission denied\" >&2; exit 1", "no permission"),
        ("mkdir", "echo \"mkdir: can't create directory 'models': Input/output error\" >&2; exit 1", "has a fault"),
        ("mv", "echo 'mv: something new' >&2; exit 1", "mv: something new"),
        ("mv", "exit 9", "status 9"),
        ("cat", "head -c 5", "only 5 of 1000 bytes arrived"),
    ],
)
@in_a_loop
async def test_a_board_that_cannot_store_says_why(
    ssh_home: Path, tmp_path: Path, command: str, script: str, reason: str
) -> None:
    (tmp_path / "local").write_bytes(bytes(1000))
    async with board(tmp_path / "board", ssh_home) as there, transport.connect(there.target()) as far:
        there.command(command, script)
        with pytest.raises(StorageError, match=re.escape(reason)):
            await far.put(tmp_path / "local", "models/b0")
        assert [path for path in there.home.rglob("*b0*") if path.is_file()] == []


@in_a_loop
async def test_messages_of_the_board_are_understood_whatever_it_speaks(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there, transport.connect(there.target()) as far:
        there.environment |= {"LC_ALL": "C.UTF-8", "LANGUAGE": "de"}
        (there.home / "b0").touch()
        there.command("cat", 'echo "$LC_ALL" >&2; exit 1')
        with pytest.raises(StorageError, match=r"b0: C$"):
            await far.get("b0", tmp_path / "back")


# --- Shells -----------------------------------------------------------------------------------------------------------

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12), max_size=5)
SHELLS = [shell for shell in ("bash", "dash", "zsh", "ksh", "ash", "busybox") if shutil.which(shell)]


class Background:
    """A board and a connection to it that live in a thread, so that many examples can use them."""

    def __init__(self, home: Path, ssh_home: Path, shell: list[str]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = self._open(home, ssh_home, shell)
        self.transport = self._call(self._stack.__aenter__())

    @asynccontextmanager
    async def _open(self, home: Path, ssh_home: Path, shell: list[str]) -> AsyncIterator[Transport]:
        async with board(home, ssh_home) as there:
            there.shell = shell
            async with transport.connect(there.target()) as far:
                yield far

    def _call(self, awaited: object) -> Transport:
        return asyncio.run_coroutine_threadsafe(awaited, self._loop).result(20)  # type: ignore[arg-type]

    def run(self, argv: list[str]) -> transport.Completed:
        asked = self.transport.run(argv, time_limit_s=20)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)

    def close(self) -> None:
        self._call(self._stack.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(params=SHELLS)
def in_shell(request: pytest.FixtureRequest, ssh_home: Path, tmp_path: Path) -> Iterator[Background]:
    shell = [str(shutil.which(request.param)), *(["sh"] if request.param == "busybox" else []), "-c"]
    made = Background(tmp_path / "board", ssh_home, shell)
    yield made
    made.close()


def test_every_word_arrives_as_it_was_given(in_shell: Background) -> None:
    @settings(max_examples=50, deadline=None)
    @given(WORDS)
    def check(words: list[str]) -> None:
        done = in_shell.run(["sh", "-c", r'for word; do printf "%s\0" "$word"; done', "sh", *words])
        assert (done.status, done.stderr) == (0, "")
        assert done.stdout.split("\0")[:-1] == words

    check()


# --- Boards that are not well -----------------------------------------------------------------------------------------

NOISE = {
    "lines": "echo hello; echo more; echo bad >&2",
    "no end of line": "printf hello; printf bad >&2",
    "blank": "echo; echo >&2",
    "much": "head -c 300000 /dev/urandom; head -c 300000 /dev/urandom >&2",
    "at exit": "trap 'echo bye' EXIT",
    "colours": r"printf '\033[31mhello\033[0m\n'",
}


@pytest.mark.parametrize("noise", NOISE)
@in_a_loop
async def test_what_the_login_shell_prints_is_dropped(ssh_home: Path, tmp_path: Path, noise: str) -> None:
    (tmp_path / "file").write_bytes(os.urandom(10_000))
    async with board(tmp_path / "board", ssh_home) as there:
        there.noisy(NOISE[noise])
        async with transport.connect(there.target()) as far:
            done = await far.run(["sh", "-c", "echo out; echo err >&2"], time_limit_s=10)
            assert (done.status, done.stdout, done.stderr) == (0, "out\n", "err\n")
            async with far.stream(["printf", r"\n1\n\n2"], time_limit_s=10) as lines:
                assert [line async for line in lines] == ["", "1", "", "2"]
            await far.put(tmp_path / "file", "file")
            await far.get("file", tmp_path / "back")
            with pytest.raises(NoCommandError):
                await far.run(["no-such-command"], time_limit_s=10)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


@in_a_loop
async def test_a_login_shell_that_ends_first_is_quoted(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        there.noisy("echo only the menu; exit 5")
        async with transport.connect(there.target()) as far:
            with pytest.raises(DeviceError, match=r"login shell ended with status 5 before .* said: only the menu"):
                await far.run(["true"], time_limit_s=10)
            there.noisy("exit 0")
            with pytest.raises(DeviceError, match=r"ended with status 0 before .* said: \(nothing\)"):
                await far.run(["true"], time_limit_s=10)


@in_a_loop
async def test_a_login_shell_that_prints_without_end_is_ended(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        there.noisy("yes")
        async with transport.connect(there.target()) as far:
            with pytest.raises(DeviceError, match="the login shell prints without end"):
                await far.run(["true"], time_limit_s=10)


@in_a_loop
async def test_a_login_shell_that_hangs_is_limited(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        there.noisy("sleep 1000")
        async with transport.connect(there.target()) as far:
            with pytest.raises(TimeLimitError, match="'true' took longer"):
                await far.run(["true"], time_limit_s=0.3)


async def begun(there: Board) -> None:
    while not there.processes:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("when", ["before the command", "while it runs", "while it is silent"])
@in_a_loop
async def test_a_lost_connection_has_a_name(ssh_home: Path, tmp_path: Path, when: str) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        there.noisy("sleep 1000" if when == "before the command" else "")
        async with transport.connect(there.target()) as far:
            script = (
                "echo one; sleep 1000" if when == "while it is silent" else "while :; do echo one; sleep 0.01; done"
            )
            running = asyncio.ensure_future(far.run(["sh", "-c", script], time_limit_s=20))
            await begun(there)
            there.cut()
            with pytest.raises(DroppedError, match="board: the connection was lost while a command ran"):
                await running
            with pytest.raises(DroppedError):
                await far.run(["true"], time_limit_s=10)
            with pytest.raises(DroppedError):
                await far.exists("x")


@in_a_loop
async def test_what_came_before_the_connection_was_lost_is_there(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there, transport.connect(there.target()) as far:
        kept = []
        with pytest.raises(DroppedError):
            async with far.stream(["sh", "-c", "echo one; echo two; sleep 1000"], time_limit_s=20) as lines:
                async for line in lines:
                    kept.append(line)
                    if line == "two":
                        there.cut()
    assert kept == ["one", "two"]
    assert lines.status is None


@pytest.mark.parametrize("begins", [False, True])
@in_a_loop
async def test_an_end_without_a_status_is_no_success(ssh_home: Path, tmp_path: Path, begins: bool) -> None:
    async def stop(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if begins:
            mark = shlex.split(process.command or "")[5]
            process.stdout.write(f"\n{mark} 1\n".encode())
        process.close()

    async with board(tmp_path / "board", ssh_home) as there, transport.connect(there.target()) as far:
        there.serve = stop
        with pytest.raises(DroppedError):
            await far.run(["true"], time_limit_s=10)


class Relay:
    """Carries bytes between a client and a board until it is frozen: a network that swallows everything."""

    def __init__(self) -> None:
        self.frozen = False
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers += [writer, far_writer]
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            if not self.frozen:
                writer.write(piece)
        writer.close()

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())}, timeout=1)
        await self._server.wait_closed()


@in_a_loop
async def test_a_board_that_falls_silent_is_noticed(ssh_home: Path, tmp_path: Path) -> None:
    (ssh_home / "config").write_text("Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 1\n")
    relay = Relay()
    async with board(tmp_path / "board", ssh_home) as there:
        port = await relay.start(there.port)
        with (ssh_home / "known_hosts").open("a") as file:
            file.write(there.known_hosts_line().replace(str(there.port), str(port)))
        async with transport.connect(Target("board", f"ssh://pi@127.0.0.1:{port}")) as far:
            with pytest.raises(DroppedError, match="the connection was lost"):
                async with far.stream(["sh", "-c", "echo one; sleep 1000"], time_limit_s=20) as lines:
                    async for _ in lines:
                        relay.frozen = True
        await relay.close()


# --- Connecting -------------------------------------------------------------------------------------------------------


@in_a_loop
async def test_facts_are_nowhere_to_go() -> None:
    with pytest.raises(InputError, match="devices add my-raspberry-pi-4 ssh://USER@HOST --board raspberry-pi-4"):
        async with transport.connect(Target("raspberry-pi-4", board="raspberry-pi-4")):
            pass


@in_a_loop
async def test_accepted_host_keys_have_to_be_met(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        with pytest.raises(HostKeyError, match="no host on the way shows SHA256:other; shown: SHA256:"):
            await transport.accept_host_keys(there.target(), ["SHA256:other"])
        await transport.accept_host_keys(there.target(), [there.key.get_fingerprint()])
    with pytest.raises(HostKeyError, match="shown: none"):
        await transport.accept_host_keys(LOCAL, ["SHA256:other"])


@in_a_loop
async def test_who_is_interrupted_as_the_answer_comes_is_interrupted() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(transport.Within("it", 10)(answer))
    await asyncio.sleep(0)
    answer.set_result(7)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
