"""Which images are judged, and what class each of them has, by the name that the data set gives it.

Four kinds are read: class folders, a flat folder without labels, a CSV, and TFRecords. Nothing is decoded here, and no
image's bytes are kept: an `Example` says where they are. What a class is called in the model is left to `labels`.

TFRecords are read without TensorFlow, and by walking over the few bytes that frame an image instead of copying it, as
readers that hand out whole records do. Of a record's two checksums the one of its length is checked, which finds files
that are no TFRecords or are cut; that of its data would have every byte read once more, and a damaged image shows when
it is decoded.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from edgeeff.calibration import images
from edgeeff.errors import CalibrationError

Kind = Literal["folders", "csv", "tfrecord", "unlabelled"]

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "img")
LABEL_COLUMNS = (
    "label",
    "labels",
    "class_index",
    "class",
    "class_name",
    "category",
    "target",
    "synset",
    "wnid",
    "name",
)
"""A CSV's header in lower case; the first of these that it has counts."""
DELIMITERS = ",;\t"

IMAGE_FEATURES = ("image/encoded", "image")
LABEL_FEATURES = ("image/class/synset", "image/class/label", "label", "image/class/text")
"""Of a tf.train.Example; the first that every record has counts. Synsets come first because integers count from 0 in
some data sets and from 1 in others."""
NAME_FEATURES = ("image/filename", "file_name", "filename")
_FEATURES = frozenset(IMAGE_FEATURES + LABEL_FEATURES + NAME_FEATURES)

_SHARD = re.compile(r"(?P<set>.+)-(?P<index>\d{5,})-of-(?P<count>\d{5,})(\.tfrecords?)?|.+\.tfrecords?")
_HEADER, _FOOTER = 12, 4
_WINDOW = 4096
_LONGEST_TEXT = 4096
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Example:
    """One image: where its bytes are, and its class."""

    key: str
    """Name below the data set, with forward slashes; no two are the same."""
    path: str
    """File that holds the bytes."""
    label: int
    """Index into the names of the data set, -1 without a label."""
    offset: int = 0
    """Where in the file the bytes begin."""
    size: int | None = None
    """How many they are; None is the whole file."""

    def read(self) -> bytes:
        """Return the bytes of the image file; raises CalibrationError when they cannot be read or end too early."""
        try:
            if self.size is None:
                return images.read(Path(self.path))
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise CalibrationError(f"cannot read {self.key} from {self.path}: {error.strerror}") from error
        if len(data) < self.size:
            raise CalibrationError(
                f"cannot read {self.key}: {self.path} ends {self.size - len(data)} bytes too early; it was cut since "
                "it was opened"
            )
        return data


@dataclass(frozen=True)
class Dataset:
    """Images in the order in which they are judged."""

    kind: Kind
    """"unlabelled" is a flat folder, or TFRecords without labels."""
    path: str
    examples: tuple[Example, ...]
    names: tuple[str, ...]
    """Of the classes, as the data set has them: class folders (empty ones, too, which count where classes are told by
    their order), labels of a CSV, labels of TFRecords as text. Sorted unless the data set has an order, and empty
    without labels."""
    notes: tuple[str, ...] = ()
    """What whoever reads a result should know of the data, as sentences."""


def open_dataset(path: Path) -> Dataset:
    """List the images of a folder, a CSV, or a file or folder of TFRecords.

    Raises CalibrationError when there is nothing that can be judged, saying where (line, record) and why.
    """
    if path.is_dir():
        shards = _shards(path)
        return _tfrecords(path, shards) if shards else _folders(path)
    if not path.exists():
        # The shards of one of several sets in a folder: data/flowers-validation.tfrecord
        shards = [shard for shard in _shards(path.parent) if shard.name.startswith(f"{path.name}-")]
        if shards:
            return _tfrecords(path, shards)
        raise CalibrationError(f"there is no {path}: give a folder of images, a CSV, or TFRecords")
    if not path.is_file():
        raise CalibrationError(f"{path} is a pipe or a device: images are read several times, so give a file or folder")
    if path.suffix.lower() in {".csv", ".tsv", ".txt"}:
        return _csv(path)
    if path.suffix.lower() in images.EXTENSIONS:
        raise CalibrationError(f"{path} is one image: give a folder of images, a CSV, or TFRecords")
    return _tfrecords(path, [path])


# Folders


def _folders(path: Path) -> Dataset:
    found = images.find(path, minimum_classes=1)
    if found[0].label is None:
        return Dataset("unlabelled", str(path), tuple(Example(file.key, str(file.path), -1) for file in found), ())
    try:
        names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise CalibrationError(f"cannot list {path} ({error.strerror}): check its permissions") from error
    index = {name: position for position, name in enumerate(names)}
    examples = tuple(Example(file.key, str(file.path), index[file.label or ""]) for file in found)
    return Dataset("folders", str(path), examples, tuple(names))


