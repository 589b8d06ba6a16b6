"""`edgeeff compile` from end to end, through a stand-in for edgetpu_compiler that replays outputs written in
`tests.edge_tpu_files`."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeeff import cli, results
from edgeeff.converters.edgetpu import compiler
from edgeeff.converters.edgetpu.compiler import Options, compile_files
from edgeeff.converters.preflight import foresee, try_foresee
from edgeeff.errors import ModelError
from tests import edge_tpu_files as files
from tests import test_inspect, tiny
from tests.edge_tpu_files import CACHING, EXECUTION, Program

MADE = {"m_edgetpu.tflite": files.WHOLE, "m_edgetpu.log": files.operation_log("m").encode()}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with m.tflite, and no compiler in PATH."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "m.tflite").write_bytes(files.PLAIN)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return place


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.main, ["compile", *arguments], prog_name="edgeeff")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_compiled_and_everything_lies_beside_it(folder: Path, bin_folder: Path) -> None:
    program = files.stand_in(bin_folder, files.success("m"), MADE)
    done = invoke("m.tflite")
    assert done.exit_code == 0, done.output
    made = ["m.tflite", "m_edgetpu.json", "m_edgetpu.log", "m_edgetpu.tflite", "m_edgetpu_compiler.log"]
    assert names(folder) == made
    assert (folder / "m_edgetpu.tflite").read_bytes() == files.WHOLE
    assert (folder / "m_edgetpu.log").read_text() == files.operation_log("m")
    assert (folder / "m_edgetpu_compiler.log").read_text() == files.success("m")
    assert files.given(program) == ["--show_operations", "--out_dir", "out", "./m.tflite"]
    assert "5 of 7 run on the Edge TPU, 2 do not" in done.stdout
    assert "Operation is working on an unsupported data type  2 SOFTMAX" in done.stdout
    assert "1,000 B stay on the Edge TPU, 0 B are sent" in done.stdout
    assert "Estimates from published figures of other networks, not measured." in done.stdout
    assert "Next: edgeeff inspect m_edgetpu.tflite" in done.stdout


def test_the_record(folder: Path, bin_folder: Path) -> None:
    program = files.stand_in(bin_folder, files.success("m"), MADE)
    done = invoke("m.tflite", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((folder / "m_edgetpu.json").read_text())
    record = results.read_record(folder / "m_edgetpu.json")
    assert isinstance(record, results.CompilationRecord)
    assert (record.compiler, record.compiler_version) == (str(program), "16.0.384591198")
    assert record.sources == (results.ModelFile.of(Path("m.tflite")),)
    (compiled,) = record.compiled
    assert compiled.file == results.ModelFile.of(Path("m_edgetpu.tflite"))
    assert compiled.summary is not None
    assert compiled.summary.statuses[0].name == "CONV_2D"
    assert compiled.inside.cached_parameter_bytes == 1000
    assert compiled.estimate is not None
    assert compiled.estimate.streamed_parameter_bytes == (0, 0)
    usb3 = compiled.estimate.times[0]
    assert usb3.estimated_interval_s[0] < usb3.estimated_s < usb3.estimated_interval_s[1]
    assert (record.log, record.compiled_together, record.warnings) == ("m_edgetpu_compiler.log", False, ())


def test_the_operation_log_is_read_where_the_output_has_no_table(bin_folder: Path) -> None:
    files.stand_in(bin_folder, files.success("m", table=False), MADE)
    record = compile_files([Path("m.tflite")], Path())
    assert record.compiled[0].summary is not None
    assert record.compiled[0].summary.edge_tpu_operators == 5
    assert [status.name for status in record.compiled[0].summary.statuses] == ["ADD", "HARD_SWISH"]


def test_options_become_arguments(bin_folder: Path) -> None:
    program = files.stand_in(bin_folder, files.success("m"), MADE)
    numbers = ("--min-runtime", "13", "--search-step", "4", "--timeout", "600")
    flags = ("--multiple-subgraphs", "--search-delegate")
    assert invoke("m.tflite", *numbers, *flags, "--intermediate-tensors", "a,b").exit_code == 0
    assert files.given(program)[:-3] == [
        "--show_operations",
        "--enable_multiple_subgraphs",
        "--search_delegate",
        *("--min_runtime_version", "13", "--intermediate_tensors", "a,b"),
        *("--delegate_search_step", "4", "--timeout_sec", "600"),
    ]


def test_files_that_are_compiled_together(folder: Path, bin_folder: Path) -> None:
    (folder / "-n.tflite").write_bytes(files.PLAIN)
    second = files.compiled([Program(EXECUTION, 400), Program(CACHING, 200)])
    made = {"m_edgetpu.tflite": files.WHOLE, "-n_edgetpu.tflite": second}
    program = files.stand_in(bin_folder, files.success("m", "-n"), made)
    done = invoke("--output", "made", "--", "m.tflite", "-n.tflite")
    assert done.exit_code == 0, done.output
    assert files.given(program)[-2:] == ["./m.tflite", "./-n.tflite"]
    assert names(folder / "made") == [
        "-n_edgetpu.tflite",
        "m_edgetpu.json",
        "m_edgetpu.tflite",
        "m_edgetpu_compiler.log",
    ]
    assert "They were compiled together" in done.stdout
    assert "-n_edgetpu.tflite: 0.00 MB of parameters do not stay on the Edge TPU" in done.stdout
    record = results.read_record(folder / "made" / "m_edgetpu.json")
    assert isinstance(record, results.CompilationRecord)
    assert record.compiled_together
    assert [item.source for item in record.compiled] == ["m.tflite", "-n.tflite"]


def test_files_that_share_no_token_are_named(folder: Path, bin_folder: Path) -> None:
    (folder / "n.tflite").write_bytes(files.PLAIN)
    other = files.compiled([Program(CACHING, 200, 5)])
    made = {"m_edgetpu.tflite": files.WHOLE, "n_edgetpu.tflite": other}
    files.stand_in(bin_folder, files.success("m", "n"), made)
    record = compile_files([Path("m.tflite"), Path("n.tflite")], Path())
    assert not record.compiled_together
    assert record.warnings == (
        "the files do not share a caching token: running them in turn sends all parameters again each time",
    )


def test_segments_are_all_handed_over(folder: Path, bin_folder: Path) -> None:
    parts = [f"m_segment_{index}_of_2" for index in range(2)]
    made = {f"{part}_edgetpu.tflite": files.WHOLE for part in parts} | {
        f"{part}.tflite": b"not wanted" for part in parts
    }
    files.stand_in(bin_folder, "".join(map(files.success, parts)), made)
    record = compile_files([Path("m.tflite")], Path(), options=Options(segments=2))
    assert [item.file.path for item in record.compiled] == sorted(name for name in made if "edgetpu" in name)
    assert all(item.summary is not None for item in record.compiled)
    assert not (folder / "m_segment_0_of_2.tflite").exists()


def test_a_file_that_is_not_for_the_edge_tpu_at_all_is_said(bin_folder: Path) -> None:
    files.stand_in(bin_folder, files.success("m"), {"m_edgetpu.tflite": files.PLAIN})
    (warning,) = compile_files([Path("m.tflite")], Path()).warnings
    assert warning.startswith("m_edgetpu.tflite: nothing of it runs on the Edge TPU")


TABLE = """
Operator                       Count      Status

