"""Reports: what they conclude, that names in them stay names, and that a page needs nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeeff.cli import main
from edgeeff.reporting import html, latencies, markdown, plots, records
from edgeeff.reporting.page import Page, Plot, Table
from edgeeff.reporting.thumbnails import Thumbnails
from edgeeff.results import EvaluationRecord, Record, to_json
from tests import pictures, reports
from tests.evaluations import UNLABELLED, changed
from tests.picks import DOUBTFUL, NOTHING, PICK
from tests.reports import HOSTILE, INT8, judged, profile
from tests.test_results import CONVERSION, EXAMPLES, PREDICTION

Golden = Callable[[str, str], None]


def page(*given: Record) -> Page:
    return records.build([records.Given(one, f"{index}.json") for index, one in enumerate(given)])


def written(folder: Path, *given: Record) -> list[str]:
    paths = [folder / f"{index}.json" for index in range(len(given))]
    for path, one in zip(paths, given, strict=True):
        path.write_text(to_json(one), encoding="utf-8")
    return [str(path) for path in paths]


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


ALL = (
    *reports.hostile(),
    *(reports.RECOVERED, reports.sustained(), profile("pi5", 12.4), profile("pi4", 250.0, emulated=True)),
    *(PREDICTION, *(EXAMPLES[name] for name in ("audit", "compilation", "diagnosis", "probe"))),
)


@pytest.fixture(scope="module")
def whole() -> str:
    """A page with all that there is to say, and with names that are markup."""
    return html.render(page(*ALL)).decode("utf-8")


# --- What is concluded ------------------------------------------------------------------------------------------------


def test_a_pull_request_reads_the_verdict_first(golden: Golden) -> None:
    golden("report.md", markdown.render(page(*reports.every_kind())))


@pytest.mark.parametrize(
    ("record", "word", "tone"),
    [
        (CONVERSION, "goal not met", "bad"),
        (reports.RECOVERED, "verified", "good"),
        (profile("pi4", 30.0), "valid", "good"),
        (reports.sustained(), "INVALID", "bad"),
        (profile("pi4", 30.0, emulated=True), "emulated", "warn"),
        (judged(), "gate failed", "bad"),
        (UNLABELLED, "no labels", ""),
        (PICK, "lite2 fits", "good"),
        (DOUBTFUL, "not certain", "warn"),
        (NOTHING, "nothing fits", "bad"),
        (PREDICTION, "predicted", ""),
    ],
)
def test_a_record_has_its_verdict(record: Record, word: str, tone: str) -> None:
    (section,) = page(record).sections()
    assert (section.mark.word, section.mark.tone) == (word, tone)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_of_record_has_a_section(name: str) -> None:
    (section, *_) = page(EXAMPLES[name]).sections()
    assert section.title
    assert section.summary
    assert section.parts or section.conclusion


def test_what_was_kept_is_called_closest_only_where_it_is() -> None:
    assert "'last blocks tuned together' was kept, which is closest" in str(page(reports.RECOVERED))
    said = str(page(changed(reports.RECOVERED, recovery__chosen="blocks tuned")))
    assert "'blocks tuned' was kept, which has the float file's best class on 87.5%" in said
    assert "'last blocks tuned together' is closer on these few" in said


def test_a_demonstration_is_taken_apart(tmp_path: Path) -> None:
    given = records.read([Path(written(tmp_path, EXAMPLES["demo"])[0])])
    assert [type(one.record).__name__ for one in given] == [
        "DemoRecord",
        *("ConversionRecord", "ConversionRecord", "ProfileRecord", "ProfileRecord"),
    ]


def test_the_same_record_counts_once(tmp_path: Path) -> None:
    paths = [Path(path) for path in written(tmp_path, PICK, PICK)]
    assert [one.source for one in records.read(paths)] == [str(paths[0])]


def test_emulated_figures_stand_apart_from_measured_ones() -> None:
    real, emulated = profile("pi4", 30.0), profile("pi4", 250.0, emulated=True)
    parts = list(latencies.overview([real, emulated]))
    assert [part.title for part in parts] == ["Measured", latencies.NOT_REAL]
    shown = [next(block for block in part.blocks if isinstance(block, Table)) for part in parts]
    assert ["30.0" in str(table) for table in shown] == [True, False]
    assert ["250" in str(table) for table in shown] == [False, True]
    models = page(real, emulated, judged()).models
    assert models is not None
    assert [column.name for column in models.columns][2:4] == ["p50, ms", "p50 EMULATED, ms"]
    assert [cell.text for cell in models.rows[0].cells][2:4] == ["30.0 (pi4)", "250 (pi4)"]


def test_several_boards_are_a_fleet_and_repetitions_are_none() -> None:
    def said(*given: Record) -> str:
        return " ".join(str(part) for chapter in page(*given).chapters for part in chapter.parts)

    assert "2 boards: p50 12.0 ms to 30.0 ms" in said(profile("pi4", 30.0), profile("pi5", 12.0))
    assert "boards" not in said(profile("pi4", 30.0), profile("pi4", 31.0))


def test_classes_that_surely_lost_come_first() -> None:
    (section,) = page(judged()).sections()
    (table,) = [
        block
        for part in section.parts
        for block in part.blocks
        if isinstance(block, Table) and block.caption.startswith("Classes")
    ]
    assert table.rows[0].cells[0].text == "owl"  # whose scores were lowered


def confusion_plots(*given: Record) -> list[Plot]:
    return [
        block
        for section in page(*given).sections()
        for part in section.parts
        if part.title == "Confusion difference"
        for block in part.blocks
        if isinstance(block, Plot)
    ]


def test_the_confusion_difference_is_drawn_and_said() -> None:
    (plot,) = confusion_plots(judged())
    assert plot.said.startswith("The largest changes: dog taken for hen +3, owl taken for bee +3, ")
    for drawn, classes in ((plot.draw("wide"), 10), (plot.draw("narrow"), 9)):
        assert drawn.count(">owl<") == 2  # down and across
        assert ">-12<" in drawn  # of 40 owls, 12 are not recognized any more
        assert len(re.findall(r">[a-z]{3}<", drawn)) == 2 * classes


def test_classes_whose_mistakes_changed_most_are_drawn() -> None:
    changes = {(0, 0): -9, (0, 1): 9, (2, 3): -4, (4, 4): 1, (4, 0): -1, (5, 4): 1}
    assert [plots.most_confused(changes, most) for most in (2, 3, 4, 6)] == [
        [0, 1],
        [0, 1, 4],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
    ]


def test_a_confusion_difference_of_single_images_is_a_table_only() -> None:
    record = judged()
    cells = {(right, said): images for right, said, images in record.baseline_confusion}
    moved = cells | {(0, 0): cells[0, 0] - 1, (0, 1): cells.get((0, 1), 0) + 1}
    once = dataclasses.replace(record, confusion=tuple((*cell, images) for cell, images in moved.items()))
    assert confusion_plots(once) == []
    assert confusion_plots(dataclasses.replace(record, confusion=record.baseline_confusion)) == []


def test_a_column_that_no_file_fills_is_left_out() -> None:
    def columns(*given: Record) -> tuple[list[str], str]:
        table = page(*given).models
        assert table is not None
        return [column.name for column in table.columns], table.note

    assert columns(profile("pi4", 30.0), reports.RECOVERED) == (["file", "MB", "p50, ms"], "")
    assert columns(reports.RECOVERED, UNLABELLED) == (["file", "MB", "same class %"], "Same class: as the baseline.")
    assert columns(profile("pi4", 30.0), judged())[0] == ["file", "MB", "p50, ms", "top-1 %", "points", "same class %"]


def test_a_float_file_has_the_accuracy_that_it_had_as_a_baseline() -> None:
    judgement = judged()
    ours = judgement.baseline_metrics
    assert ours is not None
    table = page(profile("pi4", 60.0, model=judgement.baseline), judgement).models
    assert table is not None
    assert [(row.cells[0].text, row.cells[3].text) for row in table.rows] == [
        ("b0.keras", f"{100 * ours.top1:.1f}"),
        ("b0_int8.tflite", "64.0"),
    ]


@pytest.mark.parametrize("text", ["94% of 16", "94 % of 16"])
def test_a_percent_sign_stands_at_its_number(text: str) -> None:
    assert html.held(f"top-1 %: {text}, 12 ms") == "top-1 %: 94% of 16, 12\N{NO-BREAK SPACE}ms"


def test_plots_say_the_same_in_words(whole: str) -> None:
    plots = [
        block
        for section in page(*ALL).sections()
        for part in section.parts
        for block in part.blocks
        if isinstance(block, Plot)
    ]
    assert all(plot.said for plot in plots)
    assert len(re.findall(r'<figure class="plot">', whole)) == len(plots) + 2  # one of measured, one of emulated boards


# --- The picture in the README ----------------------------------------------------------------------------------------


def test_the_picture_of_a_report_is_small_and_described() -> None:
    root = Path(__file__).parent.parent
    picture = root / pictures.PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size <= pictures.MOST_BYTES
    for text in (root / "README.md", root / "docs" / "report.md"):
        (alternative,) = re.findall(r"!\[([^\]]+)\]\((?:docs/)?images/report\.png\)", text.read_text(encoding="utf-8"))
        assert len(alternative.split()) > 8


def test_a_picture_with_a_path_or_the_name_of_a_machine_is_refused() -> None:
    shown = [profile("pi4", 30.0)]
    assert pictures.secrets("p50 30.0 ms, 8 images/s, 1/2 of pi4", shown) == []
    text = "/home/me/a.tflite and ~/b on Raspberry Pi 4 Model B, not"
    assert pictures.secrets(text, shown) == ["/home/me/a.tflite", "~/b", "Raspberry Pi 4 Model B"]


# --- Names of anybody -------------------------------------------------------------------------------------------------


def test_markup_in_names_stays_text_in_a_page(whole: str) -> None:
    elements = Elements(whole)
    assert [tag for tag, _ in elements.found if tag in {"script", "img", "b", "iframe"}] == []
    assert [name for _, attributes in elements.found for name in attributes if name.startswith("on")] == []
    text = "".join(elements.text)
    assert HOSTILE in text
    assert "{{ 7*7 }} {% raw %}" in text
    assert "$\\frac{block1a}$ <b>" in text  # in a plot, where a dollar sign would begin a formula
    assert "\\u202egpj.\\x1b[31mexe" in text
    assert not {"\u202e", "\x1b"} & set(whole)


def test_markup_in_names_stays_text_in_a_pull_request() -> None:
    text = markdown.render(page(*reports.hostile()))
    assert not re.search(r"(?<!\\)<(?!/?details|/?summary)", text)
    assert markdown.text(HOSTILE) in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("lite0_int8.tflite", "lite0_int8.tflite"),
        ("-0.4 to +0.1", "-0.4 to +0.1"),
        ("- one", "\\- one"),
        ("1. one", "1\\. one"),
        ("6.2", "6.2"),
        ("_all_ <b>", "\\_all\\_ \\<b>"),
        ("two\nlines", "two lines"),
    ],
)
def test_words_become_markdown(words: str, shown: str) -> None:
    assert markdown.text(words) == shown


# --- The page ---------------------------------------------------------------------------------------------------------


def test_a_page_needs_nothing_else(whole: str) -> None:
    elements = Elements(whole)
    loads = [
        value
        for tag, attributes in elements.found
        for name, value in attributes.items()
        if name in {"src", "srcset", "action", "data", "poster"} or (name in {"href", "xlink:href"} and tag != "a")
    ]
    assert [value for value in loads if not (value or "").startswith(("#", "data:"))] == []
    assert [tag for tag, _ in elements.found if tag in {"script", "link", "iframe", "object"}] == []
    assert not re.search(r"@import|url\((?!#)", whole)
    (policy,) = [attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert len(whole.encode()) < html.MOST_BYTES / 2


def test_every_name_in_a_page_is_given_once_and_every_link_leads_to_one(whole: str) -> None:
    elements = Elements(whole)
    names = [value for _, attributes in elements.found if (value := attributes.get("id"))]
    assert len(names) == len(set(names))
    links = {
        value[1:]
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in {"href", "xlink:href"} and value and value.startswith("#")
    }
    assert links <= set(names)
    clips = set(re.findall(r"url\(#([^)]+)\)", whole))
    assert clips <= set(names)


def test_headings_leave_no_level_out(whole: str) -> None:
    levels = [int(tag[1]) for tag, _ in Elements(whole).found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_plots_are_in_the_colours_of_the_page_and_their_text_is_text(whole: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", whole, re.DOTALL)
    assert plots
    for plot in plots:
        # Nothing is left in colours of its own, which would vanish on black or on white.
        assert set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", plot)) <= {"none", "currentColor"} | {
            f"var(--{name})" for name in ("grid", "paper", "first", "second", "third", "fourth", "bad", "quiet")
        }
        assert "<text" in plot
        assert "xmlns" not in plot


def test_the_same_records_give_the_same_page() -> None:
    assert html.render(page(PICK)) == html.render(page(PICK))


def test_a_page_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(html, "MOST_BYTES", 10_000)
    done = report(*written(tmp_path, EXAMPLES["probe"]), "-o", tmp_path / "r.html")
    assert done.exit_code == 2
    assert "give fewer records" in done.stderr
    assert not (tmp_path / "r.html").exists()


# --- Images that changed ----------------------------------------------------------------------------------------------


@pytest.fixture
def pictured(tmp_path: Path) -> EvaluationRecord:
    """The evaluation of images that are there, but for one that is gone, one that is another, and one from outside."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow; install the extra evaluate")
    record = judged()
    columns = record.images
    changed = [i for i, pair in enumerate(zip(columns.baseline, columns.model, strict=True)) if pair[0] != pair[1]]
    keys, digests = list(columns.keys), list(columns.sha256)
    for index in changed:
        path = tmp_path / "photos" / keys[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((40, 60, 3), index % 256, np.uint8)).save(path)
        digests[index] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    (tmp_path / "photos" / keys[changed[0]]).unlink()
    digests[changed[1]] = "0" * 16
    outside = tmp_path / "secret.png"
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(outside)
    keys[changed[2]], digests[changed[2]] = "../secret.png", hashlib.sha256(outside.read_bytes()).hexdigest()[:16]
    sure = tuple(1 - index / 1000 for index in range(len(keys)))  # so that the first ones are shown first
    columns = dataclasses.replace(
        columns, keys=tuple(keys), sha256=tuple(digests), baseline_confidence=sure, model_confidence=sure
    )
    data = dataclasses.replace(record.data, path=str(tmp_path / "photos"))
    return dataclasses.replace(record, data=data, images=columns)


