"""The one file that runs on a board: it says what the board is, or measures or runs a .tflite file, in JSON lines.

Standard library, NumPy and whichever runtime is there (LiteRT or tflite-runtime); Python 3.9 and later. `hello`,
`probe` and `state` need neither NumPy nor a runtime. What is not readable is null; nothing here interprets what it
reads, that is left to the machine that asked. Times are seconds, sizes bytes, frequencies hertz, temperatures degrees
Celsius.

    python runner.py '{"mode": "probe"}'
    python runner.py '{"mode": "measure", "model": "b2_int8.tflite", "threads": 1}'
    python runner.py '{"mode": "score", "model": "b2_int8.tflite"}' < images

`measure` is one repeat in one process: import, load, first inference, warm-up, then timed runs in stretches of one
second. What the board is doing is read between the stretches, never inside one.

`score` reads images from standard input until its end and says the model's raw scores of each, in their order; `FRAME`
and `pixels_of` say how an image is written. A few are read ahead while the model runs, so memory does not grow.

An error is an event, too, and the status is 1 then.
"""

import base64
import glob
import json
import os
import re
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

# Old Pythons compile the whole file before they run this line: nothing in it may be newer than Python 3.6's syntax.
if sys.version_info < (3, 9):  # noqa: UP036 - boards have what they have
    too_old = f"edgeeff needs Python 3.9 or later on the board; {sys.executable} is Python {sys.version.split()[0]}"
    sys.stdout.write(json.dumps({"event": "error", "kind": "python", "message": too_old}) + "\n")
    sys.exit(1)

DEFAULTS: dict[str, Any] = {
    "mode": "measure",  # or "score", "probe", "state", "hello"
    "root": "/",  # /proc, /sys, /dev, /etc, /usr and /var are read below it
    "model": "",
    "threads": 1,
    "delegate": "auto",  # what the runtime does by itself; or "xnnpack", "none", "edgetpu"
    "edge_tpu_runtime": None,  # the oldest runtime of the Edge TPU that the model runs on, where that is known
    "warmup_runs": 10,  # at least
    "warmup_s": 2.0,  # at least
    "warmup_limit_s": 30.0,  # then the device is called not stable
    "runs": 200,  # at least
    "duration_s": 10.0,  # at least
    "sustained_min": 0.0,  # minutes by the clock, instead of runs and duration_s
    "image": "",  # the file for end-to-end runs: decode, resize, quantize, invoke
    "image_runs": 30,
    "seed": 0,
    "table": "",  # what the model takes for the pixel values 0 to 255 of each channel: 256x3 float32, in base64
}
STABLE = 0.02  # two windows' medians closer than this are stable
WINDOW = 10  # runs
STRETCH_S = 1.0  # of timed runs; between two of them the board's state is read
LINE = 2000  # latencies in one event: readers of lines have limits
VCGENCMD = ("/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd")
COMMAND_LIMIT_S = 2.0
CHILD_LIMIT_S = 120.0  # an emulated board imports for half a minute
EDGE_TPU_LIMIT_S = 60.0  # to open it, which takes seconds on USB, and again to send all parameters
BEGIN = time.perf_counter()

# One RELU on one float32, as small as a valid file gets.
RELU = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAtAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAAEAAA"
    "ADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAAIAAAAAQA"
    "AADu////BAAAAAEAAAABAAAAAAAGAAgABAAGAAAABAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAEwAAAAAAABM="
)

