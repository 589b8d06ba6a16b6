from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.errors import CalibrationError
from edgeeff.evaluation import dataset
from edgeeff.evaluation.dataset import Example, open_dataset


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def by_key(data: dataset.Dataset) -> dict[str, str]:
    return {example.key: data.names[example.label] for example in data.examples}


# Folders


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "dog/a.png", "cat/c.jpg", ".git/x.jpg")
    (tmp_path / "cow").mkdir()
    data = open_dataset(tmp_path)
    assert (data.kind, data.path, data.names) == ("folders", str(tmp_path), ("cat", "cow", "dog"))
    assert by_key(data) == {"cat/c.jpg": "cat", "dog/a.png": "dog", "dog/b.jpg": "dog"}
    assert [example.read() for example in data.examples] == [example.key.encode() for example in data.examples]


def test_one_class_folder_is_enough(tmp_path: Path) -> None:
    assert open_dataset(touch(tmp_path, "dog/b.jpg")).names == ("dog",)


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    data = open_dataset(touch(tmp_path, "b.jpg", "a.jpg"))
    assert (data.kind, data.names) == ("unlabelled", ())
    assert [(example.key, example.label) for example in data.examples] == [("a.jpg", -1), ("b.jpg", -1)]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "model.tflite", "empty/readme.md")
    for name, message in (
        ("missing", "there is no .*missing: give a folder of images, a CSV, or TFRecords"),
        ("missing/deeper", "there is no .*deeper"),
        ("a.jpg", r"a\.jpg is one image"),
        ("empty", "no image in"),
        ("model.tflite", r"record 0 of .*: .*is it a TFRecord file at all\?"),
    ):
        with pytest.raises(CalibrationError, match=message):
            open_dataset(tmp_path / name)


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    for example, message in (
        (Example("x/a.jpg", str(tmp_path / "gone.jpg"), 0), r"cannot read x/a\.jpg from .*gone.jpg: No such file"),
        (Example("x/a.jpg", str(tmp_path), 0), "Is a directory"),
        (Example("record 3", str(tmp_path / "a.jpg"), 0, 2, 10), r"record 3: .*a\.jpg ends 7 bytes too early"),
    ):
        with pytest.raises(CalibrationError, match=message):
            example.read()


# CSV


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    touch(folder, "cat/a.jpg", "dog/b.jpg", "dog/c, d.jpg", "b.jpg")
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "cat/a.jpg,Katze\ndog/b.jpg,dog\n",
        "file,label\ncat/a.jpg,Katze\ndog/b.jpg,dog\n",
        "\ufeffFile Name;Class\r\ncat/a.jpg;Katze\r\n\r\ndog/b.jpg;dog\r\n",
        "width\tlabel\tpath\n3\tKatze\tcat/a.jpg\n4\t dog\tdog/b.jpg",
        'image,name\n"./cat/a.jpg","Katze"\ndog/../dog/b.jpg,dog',
        "file,name,label\ncat\\a.jpg,x,Katze\ndog\\b.jpg,y,dog\n",
    ],
)
def test_a_csv(tmp_path: Path, text: str) -> None:
    data = open_dataset(table(tmp_path, text))
    assert (data.kind, data.names, data.notes) == ("csv", ("Katze", "dog"), ())
    assert by_key(data) == {"cat/a.jpg": "Katze", "dog/b.jpg": "dog"}
    assert data.examples[1].read() == b"dog/b.jpg"


def test_a_label_column_comes_before_an_index_and_that_before_a_name(tmp_path: Path) -> None:
    assert open_dataset(table(tmp_path, "file,synset,class_index,name\nb.jpg,n01440764,7,tench")).names == ("7",)
    assert open_dataset(table(tmp_path, "file,class_index,label\nb.jpg,7,tench")).names == ("tench",)


def test_integers_stay_text_and_are_sorted_by_value(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, '"dog/c, d.jpg",10\ncat/a.jpg,9\nb.jpg,100'))
    assert data.names == ("9", "10", "100")
    assert [data.names[example.label] for example in data.examples] == ["10", "9", "100"]


