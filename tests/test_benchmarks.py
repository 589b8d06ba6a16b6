"""One run of all benchmarks: what becomes of one that works, fails, lacks something or takes too long, and what of its
output gets into a page."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks.__main__ import BENCHMARKS, Benchmark

MOST_MINUTES = 60
FAKES = {
    "good": """
        import sys
        print("figures of", sys.argv[1:])
        print("row  1.0")
        print("row  2.0")
        print("last line")
        print("10 %\\r100 %", file=sys.stderr)
    """,
    "bad": "import sys; print('half a table'); sys.exit('it broke')",
    "slow": """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("child", child.pid, flush=True)
        time.sleep(60)
    """,
    "paths": "from pathlib import Path; print(Path.cwd() / 'x', Path.home() / 'y')",
}
FEW = (
    Benchmark("good", "--data $EDGEEFF_SHARED/images", packages=(), key="^row", full="--all", full_minutes=90),
    Benchmark("bad", packages=()),
    Benchmark("lacking", packages=("no_such_package",), files=("no/such/folder",)),
)


@pytest.fixture(autouse=True)
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with benchmarks of its own."""
    root = tmp_path / "project"
    folder = root / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    for name, code in FAKES.items():
        lines = code.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (folder / f"{name}.py").write_text("\n".join(line[indent:] for line in lines))
    monkeypatch.setattr(bench, "ROOT", root)
    monkeypatch.setattr(bench, "SHARED", tmp_path / "shared")
    return root


def test_one_that_fails_or_lacks_something_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([], FEW, tmp_path / "kept") == 1
    said = capsys.readouterr()
    good, bad, lacking = (line.split() for line in said.out.splitlines()[1:4])
    assert good[:2] == ["good", "ok"]
    assert good[-2:] == ["row", "2.0"]
    assert (bad[1], " ".join(bad[3:])) == ("failed", "exit code 1: it broke")
    assert lacking[1] == "skipped"
    assert " ".join(lacking[3:]) == "there is no package no_such_package, $EDGEEFF_SHARED/no/such/folder"
    assert "[2/3] python -m tests.benchmarks.bad" in said.err
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["bad.txt", "good.txt"]
    assert "half a table" in (tmp_path / "kept" / "bad.txt").read_text()


def test_what_one_prints_is_kept_with_its_command_and_what_it_took(tmp_path: Path) -> None:
    assert bench.main(["good"], FEW, tmp_path) == 0
    text = (tmp_path / "good.txt").read_text()
    for name in ("command", "date", "commit", "machine", "result", "took"):
        assert f"# {name}: " in text
    assert "# command: python -m tests.benchmarks.good --data $EDGEEFF_SHARED/images\n" in text
    assert "figures of ['--data', '$EDGEEFF_SHARED/images']" in text
    assert "min of CPU, at most" in text
    assert text.endswith("# standard error\n100 %\n")


def test_the_long_run_has_its_own_arguments(tmp_path: Path) -> None:
    assert bench.main(["good", "--full"], FEW, tmp_path) == 0
    assert "figures of ['--all']" in (tmp_path / "good.txt").read_text()


def test_one_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    outcome = bench.run(Benchmark("slow", packages=()), tmp_path, limit_s=1.0)
    assert (outcome.result, outcome.why) == ("failed", "its time was up after 1 s")
    child = next(line for line in (tmp_path / "slow.txt").read_text().splitlines() if line.startswith("child "))
    assert not Path("/proc", child.split()[1], "exe").exists()


def test_no_path_and_no_name_of_this_machine_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert bench.run(Benchmark("paths", packages=()), tmp_path).result == "ok"
    text = (tmp_path / "paths.txt").read_text()
    assert "\nx ~/y\n" in text
    assert str(tmp_path) not in text
    monkeypatch.setattr(platform, "node", lambda: "my-desk")
    assert bench.clean("made on my-desk") == "made on HOST"


def test_a_page_takes_what_was_kept_and_keeps_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "kept"
    page.write_text(
        "# Page\n\n<!-- bench: machine -->\n<!-- /bench -->\n\n"
        "<!-- bench: good -->\n\n| old |\n\n<!-- /bench -->\nWords.\n\n"
        "<!-- bench: bad -->\n```text\nwhat it said before\n```\n<!-- /bench -->\n\n"
        "<!-- bench: lacking -->\n<!-- /bench -->\n"
    )
    bench.main([], FEW, kept)
    for _ in range(2):
        assert bench.main(["--write", str(page)], FEW, kept) == 0
        text = page.read_text()
        assert "old" not in text
        assert "```text\n$ python -m tests.benchmarks.good --data $EDGEEFF_SHARED/images\nfigures of" in text
        assert "<!-- /bench -->\nWords.\n\n<!-- bench: bad -->\n```text\nwhat it said before\n```\n" in text
        assert text.endswith("<!-- bench: lacking -->\n<!-- /bench -->\n")
        assert text.count("```text") == 3
        assert f"cores, Python {sys.version_info.major}" in text
        assert "100 %" not in text
    assert "bad: failed, exit code 1" in capsys.readouterr().err
    page.write_text("# Another\n")
    assert bench.main(["--write", str(page)], FEW, kept) == 1
    assert "has no line <!-- bench: good -->" in capsys.readouterr().err


def test_the_list_says_what_there_is_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--list", "--full"], FEW, tmp_path) == 0
    said = capsys.readouterr().out
    assert "90.0 min  python -m tests.benchmarks.good --all" in said
    assert "missing: package no_such_package, $EDGEEFF_SHARED/no/such/folder" in said
    assert "about 92 minutes" in said


def test_a_name_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["worse"], FEW, tmp_path)
    assert "there is no benchmark worse" in capsys.readouterr().err


REAL = Path(bench.__file__).parent


def test_every_script_is_in_the_run_and_in_the_results() -> None:
    scripts = {path.stem for path in REAL.glob("*.py")} - {"__main__"}
    assert {one.module or one.name for one in BENCHMARKS} == scripts
    assert len({one.name for one in BENCHMARKS}) == len(BENCHMARKS)
    page = (REAL.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    for name in ("machine", *(one.name for one in BENCHMARKS)):
        assert bench.put(page, name, "")[1] == 1, name
    assert page.count(bench.END) == len(BENCHMARKS) + 1
    assert sum(one.minutes for one in BENCHMARKS) <= MOST_MINUTES


HELP = """
import argparse, contextlib, importlib, io, runpy, sys
for name in sys.argv[1:]:
    said = io.StringIO()
    sys.argv = [name, "--help"]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, (name, end.code)
    else:
        raise AssertionError(f"{name} --help did not end")
    assert f"python -m tests.benchmarks.{name}" in said.getvalue(), said.getvalue()
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


def test_every_script_has_a_help_which_needs_no_tensorflow() -> None:
    names = sorted({one.module or one.name for one in BENCHMARKS})
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", HELP, *names], cwd=REAL.parents[1], capture_output=True, text=True, check=False
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert after.children_user + after.children_system - before.children_user - before.children_system < 5


@pytest.mark.parametrize("one", BENCHMARKS, ids=lambda one: one.name)
def test_options_of_the_run_are_known_to_the_script(one: Benchmark) -> None:
    code = (REAL / f"{one.module or one.name}.py").read_text(encoding="utf-8")
    for full in (False, True):
        for option in [word for word in one.command(full).split()[3:] if word.startswith("--")]:
            assert f'"{option}"' in code, option
