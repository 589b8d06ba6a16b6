"""The Python API: its names and nothing else, the arguments of the commands, and records as they print them."""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import edgeeff
from edgeeff import api, cli, errors, results
from edgeeff.converters import convert as conversion
from edgeeff.converters import inspect as inspection
from edgeeff.converters.inspect import Inspection
from edgeeff.devices import profile as profiling
from edgeeff.devices import transport
from edgeeff.devices.profile import Protocol
from edgeeff.evaluation import engine
from edgeeff.evaluation.gates import Gates
from edgeeff.picking import pick as picking
from edgeeff.reporting import records as reports
from edgeeff.results import (
    AuditRecord,
    CompilationRecord,
    DiagnosisRecord,
    EvaluationRecord,
    Goal,
    PickRecord,
    ProfileRecord,
    WrittenReport,
    to_dict,
)
from tests import edge_tpu_files
from tests.evaluations import evaluation
from tests.picks import PICK
from tests.scripted import Answer, Lab, story

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = (
    "audit", "compare", "compile", "convert", "diagnose", "evaluate", "inspect", "pick", "predict", "profile",
    "read_record", "report",
)  # fmt: skip
COMMANDS = {"audit": "calibrate"}
"""What the command of a function is called where it is called otherwise."""
OTHER_NAMES = {
    "names": "target", "image": "end_to_end", "gates_file": "gates", "name": "target", "kind": "format",
    "overlay": "model_explorer", "measured": "profile",
}  # fmt: skip
"""What the command's function calls its options otherwise."""
COMMAND_ONLY = {
    "as_json", "debug", "require_valid", "junit", "plot", "delegate of pick", "compare of profile", "force of profile",
    "audit of calibrate", "fail_on of calibrate",
}  # fmt: skip
Kept = dict[str, Any]
UNTYPED: Any = edgeeff
"""For what a type checker would refuse."""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """What reaches the code behind convert, evaluate and pick, which then is not run."""
    found: Kept = {}

    class Done(Exception):
        pass

    def keep(*arguments: Any, **options: Any) -> None:
        found.update(options, arguments=arguments)
        raise Done

    monkeypatch.setattr(conversion, "convert", keep)
    monkeypatch.setattr(engine, "evaluate", keep)
    monkeypatch.setattr(picking, "run", keep)
    found["done"] = Done
    return found


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --- Names ------------------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert edgeeff.__all__ == sorted(["__version__", "errors", "results", *FUNCTIONS])
    assert dir(edgeeff) == edgeeff.__all__


def test_importing_it_imports_nothing_and_nothing_else_is_public() -> None:
    code = """
import sys
before = set(sys.modules)
import edgeeff
heavy = {"numpy", "msgspec", "rich", "click", "asyncio", "tensorflow", "edgeeff.api", "edgeeff.results"}
print(sorted(heavy & (set(sys.modules) - before)))
print(sorted(name for name in vars(edgeeff) if not name.startswith("_")))
for name in edgeeff.__all__:
    getattr(edgeeff, name)
print(sorted({"numpy", "tensorflow", "rich", "asyncio"} & set(sys.modules)))
"""
    # `version` and `typing`'s flag are what Python leaves of the imports in the file itself.
    assert in_a_new_process(code).splitlines() == ["[]", "['TYPE_CHECKING', 'version']", "[]"]


def test_a_name_that_is_not_public_is_refused() -> None:
    for name in ("scaling_factor", "Path", "api_version"):
        with pytest.raises(AttributeError, match=f"has no public name '{name}'"):
            getattr(edgeeff, name)


def test_the_functions_are_documented_and_typed() -> None:
    public = {name for name, one in vars(api).items() if inspect.isfunction(one) and one.__module__ == api.__name__}
    assert {name for name in public if not name.startswith("_")} == set(FUNCTIONS)
    for name in FUNCTIONS:
        function = getattr(edgeeff, name)
        assert function is getattr(api, name)
        assert "Raises" in (inspect.getdoc(function) or ""), name
        signature = inspect.signature(function)
        annotations = [one.annotation for one in signature.parameters.values()]
        assert inspect.Parameter.empty not in (*annotations, signature.return_annotation), name


