"""Records are written as JSON and read back, whole and unchanged, or refused with a reason."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeeff import results
from edgeeff.errors import RecordError
from edgeeff.results import (
    RECORDS,
    Agreement,
    AuditRecord,
    BoardPython,
    CalibrationUse,
    Check,
    CompilationRecord,
    Compiled,
    CompiledFile,
    CompilerSummary,
    ConversionRecord,
    CpuFrequency,
    CpuShare,
    DemoPhotograph,
    DemoRecord,
    Device,
    DiagnosisRecord,
    Disagreement,
    Disk,
    EdgeTpu,
    EdgeTpuEstimate,
    EdgeTpuExecutable,
    EdgeTpuLibrary,
    EdgeTpuOperator,
    EdgeTpuTime,
    EdgeTpuUse,
    Finding,
    Forecast,
    ForecastCheck,
    ForeseenOperators,
    FoundRuntime,
    GateResult,
    Goal,
    Growth,
    ImageOutcomes,
    Kernels,
    Latency,
    Leak,
    LoneImage,
    Memory,
    Mixed,
    MixedPoint,
    MixedTrial,
    ModelFile,
    OperatingSystem,
    OperatorStatus,
    PredictionRecord,
    ProbeRecord,
    Processor,
    ProfileRecord,
    Rail,
    RangeAudit,
    Record,
    Runtime,
    SetSummary,
    TensorContract,
    TensorFault,
    TensorStability,
    Throttling,
    TimedOn,
    Zone,
    read_record,
    this_device,
    to_dict,
    to_json,
    versions,
)
from tests.evaluations import HEALTHY
from tests.picks import PICK

Golden = Callable[[str, str], None]
GOLDEN = Path(__file__).parent / "golden"
HEAD: dict[str, Any] = {
    "edgeeff_version": "0.1.0",
    "created": "2026-01-31T12:34:56+00:00",
    "runtime": Runtime("ai-edge-litert", "2.3.0"),
    "device": Device("Raspberry Pi 4 Model B Rev 1.4", "aarch64", "Linux 6.6.31", "Cortex-A72", 4),
    "packages": {"numpy": "2.4.6", "tensorflow": "2.21.0"},
}
CONVERSION = ConversionRecord(
    **HEAD,
    model=ModelFile("müsli/b0_int8.tflite", "ab" * 32, 6_200_000),
    source="b0",
    source_sha256=None,
    weights="imagenet",
    scheme="mixed",
    classes=1000,
    resolution=(224, 260),
    output="softmax",
    input_contract=TensorContract("image", (1, 224, 260, 3), "uint8", 1.0, 0),
    output_contract=TensorContract("scores", (1, 1000), "float32"),
    macs=385_814_880,
    float_size_bytes=21_300_000,
    calibration=CalibrationUse("folder", 2, 7, "photos", images=(("a/1.png", "cd" * 32), ("b/2.png", "ef" * 32))),
    agreement=Agreement(16, 0.9375, 0.25, 0.997),
    checks=(Check("runs", passed=True, detail="16 images through LiteRT"),),
    warnings=("few images",),
    seconds={"trace": 12.5, "go from float to int8": 3.25},
    mixed=Mixed(
        goal=Goal(min_agreement=0.98, max_latency_s=0.03),
        met=False,
        shortfall="no mix of precisions reaches the goal",
        seed=7,
        calibration_images=96,
        judging_images=32,
        trial_images=64,
        point_images=128,
        timed_on=TimedOn("pi4", HEAD["device"], Runtime("tflite-runtime", "2.14.0"), 4),
        float_latency_s=0.0625,
        points=(
            MixedPoint("float", {"stem": "float", "top": "float"}, 0.0, 1.0, 0.996, 0.99, 128, 0.0625, 1.0, 20_000_000),
            MixedPoint(
                "2 steps",
                {"stem": "dynamic", "top": "inner"},
                0.0015,
                0.9375,
                0.985,
                0.975,
                32,
                0.03125,
                0.5,
                5_000_000,
                True,
            ),
        ),
        trials=(MixedTrial("stem", "dynamic", 0.0005, 0.97),),
    ),
)
ESTIMATE = EdgeTpuEstimate(
    streamed_parameter_bytes=(558_963, 9_000_000),
    expected_streamed_parameter_bytes=2_708_544,
    left_out=("LOGISTIC", "1 operator on the CPU"),
    times=(EdgeTpuTime("USB 3", "a desktop computer", 0.0075, (0.00625, 0.009), (0.00125, 0.01875)),),
)
FORECAST = Forecast(
    verdict="unknown",
    operators=(
        ForeseenOperators("CONV_2D", 65, "mapped"),
        ForeseenOperators("GELU", 1, "unknown", "it is not in the list", "", "coral.ai", ("block2a",)),
        ForeseenOperators("SOFTMAX", 1, "not mapped", "it is float", "convert with --edge-tpu", "coral.ai", ("top",)),
    ),
    parts=2,
    cpu=CpuShare(66, "SOFTMAX in top", 1, 0.0),
    cpu_at_worst=CpuShare(10, "GELU in block2a", 57, 0.75),
    parameter_bytes=9_000_000,
    streamed_bytes=558_963,
    advice=("the network has 49 swish",),
    estimate=ESTIMATE,
)
CONVERSION_FOR_EDGE_TPU = dataclasses.replace(CONVERSION, edge_tpu=FORECAST)
PROFILE = ProfileRecord(
    **HEAD,
    model=CONVERSION.model,
    threads=1,
    mode="quick",
    latency=Latency(0.05, 0.0625, 0.0515, 0.049, (0.0495, 0.0505), 60, 3),
    import_s=0.5,
    load_s=0.125,
    first_inference_s=0.075,
    peak_rss_bytes=80_000_000,
    runtime_rss_bytes=50_000_000,
)
PROFILE_ON_EDGE_TPU = dataclasses.replace(
    PROFILE,
    runtime=Runtime("tflite-runtime", "2.14.0", "edgetpu"),
    edge_tpu=EdgeTpuUse(
        EdgeTpu("pcie", "1ac1:089a", None, 5000.0, "/dev/apex_0", 43.75, 84.75),
        EdgeTpuLibrary("/usr/lib/libedgetpu.so.1.0", "libedgetpu1-std", "16.0", "RuntimeVersion(14)", 14),
        parameter_upload_s=0.025,
        cached_parameter_bytes=6_000_000,
        streamed_parameter_bytes=0,
        cpu_operators=1,
        minimum_runtime=14,
        start_temperature_c=40.5,
        max_temperature_c=51.0,
    ),
)
PROBE = ProbeRecord(
    **HEAD | {"device": Device("Raspberry Pi 5 Model B Rev 1.0", "aarch64", "Linux 6.6.31", "Cortex-A76", 4)},
    board="Raspberry Pi 5 Model B Rev 1.0",
    hostname="raspberrypi",
    system=OperatingSystem("Debian GNU/Linux 12 (bookworm)", "debian", "12", "6.6.31", "aarch64"),
    python=BoardPython("3.11.2", "/usr/bin/python3", 64, "aarch64-linux-gnu", "glibc 2.36", True, "23.0.1", "1.24.2"),
    cpu=Processor("Cortex-A76", 4, ("asimd", "asimddp")),
    memory=Memory(8_443_265_024, 6_000_000_000, 536_854_528, 0),
    frequencies=(CpuFrequency(0, "ondemand", "cpufreq-dt", 2_400_000_000, 2_400_000_000, 2_400_000_000),),
    clock_hz=2_400_033_792,
    zones=(Zone("cpu-thermal", 55.5),),
    throttling=Throttling(0x10000, "vcgencmd", (), ("under-voltage",)),
    rails=(Rail("VDD_CORE", 0.875, 3.5), Rail("EXT5V", 5.0625, None)),
    rails_w=3.1,
    load_1m=0.07,
    disks=(Disk("/home/pi", 12_000_000_000, writable=True),),
    runtimes=(FoundRuntime("ai-edge-litert", "2.3.0", works=True, problem=None),),
    edge_tpus=(EdgeTpu("usb", "1a6e:089a", False, 5000.0, "/dev/bus/usb/002/003"),),
    edge_tpu_library=EdgeTpuLibrary(
        "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1", "libedgetpu1-std", "16.0", "RuntimeVersion(14)", 14
    ),
    hints=(),
)
DEMO = DemoRecord(
    **HEAD,
    float_conversion=dataclasses.replace(CONVERSION, scheme="float32"),
    int8_conversion=CONVERSION,
    float_profile=dataclasses.replace(PROFILE, mode="full"),
    int8_profile=PROFILE,
    latency_ratio=0.4,
    size_ratio=0.28,
    photographs=(DemoPhotograph("chelsea.png", "tabby", 0.75, "tiger cat", 0.5),),
    agreement=0.0,
    seconds=93.5,
)
EVALUATION = dataclasses.replace(
    HEALTHY,
    **HEAD,
    by_class=HEALTHY.by_class[:2],
    kernels=Kernels(3, 1.0, 0.5, 0.0625, Runtime("ai-edge-litert", "2.3.0"), Runtime("tflite-runtime", "2.14.0")),
    findings=(Finding("few-images", False, "3 images show nothing", "take more", {"images": 3.0}),),
    gates=(GateResult("max-drop", 0.01, -0.004, -0.0092, True, "max-drop 1.0: yes", 5000),),
    images=ImageOutcomes(
        keys=("cat/1.jpg", "dog/müsli.jpg"),
        sha256=("0123456789abcdef", "fedcba9876543210"),
        labels=(0, 1),
        baseline=(0, 1),
        model=(0, -1),
        baseline_rank=(0, 0),
        model_rank=(0, 10),
        baseline_confidence=(0.75, 0.5),
        model_confidence=(0.5, 0.0),
        kl=(0.125, -1.0),
    ),
)
PREDICTION = PredictionRecord(
    **HEAD,
    model=CONVERSION.model,
    target="recorded:raspberry-pi-4",
    scheme="int8",
    threads=4,
    percentile=50,
    macs=385_814_880,
    predicted_s=0.0315,
    interval_s=(0.0295, 0.0335),
    predicted_memory_bytes=64_000_000,
    fitted=("lite0", "lite2"),
    basis="2 figures of recorded:raspberry-pi-4",
    recorded=("measured by us, 2026-01-31",),
)
AUDIT = AuditRecord(
    **HEAD,
    folder="photos",
    seed=7,
    against="val",
    against_images=1000,
    model=CONVERSION.model,
    resolution=(224, 260),
    pixels=SetSummary(
        images=3,
        distinct=2,
        mean=(120.5, 110.25, 100.0),
        std=(60.0, 59.5, 58.0),
        black=("night.png",),
        special={"CMYK": 1},
        refused=(("müsli.jpg", "cut off"),),
        classes=(("cat", 3), ("dog", 0)),
        copies=(Leak("exact", "calibration", "cat/2.png", "cat/1.png"),),
    ),
    ranges=RangeAudit(
        model="b0.keras",
        sha256="ab" * 32,
        images=2,
        tensors=173,
        stability=0.875,
        stability_lowest=0.5,
        least_stable=(TensorStability("model/block1a/add", "block1a", 0.25),),
        lone=(LoneImage("cat/1.png", 24, "model/block1a/add", 0.5),),
        growth=(Growth(8, 0.75, 0.5), Growth(16, 1.0, 1.0)),
        enough=None,
    ),
    leaks=(Leak("near", "calibration", "val/1.png", "cat/1.png"),),
    findings=(Finding("few-images", False, "there are 2 images", "take more", {"images": 2.0}),),
    verdict="usable",
    images=(("cat/1.png", "cd" * 32),),
    seconds={"images": 1.5},
)
DIAGNOSIS = DiagnosisRecord(
    **HEAD,
    model=CONVERSION.model,
    baseline=ModelFile("b0.keras", "cd" * 32, 21_000_000),
    data="val",
    images=128,
    unreadable=(("müsli.jpg", "cut off"),),
    preprocessing=HEALTHY.preprocessing,
    baseline_preprocessing=HEALTHY.baseline_preprocessing,
    agreement=0.25,
    correlation=0.375,
    top1=0.2,
    baseline_top1=0.7,
    tests=(results.Test("calibration-range", True, "ranges are too wide", {"poor": 118.0}),),
    tensors=(TensorFault("model/block1a/add", "block1a", -4.0, 4.0, -8.0, 3.5, 0.125, 8.5, 0.75),),
    cause=Finding("calibration-range", True, "ranges are too wide", "calibrate anew", {"poor": 118.0}),
    notes=("a note",),
)
COMPILATION = CompilationRecord(
    **HEAD,
    compiler="/usr/bin/edgetpu_compiler",
    compiler_version="16.0.384591198",
    arguments=("--show_operations",),
    seconds=1.5,
    sources=(CONVERSION.model,),
    compiled=(
        Compiled(
            ModelFile("b2_int8_edgetpu.tflite", "0" * 64, 11_000_000),
            CONVERSION.model.path,
            CompilerSummary(
                input="b2_int8.tflite",
                on_chip_used_bytes=7_193_231,
                edge_tpu_operators=60,
                cpu_operators=1,
                statuses=(OperatorStatus("CONV_2D", 60, "Mapped to Edge TPU"),),
            ),
            CompiledFile(
                (
                    EdgeTpuOperator(
                        0,
                        0,
                        14,
                        "cl/1234",
                        (EdgeTpuExecutable("parameter-caching", "beagle", 7_193_000, "0123456789abcdef"),),
                    ),
                    EdgeTpuOperator(0, 2, None, None, (), "its program cannot be read: it has no options"),
                ),
                1,
            ),
            estimate=dataclasses.replace(ESTIMATE, streamed_parameter_bytes=(2_708_544, 2_708_544)),
            foreseen=FORECAST,
            check=ForecastCheck(
                60, 1, 2, (Disagreement("CONV_2D", 5, "mapped", ("Operation not supported",)),), ("QUANTIZE",)
            ),
        ),
    ),
    compiled_together=False,
    attempts=0,
    log="b2_int8_edgetpu_compiler.log",
    warnings=("1 operators run on the CPU",),
)
EXAMPLES = {
    "compilation": COMPILATION,
    "conversion": CONVERSION_FOR_EDGE_TPU,
    "profile": PROFILE_ON_EDGE_TPU,
    "demo": DEMO,
    "probe": PROBE,
    "evaluation": EVALUATION,
    "pick": PICK,
    "prediction": PREDICTION,
    "audit": AUDIT,
    "diagnosis": DIAGNOSIS,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.json"


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def plain(record: Record, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = to_dict(record)
    return document | changes


# --- There and back ---------------------------------------------------------------------------------------------------

st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@given(st.one_of(*(st.from_type(cls) for cls in RECORDS.values())))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, record: Record) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_text(to_json(record), encoding="utf-8")
    assert read_record(path) == record


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_json_of_a_record_is_the_golden_one(kind: str, golden: Golden) -> None:
    golden(f"{kind}_v{EXAMPLES[kind].schema_version}.json", to_json(EXAMPLES[kind]))


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*_v*.json")), ids=lambda file: file.stem)
def test_every_version_so_far_is_read(file: Path) -> None:
    record = read_record(file)
    kind, version = file.stem.split("_v")
    assert record.schema == f"edgeeff/{kind}"
    if record.schema_version == int(version):
        assert record == EXAMPLES[kind]


def test_every_kind_of_record_has_an_example_and_a_history() -> None:
    assert {f"edgeeff/{kind}" for kind in EXAMPLES} == set(RECORDS)
    history = re.findall(r"^  (\w+) +(\d+) ", results.__doc__ or "", flags=re.MULTILINE)
    latest = {f"edgeeff/{kind}": int(version) for kind, version in history}
    assert latest == {schema: cls.schema_version for schema, cls in RECORDS.items()}


def test_schema_and_version_come_first_also_inside() -> None:
    head = ["schema", "schema_version", "edgeeff_version", "created"]
    document = to_dict(DEMO)
    for part in (document, document["int8_conversion"], document["float_profile"]):
        assert list(part)[:4] == head
    assert document["int8_conversion"]["schema"] == "edgeeff/conversion"
    inside = to_dict({"records": (PROFILE,)})
    assert list(inside["records"][0])[:4] == head


def test_times_and_sizes_say_their_unit() -> None:
    classes: list[type[Any]] = [Latency, ModelFile, *RECORDS.values()]
    fields = (field for cls in classes for field in dataclasses.fields(cls))
    for field in (field for field in fields if field.type in {"int", "float"}):
        if re.search(r"(^|_)(size|rss|memory)(_|$)", field.name):
            assert field.name.endswith(("_bytes", "_ratio")), field.name
        if re.search(r"^(p\d+|mean|min|load|import|first)_", field.name):
            assert field.name.endswith("_s"), field.name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        to_json(dataclasses.replace(DEMO, latency_ratio=value))


def test_a_file_name_that_is_no_unicode_is_still_a_record(path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tflite")
    record = dataclasses.replace(PROFILE, model=ModelFile(name, "0" * 64, 1))
    path.write_bytes(to_json(record).encode())
    read = read_record(path)
    assert isinstance(read, ProfileRecord)
    assert read.model.path == "caf?.tflite"


def test_fields_that_a_later_edgeeff_added_without_a_new_version_are_ignored(path: Path) -> None:
    assert read_record(write(path, plain(PROFILE, novelty=1))) == PROFILE


def test_fields_with_a_default_may_be_missing(path: Path) -> None:
    document = plain(PROFILE)
    del document["packages"]
    assert read_record(write(path, document)) == dataclasses.replace(PROFILE, packages={})


# --- Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON document"),
        (b"{", "is no JSON document"),
        (b"edgeeff", "is no JSON document"),
        (b"\xff\xfe", "is no JSON document"),
        (b'{"schema": "\xff"}', "is no JSON document"),
        (b"[" * 100_000, "is no JSON document"),
        (b'{"schema": "edgeeff/profile"} {}', "is no JSON document"),
        (b"null", "is no record of edgeeff: its schema is None, known are edgeeff/conversion"),
        (b"[]", "is no record of edgeeff"),
        (b"{}", "is no record of edgeeff"),
        (b'{"schema": 3}', "is no record of edgeeff"),
        (b'{"schema": ["edgeeff/profile"]}', "is no record of edgeeff"),
        (b'{"schema": "coco/images"}', "is no record of edgeeff: its schema is 'coco/images'"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_record_is_refused(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path} {reason}")


def test_a_number_that_is_not_finite_is_refused(path: Path) -> None:
    text = to_json(DEMO).replace('"latency_ratio": 0.4', '"latency_ratio": NaN')
    assert "NaN" in text
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="is no JSON document"):
        read_record(path)


@pytest.mark.parametrize(("name", "reason"), [("missing.json", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(RecordError, match=rf"cannot read the record .*: {reason}"):
        read_record(tmp_path / name)


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True, [1]])
def test_a_record_without_a_valid_version_is_refused(path: Path, version: object) -> None:
    with pytest.raises(RecordError, match="no valid schema_version for edgeeff/profile"):
        read_record(write(path, plain(PROFILE, schema_version=version)))


def test_a_newer_version_is_refused(path: Path) -> None:
    newer = PROFILE.schema_version + 1
    with pytest.raises(RecordError) as caught:
        read_record(write(path, plain(PROFILE, schema_version=newer)))
    assert str(caught.value) == (
        f"{path} is edgeeff/profile version {newer}; this edgeeff reads up to {PROFILE.schema_version}: "
        "install a newer one"
    )


def test_a_newer_version_inside_is_refused(path: Path) -> None:
    newer = CONVERSION.schema_version + 1
    document = plain(DEMO, int8_conversion=plain(CONVERSION, schema_version=newer))
    with pytest.raises(RecordError, match=f"is edgeeff/conversion version {newer}"):
        read_record(write(path, document))


REQUIRED = [
    pytest.param(example, field.name, id=f"{kind}-{field.name}")
    for kind, example in EXAMPLES.items()
    for field in dataclasses.fields(example)
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
]


@pytest.mark.parametrize(("example", "name"), REQUIRED)
def test_a_missing_field_is_named(path: Path, example: Record, name: str) -> None:
    document = plain(example)
    del document[name]
    with pytest.raises(RecordError, match=rf"is no valid {example.schema} record: .*`{name}`"):
        read_record(write(path, document))


@pytest.mark.parametrize(
    ("record", "change", "place"),
    [
        (PROFILE, {"threads": "1"}, "$.threads"),
        (PROFILE, {"threads": 1.5}, "$.threads"),
        (PROFILE, {"threads": None}, "$.threads"),
        (PROFILE, {"load_s": "fast"}, "$.load_s"),
        (PROFILE, {"model": plain(PROFILE)["model"] | {"size_bytes": "1"}}, "$.model.size_bytes"),
        (PROFILE, {"latency": plain(PROFILE)["latency"] | {"interval_s": [1.0]}}, "$.latency.interval_s"),
        (CONVERSION, {"resolution": [224, 224, 3]}, "$.resolution"),
        (CONVERSION, {"checks": [{"name": "runs", "passed": 1, "detail": ""}]}, "$.checks[0].passed"),
        (DEMO, {"int8_profile": plain(PROFILE, mode=3)}, "$.int8_profile.mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_of_the_wrong_type_is_named(path: Path, record: Record, change: dict[str, Any], place: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(write(path, plain(record, **change)))
    assert place in str(caught.value)


# --- What fills them --------------------------------------------------------------------------------------------------


def test_this_device_is_described() -> None:
    device = this_device()
    assert device.cores == len(os.sched_getaffinity(0))
    assert device.machine == os.uname().machine
    assert device.system == f"Linux {os.uname().release}"
    assert device.name
    assert device.cpu
    assert not device.emulated


def test_a_record_is_dated_in_utc() -> None:
    created = dataclasses.replace(PROFILE, created=results.record._now()).created
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(created)
    assert datetime.timedelta(seconds=-1) <= age < datetime.timedelta(minutes=1)
    assert created.endswith("+00:00")


def test_a_model_file_is_what_is_on_disk(path: Path) -> None:
    path.write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert ModelFile.of(path) == ModelFile(str(path), sha256, 3)


def test_versions_are_those_of_installed_packages() -> None:
    found = versions("msgspec", "no-such-package", "click")
    assert list(found) == ["msgspec", "click"]
    assert all(re.match(r"\d+\.\d+", version) for version in found.values())