# Main ID Register: Arm's own parts (Linux, arch/arm64/include/asm/cputype.h, and Arm's reference manuals).
ARM_PARTS = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD02: "Cortex-A34",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD0E: "Cortex-A76AE",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
# What XNNPACK's and TFLite's kernels choose by; asimddp is the dot product.
FEATURES = {
    *("neon", "vfpv4", "asimd", "asimdrdm", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme"),
    *("ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8"),
}
RUNTIMES = (("ai-edge-litert", "ai_edge_litert"), ("tflite-runtime", "tflite_runtime"))
EDGE_TPU_USB = {"1a6e:089a": False, "18d1:9302": True}  # the second once a first inference gave it its firmware
EDGE_TPU_PCI = "1ac1:089a"
EDGE_TPU_LIBRARY = "libedgetpu.so.1"
EDGE_TPU_OPERATOR = "edgetpu-custom-op"
EDGE_TPU_BUILDS = "https://github.com/feranick/libedgetpu/releases"
DELEGATES = "DELEGATE|TfLiteXNNPackDelegate|EdgeTpuDelegate.*"  # what runtimes call the parts that they took
BICUBIC = 3  # Pillow moved the name, not the number
FRAME = struct.Struct(">II")  # before each image: its number, from 0, and how many bytes follow
AHEAD = 2  # images that are read while the model runs


class Failure(Exception):
    """What cannot go on, as a kind for programs and a message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def send(event: str, **fields: Any) -> None:
    """Write one event as a JSON line."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def since() -> float:
    """Return the seconds since this process began."""
    return round(time.perf_counter() - BEGIN, 6)


# --- Reading a board --------------------------------------------------------------------------------------------------


class Tree:
    """The files and the firmware command of a board, or of a recording of one."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.firmware = next((path for path in map(self.real, VCGENCMD) if os.access(path, os.X_OK)), None)

    def real(self, path: str) -> str:
        """Return where a board's absolute path lies here."""
        return self.root + path

    def text(self, path: str) -> Optional[str]:
        """Return what a file says, without NULs and spaces at its ends; None when it cannot be read or says nothing."""
        try:
            with open(self.real(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip("\0 \t\n") or None
        except OSError:  # also what drivers answer when there is nothing to read
            return None

    def number(self, path: str, unit: float = 1.0) -> Optional[float]:
        """Return a file's number times `unit`; None when there is none."""
        text = self.text(path)
        try:
            return None if text is None else float(text) * unit
        except ValueError:
            return None

    def paths(self, pattern: str) -> list[str]:
        """Return the board's paths that match, cpu2 before cpu10."""
        found = (path[len(self.root) :] for path in glob.glob(glob.escape(self.root) + pattern))
        return sorted(found, key=lambda path: [int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", path)])

    def lines(self, path: str, separator: str = ":") -> list[tuple[str, str]]:
        """Return the pairs of a file such as /proc/meminfo, in order."""
        pairs = (line.partition(separator) for line in (self.text(path) or "").splitlines())
        return [(name.strip(), value.strip()) for name, found, value in pairs if found]

    def ask_firmware(self, *arguments: str) -> Optional[str]:
        """Return the answer of a Raspberry Pi's firmware; None where there is none, or who asks has no right to."""
        if self.firmware is None:
            return None
        import subprocess

        try:
            answer = subprocess.run(
                [self.firmware, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            self.firmware = None  # asking again would cost the time again
            return None
        text = answer.stdout.decode("utf-8", "replace")
        return text if answer.returncode == 0 and "=" in text else None


def frequencies(tree: Tree) -> list[dict[str, Any]]:
    """Return governor and frequencies of every CPU that has them.

    `hardware_hz` is what the CPU can keep up: its base frequency where it has a turbo above it.
    """

    def hertz(path: str) -> Optional[int]:
        kilohertz = tree.number(path)
        return None if kilohertz is None else round(kilohertz * 1000)

    cpus = []
    for folder in tree.paths("/sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
        cpus.append(
            {
                "cpu": int(folder.split("/")[-2][3:]),
                "governor": tree.text(folder + "/scaling_governor"),
                "driver": tree.text(folder + "/scaling_driver"),
                "current_hz": hertz(folder + "/scaling_cur_freq"),
                "limit_hz": hertz(folder + "/scaling_max_freq"),
                "hardware_hz": hertz(folder + "/base_frequency") or hertz(folder + "/cpuinfo_max_freq"),
            }
        )
    return cpus


def clock(tree: Tree) -> Optional[int]:
    """Return the Arm cores' frequency as the firmware measures it: the kernel knows only what it asked for."""
    found = re.search(r"=(\d+)", tree.ask_firmware("measure_clock", "arm") or "")
    return int(found[1]) if found else None


def zones(tree: Tree) -> list[dict[str, Any]]:
    """Return every thermal zone that can be read."""
    found = []
    for folder in tree.paths("/sys/class/thermal/thermal_zone[0-9]*"):
        degrees = tree.number(folder + "/temp", 1e-3)
        if degrees is not None:
            found.append({"name": tree.text(folder + "/type") or folder.rsplit("/", 1)[1], "temperature_c": degrees})
    if not found:
        answer = re.search(r"=([\d.]+)", tree.ask_firmware("measure_temp") or "")
        if answer:
            found.append({"name": "firmware", "temperature_c": float(answer[1])})
    return found


def temperature(tree: Tree) -> Optional[float]:
    """Return the CPU's temperature: of the zone that is named after it, else of the first one."""
    found = zones(tree)
    named = [zone for zone in found if re.search("cpu|soc|pkg|k10temp", zone["name"], re.IGNORECASE)]
    return (named or found)[0]["temperature_c"] if found else None


def throttled(tree: Tree) -> tuple[Optional[int], Optional[str]]:
    """Return the throttle bits and who told them.

    The firmware's command counts from the boot. The kernel's file, where it still exists, clears bits 16 to 19 as it
    is read, so it comes second. Its voltage sensor knows nothing but under-voltage in the last two seconds.
    """
    found = re.search(r"=(0x[0-9a-fA-F]+)", tree.ask_firmware("get_throttled") or "")
    if found:
        return int(found[1], 16), "vcgencmd"
    text = tree.text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is not None and re.fullmatch("(0x)?[0-9a-fA-F]+", text):
        return int(text, 16), "sysfs"
    for folder in tree.paths("/sys/class/hwmon/hwmon[0-9]*"):
        if tree.text(folder + "/name") == "rpi_volt":
            alarm = tree.number(folder + "/in0_lcrit_alarm")
            return (None, None) if alarm is None else (int(alarm), "hwmon")
    return None, None


def rails(tree: Tree) -> list[dict[str, Any]]:
    """Return the supply rails that a Raspberry Pi 5 measures: `VDD_CORE_A=1.23A` or `VDD_CORE_A current(7)=1.23A`."""
    found: dict[str, dict[str, Any]] = {}
    answer = tree.ask_firmware("pmic_read_adc") or ""
    for name, value, unit in re.findall(r"^\s*(\w+?)(?:_[AV])?(?:\s+\w+\(\d+\))?=(-?[\d.]+)([AV])\s*$", answer, re.M):
        rail = found.setdefault(name, {"name": name, "volts": None, "amperes": None})
        rail["amperes" if unit == "A" else "volts"] = float(value)
    return list(found.values())


def memory(tree: Tree) -> dict[str, Optional[int]]:
    """Return the board's memory and swap in bytes."""
    found = {name: int(value.split()[0]) * 1024 for name, value in tree.lines("/proc/meminfo") if value[:1].isdigit()}
    total, free = found.get("SwapTotal"), found.get("SwapFree")
    return {
        "total_bytes": found.get("MemTotal"),
        "available_bytes": found.get("MemAvailable"),
        "swap_total_bytes": total,
        "swap_used_bytes": None if total is None or free is None else total - free,
    }


def load_average(tree: Tree) -> Optional[float]:
    """Return the load average of the last minute."""
    text = tree.text("/proc/loadavg")
    return float(text.split()[0]) if text else None


def processor_time(tree: Tree) -> tuple[Optional[float], Optional[float]]:
    """Return the seconds that all CPUs were busy since the boot, and those that a host took from this machine."""
    times = (tree.text("/proc/stat") or "").split("\n", 1)[0].split()
    if len(times) < 9 or times[0] != "cpu":
        return None, None
    user, nice, system, _, _, irq, softirq, stolen = map(int, times[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, stolen / ticks


def quota_wait(tree: Tree) -> Optional[float]:
    """Return the seconds that a CPU quota (cgroup v2) held back this process's group or one above it."""
    own = next((line[3:] for line in (process_text("cgroup") or "").splitlines() if line.startswith("0::")), None)
    waits = []
    while own is not None:
        for name, value in tree.lines("/sys/fs/cgroup" + own.rstrip("/") + "/cpu.stat", " "):
            if name == "throttled_usec":
                waits.append(int(value) * 1e-6)
        own = own.rsplit("/", 1)[0] if own.strip("/") else None
    return sum(waits) if waits else None


def state(tree: Tree) -> dict[str, Any]:
    """Return what the board is doing now; the frequency comes first, before idling lowers it."""
    cpus = frequencies(tree)
    measured = clock(tree)
    bits, _ = throttled(tree)
    busy, stolen = processor_time(tree)
    swapped = dict(tree.lines("/proc/vmstat", " ")).get("pswpin")
    found = memory(tree)
    return {
        "at_s": since(),
        "cpus": cpus,
        "clock_hz": measured,
        "temperature_c": temperature(tree),
        "edge_tpus_c": edge_tpu_temperatures(tree),
        "throttled": bits,
        "load_1m": load_average(tree),
        "cpu_s": round(time.process_time(), 6),
        "busy_s": busy,
        "stolen_s": stolen,
        "quota_wait_s": quota_wait(tree),
        "available_bytes": found["available_bytes"],
        "swap_used_bytes": found["swap_used_bytes"],
        "swapped_in_bytes": int(swapped) * resource.getpagesize() if swapped else None,
    }


# --- Reading this process ---------------------------------------------------------------------------------------------


def process_text(name: str) -> Optional[str]:
    """Return a file of /proc/self; None where it is missing."""
    try:
        with open("/proc/self/" + name, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def kilobytes(name: str, field: str) -> Optional[int]:
    """Return a field of a file of /proc/self that is given in kB, in bytes."""
    found = re.search(rf"^{field}:\s*(\d+) kB", process_text(name) or "", re.M)
    return int(found[1]) * 1024 if found else None


def process_memory() -> dict[str, Optional[int]]:
    """Return the memory of this process: resident, its share of what is shared (PSS), and anonymous.

    Anonymous memory is heap, arena and repacked weights; a model's file that is mapped is not in it.
    """
    statm = process_text("statm")
    return {
        "rss_bytes": int(statm.split()[1]) * resource.getpagesize() if statm else None,
        "pss_bytes": kilobytes("smaps_rollup", "Pss"),
        "anonymous_bytes": kilobytes("smaps_rollup", "Anonymous"),
    }


def peak_resident() -> int:
    """Return the largest resident memory of this process so far in bytes.

    VmHWM, not getrusage: ru_maxrss of a forked child begins with its parent's memory.
    """
    return kilobytes("status", "VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def be_the_first_to_go() -> None:
    """When memory runs out, let the kernel end this process rather than the board's other work."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return


def cached(path: str) -> Optional[float]:
    """Return the fraction of a file that is in the page cache, from up to 64 places; None where that is not told."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    hits = 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        places = sorted({size * index // 64 for index in range(64)}) if size else []
        for place in places:
            try:
                hits += os.preadv(file.fileno(), [bytearray(1)], place, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
            except OSError:  # this file system cannot tell
                return None
    return hits / len(places) if places else None


# --- Probe ------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], Any]) -> tuple[Any, Optional[str]]:
    """Return what `work` returns in a child process, or None and what became of the child."""
    import select

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            silence = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(silence, descriptor)
            os.write(writer, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    content = b""
    deadline = time.monotonic() + CHILD_LIMIT_S
    with open(reader, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            block = pipe.read(65536) if ready else None
            if not block:
                break
            content += block
    if block is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if block is None:
        return None, f"gave no answer within {CHILD_LIMIT_S:.0f} s"
    if os.WIFSIGNALED(status):
        return None, f"crashed with {signal.Signals(os.WTERMSIG(status)).name}"
    return (json.loads(content), None) if content else (None, "ended without an answer")


def package_version(name: str) -> Optional[str]:
    """Return the version of an installed package; None when there is none."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # absent, or unpacked by hand
        return None


def numpy_is_too_new(runtime: str) -> Optional[str]:
    """Say so when tflite-runtime meets NumPy 2: it imports, but its interpreter cannot be constructed."""
    version = package_version("numpy") or ""
    if runtime != "tflite-runtime" or not version[:1].isdigit() or int(version.split(".")[0]) < 2:
        return None
    return (
        f"tflite-runtime cannot work with NumPy {version}; install an older one: "
        f"{sys.executable} -m pip install 'numpy<2'"
    )


def construct(package: str) -> Optional[str]:
    """Run the smallest model with a runtime; return what went wrong."""
    from importlib import import_module

    try:
        interpreter = import_module(f"{package}.interpreter").Interpreter(model_content=RELU)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except Exception as error:  # noqa: BLE001 - whatever it raises is the answer
        return f"{type(error).__name__}: {error}"
    return None


def runtimes() -> list[dict[str, Any]]:
    """Return every runtime of this Python and whether it works: importing one is not enough to know."""
    from importlib.util import find_spec

    found = []
    for name, package in RUNTIMES:
        if find_spec(package) is None:
            continue

        def work(package: str = package) -> Optional[str]:
            return construct(package)

        problem, accident = in_child(work)
        problem = problem or accident
        if problem is not None:
            problem = numpy_is_too_new(name) or problem
        found.append({"name": name, "version": package_version(name), "works": problem is None, "problem": problem})
    return found


def edge_tpus(tree: Tree) -> list[dict[str, Any]]:
    """Return the Edge TPUs on USB and PCIe; one on PCIe without a device file lacks its driver.

    A link's megabits per second are as sysfs tells them: 480 for USB 2, 5000 for USB 3, transfers times lanes for PCIe.
    """
    found: list[dict[str, Any]] = []
    for folder in tree.paths("/sys/bus/usb/devices/*"):
        name = f"{tree.text(folder + '/idVendor')}:{tree.text(folder + '/idProduct')}"
        if name in EDGE_TPU_USB:
            bus, number = tree.number(folder + "/busnum"), tree.number(folder + "/devnum")
            device = None if bus is None or number is None else f"/dev/bus/usb/{bus:03.0f}/{number:03.0f}"
            speed = tree.number(folder + "/speed")
            initialized = EDGE_TPU_USB[name]
            one = {"bus": "usb", "id": name, "device": device, "megabits_per_s": speed, "initialized": initialized}
            found.append(one)
    chips = [
        folder
        for folder in tree.paths("/sys/bus/pci/devices/*")
        if f"{tree.text(folder + '/vendor')}:{tree.text(folder + '/device')}".replace("0x", "") == EDGE_TPU_PCI
    ]
    devices = tree.paths("/dev/apex_[0-9]*")
    for index in range(max(len(chips), len(devices))):
        device = devices[index] if index < len(devices) else None
        found.append(
            {
                "bus": "pcie",
                "id": EDGE_TPU_PCI,
                "device": device,
                "megabits_per_s": pcie_speed(tree, chips[index]) if index < len(chips) else None,
                "temperature_c": apex_temperature(tree, device) if device else None,
                "throttle_c": apex_limit(tree, device) if device else None,
            }
        )
    return found


def pcie_speed(tree: Tree, folder: str) -> Optional[float]:
    """Return the megabits per second of all lanes of a PCIe device as it is linked now."""
    rate = re.match(r"([\d.]+) GT/s", tree.text(folder + "/current_link_speed") or "")
    lanes = tree.number(folder + "/current_link_width")
    return float(rate[1]) * 1000.0 * lanes if rate and lanes else None


def apex_temperature(tree: Tree, device: str) -> Optional[float]:
    """Return the temperature of an Edge TPU on PCIe.

    The driver of the kernel itself does not tell it. A chip that does not answer reads as ones: -89.7 degrees in the
    driver's formula (apex_driver.c, adc_to_millic).
    """
    degrees = tree.number(f"/sys/class/apex/{os.path.basename(device)}/temp", 1e-3)
    return None if degrees is None or degrees < -80.0 else degrees


def apex_limit(tree: Tree, device: str) -> Optional[float]:
    """Return the temperature from which the driver halves the Edge TPU's clock; None where it does not look."""
    folder = f"/sys/class/apex/{os.path.basename(device)}"
    return tree.number(folder + "/trip_point0_temp", 1e-3) if tree.number(folder + "/temp_poll_interval") else None


def edge_tpu_temperatures(tree: Tree) -> dict[str, float]:
    """Return the temperatures of the Edge TPUs that tell theirs, by device file: those on PCIe."""
    found = {device: apex_temperature(tree, device) for device in tree.paths("/dev/apex_[0-9]*")}
    return {device: degrees for device, degrees in found.items() if degrees is not None}


def edge_tpu_library(tree: Tree) -> Optional[dict[str, Any]]:
    """Return where libedgetpu is, the package it is from, and what it says of itself; None when it is nowhere."""
    folders = ("/usr/lib/*-linux-gnu*", "/usr/lib", "/usr/local/lib", "/lib/*-linux-gnu*", "/usr/lib64")
    path = next((path for folder in folders for path in tree.paths(f"{folder}/{EDGE_TPU_LIBRARY}")), None)
    return {**try_library(tree, tree.real(path)), "path": path} if path else None


def try_library(tree: Tree, name: str) -> dict[str, Any]:
    """Load libedgetpu in a child process: return what it is, and what went wrong."""
    package: dict[str, Optional[str]] = {"package": None, "version": None}
    for block in (tree.text("/var/lib/dpkg/status") or "").split("\n\n"):
        if block.startswith("Package: libedgetpu1-"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if fields.get("Status", "").endswith(" installed"):
                package = {"package": fields["Package"], "version": fields.get("Version")}
    said, accident = in_child(lambda: load_library(name))
    if said is None:
        said = {"path": name, "says": None, "problem": f"loading it {accident}"}
    number = re.search(r"RuntimeVersion\((\d+)\)", said["says"] or "")
    return {**package, **said, "runtime": int(number[1]) if number else None}


def load_library(name: str) -> dict[str, Optional[str]]:
    """Load libedgetpu: return where it is and what it says of itself (edgetpu_version of its C header), or why not."""
    import ctypes

    found: dict[str, Optional[str]] = {"path": name, "says": None, "problem": None}
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        return {**found, "problem": str(error)}
    maps = re.search(r"\S*/libedgetpu\S*$", process_text("maps") or "", re.M)
    found["path"] = maps[0] if maps else name
    try:
        version = library.edgetpu_version
    except AttributeError:  # the oldest have no C functions
        return found
    version.restype = ctypes.c_char_p
    said = version()
    return {**found, "says": said.decode("utf-8", "replace") if said else None}


def processors(tree: Tree) -> dict[str, Any]:
    """Return names, number and features of the CPUs."""
    pairs = tree.lines("/proc/cpuinfo")
    names: list[str] = []
    implementer = ""
    for field, value in pairs:
        if field == "CPU implementer":
            implementer = value
        if field == "CPU part":
            known = ARM_PARTS.get(int(value, 16)) if implementer == "0x41" else None
            names.append(known or f"implementer {implementer} part {value}")
        elif field == "model name" and not value.startswith(("ARMv", "AArch64")):
            names.append(value)  # what Arm's kernels write there is no name, and a part follows
    features = {word for field, value in pairs if field in ("flags", "Features") for word in value.split()}
    return {
        "name": " + ".join(dict.fromkeys(names)) or None,
        "cores": sum(field == "processor" for field, _ in pairs) or os.cpu_count(),
        "features": sorted(features & FEATURES),
        "hypervisor": "hypervisor" in features,
    }


def hints(tree: Tree, hypervisor: bool) -> list[str]:
    """Return signs that this is no bare machine; only whoever set it up knows."""
    found = [
        f"DMI says {text}"
        for text in map(tree.text, ("/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name"))
        if text and re.search("QEMU|KVM|VMware|VirtualBox|Xen|Amazon EC2|Google Compute|Virtual", text)
    ]
    compatible = tree.text("/proc/device-tree/compatible") or ""
    if "dummy-virt" in compatible:
        found.append("device tree says linux,dummy-virt")
    if hypervisor:
        found.append("CPU says hypervisor")
    found += [f"{path} exists" for path in ("/.dockerenv", "/run/.containerenv") if os.path.exists(tree.real(path))]
    return found


def python() -> dict[str, Any]:
    """Describe this Python, and what of it decides which packages fit: libc, word size, architecture."""
    import platform
    import sysconfig
    from importlib.util import find_spec

    libc = " ".join(platform.libc_ver()).strip()
    return {
        "version": platform.python_version(),
        "executable": sys.executable,
        "bits": 64 if sys.maxsize > 2**32 else 32,  # Raspberry Pi OS has 32-bit Pythons on 64-bit kernels
        "multiarch": sysconfig.get_config_var("MULTIARCH"),
        "libc": libc or None,
        "venv": find_spec("venv") is not None and find_spec("ensurepip") is not None,
        "pip": package_version("pip"),
        "numpy": package_version("numpy"),
    }


def disk(path: str) -> dict[str, Any]:
    """Return what is free where a path lies, and whether this user may write there."""
    try:
        stat = os.statvfs(path)
    except OSError:
        return {"path": path, "free_bytes": None, "writable": False}
    return {"path": path, "free_bytes": stat.f_bavail * stat.f_frsize, "writable": os.access(path, os.W_OK | os.X_OK)}


def probe(tree: Tree) -> dict[str, Any]:
    """Return everything that can be known of a board without changing it."""
    folders = (os.path.expanduser("~"), os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - asked, not written
    release = {name: value.strip("\"'") for name, value in tree.lines("/etc/os-release", "=")}
    cpu = processors(tree)
    bits, source = throttled(tree)
    uname = os.uname()
    return {
        "board": tree.text("/proc/device-tree/model"),
        "hostname": tree.text("/proc/sys/kernel/hostname") or uname.nodename,
        "system": {
            "name": release.get("PRETTY_NAME"),
            "id": release.get("ID"),
            "version": release.get("VERSION_ID"),
            "kernel": tree.text("/proc/sys/kernel/osrelease") or uname.release,
            "machine": tree.text("/proc/sys/kernel/arch") or uname.machine,
        },
        "python": python(),
        "cpu": {name: cpu[name] for name in ("name", "cores", "features")},
        "memory": memory(tree),
        "frequencies": frequencies(tree),
        "clock_hz": clock(tree),
        "zones": zones(tree),
        "throttled": bits,
        "throttled_source": source,
        "rails": rails(tree),
        "load_1m": load_average(tree),
        "disks": [disk(path) for path in dict.fromkeys(folders)],
        "runtimes": runtimes(),
        "edge_tpus": edge_tpus(tree),
        "edge_tpu_library": edge_tpu_library(tree),
        "hints": hints(tree, cpu["hypervisor"]),
    }


# --- Measure ----------------------------------------------------------------------------------------------------------


def load_runtime() -> tuple[Any, str, str]:
    """Return the interpreter's module, the runtime's name and its version."""
    try:
        from ai_edge_litert import interpreter

        name = "ai-edge-litert"
    except ImportError as without_litert:
        try:
            from tflite_runtime import interpreter
        except ImportError as error:
            raise Failure(
                "runtime",
                f"neither ai-edge-litert ({without_litert}) nor tflite-runtime ({error}) can be imported; "
                "install one of them: python -m pip install ai-edge-litert",
            ) from error
        name = "tflite-runtime"
    return interpreter, name, package_version(name) or "unknown"


def readable(path: str, kind: str, what: str) -> int:
    """Return the size of a file that must be there."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Failure(kind, f"cannot read the {what} {path}: {error.strerror}") from error


def open_model(module: Any, tree: Tree, options: dict[str, Any]) -> Any:
    """Return an interpreter with its memory allocated and the asked delegate."""
    delegate = options["delegate"]
    extra: dict[str, Any] = {}
    if delegate == "none":
        resolver = getattr(module, "OpResolverType", None)
        if resolver is None:
            raise Failure("delegate", "this runtime cannot be kept from using XNNPACK; use --delegate auto")
        extra["experimental_op_resolver_type"] = resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    elif delegate == "edgetpu":
        extra["experimental_delegates"] = [edge_tpu_delegate(module, tree)]
    interpreter = module.Interpreter(model_path=options["model"], num_threads=options["threads"], **extra)
    interpreter.allocate_tensors()
    return interpreter


def delegated(interpreter: Any) -> dict[str, Optional[int]]:
    """Return how many parts of the model delegates took, how many operators that are, and of how many.

    An old tflite-runtime says XNNPACK and leaves it nothing but the softmax of an int8 model. All are None where the
    runtime does not tell.
    """
    try:
        operators = interpreter._get_ops_details()
    except AttributeError:
        return {"delegated_parts": None, "delegated_operators": None, "operators": None}
    parts = [operator for operator in operators if re.fullmatch(DELEGATES, operator["op_name"])]
    own = [operator for operator in operators if not re.fullmatch(DELEGATES, operator["op_name"])]
    producers = {int(tensor): index for index, operator in enumerate(own) for tensor in operator["outputs"]}
    taken: set[int] = set()
    for part in parts:
        # What a part replaced lies between its inputs and its outputs.
        given = {int(tensor) for tensor in part["inputs"]}
        waiting = [int(tensor) for tensor in part["outputs"]]
        while waiting:
            tensor = waiting.pop()
            producer = producers.get(tensor)
            if tensor not in given and producer is not None and producer not in taken:
                taken.add(producer)
                waiting += [int(tensor) for tensor in own[producer]["inputs"]]
    return {"delegated_parts": len(parts), "delegated_operators": len(taken), "operators": len(own)}


def load(module: Any, name: str, tree: Tree, options: dict[str, Any], mismatch: str = "") -> Any:
    """Load the model, saying what went wrong in words that help; `mismatch` are those for a wrong libedgetpu."""
    path, size = options["model"], os.path.getsize(options["model"])
    try:
        return open_model(module, tree, options)
    except (MemoryError, RuntimeError, SystemError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        unresolved = re.search(r"unresolved custom op: (\S+?)\.?\s", f"{error}\n")
        if unresolved and unresolved[1] == EDGE_TPU_OPERATOR:
            message = f"{path} is compiled for the Edge TPU and runs nowhere else; use --delegate edgetpu"
            raise Failure("edgetpu-model", message) from error
        if unresolved:
            message = f"{path} has the custom operator {unresolved[1]}, which {name} does not have"
            raise Failure("operator", f"{message}; convert it without custom operators") from error
        older = re.search(r"requires runtime version \((\d+)\).*this runtime version \((\d+)\)", str(error))
        if older:
            raise Failure("edgetpu-runtime", too_old(path, int(older[1]), int(older[2]))) from error
        if "EdgeTpuDelegate" in str(error):  # what libedgetpu says that finds no sense in the runtime's tensors
            raise Failure("edgetpu-mismatch", f"the Edge TPU cannot run {path}: {said}. {mismatch}") from error
        too_new = numpy_is_too_new(name)
        if too_new:
            raise Failure("numpy", too_new) from error
        # ENOMEM while mapping the file; XNNPACK does not say why it fails, but that is why.
        if isinstance(error, MemoryError) or re.search("error '12'|bad_alloc|create XNNPACK runtime", str(error)):
            free = memory(tree)["available_bytes"]
            room = "" if free is None else f", {free / 1e6:.0f} MB of memory are available"
            message = f"{path} does not fit into memory (its file has {size / 1e6:.0f} MB{room}): {said}"
            raise Failure("memory", message) from error
        raise Failure("model", f"the runtime cannot load {path}: {said}") from error


# --- Edge TPU ---------------------------------------------------------------------------------------------------------


def ready_library(tree: Tree, options: dict[str, Any]) -> dict[str, Any]:
    """Return what libedgetpu is, when it can be loaded and is new enough for the model, which has to be compiled."""
    path = options["model"]
    with open(path, "rb") as file:
        if EDGE_TPU_OPERATOR.encode() not in file.read():
            message = f"{path} is not compiled for the Edge TPU: nothing of it would run there"
            raise Failure("edgetpu-model", f"{message}; compile it first: edgeeff compile")
    library = try_library(tree, EDGE_TPU_LIBRARY)
    if library["problem"]:
        raise Failure("edgetpu-library", f"the Edge TPU's library cannot be loaded: {library_help(library['problem'])}")
    needed, there = options["edge_tpu_runtime"], library["runtime"]
    if needed and there and there < needed:
        raise Failure("edgetpu-runtime", too_old(path, needed, there))
    return library


def library_help(problem: str) -> str:
    """Return why libedgetpu cannot be loaded, and what to do."""
    missing = re.match(r"(\S+\.so\S*): cannot open shared object file", problem)
    if missing and "libedgetpu" not in missing[1]:
        return f"{missing[1]}, which it needs, is not installed on the board; its package is libusb-1.0-0 or similar"
    if missing:
        return (
            f"{problem}. Install it on the board: sudo apt install libedgetpu1-std, from Coral's package source "
            f"(https://coral.ai/software), or a build for newer runtimes ({EDGE_TPU_BUILDS})"
        )
    return f"{problem}. Install the one for this system again: sudo apt install --reinstall libedgetpu1-std"


def too_old(path: str, needed: int, there: int) -> str:
    """Say that a model needs a newer runtime of the Edge TPU."""
    return (
        f"{path} needs version {needed} of the Edge TPU's runtime, the board's libedgetpu has version {there}; install "
        f"a newer one, or compile for it: edgeeff compile --min-runtime {there}"
    )


def mismatch_help(runtime: str, version: str, library: dict[str, Any]) -> str:
    """Say that a runtime and libedgetpu may be of different versions, and which ones fit each other."""
    own = f"runtime version {library['runtime']}" if library["runtime"] else library["says"]
    about = ", ".join(part for part in (library["package"], own, library["path"]) if part)
    return (
        f"{runtime} {version} and libedgetpu {library['version'] or 'of unknown version'} ({about}) may not fit: they "
        "have to be built from the same version of TensorFlow. Google's libedgetpu 16.0 goes with tflite-runtime up to "
        "2.11; builds for later runtimes have TensorFlow's version in theirs, such as 16.0tf2.17.1 "
        f"({EDGE_TPU_BUILDS})"
    )


def edge_tpu_delegate(module: Any, tree: Tree) -> Any:
    """Load the Edge TPU's delegate, which opens the device."""
    if not hasattr(module, "load_delegate"):
        raise Failure("delegate", "this runtime cannot load delegates; edgeeff devices setup gets one that can")
    try:
        return module.load_delegate(EDGE_TPU_LIBRARY)
    except AttributeError as error:
        text = f"{EDGE_TPU_LIBRARY} is not what runtimes load ({error})"
        raise Failure("edgetpu-library", f"{text}; install libedgetpu1-std on the board") from error
    except (OSError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise Failure("edgetpu-device", f"no Edge TPU can be opened ({text}): {why_no_edge_tpu(tree)}") from error


def or_end(seconds: float, work: Callable[[], Any]) -> Any:
    """Do it; end this process with SIGALRM when it takes longer: a library that waits for a device hears nothing else.

    No limit is 0.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def why_no_edge_tpu(tree: Tree) -> str:
    """Return what is known of why no Edge TPU can be opened, and what to do."""
    found = edge_tpus(tree)
    if not found:
        return (
            f"none is there, neither on USB ({', '.join(EDGE_TPU_USB)}; lsusb) nor on PCIe ({EDGE_TPU_PCI}; lspci); "
            "plug it in, into a USB 3 port, with a cable that carries data"
        )
    return "; ".join(why_not_opened(tree, one) for one in found)


def why_not_opened(tree: Tree, one: dict[str, Any]) -> str:
    """Return what is known of why an Edge TPU that is there cannot be opened, and what to do."""
    device = one["device"]
    if device is None and one["bus"] == "pcie":
        return "the one on PCIe is without its driver; install gasket-dkms on the board and restart it"
    usb = one["bus"] == "usb"
    again = "unplug it and plug it in again" if usb else "restart the board"
    if device is None:
        return f"the one on USB ({one['id']}) does not answer; {again}"
    if not os.path.exists(tree.real(device)):
        return f"{one['id']} is there, but its device file {device} is not; a container has to be given it (--device)"
    if not os.access(tree.real(device), os.R_OK | os.W_OK):
        group = "plugdev" if usb else "apex"
        return (
            f"{device} is there, but this user may not use it; sudo usermod -aG {group} $USER on the board, log in "
            f"again{', and plug it in again' if usb else ''}"
        )
    users = users_of(tree.real(device))
    if users:
        return f"{device} is in use by {', '.join(users)}; end that"
    return f"{device} is there and does not answer; end other programs that use it, or {again}"


def users_of(path: str) -> list[str]:
    """Return which other processes have a file open, as far as this user may know."""
    path = os.path.realpath(path)
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        number = int(folder.rsplit("/", 1)[1])
        if number != os.getpid() and path in opened_files(number):
            try:
                with open(folder + "/comm", encoding="utf-8", errors="replace") as file:
                    found.append(f"{file.read().strip()} (process {number})")
            except OSError:  # it has ended
                continue
    return found


def opened_files(process: int) -> set[str]:
    """Return the paths of the files that a process has open; none where this user may not know."""
    found = set()
    for link in glob.glob(f"/proc/{process}/fd/*"):
        try:
            found.add(os.readlink(link))
        except OSError:  # it was closed meanwhile
            continue
    return found


def opened_edge_tpu(tree: Tree) -> Optional[dict[str, Any]]:
    """Return the Edge TPU that this process has open, or the only one that there is; None where that is not told."""
    found, opened = edge_tpus(tree), opened_files(os.getpid())
    ours = [one for one in found if one["device"] and os.path.realpath(tree.real(one["device"])) in opened] or found
    return ours[0] if len(ours) == 1 else None


# --- Running ----------------------------------------------------------------------------------------------------------


def fill_inputs(interpreter: Any, seed: int) -> None:
    """Give every input noise: pixels of 0 to 255, less 128 for int8."""
    import random  # NumPy's own takes 8 MB more

    import numpy

    generator = random.Random(seed)  # noqa: S311 - noise
    for detail in interpreter.get_input_details():
        dtype = numpy.dtype(detail["dtype"])
        if dtype.kind not in "biuf":
            raise Failure("model", f"the input {detail.get('name')} takes {dtype}: no noise can be made for that")
        shape = [int(size) for size in detail["shape"]]
        noise = numpy.frombuffer(generator.randbytes(int(numpy.prod(shape))), numpy.uint8).reshape(shape)
        interpreter.set_tensor(detail["index"], noise.view(dtype) if dtype == numpy.int8 else noise.astype(dtype))


def median(values: list[float]) -> float:
    """Return the middle of the values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timed(work: Callable[[], Any]) -> float:
    """Do it once; return wall seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def stretch(work: Callable[[], Any], seconds: float) -> list[float]:
    """Do it for so long, at least once; return each one's wall seconds."""
    now = time.perf_counter
    times: list[float] = []
    begin = now()
    end = begin + seconds
    while begin < end or not times:
        work()
        after = now()
        times.append(after - begin)
        begin = now()
    return times


def warm_up(interpreter: Any, options: dict[str, Any], sample: Callable[[str], None]) -> tuple[int, bool]:
    """Run until two windows' medians agree; return the number of runs and whether they did."""
    begin = reported = time.perf_counter()
    times: list[float] = []
    while True:
        times.append(timed(interpreter.invoke))
        now = time.perf_counter()
        spent = now - begin
        if len(times) >= options["warmup_runs"] and spent >= options["warmup_s"]:
            before, after = times[-2 * WINDOW : -WINDOW] or times[:1], times[-WINDOW:]
            if abs(median(after) - median(before)) < STABLE * median(before):
                return len(times), True
        if spent >= options["warmup_limit_s"]:
            return len(times), False
        if now - reported >= STRETCH_S:
            sample("warm-up")
            reported = time.perf_counter()


class Usage:
    """What the timed stretches took of the machine, summed."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.involuntary_switches = self.major_faults = 0

    def of(self, work: Callable[[], list[float]]) -> list[float]:
        """Count what `work` takes."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        times = work()
        self.wall_s += time.perf_counter() - begin
        self.cpu_s += time.process_time() - begin_cpu
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.involuntary_switches += after.ru_nivcsw - before.ru_nivcsw
        self.major_faults += after.ru_majflt - before.ru_majflt
        return times


def measure(interpreter: Any, options: dict[str, Any], sample: Callable[[str], None]) -> Usage:
    """Run for the asked time and count, sending latencies and state between stretches; return what it took.

    A sustained measurement lasts its minutes by the clock, and each full minute's median is an event of its own.
    """
    usage = Usage()
    sustained = options["sustained_min"] * 60.0
    length = min(STRETCH_S, sustained or options["duration_s"])
    count, minute, begin = 0, 1, time.perf_counter()
    in_minute: list[float] = []
    while True:
        at = since()
        times = usage.of(lambda: stretch(interpreter.invoke, length))
        count += len(times)
        for first in range(0, len(times), LINE):
            send("latencies", at_s=at, latencies_s=[round(value, 9) for value in times[first : first + LINE]])
        sample("measure")
        if not sustained:
            if count >= options["runs"] and usage.wall_s >= options["duration_s"]:
                return usage
            continue
        in_minute += times
        elapsed = time.perf_counter() - begin
        if elapsed >= 60.0 * minute or elapsed >= sustained:
            send("minute", minute=minute, p50_s=median(in_minute), runs=len(in_minute))
            minute, in_minute = int(elapsed // 60.0) + 1, []
        if elapsed >= sustained:
            return usage


def image_runs(interpreter: Any, options: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Run from a file to scores; yield the seconds of every step, copying in with quantize, and out with invoke."""
    import numpy

    try:
        from PIL import Image
    except ImportError as error:
        raise Failure(
            "pillow", f"Pillow cannot be imported ({error}), so no image can be decoded; install it: pip install pillow"
        ) from error
    detail, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    shape = [int(size) for size in detail["shape"]]
    if len(shape) != 4 or shape[3] != 3:
        raise Failure("model", f"the model takes no RGB image but {shape}; end-to-end needs [1, height, width, 3]")
    for _ in range(options["image_runs"]):
        begin = time.perf_counter()
        try:
            with Image.open(options["image"]) as file:
                picture = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them for broken files
            raise Failure("image", f"{options['image']} cannot be decoded: {error}") from error
        decoded = time.perf_counter()
        picture = picture.resize((shape[2], shape[1]), BICUBIC)
        resized = time.perf_counter()
        pixels = numpy.asarray(picture)[numpy.newaxis]
        if detail["dtype"] == numpy.int8:
            pixels = (pixels ^ 0x80).view(numpy.int8)  # the same as subtracting 128
        interpreter.set_tensor(detail["index"], pixels.astype(detail["dtype"], copy=False))
        quantized = time.perf_counter()
        interpreter.invoke()
        interpreter.get_tensor(output)
        end = time.perf_counter()
        yield {
            "decode_s": decoded - begin,
            "resize_s": resized - decoded,
            "quantize_s": quantized - resized,
            "invoke_s": end - quantized,
            "total_s": end - begin,
        }


def columns(rows: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    """Turn rows into columns."""
    table: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            table.setdefault(name, []).append(round(value, 9))
    return table


def import_and_load(tree: Tree, options: dict[str, Any], **facts: Any) -> Any:
    """Return the model's interpreter, saying what that took and who will run it, with these facts about the file."""
    # A library that crashes may take a child process with it, and forking is safe before NumPy starts its threads.
    library = ready_library(tree, options) if options["delegate"] == "edgetpu" else None
    if library is not None:
        send("edge_tpu_library", **library)
    try:
        begin = time.perf_counter()
        import numpy
    except ImportError as error:
        raise Failure("numpy", f"NumPy cannot be imported: {error}; install it: python -m pip install numpy") from error
    module, name, version = load_runtime()
    imported = time.perf_counter() - begin
    send(
        "imported",
        import_s=imported,
        runtime=name,
        version=version,
        numpy=numpy.__version__,
        pid=os.getpid(),
        **process_memory(),
    )

    begin = time.perf_counter()
    mismatch = mismatch_help(name, version, library) if library else ""
    interpreter = or_end(EDGE_TPU_LIMIT_S if library else 0.0, lambda: load(module, name, tree, options, mismatch))
    loaded = time.perf_counter() - begin
    found = delegated(interpreter)
    parts = found["delegated_parts"]
    if options["delegate"] == "xnnpack" and parts == 0:
        raise Failure("delegate", f"XNNPACK takes no operator of {options['model']}; use --delegate none")
    delegate = used_delegate(options["delegate"], parts)
    send("loaded", load_s=loaded, **facts, delegate=delegate, **found, **process_memory())
    return interpreter


def measure_model(tree: Tree, options: dict[str, Any]) -> None:
    """Measure one model in this process."""

    def sample(phase: str) -> None:
        send("state", phase=phase, **state(tree))

    model = options["model"]
    size = readable(model, "model", "model")
    if options["image"]:
        readable(options["image"], "image", "image")
    in_cache = cached(model)
    be_the_first_to_go()
    sample("start")
    interpreter = import_and_load(tree, options, size_bytes=size, cached=in_cache)

    fill_inputs(interpreter, options["seed"])
    on_edge_tpu = options["delegate"] == "edgetpu"
    try:
        first = or_end(EDGE_TPU_LIMIT_S if on_edge_tpu else 0.0, lambda: timed(interpreter.invoke))
    except (RuntimeError, ValueError) as error:
        raise Failure("run", f"the runtime cannot run {model}: {error}") from error
    send("first", first_inference_s=first, **process_memory())
    opened = opened_edge_tpu(tree) if on_edge_tpu else None
    if opened is not None:
        send("edge_tpu", **opened)
    runs, stable = warm_up(interpreter, options, sample)
    send("warm", runs=runs, stable=stable)
    sample("warm-up")
    usage = measure(interpreter, options, sample)
    peak = peak_resident()
    if options["image"]:
        send("end_to_end", **columns(image_runs(interpreter, options)))
    send("done", **vars(usage), peak_rss_bytes=peak, **process_memory())


def used_delegate(asked: str, parts: Optional[int]) -> str:
    """Return what ran the model: a runtime that does not tell is believed to have used XNNPACK, as they all do."""
    if asked == "auto":
        return "none" if parts == 0 else "xnnpack"
    return asked


# --- Score ------------------------------------------------------------------------------------------------------------


def read_exactly(count: int) -> bytes:
    """Read so many bytes of standard input; fewer only at its end."""
    content = bytearray()
    while len(content) < count:
        # Not sys.stdin: the thread that waits here would hold a lock that Python wants when it ends.
        piece = os.read(0, min(count - len(content), 1 << 20))
        if not piece:
            break
        content += piece
    return bytes(content)


def pixels_of(content: bytes, shape: tuple[int, int, int]) -> Any:
    """Return an image (height, width, 3) of uint8 from what was sent: zlib's stream of its differences.

    Red and blue are less green; then each pixel is less the one on its left, and each row less the one above. All of
    it is modulo 256, so nothing is lost, and what is left of a photograph is half as long as without differences.
    Raises ValueError when it is damaged.
    """
    import zlib

    import numpy

    size = shape[0] * shape[1] * shape[2]
    decompressor = zlib.decompressobj()
    try:
        differences = decompressor.decompress(content, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(differences) != size or not decompressor.eof:
        raise ValueError(f"it does not have the {size} bytes of {shape[0]}x{shape[1]} pixels")
    image = numpy.frombuffer(differences, numpy.uint8).reshape(shape)
    image = image.cumsum(axis=0, dtype=numpy.uint8).cumsum(axis=1, dtype=numpy.uint8)
    image[..., ::2] += image[..., 1:2]
    return image


def receive(shape: tuple[int, int, int]) -> Iterator[Any]:
    """Yield the images (height, width, 3) of uint8 that standard input has, until its end."""
    number, longest = 0, 2 * shape[0] * shape[1] * shape[2] + 1024
    while True:
        head = read_exactly(FRAME.size)
        if not head:
            return
        said, length = FRAME.unpack(head) if len(head) == FRAME.size else (number, 0)
        if said != number or length > longest:
            raise Failure(
                "input",
                f"what came after {number} images is no image; does a login script on the board read standard input?",
            )
        content = read_exactly(length)
        if len(content) < length or len(head) < FRAME.size:
            raise Failure("input", f"the input ended in the middle of image {number}")
        try:
            yield pixels_of(content, shape)
        except ValueError as error:
            raise Failure("input", f"image {number} was damaged on its way: {error}") from error
        number += 1


def ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield the items, which a thread gets ready up to so many ahead."""
    import queue
    import threading

    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(count)

    def work() -> None:
        try:
            for item in items:
                ready.put((True, item))
            ready.put((False, None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are wanted
            ready.put((False, error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        is_item, item = ready.get()
        if not is_item:
            if item is not None:
                raise item
            return
        yield item


def contract(detail: dict[str, Any]) -> dict[str, Any]:
    """Describe an input or output: real = (stored - zero_point) * scale where there is a scale."""
    import numpy

    scale, zero_point = detail["quantization"]
    return {
        "name": str(detail["name"]),
        "shape": [int(size) for size in detail["shape"]],
        "dtype": numpy.dtype(detail["dtype"]).name,
        "scale": float(scale) if scale else None,
        "zero_point": int(zero_point) if scale else None,
    }


def stored_by(table: str, dtype: Any) -> Callable[[Any], Any]:
    """Return what makes pixels of uint8 the values that the model takes.

    Without a table they are taken as they are, less 128 for int8.
    """
    import numpy

    if not table:
        if dtype == numpy.int8:
            return lambda pixels: (pixels ^ 0x80).view(numpy.int8)
        return lambda pixels: pixels.astype(dtype, copy=False)
    values = numpy.frombuffer(base64.b64decode(table), "<f4")
    with numpy.errstate(invalid="ignore"):
        columns = values.astype(dtype)
    if values.size != 256 * 3 or not (columns == values).all():
        raise Failure("usage", f"the table is not one of 256x3 values of {dtype}, which the model takes")
    columns = columns.reshape(256, 3)
    return lambda pixels: columns[pixels, numpy.arange(3)]


def score_images(tree: Tree, options: dict[str, Any]) -> None:
    """Run the model on every image of standard input, and say its raw scores."""
    model = options["model"]
    size = readable(model, "model", "model")
    be_the_first_to_go()
    interpreter = import_and_load(tree, options, size_bytes=size)
    import numpy

    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    described = contract(given)
    shape = described["shape"]
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        raise Failure("model", f"{model} takes {shape}; only a model that takes one RGB image can be scored")
    stored = stored_by(options["table"], numpy.dtype(given["dtype"]))
    send("ready", input=described, output=contract(result))
    count = 0
    invoking = 0.0
    for pixels in ahead(receive((shape[1], shape[2], 3)), AHEAD):
        interpreter.set_tensor(given["index"], stored(pixels)[numpy.newaxis])
        try:
            invoking += timed(interpreter.invoke)
        except (RuntimeError, ValueError) as error:
            raise Failure("run", f"the runtime cannot run {model} on image {count}: {error}") from error
        raw = interpreter.get_tensor(result["index"])[0]
        send("scores", number=count, raw=base64.b64encode(raw.tobytes()).decode())
        count += 1
    send("done", images=count, invoke_s=invoking, peak_rss_bytes=peak_resident(), **process_memory())


# --- Which of it ------------------------------------------------------------------------------------------------------


def read_options(argument: str) -> dict[str, Any]:
    """Return the options, those that are not given by default; a name or value that is none of ours is refused."""
    try:
        given = json.loads(argument)
    except ValueError as error:
        raise Failure("usage", f"the argument is no JSON ({error}): {argument[:200]}") from error
    if not isinstance(given, dict):
        raise Failure("usage", f"the argument is no JSON object: {argument[:200]}")
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise Failure("usage", f"unknown options {', '.join(unknown)}; there are {', '.join(DEFAULTS)}")
    options = {**DEFAULTS, **given}
    for name, known in (("mode", MODES), ("delegate", ("auto", "xnnpack", "none", "edgetpu"))):
        if options[name] not in known:
            raise Failure("usage", f"the {name} {options[name]!r} is none of {', '.join(known)}")
    if options["mode"] in ("measure", "score") and not options["model"]:
        raise Failure("usage", f"to {options['mode']} takes a model: give its path")
    return options


MODES: dict[str, Callable[[Tree, dict[str, Any]], None]] = {
    "hello": lambda tree, options: send("hello", python=python()),
    "probe": lambda tree, options: send("probe", **probe(tree)),
    "state": lambda tree, options: send("state", phase="start", **state(tree)),
    "measure": measure_model,
    "score": score_images,
}


def main(argument: str) -> int:
    """Do what `argument`, a JSON object, asks for; return the exit status."""
    try:
        options = read_options(argument)
        MODES[options["mode"]](Tree(options["root"]), options)
    except BrokenPipeError:  # whoever asked is gone; nothing may be written when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        send("error", kind=failure.kind, message=str(failure))
        return 1
    except MemoryError:
        send("error", kind="memory", message="memory ran out")
        return 1
    except (OSError, RuntimeError, ValueError) as error:
        send("error", kind="failed", message=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # Python looks for modules beside this file first, where profile.py has the name of one of Python's own.
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    # What libraries print must not get between the events.
    sys.stdout = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    os.dup2(2, 1)
    sys.exit(main(sys.argv[1]))