def test_files_outside_and_repeated_lines(tmp_path: Path) -> None:
    touch(tmp_path, "other/x.jpg")
    text = f"file,label\n../other/x.jpg,a\n{tmp_path}/data/b.jpg,a\nb.jpg,a\n"
    (tmp_path / "data").mkdir()
    data = open_dataset(table(tmp_path / "data", text))
    assert [example.key for example in data.examples] == [f"{tmp_path}/other/x.jpg", "b.jpg"]
    assert data.notes == ("1 lines of the CSV name an image once more; it counts once",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv is empty"),
        ("\n \n", "is empty"),
        ("file,label\n", "a header but no line below it"),
        ("file,width\nb.jpg,3\n", "no column of labels: its header is file, width; call one of them 'label'"),
        ("b.jpg\n", r"no column of labels: write FILE,LABEL"),
        ("cat,b.jpg\n", r"first line of .* neither a header .* nor a file and its label: cat, b\.jpg"),
        ("file,label\nb.jpg,a\nb.jpg\n", "line 3 of .* has 1 columns"),
        ("file,label\nb.jpg,a\ncat/a.jpg, \n", "line 3 of .* has no label"),
        ("file,label\n,a\n", "line 2 of .* has no file"),
        ("file,label\nb.jpg,a\n\n./b.jpg,c\n", r"\./b\.jpg the label 'a' in line 2 and 'c' in line 4"),
        ("b.jpg,a\nx.jpg,a\ny.jpg,b\n", r"2 of the 3 files .* not there: x\.jpg \(line 2\), y\.jpg \(line 3\)\. Paths"),
        ("file,label\n" + "".join(f"{n}.jpg,a\n" for n in range(9)), r"9 of the 9 .*2\.jpg \(line 4\), \.\.\.\. Paths"),
        ('b.jpg,"' + "x" * 140_000 + '"', "cannot read line 1 of .*: field larger"),
    ],
)
def test_csvs_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        open_dataset(table(tmp_path, text))


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"not UTF-8 text \(byte 6\)"):
        open_dataset(table(tmp_path, "b.jpg,äa", "latin-1"))


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_text_is_a_csv_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CalibrationError):
        open_dataset(path)  # there are no images beside it


# TFRecords

Features = dict[str, Any]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(value: Any, packed: bool = True) -> bytes:
    values = value if isinstance(value, list) else [value]
    if all(isinstance(item, int) for item in values):
        numbers = [varint(item) for item in values]
        return field(3, field(1, b"".join(numbers)) if packed else b"".join(b"\x08" + item for item in numbers))
    if all(isinstance(item, float) for item in values):
        return field(2, field(1, bytes(4 * len(values))))
    return field(1, b"".join(field(1, item.encode() if isinstance(item, str) else item) for item in values))


def example(features: Features, packed: bool = True) -> bytes:
    entries = [field(1, name.encode()) + field(2, feature(value, packed)) for name, value in features.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))


def framed(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    return length + dataset._masked_crc32c(length).to_bytes(4, "little") + data + bytes(4)


def write(path: Path, *records: Features, packed: bool = True) -> Path:
    path.write_bytes(b"".join(framed(example(record, packed)) for record in records))
    return path


def test_the_checksum_is_that_of_the_format() -> None:
    # RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
    crc = 0x8A9136AA
    assert dataset._masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    # The header of a record of 24 bytes, as tf.io.TFRecordWriter writes it.
    assert dataset._masked_crc32c((24).to_bytes(8, "little")).to_bytes(4, "little").hex() == "a37f4b22"


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.binary(max_size=9000), st.integers(0, 2**40), st.text(max_size=200)), min_size=1, max_size=6),
    st.permutations(["image/encoded", "image/class/label", "image/class/text", "image/width", "image/object/area"]),
    st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bytes, int, str]], order: list[str], packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.tfrecord"
    records = []
    for image, label, text in rows:
        content = {
            "image/encoded": image,
            "image/class/label": label,
            "image/class/text": text,
            "image/width": [3, -1],
            "image/object/area": [0.5] * 2000,
        }
        records.append({name: content[name] for name in order})
    data = open_dataset(write(path, *records, packed=packed))
    assert data.kind == "tfrecord"
    assert [item.read() for item in data.examples] == [image for image, _, _ in rows]
    assert [int(data.names[item.label]) for item in data.examples] == [label for _, label, _ in rows]
    assert len({item.key for item in data.examples}) == len(rows)


