"""Boards as their /proc, /sys and firmware show them, written below a folder that the runner takes as its root.

The values are those of healthy boards under load with the governor at its default; a fault changes what it changes on a
real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

VCGENCMD = """#!/bin/sh
# The firmware's command: every answer is a file.
exec cat "${0%/bin/vcgencmd}/share/answers/$1"
"""

PI5_RAILS = {
    "3V7_WL_SW": (3.70627200, 0.09759300),
    "3V3_SYS": (3.31126000, 0.06148359),
    "1V8_SYS": (1.80055700, 0.17664330),
    "DDR_VDD2": (1.10512500, 0.01659081),
    "DDR_VDDQ": (0.60732330, 0.00000000),
    "1V1_SYS": (1.10622300, 0.18054705),
    "0V8_SW": (0.80366130, 0.33572300),
    "VDD_CORE": (0.89745940, 2.51290200),
    "3V3_DAC": (3.30903300, 0.00030525),
    "3V3_ADC": (3.30719900, 0.00048840),
    "0V8_AON": (0.79882470, 0.00543345),
    "HDMI": (5.08916000, 0.01245420),
}
"""Volts and amperes; with these, 3.70 W."""


@dataclass(frozen=True)
class Board:
    """A folder that looks like a board."""

    root: Path

    def put(self, path: str, text: str) -> Board:
        """Write one file below the root."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return self

    def answer(self, command: str, text: str) -> Board:
        """Let the firmware answer a command."""
        script = self.root / "usr/bin/vcgencmd"
        if not script.exists():
            self.put("/usr/bin/vcgencmd", VCGENCMD)
            script.chmod(0o755)
        return self.put(f"/usr/share/answers/{command}", text)

    def frequency(self, current_khz: int, *, limit_khz: int | None = None, governor: str | None = None) -> Board:
        """Change what all CPUs say of their frequency."""
        for folder in self.root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
            (folder / "scaling_cur_freq").write_text(f"{current_khz}\n")
            if limit_khz is not None:
                (folder / "scaling_max_freq").write_text(f"{limit_khz}\n")
            if governor is not None:
                (folder / "scaling_governor").write_text(f"{governor}\n")
        return self


# --- Boards -----------------------------------------------------------------------------------------------------------


def nothing(root: Path) -> Board:
    """A board with nothing readable: no /proc, no /sys, no firmware."""
    root.mkdir(parents=True, exist_ok=True)
    return Board(root)


def linux(
    root: Path,
    *,
    model: str,
    part: str,
    features: str,
    khz: tuple[int, int],
    memory_kb: int,
    swap_kb: int,
    kernel: str,
    machine: str,
    release: str,
    celsius: float,
    zone: str = "cpu-thermal",
    driver: str = "cpufreq-dt",
) -> Board:
    """What all four-core Arm boards have."""
    board = nothing(root)
    processor = (
        "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        "CPU variant\t: 0x0\nCPU part\t: {}\nCPU revision\t: 4\n"
    )
    cpus = "\n".join(processor.format(cpu, features, part) for cpu in range(4))
    board.put("/proc/cpuinfo", f"{cpus}\nHardware\t: BCM2835\nModel\t\t: {model}\n")
    board.put("/proc/device-tree/model", f"{model}\0")
    board.put("/proc/sys/kernel/osrelease", f"{kernel}\n")
    board.put("/proc/sys/kernel/arch", f"{machine}\n")
    board.put("/proc/sys/kernel/hostname", "board\n")
    board.put("/etc/os-release", release)
    board.put(
        "/proc/meminfo",
        f"MemTotal: {memory_kb:14} kB\nMemFree: {memory_kb // 2:15} kB\nMemAvailable: {memory_kb * 3 // 4:10} kB\n"
        f"SwapTotal: {swap_kb:13} kB\nSwapFree: {swap_kb:14} kB\nHugePages_Total: 0\n",
    )
    board.put("/proc/vmstat", "nr_free_pages 81234\npswpin 0\npswpout 0\n")
    board.put("/proc/loadavg", "0.07 0.05 0.01 1/123 4567\n")
    board.put("/proc/stat", "cpu  1000 0 500 90000 200 0 10 0 0 0\ncpu0 250 0 125 22500 50 0 2 0 0 0\n")
    board.put("/sys/class/thermal/thermal_zone0/type", f"{zone}\n")
    board.put("/sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")
    for cpu in range(4):
        folder = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
        board.put(f"{folder}/scaling_governor", "ondemand\n")
        board.put(f"{folder}/scaling_driver", f"{driver}\n")
        board.put(f"{folder}/cpuinfo_max_freq", f"{khz[1]}\n")
        board.put(f"{folder}/scaling_min_freq", f"{khz[0]}\n")
        board.put(f"{folder}/scaling_max_freq", f"{khz[1]}\n")
        board.put(f"{folder}/scaling_cur_freq", f"{khz[1]}\n")
    return board


