"""A table of images and labels: what it gives, and a line with its number for each mistake."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fmaml.data.images.label_table import read_table
from fmaml.data.sources.image_folder import folder
from fmaml.errors import Error

CLASSES = ["cat", "dog", "élan", "sea, blue", "owl", "fox"]


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """Six classes of three images each, without splits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [["file", "label"]]
    for number, name in enumerate(CLASSES):
        for i in range(3):
            file = tmp_path / "set" / "photos" / f"{number}-{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(file)
            rows.append([f"photos/{number}-{i}.png", name])
    return write(tmp_path / "set" / "labels.csv", rows)


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def rows_of(table: Path) -> list[list[str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def load(table: Path, **more):
    settings: dict[str, Any] = {"size": 8, "ways": 1, "shots": 1, "queries": 1} | more
    return folder(seed=0, device=torch.device("cpu"), root=str(table), **settings)


def with_splits(table: Path, *words: str) -> Path:
    rows = rows_of(table)
    return write(
        table, [[*rows[0], "split"], *([*row, words[(i // 3) % len(words)]] for i, row in enumerate(rows[1:]))]
    )


def test_classes_are_the_labels_and_files_are_relative_to_the_table(table, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # not its folder
    found = read_table(table, "auto")
    assert list(found.classes) == sorted(CLASSES)
    assert found.classes["cat"] == [str(table.parent / f"photos/0-{i}.png") for i in range(3)]
    assert (found.splits, found.lines) == (None, [])
    source = load(Path("set/labels.csv"))
    assert sum(source.about["classes"].values()) == 6
    assert "random split labels.csv-" in source.about["protocol"]


def test_the_images_are_those_of_the_labels(table):
    source = load(with_splits(table, "train", "val", "test"))
    reds = {
        part: source.sample(part, 0, range(20)).query.x[:, :, 0].mul(255).round().unique().tolist()
        for part in ("train", "val", "test")
    }
    assert reds == {"train": [0, 120], "val": [40, 160], "test": [80, 200]}
    assert "the column split" in source.about["protocol"]


def test_a_split_that_lacks_is_made(table):
    source = load(with_splits(table, "Train", "test"))
    assert source.about["classes"] == {"train": 2, "val": 1, "test": 3}
    assert "the column split; val of the classes of train, random split labels.csv-" in source.about["protocol"]


def test_layout_classes_takes_no_notice_of_the_splits_and_splits_needs_them(table):
    assert read_table(with_splits(table, "train", "test"), "classes").splits is None
    write(table, [row[:2] for row in rows_of(table)])
    with pytest.raises(Error, match=r"data\.layout = splits: .*labels\.csv has no column split; add one"):
        load(table, layout="splits")


def test_classes_in_both_splits_name_a_cure_that_works(table):
    mixed = [[*row, "train" if i % 2 else "test"] for i, row in enumerate(rows_of(table)[1:])]
    write(table, [["file", "label", "split"], *mixed])
    with pytest.raises(Error, match=r"more than one split.*Give data\.layout=classes to split classes"):
        load(table)
    assert sum(load(table, layout="classes").about["classes"].values()) == 6


@pytest.mark.parametrize(
    "header",
    [
        ["file", "label"],
        ["label", "file"],
        ["Filename", "Label"],
        ["id", "class_name", "image_name"],
        [" file", "label "],
    ],
)
def test_columns_are_found_by_name(table, header):
    known = {"file": 0, "filename": 0, "image_name": 0, "label": 1, "class_name": 1}
    places = [known.get(name.strip().lower()) for name in header]
    write(table, [header, *([row[i] if i is not None else "7" for i in places] for row in rows_of(table)[1:])])
    assert list(read_table(table, "auto").classes) == sorted(CLASSES)


def test_what_spreadsheets_write_is_read(table):
    """A byte order mark, Windows' line ends, empty lines."""
    text = table.read_text(encoding="utf-8").replace("\n", "\r\n\r\n")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode() + b",\r\n")
    assert list(read_table(table, "auto").classes) == sorted(CLASSES)


def test_absolute_paths_and_paths_above_the_table(table):
    rows = rows_of(table)
    rows[1][0] = str(table.parent / rows[1][0])
    rows[2][0] = f"../{table.parent.name}/{rows[2][0]}"
    assert read_table(write(table, rows), "auto").classes["cat"] == [
        str(table.parent / f"photos/0-{i}.png") for i in range(3)
    ]


def test_heic_is_named_and_left_out(table):
    (table.parent / "IMG_1.HEIC").write_bytes(b"x")
    write(table, [*rows_of(table), ["IMG_1.HEIC", "cat"]])
    found = read_table(table, "auto")
    assert len(found.classes["cat"]) == 3
    assert found.lines[0].startswith("skipped 1 HEIC file, such as IMG_1.HEIC: ")


PUBLISHED = {  # how data sets and programs write such tables: separator, header, encoding
    "GTSRB": (";", ["Filename", "ClassId"], "utf-8"),
    "Kaggle": (",", ["image_id", "label"], "utf-8"),
    "images and classes": (",", ["image", "class"], "utf-8"),
    "Meta-Album": (",", ["FILE_NAME", "CATEGORY"], "utf-8"),
    "torchvision": (",", ["path", "target"], "utf-8"),
    "Excel": ("\t", ["file", "label"], "utf-16"),
    "no header": (", ", None, "utf-8"),
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_tables_are_read_as_they_are_published(table, form):
    separator, header, encoding = PUBLISHED[form]
    rows = [[file, label.replace(", ", " ")] for file, label in rows_of(table)[1:]]
    lines = [separator.join(row) for row in ([header] if header else []) + rows]
    table.write_text("\n".join(lines), encoding=encoding)
    found = read_table(table, "auto")
    assert {name: len(files) for name, files in found.classes.items()} == dict.fromkeys(
        sorted(name.replace(", ", " ") for name in CLASSES), 3
    )
    named = header or ["file", "label"]
    line = f"files in the column {named[0]}, labels in {named[1]}"
    assert any(line in said for said in found.lines) == (named != ["file", "label"])


def test_columns_of_other_names_are_given(table):
    rows = rows_of(table)
    write(table, [["picture", "animal"], *rows[1:]])
    with pytest.raises(Error, match=r"name the column by data\.label_column="):
        load(table)
    found = load(table, file_column="picture", label_column="animal")
    assert sum(found.about["classes"].values()) == 6
    with pytest.raises(Error, match=r"data\.label_column = animals: .*did you mean animal"):
        load(table, label_column="animals")


def test_paths_without_suffix_with_backslashes_or_of_another_computer(table):
    rows = rows_of(table)
    rows[1][0] = rows[1][0].removesuffix(".png")
    rows[2][0] = rows[2][0].replace("/", "\\")
    rows[3][0] = "C:\\Users\\me\\" + rows[3][0].replace("/", "\\")
    assert read_table(write(table, rows), "auto").classes["cat"] == [
        str(table.parent / f"photos/0-{i}.png") for i in range(3)
    ]


def test_another_file_of_the_same_name_is_not_taken_for_a_missing_one(table):
    (table.parent / "0-0.png").write_bytes((table.parent / "photos/1-0.png").read_bytes())
    (table.parent / "photos/0-0.png").unlink()
    found = read_table(table, "auto")
    assert found.classes["cat"] == [str(table.parent / f"photos/0-{i}.png") for i in (1, 2)]
    assert "'photos/0-0.png': not there" in found.lines[0]


def test_wrong_rows_are_left_out_and_counted(table):
    rows = rows_of(table)
    write(table, [*rows, ["gone.png", "cat"], [rows[1][0], "dog"], ["", "cat"]])
    found = read_table(table, "auto")
    assert sum(map(len, found.classes.values())) == 18
    assert found.lines == [
        f"left out 3 rows: {table}, line 20, column file: 'gone.png': not there; paths are relative to the table's "
        f"folder: put the file there, or remove the line"
    ]
    with pytest.raises(Error, match=r"line 2, column file: 'gone\.png': not there"):
        read_table(write(table, [rows[0], ["gone.png", "cat"]]), "auto")  # none is left


def edit(change):
    return lambda table: write(table, change(rows_of(table)))


FAULTS = {
    "a missing file": (
        edit(lambda rows: [*rows[:3], ["gone.jpg", "cat"]]),
        r"line 4, column file: 'gone\.jpg': not there; paths are relative",
    ),
    "a folder": (edit(lambda rows: [*rows, ["photos", "cat"]]), r"line 20, column file: 'photos': not a file; paths"),
    "a row twice": (
        edit(lambda rows: [*rows, rows[2]]),
        r"line 20, column file: 'photos/0-1\.png': again, after line 3 with label cat; .*remove one",
    ),
    "two labels": (
        edit(lambda rows: [*rows, [rows[2][0], "dog"]]),
        r"line 20, column file: 'photos/0-1\.png': again, after line 3 with label cat; ",
    ),
    "the same file by another path": (
        edit(lambda rows: [*rows, [f"./{rows[2][0]}", "cat"]]),
        r"line 20, column file: '\./photos/0-1\.png': again, after line 3",
    ),
    "no label": (
        edit(lambda rows: [rows[0], [rows[1][0], " "], *rows[2:]]),
        r"line 2, column label: empty: fill it in, or remove the line",
    ),
    "no file": (edit(lambda rows: [rows[0], ["", "cat"]]), r"line 2, column file: empty: fill it in"),
    "a wrong header": (
        edit(lambda rows: [["picture", "name"], *rows[1:]]),
        r"line 1: picture,name; name the column by data\.label_column=\.\.\.",
    ),
    "a comma without quotes": (
        lambda table: table.write_text("file,label\na.png,sea, blue\n"),
        r"line 2: 3 cells, but the header has 2; correct the line \(a cell with a comma needs quotes",
    ),
    "an open quotation mark": (
        lambda table: table.write_text('file,label\na.png,cat\n"b.png,cat\n'),
        r"line \d: unexpected end of data; save it as CSV",
    ),
    "another split": (
        lambda table: with_splits(table, "train", "holdout"),
        r"line 5, column split: 'holdout': it must be train, val or test",
    ),
    "Latin-1": (
        lambda table: table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1")),
        r"line 8: not UTF-8; save it as CSV with commas, in UTF-8",
    ),
    "an empty file": (lambda table: table.write_bytes(b""), r"line 1: fewer than two columns; save it as CSV"),
    "a header alone": (edit(lambda rows: rows[:1]), r"no row after the header"),
    "NUL": (lambda table: table.write_bytes(b"file,label\na\0b.png,cat\n"), r"line 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_one_line_with_the_place_and_the_cure(table, fault):
    break_it, message = FAULTS[fault]
    break_it(table)
    with pytest.raises(Error, match=rf"labels\.csv[,:] {message}") as error:
        load(table, strict=True)
    assert "\n" not in str(error.value)


def test_neither_a_folder_nor_a_table(tmp_path):
    with pytest.raises(
        Error, match=r"data\.root = .*none\.csv: no such folder or file; name a folder .* or a CSV file"
    ):
        load(tmp_path / "none.csv")
