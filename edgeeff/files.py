"""Files that are whole or not there: written under a temporary name, then moved into place."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from edgeeff.errors import OutputError

_REASONS = {
    errno.ENOSPC: "no space is left there; free some or choose another place with --output",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another place with --output",
    errno.EACCES: "there is no permission to write there; choose another place with --output",
    errno.EPERM: "there is no permission to write there; choose another place with --output",
    errno.EROFS: "the file system is read-only; choose another place with --output",
    errno.ENOENT: "the folder does not exist; create it or choose another place with --output",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place with --output",
    errno.EISDIR: "it is a folder; give a file name with --output",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one with --output",
}


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written before any work is done for it.

    Raises OutputError when the folder is missing or closed, or when `path` is itself a folder.
    """
    if path.is_dir():
        raise _output_error(path, OSError(errno.EISDIR, "is a folder"))
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as error:
        raise _output_error(path, error) from error
    os.close(handle)
    Path(name).unlink()


def write_atomic(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises OutputError with the reason and a way on; the file that was there stays as it was.
    """
    if path.is_dir():
        raise _output_error(path, OSError(errno.EISDIR, "is a folder"))
    mode = 0o666 & ~_umask()
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _umask() -> int:
    # The only way to read the mask is to set it; mkstemp makes files that only their owner may read.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {reason}")