def os_release(version: int, codename: str, system: str = "Raspbian", name: str = "raspbian") -> str:
    """An /etc/os-release of Debian's family."""
    return (
        f'PRETTY_NAME="{system} GNU/Linux {version} ({codename})"\nNAME="{system} GNU/Linux"\nVERSION_ID="{version}"\n'
        f'VERSION="{version} ({codename})"\nVERSION_CODENAME={codename}\nID={name}\nID_LIKE=debian\n'
        'HOME_URL="http://www.example.org/"\n'
    )


def pi3bplus(root: Path) -> Board:
    """Raspberry Pi 3B+ with a 32-bit system."""
    board = linux(
        root,
        model="Raspberry Pi 3 Model B Plus Rev 1.3",
        part="0xd03",
        features="half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32",
        khz=(600000, 1400000),
        memory_kb=925132,
        swap_kb=102396,
        kernel="6.1.21-v7+",
        machine="armv7l",
        release=os_release(11, "bullseye"),
        celsius=51.5,
    )
    return firmware(board, clock="frequency(45)=1400000000\n", celsius=51.5)


def pi4(root: Path) -> Board:
    """Raspberry Pi 4B with 4 GB."""
    board = linux(
        root,
        model="Raspberry Pi 4 Model B Rev 1.4",
        part="0xd08",
        features="fp asimd evtstrm crc32 cpuid",
        khz=(600000, 1800000),
        memory_kb=3884376,
        swap_kb=102396,
        kernel="6.6.31+rpt-rpi-v8",
        machine="aarch64",
        release=os_release(12, "bookworm", "Debian", "debian"),
        celsius=48.7,
    )
    return firmware(board, clock="frequency(48)=1800404352\n", celsius=48.7)


def pi5(root: Path, *, rails: str = "indexed") -> Board:
    """Raspberry Pi 5 with 8 GB; its rails in the `indexed` format with channel numbers, or the `plain` one."""
    board = linux(
        root,
        model="Raspberry Pi 5 Model B Rev 1.0",
        part="0xd0b",
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        khz=(1500000, 2400000),
        memory_kb=8245376,
        swap_kb=524272,
        kernel="6.6.31+rpt-rpi-2712",
        machine="aarch64",
        release=os_release(12, "bookworm", "Debian", "debian"),
        celsius=55.4,
    )
    firmware(board, clock="frequency(0)=2400033792\n", celsius=55.4)
    currents = [(f"{name}_A", amperes, "current", "A") for name, (_, amperes) in PI5_RAILS.items()]
    volts = [(f"{name}_V", volts, "volt", "V") for name, (volts, _) in PI5_RAILS.items()]
    inputs = [("EXT5V_V", 5.06788, "volt", "V"), ("BATT_V", 0.0048, "volt", "V")]
    lines = [
        f"{name:>14} {kind}({channel})={value:.8f}{unit}" if rails == "indexed" else f"{name}={value:.8f}{unit}"
        for channel, (name, value, kind, unit) in enumerate(currents + volts + inputs)
    ]
    return board.answer("pmic_read_adc", "\n".join(lines) + "\n")


def coral_dev_board(root: Path) -> Board:
    """Coral Dev Board with Mendel Linux and its Edge TPU on PCIe."""
    board = linux(
        root,
        model="Freescale i.MX8MQ Phanbell",
        part="0xd03",
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32",
        khz=(500000, 1500000),
        memory_kb=994044,
        swap_kb=0,
        kernel="4.14.98-imx",
        machine="aarch64",
        release=os_release(5, "eagle", "Mendel", "mendel"),
        celsius=46.0,
        zone="cpu",
        driver="imx8mq-cpufreq",
    )
    board.put("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x1ac1\n")
    board.put("/sys/bus/pci/devices/0000:01:00.0/device", "0x089a\n")
    board.put("/sys/bus/pci/devices/0000:01:00.0/current_link_speed", "5 GT/s\n")
    board.put("/sys/bus/pci/devices/0000:01:00.0/current_link_width", "1\n")
    board.put("/dev/apex_0", "")
    board.put("/sys/class/apex/apex_0/temp", "43800\n")
    board.put("/sys/class/apex/apex_0/trip_point0_temp", "84800\n")
    board.put("/sys/class/apex/apex_0/temp_poll_interval", "5000\n")
    board.put("/usr/lib/aarch64-linux-gnu/libedgetpu.so.1", "no library at all")
    return board.put(
        "/var/lib/dpkg/status",
        "Package: libc6\nStatus: install ok installed\nVersion: 2.28-10\n\n"
        "Package: libedgetpu1-max\nStatus: deinstall ok config-files\nVersion: 15.0\n\n"
        "Package: libedgetpu1-std\nStatus: install ok installed\nVersion: 16.0\nDescription: Support library\n more\n",
    )


