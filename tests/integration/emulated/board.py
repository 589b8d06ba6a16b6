"""The emulated board: a machine that QEMU plays, with a kernel of its own, reached by SSH on loopback.

It calls itself a Raspberry Pi 4 in its device tree, with "emulated" in the name, and it is one in nothing else: no
time that is measured on it is a board's. It reaches no network. What it stores outlives a power cut, as on a board.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.emulated.image import ENVIRONMENT, Image

MODEL = "Raspberry Pi 4 Model B Rev 1.4 (emulated)"
MACHINE = ("-cpu", "cortex-a72", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none")
KERNEL_OPTIONS = "console=ttyAMA0 loglevel=4 panic=-1 mitigations=off"
BOOT_LIMIT_S = 180.0
HOST = "127.0.0.1"


class BoardError(Exception):
    """The board could not be switched on, or a command on it failed or did not end."""


class EmulatedBoard:
    """One board, off until `start`. Leaving its context, or the end of the thread that started it, switches it off."""

    host = HOST
    user = "pi"
    emulated = True

    def __init__(self, image: Image, folder: Path) -> None:
        """Take an image and an empty folder for what this board writes: its disk, its console, QEMU's output."""
        self._image = image
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.key = image.key
        self.host_key = image.host_key
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {self.host_key}\n", encoding="ascii")
        self.boot_s = 0.0

    def __enter__(self) -> EmulatedBoard:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where edgeeff reaches the board."""
        return f"ssh://{self.user}@{self.host}:{self.port}"

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint as OpenSSH prints it."""
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def console(self) -> str:
        """What the kernel and the SSH server printed since the board was first switched on."""
        return _text(self._folder / "console.log")

    def start(self) -> None:
        """Switch the board on and wait for its SSH server; raises BoardError."""
        began = time.monotonic()
        if not (self._folder / "disk.qcow2").exists():
            backing = ("-F", "raw", "-b", str(self._image.disk))
            self._tool("qemu-img", "create", "-q", "-f", "qcow2", *backing, "disk.qcow2")
        # Dumped for each start: there is a fresh seed for the kernel's random numbers in it.
        self._tool("qemu-system-aarch64", "-machine", "virt,dumpdtb=board.dtb", *MACHINE)
        self._tool("fdtput", "-t", "s", "board.dtb", "/", "model", MODEL)
        self._process = self._switch_on()
        while not _ssh_answers(self.port):
            if not self.running:
                said = _text(self._folder / "qemu.log")[-1000:]
                raise BoardError(f"the emulated board ended while it started:\n{self.console[-2000:]}\n{said}")
            if time.monotonic() - began > BOOT_LIMIT_S:
                self.kill()
                raise BoardError(f"no SSH server on the board within {BOOT_LIMIT_S:.0f} s:\n{self.console[-2000:]}")
            time.sleep(0.1)
        self.boot_s = time.monotonic() - began

    def kill(self) -> None:
        """Cut the power; what the board had not written to its disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def restart(self) -> None:
        """Cut the power if it is on and switch it on again, with the same disk, port and keys; raises BoardError."""
        self.kill()
        self.start()

    def run(
        self, argv: Sequence[str], *, user: str = user, check: bool = True, limit_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the board; raises BoardError for a status other than 0 (unless told not to check)."""
        return _run(self.ssh(argv, user=user), check=check, limit_s=limit_s)

    def ssh(self, argv: Sequence[str], *, user: str = user) -> list[str]:
        """Return the command of this machine that runs a command on the board."""
        where = ["-p", str(self.port), *self._ssh_options(), f"{user}@{self.host}"]
        return ["ssh", *where, *(["--", shlex.join(argv)] if argv else [])]

    def send(self, *paths: Path, to: str, limit_s: float = 120) -> None:
        """Copy files into a folder of the board, relative to the user's home; raises BoardError."""
        command = ["scp", "-q", "-P", str(self.port), *self._ssh_options(), *map(str, paths)]
        _run([*command, f"{self.user}@{self.host}:{to}/"], limit_s=limit_s)

    @contextmanager
    def limited_cpu(self, cores: float) -> Iterator[None]:
        """Let everything that runs over SSH share so many cores' time, as throttling would; it is slower to obey, too.

        This is a control group's limit, microseconds of each tenth of a second. By hand, as root on the board:
        `echo 30000 100000 > /sys/fs/cgroup/sessions/cpu.max`, and `echo max > ...` to lift it.
        """
        self._limit(str(round(cores * 100_000)))
        try:
            yield
        finally:
            if self.running:
                self._limit("max")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the machine with its connections open: what a cut cable or power supply looks like from outside."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _switch_on(self) -> subprocess.Popen[bytes]:
        command = ["setpriv", "--pdeathsig", "KILL", "--"]  # not even a killed test run leaves a machine behind
        command += ["qemu-system-aarch64", "-machine", "virt", "-accel", "tcg,thread=multi", *MACHINE, "-no-reboot"]
        command += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs)]
        command += ["-dtb", "board.dtb", "-append", KERNEL_OPTIONS]
        command += ["-chardev", "file,id=console,append=on,path=console.log", "-serial", "chardev:console"]
        command += ["-drive", "if=none,id=disk,format=qcow2,file=disk.qcow2", "-device", "virtio-blk-pci,drive=disk"]
        command += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:{HOST}:{self.port}-:22"]
        command += ["-device", "virtio-net-pci,netdev=net,romfile="]
        with (self._folder / "qemu.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self._folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _limit(self, quota: str) -> None:
        self.run(["sh", "-c", f"echo {quota} 100000 > /sys/fs/cgroup/sessions/cpu.max"], user="root")

    def _ssh_options(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "60",
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.key),
            "LogLevel": "ERROR",
            "ServerAliveInterval": "5",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }
        return ["-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]

    def _tool(self, *command: str) -> None:
        _run(command, folder=self._folder)


def _run(
    command: Sequence[str], *, folder: Path | None = None, check: bool = True, limit_s: float = 120
) -> subprocess.CompletedProcess[str]:
    shown = f"on the board: {command[-1]}" if command[0] == "ssh" else shlex.join(command)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BoardError(f"{shown} did not end within {limit_s:.0f} s") from error
    if check and done.returncode != 0:
        raise BoardError(f"{shown} ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done


def _ssh_answers(port: int) -> bool:
    # QEMU itself accepts the connection at once; only the greeting says that the board is up. It takes seconds where
    # the machine is busy, and each connection that is given up makes the board start another server.
    with suppress(OSError), socket.create_connection((HOST, port), timeout=20) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