MUL                            1          Operation is working on an unsupported data type
SUB                            1          Operation is working on an unsupported data type
DIV                            1          More than one subgraph is not supported
CONV_2D                        1          Mapped to Edge TPU
MEAN                           1          More than one subgraph is not supported
FULLY_CONNECTED                2          More than one subgraph is not supported
SOFTMAX                        1          More than one subgraph is not supported
"""


def test_what_was_foreseen_is_held_against_what_the_compiler_says(folder: Path, bin_folder: Path) -> None:
    files.stand_in(bin_folder, files.success("m", table=False) + TABLE, {"m_edgetpu.tflite": files.WHOLE})
    done = invoke("m.tflite")
    assert done.exit_code == 0, done.output
    assert (
        "Foreseen    the compiler agrees on 2 operators, disagrees on 1 (foreseen: 1 CONV_2D to be not mapped); "
        "it has other numbers of FULLY_CONNECTED than the file"
    ) in done.stdout
    assert (
        "m_edgetpu.tflite: 1 CONV_2D were foreseen to be not mapped, and the compiler says 'Mapped to Edge TPU': a "
        "rule of edgeeff is wrong or missing, please report it"
    ) in done.stdout
    record = results.read_record(folder / "m_edgetpu.json")
    assert isinstance(record, results.CompilationRecord)
    (compiled,) = record.compiled
    assert compiled.foreseen == foresee(files.PLAIN)
    assert compiled.check is not None
    assert (compiled.check.agreed, compiled.check.stranded, compiled.check.uncounted) == (2, 3, ("FULLY_CONNECTED",))


def test_without_a_table_nothing_is_held_against_it(bin_folder: Path) -> None:
    files.stand_in(bin_folder, files.success("m", table=False), {"m_edgetpu.tflite": files.WHOLE})
    (compiled,) = compile_files([Path("m.tflite")], Path(), foresee=foresee).compiled
    assert compiled.foreseen is not None
    assert compiled.check is None


def test_nothing_is_foreseen_of_files_that_are_cut_into_several(bin_folder: Path) -> None:
    parts = [f"m_segment_{index}_of_2" for index in range(2)]
    made = {f"{part}_edgetpu.tflite": files.WHOLE for part in parts}
    files.stand_in(bin_folder, "".join(map(files.success, parts)), made)
    record = compile_files([Path("m.tflite")], Path(), options=Options(segments=2), foresee=foresee)
    assert [(item.foreseen, item.check) for item in record.compiled] == [(None, None)] * 2


# Failures


def test_without_a_compiler_it_is_said_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    done = invoke("m.tflite")
    assert done.exit_code == 4
    assert "edgetpu_compiler is not installed, or not in PATH; it runs on x86-64 Linux" in done.stderr
    assert "sudo apt-get install edgetpu-compiler (this machine is aarch64)" in done.stderr
    assert names(folder) == ["m.tflite"]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "is not there"), ("m.tflite", "cannot be run")])
def test_a_compiler_that_is_none(name: str, message: str) -> None:
    done = invoke("m.tflite", "--compiler", name)
    assert done.exit_code == 2
    assert f"--compiler {name} {message}" in done.stderr


def test_a_compiler_for_another_machine(tmp_path: Path) -> None:
    program = tmp_path / "strange"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    program.chmod(0o755)
    done = invoke("m.tflite", "--compiler", str(program))
    assert done.exit_code == 3
    assert "Exec format error" in done.stderr
    assert "x86-64 Linux" in done.stderr


def test_a_model_that_it_does_not_take_is_bad_input_and_the_log_is_kept(folder: Path, bin_folder: Path) -> None:
    said = (
        "Edge TPU Compiler version 16.0.384591198\nERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'. \n"
        "ERROR: Registration failed.\n\nInvalid model: ./m.tflite\nModel could not be parsed\n"
    )
    files.stand_in(bin_folder, said, status=1)
    (folder / "m_edgetpu.tflite").write_bytes(b"of yesterday")
    done = invoke("m.tflite", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        "edgetpu_compiler 16.0.384591198 cannot compile m.tflite: the compiler does not know version 3" in done.stderr
    )
    assert "edgeeff convert --edge-tpu" in done.stderr
    assert "issues/879" in done.stderr
    assert "what it printed is in m_edgetpu_compiler.log" in done.stderr
    assert (folder / "m_edgetpu_compiler.log").read_text() == said
    assert (folder / "m_edgetpu.tflite").read_bytes() == b"of yesterday"
    assert not (folder / "m_edgetpu.json").exists()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (
            files.PLAIN,
            "inspect --edge-tpu knew it of MUL (operator 0), SUB (operator 1), DIV (operator 2), ...",
        ),
        (test_inspect.custom("Atan"), "; edgeeff inspect --edge-tpu knew it of Atan (operator 0)"),
        (tiny.empty(dtype="int8").content(), "; edgeeff inspect --edge-tpu knew nothing against it"),
    ],
)
def test_a_failure_says_whether_it_could_be_known_before(
    folder: Path, bin_folder: Path, content: bytes, hint: str
) -> None:
    (folder / "m.tflite").write_bytes(content)
    files.stand_in(bin_folder, "Invalid model: ./m.tflite\nModel not quantized\n", status=1)
    with pytest.raises(ModelError, match=re.escape(hint)):
        compile_files([Path("m.tflite")], Path(), foresee=try_foresee)


@pytest.mark.parametrize(
    ("said", "made", "status", "message"),
    [
        ("Internal compiler error. Aborting! \n", {}, 1, "the compiler broke down"),
        (f"{files.BANNER}{files.ENDED}Compilation failed! \n", {}, 0, "the compiler gives no reason"),
        (
            "oh dear\n",
            {},
            7,
            "(exit status 7) for a reason that edgeeff does not know; the last that it said is 'oh dear'",
        ),
        ("", {}, 0, "the last that it said is 'nothing'"),
        (files.success("m"), {"m_edgetpu.tflite": b"TFL?"}, 0, "what edgetpu_compiler made of m.tflite cannot be used"),
    ],
)
def test_a_compiler_that_fails(
    folder: Path, bin_folder: Path, said: str, made: dict[str, bytes], status: int, message: str
) -> None:
    files.stand_in(bin_folder, said, made, status=status)
    done = invoke("m.tflite")
    assert done.exit_code == 3
    assert message in done.stderr
    assert names(folder) == ["m.tflite", "m_edgetpu_compiler.log"]


def test_one_of_two_files_that_is_not_made(folder: Path, bin_folder: Path) -> None:
    (folder / "n.tflite").write_bytes(files.PLAIN)
    files.stand_in(bin_folder, files.BANNER, {"m_edgetpu.tflite": files.WHOLE})
    done = invoke("m.tflite", "n.tflite")
    assert done.exit_code == 3
    assert "failed on n.tflite (exit status 0)" in done.stderr
    assert names(folder) == ["m.tflite", "m_edgetpu_compiler.log", "n.tflite"]


def test_a_compiler_that_does_not_end_is_ended_with_its_children(folder: Path, bin_folder: Path) -> None:
    program = files.stand_in(bin_folder, files.BANNER, sleeps_s=100, child_s=100)
    started = time.monotonic()
    done = invoke("m.tflite", "--time-limit", "4s")
    assert time.monotonic() - started < 60
    assert done.exit_code == 3
    assert "did not finish m.tflite within 4 s and was ended; give it longer with --time-limit" in done.stderr
    assert (folder / "m_edgetpu_compiler.log").read_text() == files.BANNER
    assert ended(int(program.with_suffix(".child").read_text()))


def ended(process: int) -> bool:
    """True when a process is gone, or only its name is left, within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model", "cannot compile x.tflite: it is no .tflite file"),
        (files.WHOLE, "x.tflite was compiled for the Edge TPU already; give the file that it was made of"),
        (None, "cannot compile x.tflite: there is no such file"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_it_is_tried(
    folder: Path, bin_folder: Path, content: bytes | None, message: str
) -> None:
    files.stand_in(bin_folder, "")
    if content is not None:
        (folder / "x.tflite").write_bytes(content)
    with pytest.raises(ModelError) as error:
        compile_files([Path("x.tflite")], folder)
    assert str(error.value).startswith(message)
    assert "m_edgetpu_compiler.log" not in names(folder)


def test_two_files_of_one_name(folder: Path, bin_folder: Path) -> None:
    files.stand_in(bin_folder, "")
    (folder / "other").mkdir()
    (folder / "other" / "m.tflite").write_bytes(files.PLAIN)
    done = invoke("m.tflite", "other/m.tflite")
    assert done.exit_code == 2
    assert "two of the files are named m.tflite" in done.stderr


def test_a_place_that_cannot_be_written_is_found_before_it_runs(folder: Path, bin_folder: Path) -> None:
    program = files.stand_in(bin_folder, files.success("m"), MADE)
    (folder / "file").write_text("")
    done = invoke("m.tflite", "--output", "file")
    assert done.exit_code == 2
    assert not program.with_suffix(".arguments").exists()


def test_the_named_compiler_comes_before_the_one_in_path(tmp_path: Path, bin_folder: Path) -> None:
    files.stand_in(bin_folder, "")
    named = files.stand_in(tmp_path / "mine", files.success("m"), MADE)
    assert compiler.find() == bin_folder / "edgetpu_compiler"
    assert compiler.find(named) == named
    assert compile_files([Path("m.tflite")], Path(), compiler=named).compiler == str(named)
    assert os.environ["PATH"] == str(bin_folder)
