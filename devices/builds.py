"""Which build of a runtime fits a board: what has been published, what it loads on, and what it needs beside it.

Wheels promise more in their names than their libraries keep (ai-edge-litert 2.3 says manylinux_2_27 and needs glibc
2.34; tflite-runtime does not say that NumPy 2 breaks it), so the choice is not left to pip. Installing is `setup`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeeff.errors import DeviceError
from edgeeff.results import BoardPython

RUNTIMES = ("ai-edge-litert", "tflite-runtime")

Version = tuple[int, ...]


@dataclass(frozen=True)
class Build:
    """Some versions of a runtime, and the boards that their wheels load on."""

    runtime: str
    versions: str
    """As in a requirement."""
    bits: int
    pythons: tuple[Version, Version]
    """The first and the last."""
    glibc: Version
    """The oldest."""
    numpy: tuple[Version, Version]
    """From the first on, below the second."""


# From the wheels on the package index and their metadata (November 2026); the glibc of LiteRT 2.2 and later is what its
# library asks for. Of each runtime the newest comes first, and LiteRT before tflite-runtime, which has ended.
BUILDS = (
    Build("ai-edge-litert", ">=2.2,<3", 64, ((3, 10), (3, 14)), (2, 34), ((1, 26), (3,))),
    Build("ai-edge-litert", "==2.1.0", 64, ((3, 9), (3, 13)), (2, 30), ((1, 23, 2), (3,))),
    Build("tflite-runtime", "==2.14.0", 64, ((3, 9), (3, 11)), (2, 34), ((1, 23, 2), (2,))),
    Build("tflite-runtime", "==2.13.0", 64, ((3, 9), (3, 10)), (2, 17), ((1, 21, 2), (2,))),
    Build("tflite-runtime", "==2.14.0", 32, ((3, 9), (3, 11)), (2, 34), ((1, 23, 2), (2,))),
    Build("tflite-runtime", "==2.13.0", 32, ((3, 9), (3, 10)), (2, 17), ((1, 21, 2), (2,))),
    # The only one that takes the NumPy of 32-bit Bullseye, 1.19.5.
    Build("tflite-runtime", "==2.12.0", 32, ((3, 9), (3, 9)), (2, 17), ((1, 19, 2), (2,))),
)


@dataclass(frozen=True)
class Platform:
    """What decides which wheels a Python takes."""

    architecture: str
    """As wheels call it: a 32-bit Python is armv7l whatever its kernel is."""
    bits: int
    python: Version
    """Major and minor."""
    glibc: Version

    def __str__(self) -> str:
        """Say it in a message."""
        return f"Python {_dotted(self.python)} ({self.bits}-bit, {self.architecture}, glibc {_dotted(self.glibc)})"

    @property
    def tags(self) -> tuple[str, ...]:
        """The platforms of wheels that it takes, for `pip download --platform`, which adds none itself."""
        modern = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(self.glibc[1], 16, -1)]
        return (*modern, f"manylinux2014_{self.architecture}", f"linux_{self.architecture}")


@dataclass(frozen=True)
class Choice:
    """What to install on a board, as requirements of pip without their own dependencies."""

    platform: Platform
    build: Build
    packages: tuple[str, ...]
    system_packages: bool
    """Whether NumPy comes from the board's own packages: the index has none for 32-bit Arm."""


def choose(python: BoardPython, machine: str, runtime: str | None = None) -> Choice:
    """Return the first build that fits, of `runtime` if one is named; `machine` is what the kernel calls itself.

    Nothing but NumPy and, to decode images, Pillow is installed beside the runtime: its interpreter needs no more.
    Raises DeviceError when nothing fits, with what there is for such a board.
    """
    platform = _platform(python, machine)
    for_machine = [build for build in BUILDS if build.bits == platform.bits and runtime in {None, build.runtime}]
    fitting = [
        build
        for build in for_machine
        if build.pythons[0] <= platform.python <= build.pythons[1] and build.glibc <= platform.glibc
    ]
    if not fitting:
        raise DeviceError(_nothing_fits(platform, for_machine, runtime))
    if platform.bits == 64:
        build = fitting[0]
        numpy = f"numpy>={_dotted(build.numpy[0])},<{_dotted(build.numpy[1])}"
        return Choice(platform, build, (f"{build.runtime}{build.versions}", numpy, "pillow>=9"), system_packages=False)
    build = _for_numpy(fitting, python.numpy)
    return Choice(platform, build, (f"{build.runtime}{build.versions}",), system_packages=True)


def _platform(python: BoardPython, machine: str) -> Platform:
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", python.libc or "")
    if found is None:
        raise DeviceError(
            f"the board's C library is {python.libc or 'not glibc'}, and the runtimes are built for glibc only; "
            "use a system such as Raspberry Pi OS or Debian"
        )
    version = tuple(int(part) for part in python.version.split(".")[:2])
    arm = machine in {"aarch64", "armv7l", "armv8l"}
    if machine in {"aarch64", "x86_64"} and python.bits == 64:
        architecture = machine
    elif arm and python.bits == 32:
        architecture = "armv7l"
    else:
        raise DeviceError(
            f"no runtime has been built for a {python.bits}-bit Python on {machine}; "
            "there are builds for aarch64, x86_64 and 32-bit ARMv7"
        )
    return Platform(architecture, python.bits, version, (int(found[1]), int(found[2])))


def _for_numpy(builds: list[Build], numpy: str | None) -> Build:
    newest = builds[0].numpy
    if numpy is None:
        raise DeviceError(
            "the index has no NumPy for 32-bit Arm; install the system's on the board: sudo apt install python3-numpy"
        )
    version = tuple(int(part) for part in re.findall(r"\d+", numpy)[:3])
    for build in builds:
        if build.numpy[0] <= version < build.numpy[1]:
            return build
    raise DeviceError(
        f"the board's NumPy {numpy} does not fit {builds[0].runtime}, "
        f"which needs {_dotted(newest[0])} or later, below {_dotted(newest[1])}; "
        "use the system's: sudo apt install python3-numpy"
    )


def _nothing_fits(platform: Platform, builds: list[Build], runtime: str | None) -> str:
    if not builds:
        return f"{runtime} has never been built for {platform}; leave --runtime away to get what there is"
    there = "; ".join(
        f"{build.runtime} {build.versions.lstrip('=')} for Python {_dotted(build.pythons[0])} to "
        f"{_dotted(build.pythons[1])} from glibc {_dotted(build.glibc)} on"
        for build in builds
    )
    first = f"{runtime or 'no runtime'} {'has not' if runtime else 'has'} been built for {platform}; there is {there}"
    if platform.bits == 32:
        return f"{first}. A 64-bit system runs newer ones"
    return f"{first}. Another Python on the board can be named with --python"


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)