def test_results_lists_what_it_has_and_types_are_shipped() -> None:
    assert [name for name in results.__all__ if not hasattr(results, name)] == []
    classes = {name for name, one in vars(results).items() if inspect.isclass(one)}
    assert classes <= set(results.__all__)
    assert (ROOT / "edgeeff" / "py.typed").is_file()


def test_the_page_tells_of_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert [name for name in edgeeff.__all__ if f"edgeeff.{name}" not in page] == []


# --- Arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in {"compare", "read_record"}])
def test_a_function_takes_what_its_command_takes(function: str) -> None:
    parameters = inspect.signature(getattr(edgeeff, function)).parameters
    name = COMMANDS.get(function, function)
    command = cli.main.commands[name]
    left = set(parameters) - {"progress"}
    for option in command.params:
        if {str(option.name), f"{option.name} of {name}"} & COMMAND_ONLY:
            continue
        called = OTHER_NAMES.get(str(option.name), str(option.name))
        assert called in parameters, f"edgeeff.{function} has no {called}"
        left.discard(called)
        default = parameters[called].default
        if called in {"target", "output", "threads"} or default is inspect.Parameter.empty:
            continue  # where the command says none, or writes, of its own accord
        theirs = option.get_default(click.Context(command))
        # As text: the command's own are not converted yet, and what has none says so in a way of click's.
        assert str(default) == str(theirs) or (not default and str(theirs) in {"None", "Sentinel.UNSET"}), called
    assert left == set()


