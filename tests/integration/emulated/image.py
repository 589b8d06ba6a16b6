"""The files that the emulated board boots from, built from Debian's arm64 packages and kept in a cache.

Packages are only unpacked, so no program of the board runs while it is built, and building needs neither root nor
emulation. What their installation scripts would have done is in the folder guest: disk/ is copied over the unpacked
packages, init is the program that the kernel starts first. Booting is left to `board`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUEST = HERE / "guest"
WHEELS = HERE / "wheels.txt"

SUITE = "bookworm"
PYTHON = "python3.11"  # the suite's
PACKAGES = (
    "base-files bash busybox-static coreutils dash findutils grep gzip hostname libc-bin libstdc++6 linux-image-arm64 "
    "login mount openssh-server openssh-sftp-server procps python3 python3-venv sed tar unzip usbutils util-linux"
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/lib/linux-image-*")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
DISK = "2G"  # sparse; about 130 MB are used
PI = 1000  # user and group, as on a Raspberry Pi

TOOLS = {
    "cpio": "cpio",
    "depmod": "kmod",
    "fdtput": "device-tree-compiler",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "qemu-img": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm",
    "scp": "openssh-client",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
} | ({} if os.geteuid() == 0 else {"fakeroot": "fakeroot"})
"""Each program that building and booting need, and the Debian package that has it."""

ENVIRONMENT = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


class BuildError(Exception):
    """The board's files could not be made; the message ends with what the failing tool said."""


@dataclass(frozen=True)
class Image:
    """What QEMU and SSH need: the files of one build."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        """An ext4 file system; boards write to an overlay of their own."""
        return self.folder / "disk.ext4"

    @property
    def key(self) -> Path:
        """The private key that opens the accounts pi and root, made for this build."""
        return self.folder / "key"

    @property
    def host_key(self) -> str:
        """The board's public host key: type and base64."""
        return " ".join((self.folder / "host_key.pub").read_text(encoding="ascii").split()[:2])


def missing_tools() -> list[str]:
    """Return the Debian packages whose programs are not on this machine."""
    return sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=ENVIRONMENT["PATH"])})


def cache() -> Path:
    """Return the folder for what takes long to make: EDGEEFF_EMULATED_CACHE, or one in the user's cache folder."""
    named = os.environ.get("EDGEEFF_EMULATED_CACHE")
    if named:
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeeff" / "emulated"


def image() -> Image:
    """Return the board's files, built unless the cache has them as this recipe makes them; raises BuildError."""
    recipe = [Path(__file__), *sorted(path for path in GUEST.rglob("*") if path.is_file())]
    return Image(_cached("board", recipe, _build))


def wheels() -> Path:
    """Return the folder with the runtime's wheels for the board, fetched by this machine; raises BuildError."""
    return _cached("wheels", [WHEELS], _fetch)


def _build(folder: Path) -> None:
    for name in ("key", "host_key"):
        _run(folder, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "emulated board", "-f", name])
    (folder / "overlay.tar").write_bytes(_overlay(folder))
    _run(folder, _unpacking())
    (version,) = (path.name for path in (folder / "modules").iterdir())
    (folder / f"boot/vmlinuz-{version}").rename(folder / "vmlinuz")
    _pack_initramfs(folder, version)
    for name in ("boot", "first", "lib"):
        shutil.rmtree(folder / name)
    for name in ("busybox", "host_key", "overlay.tar"):
        (folder / name).unlink()