def test_images_that_changed_are_shown_where_asked(pictured: EvaluationRecord, tmp_path: Path) -> None:
    path = written(tmp_path, pictured)[0]
    done = report(path, "-o", tmp_path / "r.html", "--thumbnails", tmp_path / "photos")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    images = [attributes for tag, attributes in Elements(text).found if tag == "img"]
    assert len(images) == Thumbnails(None).most
    assert all((one["src"] or "").startswith("data:image/jpeg;base64,") for one in images)
    assert "secret" not in text
    assert "1 are other files" in text
    assert "2 of those that were looked for cannot be read" in text
    assert Thumbnails(None).of(pictured) == Thumbnails(tmp_path / "photos").of(pictured)


def test_without_the_option_no_image_is_in_the_page(whole: str) -> None:
    assert "data:image" not in whole


def test_a_record_outside_its_folder_shows_nothing(pictured: EvaluationRecord, tmp_path: Path) -> None:
    pictures, notes = Thumbnails(tmp_path, most=1000).of(pictured)
    assert pictures == ()
    assert notes


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_page_is_written(tmp_path: Path) -> None:
    given = written(tmp_path, PICK, dataclasses.replace(CONVERSION, mixed=None, warnings=()))
    done = report(*given, "-o", tmp_path / "r.html", "--title", "Our <b>")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Of 2 results 2 are good.\n  verified: b0_int8.tflite: mixed, 6.2 MB instead of ")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>Our &lt;b&gt;</h1>" in text