def test_convert_understands_what_people_write(kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(kept["done"]):
        edgeeff.convert(
            model=str(tmp_path / "my.keras"), calibration=tmp_path, samples=64, min_agreement=98, max_latency="12ms",
            input_range=(-1, 1), logits=True, output="out.tflite",
        )  # fmt: skip
    assert kept["arguments"] == (conversion.Source(model=tmp_path / "my.keras"),)
    assert kept["goal"] == Goal(min_agreement=0.98, max_latency_s=0.012)
    assert kept["calibration"] == conversion.Calibration(tmp_path, 64)
    assert kept["interface"] == conversion.Interface(head="logits", input_range=(-1.0, 1.0))
    assert (kept["output"], kept["progress"]) == (Path("out.tflite"), None)


def test_evaluate_understands_what_people_write(kept: Kept) -> None:
    limits = {"cat": 0.9, "*": 0.8}
    with pytest.raises(kept["done"]):
        edgeeff.evaluate("a.tflite", baseline="b.keras", data="val", max_drop=1, min_class_recall=limits, workers=1)
    (plan,) = kept["arguments"]
    assert plan.gates == Gates(max_drop=0.01, min_class_recall=limits)
    assert (plan.models, plan.baseline, plan.data) == ((Path("a.tflite"),), Path("b.keras"), Path("val"))
    assert (plan.max_unreadable, kept["output"]) == (0.01, None)
    for one, expected in ((0.9, {"*": 0.9}), (("cat=90%", "0.5"), {"cat": 0.9, "*": 0.5})):
        with pytest.raises(kept["done"]):
            edgeeff.evaluate("a.tflite", baseline="b.keras", data="val", min_class_recall=one)
        assert kept["arguments"][0].gates.min_class_recall == expected


def test_gates_of_a_file_are_added_to(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text("max-drop = 2\nmin-accuracy = 0.7\n")
    with pytest.raises(kept["done"]):
        edgeeff.evaluate("a.tflite", baseline="b", data="val", gates=tmp_path / "gates.toml", min_accuracy="75%")
    assert kept["arguments"][0].gates == Gates(max_drop=0.02, min_accuracy=0.75)


@pytest.mark.parametrize("budget", ["30ms", "0.03s", 0.03])
def test_pick_understands_what_people_write(kept: Kept, budget: str | float) -> None:
    with pytest.raises(kept["done"]):
        edgeeff.pick(budget, target=["pi4", "pi5"], max_memory="200MB", max_size=8_000_000, min_top1=78)
    (request,) = kept["arguments"]
    limits = request.limits
    assert (limits.budget_s, limits.max_memory_bytes, limits.max_size_bytes) == (0.03, 200_000_000, 8_000_000)
    assert (limits.min_top1, request.names, request.output) == (78.0, ("pi4", "pi5"), Path("edgeeff-pick"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (UNTYPED.convert, "exactly one of"),
        (lambda: UNTYPED.convert(variant="b0", seed=-1), "--seed -1: take 0 or more"),
        (lambda: UNTYPED.convert(variant="b0", input_type="int16"), "unknown input type 'int16'"),
        (lambda: UNTYPED.convert(variant="b0", max_drop=101), "--max-drop 101 is out of range"),
        (lambda: UNTYPED.convert(variant="b0", input_range="1,0"), "--input-range '1,0'"),
        (lambda: UNTYPED.convert(variant="b0", effort="most"), "unknown effort 'most'"),
        (lambda: UNTYPED.convert(variant="b0", steps=3), "give --finetune"),
        (UNTYPED.profile, "no file is given"),
        (lambda: UNTYPED.profile("a.tflite", threads=0), "--threads '0'"),
        (lambda: UNTYPED.profile("a.tflite", delegate="gpu"), "unknown delegate 'gpu'"),
        (lambda: UNTYPED.profile("a.tflite", duration="10"), "--duration '10' has no unit"),
        (lambda: UNTYPED.profile("a.tflite", sustained=0), "--sustained 0"),
        (lambda: UNTYPED.profile("nowhere.tflite"), "cannot read the model nowhere.tflite"),
        (lambda: UNTYPED.evaluate(baseline="b", data="val"), "no file is given"),
        (lambda: UNTYPED.evaluate("a", baseline="b", data="val", crop="left"), "unknown crop 'left'"),
        (lambda: UNTYPED.evaluate("a", baseline="b", data="val", min_accuracy=75), "write 0.75 or 75%"),
        (lambda: UNTYPED.evaluate("a", baseline="b", data="val", max_unreadable=101), "--max-unreadable 101"),
        (lambda: UNTYPED.pick("30"), "--budget '30' has no unit"),
        (lambda: UNTYPED.pick(-1), "--budget '-1' has to be above zero"),
        (lambda: UNTYPED.pick("30ms", family="resnet"), "unknown family 'resnet'"),
        (lambda: UNTYPED.pick("30ms", percentile=95), "unknown percentile '95'"),
        (lambda: UNTYPED.predict("a.tflite", percentile=10), "unknown percentile '10'"),
        (lambda: UNTYPED.read_record("nowhere.json"), "cannot read the record nowhere.json"),
        (lambda: UNTYPED.audit("photos", model="a.keras", variant="b0"), "--model and --variant both name the network"),
        (lambda: UNTYPED.audit("photos", samples=0), "--samples 0: take 1 or more"),
        (lambda: UNTYPED.audit("nowhere"), "nowhere"),
        (lambda: UNTYPED.diagnose("a.tflite", baseline="b", samples=1), "--samples 1: take 2 or more"),
        (lambda: UNTYPED.diagnose("a.tflite", baseline="b", input_range="1"), "--input-range '1'"),
        (lambda: UNTYPED.inspect("nowhere.tflite"), "nowhere.tflite"),
        (lambda: UNTYPED.inspect("a.tflite", baseline="b"), "--baseline: give --model-explorer OUT.json, too"),
        (lambda: UNTYPED.inspect("a.tflite", model_explorer="a.txt"), "opens .json files only"),
        (UNTYPED.compile, "no file is given"),
        (lambda: UNTYPED.compile("a.tflite", segments=1), "--segments 1: take 2 or more"),
        (lambda: UNTYPED.compile("a.tflite", time_limit="600"), "--time-limit '600' has no unit"),
        (UNTYPED.report, "no record is given"),
        (lambda: UNTYPED.report("a.json", format="pdf"), "unknown format 'pdf'"),
        (lambda: UNTYPED.report(PICK, format="md", thumbnails="photos"), "are for pages"),
    ],
)
def test_what_cannot_be_is_an_input_error_that_names_it(call: Any, message: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        call()
    assert message in str(caught.value)


# --- Records ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, tiny_float_tflite: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Two scripted boards, one of which fails with a file called bad.tflite."""
    from edgeeff.devices import targets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(profiling, "FULL", Protocol("full", 2))
    Path("tiny.tflite").write_bytes(tiny_float_tflite.read_bytes())
    made = Lab.of("pi4", "pi5", answer=lambda options, number: Answer(story()))
    for target in made.targets:
        targets.add(target)
    monkeypatch.setattr(transport, "connect", made.connect)
    return made


def test_profile_returns_records_and_writes_where_it_is_told(lab: Lab, tmp_path: Path) -> None:
    (record,) = edgeeff.profile("tiny.tflite", target="pi4")
    assert isinstance(record, ProfileRecord)
    assert (record.target, record.threads) == ("pi4", 1)
    assert list(tmp_path.glob("*.json")) == []
    several = edgeeff.profile(Path("tiny.tflite"), target=["pi4", "pi5"], threads=(1, 2), output="out")
    assert [(one.target, one.threads) for one in several] == [("pi4", 1), ("pi4", 2), ("pi5", 1), ("pi5", 2)]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"tiny.{one.target}.t{one.threads}.profile.json" for one in several}
    assert edgeeff.read_record("out/tiny.pi5.t2.profile.json", ProfileRecord) == several[-1]
    change = edgeeff.compare(several[0], replace(several[0], created="later"))
    assert change.ratio == pytest.approx(1.0)


def test_a_board_that_fails_is_a_device_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Lab.of("pi4", "pi5", answer=lambda options, number: Answer([], 1, "out of memory"))
    monkeypatch.setattr(transport, "connect", broken.connect)
    with pytest.raises(errors.DeviceError, match="out of memory"):
        edgeeff.profile("tiny.tflite", target="pi4")


def test_pick_is_what_the_command_prints() -> None:
    record = edgeeff.pick("100ms", family="lite", target="recorded:raspberry-pi-4")
    assert isinstance(record, PickRecord)
    arguments = ("pick", "--budget", "100ms", "--family", "lite", "--target", "recorded:raspberry-pi-4", "--json")
    printed = json.loads(CliRunner().invoke(cli.main, arguments).stdout)
    told = to_dict(record)
    differing = {name for name in told if told[name] != printed[name]}
    assert differing <= {"created", "seconds"}
    assert record.winner == "lite3"
    assert edgeeff.pick(1e-9, family="lite", target="recorded:raspberry-pi-4").winner is None


def printed(*arguments: Any) -> dict[str, Any]:
    done = CliRunner().invoke(cli.main, [str(one) for one in (*arguments, "--json")])
    return dict(json.loads(done.stdout))


def differing(told: dict[str, Any], others: dict[str, Any]) -> set[str]:
    assert told.keys() == others.keys()
    return {name for name in told if told[name] != others[name]}


def test_inspect_is_what_the_command_prints(
    tiny_float_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LiteRT is asked in a process of its own, once is enough here.
    monkeypatch.setattr(inspection, "inspect", functools.cache(inspection.inspect))
    found, judged = edgeeff.inspect(tiny_float_tflite), edgeeff.inspect(str(tiny_float_tflite), edge_tpu=True)
    assert differing(to_dict(found), printed("inspect", tiny_float_tflite)) <= {"created"}
    assert differing(to_dict(judged), printed("inspect", tiny_float_tflite, "--edge-tpu")) <= {"created"}
    assert edgeeff.inspect(tiny_float_tflite, model_explorer=tmp_path / "shown.json") is found
    assert {path.name for path in tmp_path.glob("shown*")} == {"shown.json", "shown.weights.json", "shown.types.json"}
    (tmp_path / "found.json").write_text(results.to_json(found))
    assert edgeeff.read_record(tmp_path / "found.json", Inspection) == found


def test_audit_and_diagnose_are_what_the_commands_print(tmp_path: Path, tiny_float_tflite: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for index in range(4):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    audited = edgeeff.audit(tmp_path)
    assert isinstance(audited, AuditRecord)
    assert (audited.pixels.images, audited.model) == (4, None)
    assert differing(to_dict(audited), printed("calibrate", tmp_path)) <= {"created", "seconds"}
    same = edgeeff.diagnose(tiny_float_tflite, baseline=tiny_float_tflite, samples=4)
    assert isinstance(same, DiagnosisRecord)
    assert (same.cause, same.agreement) == (None, 1.0)
    told = printed("diagnose", tiny_float_tflite, "--baseline", tiny_float_tflite, "--samples", 4)
    assert differing(to_dict(same), told) <= {"created"}


def test_compile_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "m.tflite").write_bytes(edge_tpu_files.PLAIN)
    program = edge_tpu_files.stand_in(tmp_path, edge_tpu_files.success("m"), {"m_edgetpu.tflite": edge_tpu_files.WHOLE})
    record = edgeeff.compile(
        tmp_path / "m.tflite", output=tmp_path / "out", min_runtime=13, intermediate_tensors=["a", "b"], time_limit=60
    )
    assert isinstance(record, CompilationRecord)
    given = ["--show_operations", "--min_runtime_version", "13", "--intermediate_tensors", "a,b", "--out_dir", "out"]
    assert edge_tpu_files.given(program)[:-1] == given
    assert edgeeff.read_record(tmp_path / "out" / "m_edgetpu.json") == record
    arguments = ("compile", tmp_path / "m.tflite", "-o", tmp_path / "out", "--min-runtime", 13)
    told = printed(*arguments, "--intermediate-tensors", "a,b")
    assert differing(to_dict(record), told) <= {"created", "seconds"}


def test_a_report_of_records_and_of_files_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pick.json").write_text(results.to_json(PICK))
    said = edgeeff.report("pick.json", format="md")
    assert isinstance(said, WrittenReport)
    assert (said.report, said.format, said.results[0].verdict) == ("report.md", "md", "lite2 fits")
    other = edgeeff.report(PICK, output="mine.md")
    assert other == replace(said, report="mine.md")
    assert Path("mine.md").read_text("utf-8") == Path("report.md").read_text("utf-8")
    assert [one.source for one in reports.read([PICK, Path("pick.json")])] == ["given by a program"]
    assert edgeeff.report(Path("pick.json"), PICK, output="both.md").results == said.results


def test_records_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(results.to_json(evaluation()))
    assert edgeeff.read_record(path) == edgeeff.read_record(str(path), EvaluationRecord) == evaluation()
    with pytest.raises(errors.RecordError, match="is a record of edgeeff/evaluation; give one of edgeeff/profile"):
        edgeeff.read_record(path, ProfileRecord)
    with pytest.raises(errors.InputError, match="cannot compare edgeeff/evaluation and str"):
        UNTYPED.compare(evaluation(), "b")
    with pytest.raises(errors.InputError, match="there is nothing to compare"):
        edgeeff.compare(evaluation(), evaluation())  # they name no image


def test_a_script_without_a_guard_is_not_run_again_by_worker_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom edgeeff.evaluation import workers\nprint('runs')\n"
        "with workers.pool(1) as pool:\n    print(pool.submit(os.getpid).result() != os.getpid())\n"
        "import __main__\nprint(__main__.__file__ == __file__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["runs", "True", "True"], done.stderr
