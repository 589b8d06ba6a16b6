"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from edgeeff.errors import OutputError
from edgeeff.files import check_writable, sha256, staged, write_atomic

Write = Callable[[Path], None]
OLD, NEW = b"the old file", b"the new file, which is longer"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(OLD)
    return path


@pytest.fixture(params=[check_writable, lambda path: write_atomic(path, NEW)], ids=["check", "write"])
def write(request: pytest.FixtureRequest) -> Write:
    """Both ways to be refused; what is refused when writing has to be refused before work is done."""
    return cast(Write, request.param)


@pytest.fixture
def umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def fail_with(code: int) -> OSError:
    return OSError(code, os.strerror(code))


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [NEW, bytearray(NEW), memoryview(NEW), b""])
def test_data_arrives_and_nothing_else(tmp_path: Path, data: bytes | bytearray | memoryview) -> None:
    path = tmp_path / "model.tflite"
    write_atomic(path, data)
    assert path.read_bytes() == bytes(data)
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_file_is_replaced_not_changed(old: Path) -> None:
    with old.open("rb") as reader:
        write_atomic(old, NEW)
        assert reader.read() == OLD  # who had it open reads on in the old one
    assert old.read_bytes() == NEW


@pytest.mark.usefixtures("umask_027")
def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new", NEW)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_name_in_the_current_folder_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(Path("model.tflite"))
    write_atomic(Path("model.tflite"), NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "name with spaces", "-o", "[b].tflite"])
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    write_atomic(tmp_path / name, NEW)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_stays_and_what_it_leads_to_is_replaced(old: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.tflite"
    link.symlink_to(Path("..", old.name))
    check_writable(link)
    write_atomic(link, NEW)
    assert link.is_symlink()
    assert old.read_bytes() == NEW
    assert list(link.parent.iterdir()) == [link]


def test_a_link_to_nothing_makes_the_file_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link.tflite"
    link.symlink_to("later.tflite")
    check_writable(link)
    write_atomic(link, NEW)
    assert (tmp_path / "later.tflite").read_bytes() == NEW
    assert link.is_symlink()


def test_checking_changes_nothing(old: Path) -> None:
    before = old.stat()
    check_writable(old)
    check_writable(old.with_name("other.tflite"))
    assert old.stat() == before
    assert list(old.parent.iterdir()) == [old]


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space is left there; free some"),
        (errno.EDQUOT, "your disk quota is used up"),
        (errno.EACCES, "there is no permission to write there"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_leaves_the_old_file_alone(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise fail_with(code)

    monkeypatch.setattr(step, fail)
    with pytest.raises(OutputError) as caught:
        write_atomic(old, NEW)
    assert str(caught.value).startswith(f"cannot write {old}: {words}")
    assert old.read_bytes() == OLD
    assert list(old.parent.iterdir()) == [old]


def test_an_interruption_leaves_the_old_file_alone(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(old, NEW)
    assert old.read_bytes() == OLD
    assert list(old.parent.iterdir()) == [old]


def test_a_write_that_really_fails_half_way_leaves_the_old_file_alone(old: Path) -> None:
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
            write_atomic(old, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert old.read_bytes() == OLD
    assert list(old.parent.iterdir()) == [old]


REFUSED = {
    "missing/model.tflite": "the folder does not exist; create it",
    "file/model.tflite": "a part of the path is a file, not a folder",
    "folder": "it is a folder; give a file name",
    "link-to-folder": "it is a folder; give a file name",
    "circle": "its links lead in a circle",
    "pipe": "it is a device or a pipe, not a file",
    "n" * 256: "the name is too long; give a shorter one",
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name[:20])
def test_a_place_that_takes_no_file_is_refused_before_work_and_when_writing(
    tmp_path: Path, name: str, write: Write
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "link-to-folder").symlink_to("folder")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as caught:
        write(tmp_path / name)
    assert str(caught.value).startswith(f"cannot write {tmp_path / name}: {REFUSED[name]}")
    assert "--output" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_closed_folder_is_refused(write: Write) -> None:
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, whose parents are closed to others altogether
        folder = Path(name)
        (folder / "model.tflite").write_bytes(OLD)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            for path in (folder / "model.tflite", folder / "new.tflite"):
                with pytest.raises(OutputError, match="there is no permission to write there; choose another place"):
                    write(path)
        finally:
            os.seteuid(user)
        assert [path.name for path in folder.iterdir()] == ["model.tflite"]
        assert (folder / "model.tflite").read_bytes() == OLD
        folder.chmod(0o700)


def test_a_file_system_that_takes_nothing_is_refused(write: Write) -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/model\.tflite: "):
        write(Path("/proc/model.tflite"))


# --- sha256 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_sha256_of_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "missing")


# --- Files that belong together ---------------------------------------------------------------------------------------


def test_nothing_is_moved_before_the_block_ends(old: Path) -> None:
    with staged(old, NEW):
        assert old.read_bytes() == OLD
    assert old.read_bytes() == NEW
    assert list(old.parent.iterdir()) == [old]


def test_when_one_of_two_cannot_be_written_the_other_is_not_moved(old: Path) -> None:
    for pair in ((old, old.parent / "missing" / "record.json"), (old.parent / "missing" / "record.json", old)):
        with pytest.raises(OutputError, match="missing"), staged(pair[0], NEW), staged(pair[1], NEW):
            pass
        assert old.read_bytes() == OLD
        assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_exception_in_the_block_is_passed_on_and_moves_nothing(old: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(old, NEW):
        raise error
    assert old.read_bytes() == OLD
    assert list(old.parent.iterdir()) == [old]