def _unpacking() -> list[str]:
    """Return the command that unpacks the packages, lays guest/disk over them and makes the disk of the result."""
    command = ["mmdebstrap", "--mode=root", "--variant=extract", "--architectures=arm64", "--format=null"]
    if os.geteuid() != 0:
        command.insert(0, "fakeroot")
    # Nothing is mounted into the tree: it is copied whole, and must not hold this machine's /proc.
    command += ["--skip=check/qemu,chroot/mount", "--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [f"--include={','.join(PACKAGES.split())}"]
    move_out = "copy-out /boot /usr/lib/modules /usr/bin/busybox ."
    thin = 'cd "$1" && rm -rf boot/* usr/lib/modules/* var/cache/apt/* var/lib/apt/lists/*'
    # What the packages' scripts do last. Only a Python of the board's version can; without it, the board starts slower.
    python = shlex.quote(sys.executable)
    compiled = f'{python} -m compileall -q -j 2 -s "$1" -x "/(lib2to3|test)/" "$1"/usr/lib/{PYTHON}'
    make = f'mke2fs -q -t ext4 -L emulated-pi -d "$1" disk.ext4 {DISK}'
    same_python = f"python{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON
    hooks = [move_out, thin, "tar-in overlay.tar /", *([compiled] if same_python else []), make]
    command += [f"--extract-hook={hook}" for hook in hooks]
    return [*command, SUITE]


def _overlay(folder: Path) -> bytes:
    """Return a tar archive of guest/disk and the keys, with the owners and modes that the board needs."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:

        def add(name: str, content: bytes | None = None, *, mode: int, owner: int = 0, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid, entry.linkname = mode, owner, owner, link
            entry.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))

        disk = GUEST / "disk"
        for path in sorted(disk.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                add(path.relative_to(disk).as_posix(), content, mode=0o755 if content.startswith(b"#!") else 0o644)
        add("usr/sbin/init", mode=0o777, link="/bin/busybox")
        add("etc/ssh/host_key", (folder / "host_key").read_bytes(), mode=0o600)
        for home, owner in (("root", 0), ("home/pi", PI)):
            add(home, mode=0o755, owner=owner)
            add(f"{home}/.ssh", mode=0o700, owner=owner)
            add(f"{home}/.ssh/authorized_keys", (folder / "key.pub").read_bytes(), mode=0o600, owner=owner)
    return made.getvalue()


def _pack_initramfs(folder: Path, version: str) -> None:
    """Write the archive that the kernel unpacks into memory: guest/init, busybox and the modules in their order."""
    first = folder / "first"
    for name in ("bin", "dev", "disk", "modules"):
        (first / name).mkdir(parents=True)
    shutil.copyfile(GUEST / "init", first / "init")
    (first / "init").chmod(0o755)
    shutil.copy2(folder / "busybox", first / "bin/busybox")
    (first / "bin/sh").symlink_to("busybox")

    (folder / "lib").mkdir()
    (folder / "modules").rename(folder / "lib/modules")  # where the tools look
    _run(folder, ["depmod", "--basedir", str(folder), version])
    ordered: dict[str, None] = {}
    for module in MODULES:
        command = ["modprobe", "--dirname", str(folder), "--set-version", version, "--show-depends", module]
        ordered |= dict.fromkeys(line.split()[1] for line in _run(folder, command).splitlines() if "insmod" in line)
    for number, path in enumerate(ordered):
        shutil.copy2(path, first / f"modules/{number:02}-{Path(path).name}")

    names = "".join(sorted(f"{path.relative_to(first).as_posix()}\n" for path in first.rglob("*")))
    command = ["cpio", "--create", "--quiet", "--format=newc", "--owner=0:0", "--file=../initramfs"]
    _run(first, command, given=names)


def _fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(WHEELS), "--python-version=311", "--implementation=cp"]
    command += [f"--platform=manylinux_{version}_aarch64" for version in ("2_34", "2_17")]
    _run(folder, [*command, "--dest=."])


def _cached(name: str, recipe: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` filled after this recipe, now or in an earlier session."""
    hashed = hashlib.sha256()
    for path in recipe:
        hashed.update(f"{path.relative_to(HERE)} {path.stat().st_size}\n".encode() + path.read_bytes())
    folder = cache() / f"{name}-{hashed.hexdigest()[:12]}"
    with _alone(folder.parent, name):
        if not folder.is_dir():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process makes the same thing there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(folder: Path, command: Sequence[str], *, given: str = "", limit_s: float = 600) -> str:
    """Run a tool in a folder and return its standard output; whatever ends this ends its children, too."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(given, timeout=limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildError(f"{command[0]} took longer than {limit_s:.0f} s") from error
            raise
    if process.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with status {process.returncode}:\n{(output + errors)[-3000:]}")
    return output