RECORD: Features = {
    "image/encoded": b"jpeg",
    "image/class/label": 3,
    "image/class/text": "tench, Tinca tinca",
    "image/class/synset": "n01440764",
    "image/filename": "val_1.JPEG",
}


def without(*names: str, **features: Any) -> Features:
    return {name: value for name, value in RECORD.items() if name not in names} | features


def test_synsets_come_before_numbers_and_these_before_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    assert open_dataset(write(path, RECORD)).names == ("n01440764",)
    assert open_dataset(write(path, without("image/class/synset"))).names == ("3",)
    assert open_dataset(write(path, RECORD, without("image/class/synset"))).names == ("3",)
    only_text = without("image/class/synset", "image/class/label")
    assert open_dataset(write(path, only_text)).names == ("tench, Tinca tinca",)


def test_file_names_are_keys_where_they_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    other = RECORD | {"image/filename": "val_2.JPEG"}
    assert [item.key for item in open_dataset(write(path, RECORD, other)).examples] == ["val_1.JPEG", "val_2.JPEG"]
    assert [item.key for item in open_dataset(write(path, RECORD, RECORD)).examples] == ["a.tfrecord/0", "a.tfrecord/1"]


def test_what_tensorflow_datasets_writes(tmp_path: Path) -> None:
    rows = [{"image": bytes([n]), "label": n, "file_name": f"{n}.jpg"} for n in (2, 0)]
    for index, row in enumerate(rows):
        write(tmp_path / f"flowers-test.tfrecord-0000{index}-of-00002", row)
    data = open_dataset(tmp_path)
    assert (by_key(data), data.notes) == ({"2.jpg": "2", "0.jpg": "0"}, ())
    (tmp_path / "label.labels.txt").write_text("tulip\ndaisy\nrose\n")
    data = open_dataset(tmp_path)
    assert (data.names, by_key(data)) == (("tulip", "daisy", "rose"), {"2.jpg": "rose", "0.jpg": "tulip"})
    (tmp_path / "label.labels.txt").write_text("tulip\ndaisy\n")
    assert open_dataset(tmp_path).names == ("0", "2")
    (tmp_path / "label.labels.txt").write_bytes(b"\xff")
    with pytest.raises(CalibrationError, match=r"class names .*label\.labels\.txt"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("label", [{}, {"label": -1}])
def test_records_without_labels(tmp_path: Path, label: Features) -> None:
    data = open_dataset(write(tmp_path / "a.tfrecord", {"image": b"x"} | label))
    assert (data.kind, data.names, [item.label for item in data.examples]) == ("unlabelled", (), [-1])


def test_shards_of_one_set_of_several_and_missing_ones(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "val-00000-of-00003", "val-00002-of-00003"):
        write(tmp_path / name, RECORD)
    with pytest.raises(CalibrationError, match=r"several sets \(train, val\): give one of them, like .*/val$"):
        open_dataset(tmp_path)
    data = open_dataset(tmp_path / "val")
    assert len(data.examples) == 2
    assert data.notes == (f"2 of the 3 shards of {tmp_path / 'val'} are there: the others' images are not judged",)


def test_plain_shards(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", RECORD)
    write(tmp_path / "b.tfrecords", RECORD)
    assert len(open_dataset(tmp_path).examples) == 2
    write(tmp_path / "train.tfrecord", RECORD)
    with pytest.raises(CalibrationError, match=r"several sets \(a\.tfrecord, b\.tfrecords, train\.tfrecord\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no record"),
        ([RECORD, without("image/encoded")], r"record 1 of .* has no image: .* it has image/class/label"),
        ([{"other": 1}], "has no image: .* it has none of the features"),
        ([RECORD | {"image/encoded": 3}], "has no image"),
        ([RECORD | {"image/class/label": [1, 2]}], "record 0 .*image/class/label has several values"),
        ([RECORD | {"image/class/synset": "x" * 5000}], "a name in it has 5000 bytes"),
        ([RECORD, {"image": b"x"}], "record 1 of .* has no label: every record needs the same one of"),
        ([{"image": b"x"}, RECORD], "record 1 of .* has a label, those before have none"),
        ([{"image": b"x", "label": 1}, {"image": b"x", "image/class/text": "a"}], "no label in common"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, records: list[Features], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        open_dataset(write(tmp_path / "a.tfrecord", *records))


def test_compressed_records(tmp_path: Path) -> None:
    data = framed(example(RECORD))
    for packed, message in ((gzip.compress(data), r"with GZIP.*gzip -d < a\.tfrecord"), (zlib.compress(data), "ZLIB")):
        (tmp_path / "a.tfrecord").write_bytes(packed)
        with pytest.raises(CalibrationError, match=message):
            open_dataset(tmp_path / "a.tfrecord")
    # A record of 0x9c78 bytes begins as ZLIB does.
    size = 0x9C78 - len(example(RECORD | {"image/encoded": bytes(20_000)})) + 20_000
    write(tmp_path / "a.tfrecord", RECORD | {"image/encoded": bytes(size)})
    assert (tmp_path / "a.tfrecord").read_bytes()[:2] == b"\x78\x9c"
    assert open_dataset(tmp_path / "a.tfrecord").examples[0].size == size


def test_cut_files_say_where(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", RECORD, RECORD)
    whole = path.read_bytes()
    half = len(whole) // 2
    for length in (*range(1, half, 13), half - 1, *range(half + 1, len(whole), 11), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CalibrationError, match=rf"record {int(length > half)} of .*a\.tfrecord, at byte"):
            open_dataset(path)
    damaged = bytearray(whole)
    damaged[half] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        CalibrationError, match=rf"record 1 .*byte {half}, .*checksum of its length.*copy the file again"
    ):
        open_dataset(path)


@given(st.data())
def test_garbage_is_an_error_of_ours_or_a_data_set(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = example(RECORD)
    position = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=12))
    path = tmp_path_factory.getbasetemp() / "noise.tfrecord"
    path.write_bytes(framed(whole[:position] + noise + whole[position + data.draw(st.integers(0, 12)) :]))
    try:
        found = open_dataset(path)
    except CalibrationError as error:
        assert re.search("record 0|holds no record", str(error))
    else:
        assert all(len(item.read()) == item.size for item in found.examples)


def test_many_records_of_which_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tfrecord", *[RECORD | {"image/encoded": bytes(100_000)}] * 50)
    read = 0
    original = dataset._Source.at

    def counting(self: dataset._Source, position: int, count: int) -> bytes:
        nonlocal read
        before = self._start
        result = original(self, position, count)
        read += len(self._window) if self._start != before else 0
        return result

    monkeypatch.setattr(dataset._Source, "at", counting)
    assert len(open_dataset(path).examples) == 50
    assert 0 < read < path.stat().st_size / 5


@pytest.mark.accuracy
def test_the_labels_of_the_imagenet_sample(shared: Path) -> None:
    data = open_dataset(shared / "data" / "imagenet-sample" / "labels.csv")
    assert data.names == tuple(str(index) for index in range(1000))
    assert {item.key for item in data.examples} == {
        item.key for item in open_dataset(shared / "data" / "imagenet-sample").examples
    }