# CSV


def _csv(path: Path) -> Dataset:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    rows = _rows(path, text)
    line, first = next(rows, (0, []))
    if not first:
        raise CalibrationError(f"{path} is empty: it needs a line with a file and its label for each image")
    file_column, label_column, header = _columns(path, first)
    if not header:
        rows = _chain((line, first), rows)
    labels: dict[str, tuple[str, int]] = {}
    paths: dict[str, str] = {}
    missing: list[tuple[int, str]] = []
    repeated = 0
    for line, row in rows:
        if len(row) <= max(file_column, label_column):
            raise CalibrationError(f"line {line} of {path} has {len(row)} columns: it lacks a file or its label")
        file, label = row[file_column].strip(), row[label_column].strip()
        if not file or not label:
            raise CalibrationError(f"line {line} of {path} has no {'label' if file else 'file'}: add it")
        key, place = _place(path.parent, file)
        if key in labels:
            if labels[key][0] != label:
                raise CalibrationError(
                    f"{path} gives {file} the label '{labels[key][0]}' in line {labels[key][1]} and '{label}' in line "
                    f"{line}: an image has one class here"
                )
            repeated += 1
            continue
        labels[key], paths[key] = (label, line), place
        if not Path(place).is_file():
            missing.append((line, file))
    if missing:
        shown = ", ".join(f"{file} (line {line})" for line, file in missing[:_SHOWN])
        raise CalibrationError(
            f"{len(missing)} of the {len(labels)} files that {path} names are not there: {shown}"
            f"{', ...' if len(missing) > _SHOWN else ''}. Paths in it count from {path.parent}"
        )
    if not labels:
        raise CalibrationError(f"{path} has a header but no line below it: it names no image")
    names = _sorted({label for label, _ in labels.values()})
    index = {name: position for position, name in enumerate(names)}
    examples = tuple(Example(key, paths[key], index[label]) for key, (label, _) in labels.items())
    notes = (f"{repeated} lines of the CSV name an image once more; it counts once",) if repeated else ()
    return Dataset("csv", str(path), examples, names, notes)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not empty."""
    start = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=start.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise CalibrationError(f"cannot read line {reader.line_num} of {path}: {error}") from error


def _chain(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _columns(path: Path, first: list[str]) -> tuple[int, int, bool]:
    """Return the columns of file and label, and whether the first row is a header."""
    header = [cell.strip().lower().replace(" ", "_") for cell in first]
    file = next((header.index(name) for name in FILE_COLUMNS if name in header), None)
    label = next((header.index(name) for name in LABEL_COLUMNS if name in header and header.index(name) != file), None)
    if file is not None:
        if label is None:
            raise CalibrationError(
                f"{path} has no column of labels: its header is {', '.join(first)}; call one of them 'label'"
            )
        return file, label, True
    if not first[0].strip().lower().endswith(images.EXTENSIONS):
        raise CalibrationError(
            f"the first line of {path} is neither a header (it has no column 'file') nor a file and its label: "
            f"{', '.join(first)[:80]}"
        )
    if len(first) < 2:
        raise CalibrationError(f"{path} has no column of labels: write FILE,LABEL in each line")
    return 0, 1, False


def _place(folder: Path, file: str) -> tuple[str, str]:
    """Return the key of a file named in a CSV, and its path."""
    place = os.path.normpath(folder / file)
    if "\\" in file and not Path(place).exists():  # written on Windows
        place = os.path.normpath(folder / file.replace("\\", "/"))
    base = os.path.normpath(folder)
    below = os.path.relpath(place, base)
    return Path(place if below.startswith("..") else below).as_posix(), place


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted by value where all are integers, else by text."""
    names = sorted(names)
    return tuple(sorted(names, key=int)) if all(is_integer(name) for name in names) else tuple(names)


def is_integer(name: str) -> bool:
    """Whether a class name is a number in decimal digits, which may be negative."""
    return re.fullmatch(r"-?[0-9]{1,9}", name) is not None


# TFRecords: tensorflow.org/tutorials/load_data/tfrecord describes the framing, tf.train's feature.proto the messages


@dataclass(frozen=True, slots=True)
class _Record:
    shard: Path
    number: int
    offset: int
    size: int
    labels: tuple[str | None, ...]
    """Of LABEL_FEATURES."""
    name: str | None


class _Damaged(ValueError):
    """Bytes of a record that make no sense."""


