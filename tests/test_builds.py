"""Which runtime each kind of board gets, and what is said to a board that gets none."""

from __future__ import annotations

import click
import pytest

from edgeeff.devices.builds import BUILDS, RUNTIMES, choose
from edgeeff.errors import DeviceError
from edgeeff.results import BoardPython


def python(version: str, libc: str | None, bits: int = 64, numpy: str | None = None) -> BoardPython:
    return BoardPython(version, "/usr/bin/python3", bits, None, libc, venv=False, pip=None, numpy=numpy)


@pytest.mark.parametrize(
    ("system", "machine", "there", "packages"),
    [
        ("Bullseye", "aarch64", python("3.9.2", "glibc 2.31"), "ai-edge-litert==2.1.0 numpy>=1.23.2,<3 pillow>=9"),
        ("Bookworm", "aarch64", python("3.11.2", "glibc 2.36"), "ai-edge-litert>=2.2,<3 numpy>=1.26,<3 pillow>=9"),
        ("Trixie", "aarch64", python("3.13.5", "glibc 2.41"), "ai-edge-litert>=2.2,<3 numpy>=1.26,<3 pillow>=9"),
        ("own Python", "aarch64", python("3.12.1", "glibc 2.31"), "ai-edge-litert==2.1.0 numpy>=1.23.2,<3 pillow>=9"),
        ("a PC", "x86_64", python("3.14.0", "glibc 2.41"), "ai-edge-litert>=2.2,<3 numpy>=1.26,<3 pillow>=9"),
        ("Bookworm 32", "armv7l", python("3.11.2", "glibc 2.36", 32, "1.24.2"), "tflite-runtime==2.14.0"),
        ("on a 64-bit kernel", "aarch64", python("3.11.2", "glibc 2.36", 32, "1.24.2"), "tflite-runtime==2.14.0"),
        ("Bullseye 32", "armv7l", python("3.9.2", "glibc 2.31", 32, "1.19.5"), "tflite-runtime==2.12.0"),
        ("newer NumPy", "armv7l", python("3.9.2", "glibc 2.31", 32, "1.22.0"), "tflite-runtime==2.13.0"),
        ("Ubuntu 22.04 32", "armv7l", python("3.10.6", "glibc 2.35", 32, "1.21.5"), "tflite-runtime==2.13.0"),
    ],
)
def test_the_newest_that_loads_is_chosen(system: str, machine: str, there: BoardPython, packages: str) -> None:
    choice = choose(there, machine)
    assert " ".join(choice.packages) == packages, system
    assert choice.system_packages == (there.bits == 32)


@pytest.mark.parametrize(
    ("there", "versions"),
    [
        (python("3.11.2", "glibc 2.36"), "==2.14.0"),
        (python("3.10.6", "glibc 2.35"), "==2.14.0"),
        (python("3.9.2", "glibc 2.31"), "==2.13.0"),
    ],
)
def test_a_runtime_can_be_named_and_never_gets_numpy_2(there: BoardPython, versions: str) -> None:
    choice = choose(there, "aarch64", "tflite-runtime")
    assert choice.packages[0] == f"tflite-runtime{versions}"
    assert choice.packages[1].endswith(",<2")


@pytest.mark.parametrize(
    ("machine", "there", "runtime", "says"),
    [
        ("aarch64", python("3.15.0", "glibc 2.41"), None, r"no runtime has been built for Python 3\.15.*--python"),
        ("aarch64", python("3.13.5", "glibc 2.41"), "tflite-runtime", r"has not been built.*Python 3\.9 to 3\.11"),
        ("aarch64", python("3.11.2", "glibc 2.28"), None, r"glibc 2\.28.*from glibc 2\.30 on"),
        ("armv7l", python("3.13.5", "glibc 2.41", 32, "2.2.4"), None, r"32-bit.*A 64-bit system runs newer ones"),
        ("armv7l", python("3.11.2", "glibc 2.36", 32), "ai-edge-litert", r"never been built.*leave --runtime away"),
        ("armv7l", python("3.11.2", "glibc 2.36", 32), None, r"sudo apt install python3-numpy"),
        ("armv7l", python("3.11.2", "glibc 2.36", 32, "2.0.1"), None, r"NumPy 2\.0\.1 does not fit.*below 2"),
        ("armv6l", python("3.11.2", "glibc 2.36", 32, "1.24.2"), None, r"32-bit Python on armv6l"),
        ("riscv64", python("3.11.2", "glibc 2.36"), None, r"64-bit Python on riscv64"),
        ("x86_64", python("3.11.2", "glibc 2.36", 32), None, r"32-bit Python on x86_64"),
        ("aarch64", python("3.12.9", None), None, r"C library is not glibc.*Raspberry Pi OS"),
        ("aarch64", python("3.12.9", "musl 1.2.5"), None, r"C library is musl 1\.2\.5"),
    ],
)
def test_a_board_that_nothing_fits_is_told_why(
    machine: str, there: BoardPython, runtime: str | None, says: str
) -> None:
    with pytest.raises(DeviceError, match=says):
        choose(there, machine, runtime)


def test_wheels_for_an_older_glibc_are_taken_too() -> None:
    tags = choose(python("3.9.2", "glibc 2.31"), "aarch64").platform.tags
    assert tags[0] == "manylinux_2_31_aarch64"
    assert {"manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} < set(tags)
    assert "manylinux_2_34_aarch64" not in tags


def test_a_32_bit_python_on_a_64_bit_kernel_takes_wheels_for_armv7l() -> None:
    tags = choose(python("3.11.2", "glibc 2.36", 32, "1.24.2"), "aarch64").platform.tags
    assert all(tag.endswith("_armv7l") for tag in tags)


def test_no_build_of_tflite_runtime_is_given_numpy_2() -> None:
    assert all(build.numpy[1] == (2,) for build in BUILDS if build.runtime == "tflite-runtime")


def test_the_command_offers_every_runtime_that_has_builds() -> None:
    from edgeeff.cli_devices import setup

    (option,) = (parameter for parameter in setup.params if parameter.name == "runtime")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == RUNTIMES
    assert {build.runtime for build in BUILDS} == set(RUNTIMES)