def test_json_says_what_was_written(tmp_path: Path) -> None:
    done = report(*written(tmp_path, PICK), "-o", tmp_path / "r.md", "--json")
    said = json.loads(done.stdout)
    assert said["format"] == "md"
    assert said["size_bytes"] == (tmp_path / "r.md").stat().st_size
    assert said["headline"] == "Family lite on pi4: lite2 fits"
    (result,) = said["results"]
    assert (result["title"], result["verdict"], result["labels"]) == ("Family lite on pi4", "lite2 fits", [])
    assert result["summary"].startswith("lite2")


def test_markdown_goes_to_standard_output(tmp_path: Path) -> None:
    done = report(*written(tmp_path, PICK), "--format", "md", "-o", "-")
    assert done.stdout.startswith("## ")
    assert done.stdout.endswith("_\n")


def test_without_packages_a_page_is_refused_and_markdown_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else found(name))
    (path,) = written(tmp_path, PICK)
    done = report(path, "-o", tmp_path / "r.html")
    assert done.exit_code == 4
    assert "pip install 'edgeeff[report]'" in done.stderr
    assert report(path, "-o", tmp_path / "r.md").exit_code == 0


def bad(tmp_path: Path) -> Sequence[tuple[list[str], str]]:
    (path,) = written(tmp_path, PICK)
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    (tmp_path / "newer.json").write_text(json.dumps(record | {"schema_version": 99}))
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "folder.html").mkdir()
    return [
        ([], "no record is given"),
        ([str(tmp_path / "none.json")], "cannot read the record"),
        ([str(tmp_path)], "cannot read the record"),
        ([str(tmp_path / "newer.json")], "install a newer one"),
        ([str(tmp_path / "other.json")], "is no record of edgeeff"),
        ([str(tmp_path / "text.json")], "is no JSON document"),
        ([path, "-o", path], "is one of the records"),
        ([path, "-o", str(tmp_path / "new.json")], "ends like a record"),
        ([path, "-o", str(tmp_path / "folder.html")], "it is a folder"),
        ([path, "-o", str(tmp_path / "none" / "r.html")], "the folder does not exist"),
        ([path, "-o", "-", "--json"], "both want standard output"),
        ([path, "--thumbnails", str(tmp_path / "none")], "is no folder"),
        ([path, "--format", "md", "--thumbnails", str(tmp_path)], "are for pages"),
    ]


def test_what_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in bad(tmp_path):
        done = report(*arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert message in done.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "record",
    [
        dataclasses.replace(CONVERSION, float_size_bytes=0),
        changed(CONVERSION, mixed__points=()),
        changed(reports.RECOVERED, recovery__chosen="another"),
        dataclasses.replace(PICK, winner="another"),
    ],
    ids=["nothing to divide by", "nothing chosen", "another chosen", "another winner"],
)
def test_a_record_that_contradicts_itself_is_named(record: Record, tmp_path: Path) -> None:
    (path,) = written(tmp_path, record)
    done = report(path, "-o", tmp_path / "r.md")
    assert done.exit_code == 2
    assert f"{path} contradicts itself" in done.stderr


def test_a_file_of_a_report_is_the_one_of_its_records() -> None:
    table = page(reports.RECOVERED, profile("pi4", 30.0), judged()).models
    assert table is not None
    assert [row.cells[0].text for row in table.rows] == ["b0_int8.tflite"]
    assert reports.RECOVERED.model == INT8
