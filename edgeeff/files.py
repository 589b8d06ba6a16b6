"""Files that are whole or not there: written under a temporary name, then moved into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeeff.errors import OutputError
from edgeeff.version import __version__

_REASONS = {
    errno.ENOSPC: "no space is left there; free some or choose another place with {option}",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another place with {option}",
    errno.EACCES: "there is no permission to write there; choose another place with {option}",
    errno.EPERM: "there is no permission to write there; choose another place with {option}",
    errno.EROFS: "the file system is read-only; choose another place with {option}",
    errno.ENOENT: "the folder does not exist; create it or choose another place with {option}",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place with {option}",
    errno.EISDIR: "it is a folder; give a file name with {option}",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one with {option}",
    errno.ELOOP: "its links lead in a circle; choose another place with {option}",
    errno.EEXIST: "it is a device or a pipe, not a file; give a file name with {option}",
}


def make_folder(path: Path, *, option: str = "--output") -> None:
    """Make a folder, and those above it, unless it is there; raises OutputError where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path} ({error.strerror}); choose another with {option}") from error


def check_writable(path: Path, *, option: str = "--output") -> None:
    """Refuse a place that cannot be written before any work is done for it.

    Raises OutputError when the folder is missing or closed, or when `path` is a folder or a device.
    """
    with _told(path, option):
        temporary = _temporary(_target(path))
        temporary.touch(exist_ok=False)
        temporary.unlink()


def write_atomic(path: Path, data: bytes | bytearray | memoryview, *, option: str = "--output") -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    A symbolic link stays, and what it leads to is replaced. The file is as readable as the umask says. Raises
    OutputError with the reason and the option that chooses another place; the file that was there stays as it was.
    """
    with staged(path, data, option=option):
        pass


@contextlib.contextmanager
def staged(path: Path, data: bytes | bytearray | memoryview, *, option: str = "--output") -> Iterator[None]:
    """Write `data` beside `path` now, and move it there when the block ends without an exception; see `write_atomic`.

    Of files that belong together all are complete before the first is moved when one block stages them all.
    """
    with _told(path, option):
        target = _target(path)
        temporary = _temporary(target)
    try:
        with _told(path, option), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield
        with _told(path, option):
            temporary.replace(target)
    finally:
        # Its name is nobody else's, and it is gone when it was moved.
        with contextlib.suppress(OSError):
            temporary.unlink()


def sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def cache_folder(kind: str) -> Path:
    """Return the folder of what is made once and kept, in the user's cache; it need not exist.

    EDGEEFF_CACHE names another one. What another version of edgeeff made is not in it.
    """
    own = os.environ.get("EDGEEFF_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeeff"
    return base / kind / __version__


def _target(path: Path) -> Path:
    """Follow links to what is written in the end; raises OSError where something other than a file is in the way."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EEXIST
        raise OSError(code, os.strerror(code))
    return target


def _temporary(target: Path) -> Path:
    # Beside the target, because only within one file system a file is moved in one step; a short name of its own,
    # because the target's may be as long as names can be.
    return target.with_name(f".edgeeff-{secrets.token_hex(8)}")


@contextlib.contextmanager
def _told(path: Path, option: str) -> Iterator[None]:
    """Raise OutputError for an OSError, with what to do about it."""
    try:
        yield
    except OSError as error:
        known = _REASONS.get(error.errno or 0)
        reason = known.format(option=option) if known else error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}") from error