def usb_edge_tpu(board: Board, *, initialized: bool = False, megabits: int = 5000) -> Board:
    """Plug an Edge TPU into a board's USB."""
    vendor, product = ("18d1", "9302") if initialized else ("1a6e", "089a")
    board.put("/sys/bus/usb/devices/usb2/idVendor", "1d6b\n").put("/sys/bus/usb/devices/usb2/idProduct", "0003\n")
    board.put("/dev/bus/usb/002/003", "")
    board.put("/sys/bus/usb/devices/2-1/busnum", "2\n").put("/sys/bus/usb/devices/2-1/devnum", "3\n")
    board.put("/sys/bus/usb/devices/2-1/idVendor", f"{vendor}\n")
    board.put("/sys/bus/usb/devices/2-1/idProduct", f"{product}\n")
    return board.put("/sys/bus/usb/devices/2-1/speed", f"{megabits}\n")


def firmware(board: Board, *, clock: str, celsius: float) -> Board:
    """The answers of a Raspberry Pi's firmware."""
    board.answer("get_throttled", "throttled=0x0\n")
    board.answer("measure_clock", clock)
    return board.answer("measure_temp", f"temp={celsius:.1f}'C\n")


# --- Faults -----------------------------------------------------------------------------------------------------------


def under_voltage(board: Board) -> Board:
    """A weak supply: on now, and remembered."""
    return board.answer("get_throttled", "throttled=0x10001\n")


def throttled(board: Board) -> Board:
    """Too hot: the frequency is capped by the firmware, which the kernel does not see."""
    board.put("/sys/class/thermal/thermal_zone0/temp", "82300\n")
    board.answer("measure_clock", "frequency(48)=1000265600\n")
    return board.answer("get_throttled", "throttled=0x60006\n")


def soft_limit(board: Board) -> Board:
    """A Pi 3B+ above 60 C runs at 1.2 GHz."""
    board.put("/sys/class/thermal/thermal_zone0/temp", "62300\n")
    return board.frequency(1200000).answer("get_throttled", "throttled=0x80008\n")


def sticky(board: Board) -> Board:
    """Under-voltage and throttling since the boot, but not now."""
    return board.answer("get_throttled", "throttled=0x50000\n")


def powersave(board: Board) -> Board:
    """The governor keeps the lowest frequency."""
    return board.frequency(600000, governor="powersave")


def capped(board: Board) -> Board:
    """Somebody wrote a limit into scaling_max_freq."""
    return board.frequency(1000000, limit_khz=1000000)


def slow(board: Board) -> Board:
    """The governor does not go up to the maximum."""
    return board.frequency(1200000, governor="conservative")


def hot(board: Board) -> Board:
    """The board begins warm."""
    return board.put("/sys/class/thermal/thermal_zone0/temp", "74000\n")


def swap_in_use(board: Board) -> Board:
    """80 MiB of memory are in swap."""
    text = (board.root / "proc/meminfo").read_text().splitlines()
    lines = [f"SwapFree: {102396 - 81920} kB" if line.startswith("SwapFree") else line for line in text]
    return board.put("/proc/meminfo", "\n".join(lines) + "\n")


def busy_neighbour(board: Board) -> Board:
    """Other programs keep three CPUs busy, on a kernel that tells it by the load average only."""
    (board.root / "proc/stat").unlink()
    return board.put("/proc/loadavg", "3.12 2.98 2.05 5/201 4711\n")


FAULTS: dict[str, Callable[[Board], Board]] = {
    "under-voltage": under_voltage,
    "throttled": throttled,
    "soft-limit": soft_limit,
    "throttled-before": sticky,
    "powersave": powersave,
    "capped": capped,
    "below-maximum": slow,
    "hot-start": hot,
    "swap-in-use": swap_in_use,
    "loaded": busy_neighbour,
}
"""The fault by the name of the cause that the verdict has to give."""