def _shards(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # whoever lists the folder for images next says why
        return []
    return [entry for entry in entries if not entry.name.startswith(".") and _SHARD.fullmatch(entry.name)]


def _tfrecords(path: Path, shards: list[Path]) -> Dataset:
    notes = _complete(path, shards) if shards != [path] else ()
    records = [record for shard in shards for record in _records(shard)]
    if not records:
        raise CalibrationError(f"{path} holds no record: there is nothing to judge")
    feature, labels = _common_labels(path, records)
    named = _class_names(shards[0].parent) if feature == "label" else ()
    if named and all(is_integer(label) and 0 <= int(label) < len(named) for label in labels):
        names = named
        index = {str(position): position for position in range(len(named))}
    else:
        names = _sorted(set(labels))
        index = {name: position for position, name in enumerate(names)}
    keys = [record.name for record in records]
    unique = None not in keys and len(set(keys)) == len(keys)
    digits = len(str(len(records) - 1))
    examples = tuple(
        Example(
            record.name if unique and record.name else f"{record.shard.name}/{record.number:0{digits}}",
            str(record.shard),
            index[labels[n]] if labels else -1,
            record.offset,
            record.size,
        )
        for n, record in enumerate(records)
    )
    return Dataset("tfrecord" if labels else "unlabelled", str(path), examples, names, notes)


def _common_labels(path: Path, records: list[_Record]) -> tuple[str | None, list[str]]:
    """Return the feature that every record has its label in, and the labels; None and nothing without labels."""
    for column, feature in enumerate(LABEL_FEATURES):
        labels = [label for record in records if (label := record.labels[column])]
        if len(labels) == len(records):
            # Test sets without labels have -1 everywhere.
            return (None, []) if set(labels) == {"-1"} else (feature, labels)
    labelled = any(records[0].labels)
    odd = next((record for record in records if any(record.labels) != labelled), None)
    if odd is not None:
        raise CalibrationError(
            f"record {odd.number} of {odd.shard} has {'no label' if labelled else 'a label, those before have none'}: "
            f"every record needs the same one of {', '.join(LABEL_FEATURES)}, or none"
        )
    if labelled:
        raise CalibrationError(f"the records of {path} have no label in common: {', '.join(LABEL_FEATURES)}")
    return None, []


def _class_names(folder: Path) -> tuple[str, ...]:
    """What tensorflow_datasets writes beside the shards: class names, one a line, which its integers count."""
    try:
        return tuple((folder / "label.labels.txt").read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read the class names {folder / 'label.labels.txt'}: {error}") from error


def _complete(path: Path, shards: list[Path]) -> tuple[str, ...]:
    """Refuse shards of several sets, and say when shards of a set are missing."""
    matches = [_SHARD.fullmatch(shard.name) for shard in shards]
    numbered = [match["set"] for match in matches if match and match["set"]]
    sets = sorted(set(numbered) if len(numbered) == len(shards) else {shard.name for shard in shards})
    training = ["train" in name.lower() for name in sets]
    if len(sets) > 1 and (numbered or len(set(training)) > 1):
        raise CalibrationError(
            f"{path} holds several sets ({', '.join(sets[:_SHOWN])}{', ...' if len(sets) > _SHOWN else ''}): "
            f"give one of them, like {path / sets[-1]}"
        )
    counts = {int(match["count"]) for match in matches if match and match["count"]}
    there, named = len(shards), max(counts, default=0)
    return (f"{there} of the {named} shards of {path} are there: the others' images are not judged",) * (there < named)


def _records(path: Path) -> Iterator[_Record]:
    """Walk over the records of a file."""
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            source = _Source(file, end)
            if end and (packed := _compression(source)):
                raise CalibrationError(
                    f"{path} is compressed with {packed}, and images in it cannot be reached one by one: decompress it"
                    f"{f' (gzip -d < {path.name} > plain.tfrecord)' if packed == 'GZIP' else ''}"
                )
            position, number = 0, 0
            while position < end:
                try:
                    start, stop = _framed(source, position)
                    record = _record(path, number, source, start, stop)
                except _Damaged as error:
                    hint = "; is it a TFRecord file at all?" if not number else ": copy the file again"
                    raise CalibrationError(
                        f"record {number} of {path}, at byte {position}, cannot be read: {error}{hint}"
                    ) from error
                yield record
                position, number = stop + _FOOTER, number + 1
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror}") from error


class _Source:
    """Bytes of a file at any place, a small window of which is kept."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.end = end
        self._file = file
        self._start, self._window = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """The bytes from `position`; fewer than `count` only at the end of the file."""
        inside = position - self._start
        if inside < 0 or inside + count > len(self._window):
            self._file.seek(position)
            self._start, self._window, inside = position, self._file.read(max(count, _WINDOW)), 0
        return self._window[inside : inside + count]


def _compression(source: _Source) -> str | None:
    start = source.at(0, 2)
    if start == b"\x1f\x8b":
        return "GZIP"
    framed = source.end >= _HEADER and _valid_length(source.at(0, _HEADER))
    return "ZLIB" if start[:1] == b"\x78" and int.from_bytes(start, "big") % 31 == 0 and not framed else None


def _framed(source: _Source, position: int) -> tuple[int, int]:
    """Return where the data of the record at a position begins and ends."""
    header = source.at(position, _HEADER)
    if len(header) < _HEADER:
        raise _Damaged(f"the file ends after {len(header)} of the {_HEADER} bytes that a record begins with")
    if not _valid_length(header):
        raise _Damaged("the checksum of its length is wrong")
    start = position + _HEADER
    stop = start + int.from_bytes(header[:8], "little")
    if stop + _FOOTER > source.end:
        raise _Damaged(
            f"it should have {stop - start} bytes, but the file ends {stop + _FOOTER - source.end} too early"
        )
    return start, stop


def _valid_length(header: bytes) -> bool:
    return int.from_bytes(header[8:], "little") == _masked_crc32c(header[:8])


def _masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of a few bytes, rotated and shifted as TFRecords have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def _record(path: Path, number: int, source: _Source, start: int, stop: int) -> _Record:
    features = _features(source, start, stop)
    image = next((features[name] for name in IMAGE_FEATURES if name in features), None)
    if not isinstance(image, tuple):
        raise CalibrationError(
            f"record {number} of {path} has no image: a tf.train.Example with encoded bytes in "
            f"{' or '.join(IMAGE_FEATURES)} is needed; it has {', '.join(sorted(features)) or 'none of the features'}"
        )
    labels = tuple(_text(source, features.get(name)) for name in LABEL_FEATURES)
    name = next((text for feature in NAME_FEATURES if (text := _text(source, features.get(feature)))), None)
    return _Record(path, number, image[0], image[1] - image[0], labels, name)


_Value = tuple[int, int] | int | None
"""Where the first bytes value begins and ends, the first integer, or nothing for an empty list."""


def _features(source: _Source, start: int, stop: int) -> dict[str, _Value]:
    """The features of a tf.train.Example that are of use here."""
    found: dict[str, _Value] = {}
    entries = (
        (begin, end)
        for _, low, high in _messages(source, start, stop, 1)
        for _, begin, end in _messages(source, low, high, 1)
    )
    for entry in entries:
        name = ""
        value: tuple[int, int] | None = None
        for field, begin, end in _messages(source, *entry):
            if field == 1 and end - begin <= _LONGEST_TEXT:
                name = source.at(begin, end - begin).decode("utf-8", "replace")
            elif field == 2:
                value = begin, end
        if name in _FEATURES and value is not None:
            found[name] = _first(source, name, *value)
    return found


def _first(source: _Source, name: str, start: int, stop: int) -> _Value:
    """The only value of a feature."""
    values: list[tuple[int, int] | int] = []
    for kind, begin, end in _messages(source, start, stop):
        for field, low, high in _fields(source, begin, end):
            if field != 1:
                continue
            if kind == 1 and high is not None:
                values.append((low, high))
            elif kind == 3 and high is None:
                values.append(low)
            elif kind == 3 and high is not None:  # packed
                position = low
                while position < high and len(values) < 2:
                    number, position = _varint(source, position, high)
                    values.append(number)
            if len(values) > 1:
                raise _Damaged(f"its feature {name} has several values, and an image has one class here")
    if not values:
        return None
    value = values[0]
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value


def _text(source: _Source, value: _Value) -> str | None:
    if value is None or isinstance(value, int):
        return None if value is None else str(value)
    start, stop = value
    if stop - start > _LONGEST_TEXT:
        raise _Damaged(f"a name in it has {stop - start} bytes")
    return source.at(start, stop - start).decode("utf-8", "replace") or None


def _messages(source: _Source, start: int, stop: int, field: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of every field that has a length; of those with the number `field` if that is given."""
    for number, begin, end in _fields(source, start, stop):
        if end is not None and field in {None, number}:
            yield number, begin, end


def _fields(source: _Source, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
    """The fields of a protobuf message: number, begin and end of those with a length, or number, value and None."""
    position = start
    while position < stop:
        tag, position = _varint(source, position, stop)
        wire = tag & 7
        if wire == 0:
            value, position = _varint(source, position, stop)
            yield tag >> 3, value, None
            continue
        if wire == 2:
            length, position = _varint(source, position, stop)
        elif wire in {1, 5}:
            length = 8 if wire == 1 else 4
        else:
            raise _Damaged(f"at byte {position} is no tf.train.Example (wire type {wire})")
        if position + length > stop:
            raise _Damaged(f"a field at byte {position} is longer than what holds it")
        if wire == 2:
            yield tag >> 3, position, position + length
        position += length


def _varint(source: _Source, position: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(source.at(position, min(10, stop - position))):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position + shift + 1
    raise _Damaged(f"a number at byte {position} does not end")
