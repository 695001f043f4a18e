"""Readers of data sets in files: texts are as they stand, or the file, the place and the remedy are named."""

from __future__ import annotations

import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from traces.data.load import load_data
from traces.errors import InputError, TraceError

ROWS = [{"text": f"caf\u00e9 {i}", "label": i % 2} for i in range(20)]
LINES = "\n".join(json.dumps(row) for row in ROWS)
TABLE = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
READABLE = {
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "lines.json": LINES.encode(),
    "list.jsonl": json.dumps(ROWS, indent=2).encode(),
    "list.json": json.dumps(ROWS).encode(),
    "columns.json": pd.DataFrame(ROWS).to_json(indent=1).encode(),
    "lists.json": json.dumps(pd.DataFrame(ROWS).to_dict("list")).encode(),
    "gaps.ndjson": LINES.replace("\n", "\r\n\r\n").encode(),
    "UPPER.CSV": TABLE.encode(),
    "mark.csv": TABLE.encode("utf-8-sig"),
    "windows.csv": TABLE.replace("\n", "\r\n").encode(),
    "blanks.csv": TABLE.replace("text,label", " text , label").encode(),
    "semicolons.csv": TABLE.replace(",", ";").encode(),
    "tabs.tsv": TABLE.replace(",", "\t").encode(),
    "quoted.csv": TABLE.replace("text,label", '"text","label; no, or\\nyes",label')
    .replace(",0", ",,0")
    .replace(",1", ",,1")
    .encode(),
    "packed.csv.gz": gzip.compress(TABLE.encode()),
    "packed.jsonl.GZ": gzip.compress(LINES.encode()),
}


def items(path: Path, **options: Any) -> dict[str, Any]:
    """Text -> label of both splits."""
    data = load_data(str(path), **options)
    found: dict[str, Any] = {}
    for split in (data.train, data.test):
        names = [data.classes[label] if data.classes else label for label in split.labels or [None] * len(split)]
        found |= dict(zip(split.texts, names, strict=True))
    return found


@pytest.mark.parametrize("name", READABLE)
def test_files_of_other_tools_have_their_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(READABLE[name])
    assert items(tmp_path / name) == {row["text"]: str(row["label"]) for row in ROWS}


def test_texts_are_as_they_stand(tmp_path: Path) -> None:
    texts = ["007", "1e5", "NA", "None", "null", "True", "2024-01-01", " x ", "1.10", 'say "hi", or not', "a\nb"]
    frame = pd.DataFrame({"text": texts, "created_at": texts})
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"created_at": t, "text": t}) for t in texts))
    frame.to_parquet(tmp_path / "a.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        assert set(items(tmp_path / f"a.{ending}")) == set(texts), ending
    assert set(items(tmp_path / "a.jsonl", text="created_at")) == set(texts)
    (tmp_path / "one.csv").write_text("text\nHello, world; once\nand\tagain, and again\n")
    assert set(items(tmp_path / "one.csv")) == {"Hello, world; once", "and\tagain, and again"}


BAD: dict[str, tuple[bytes, str]] = {
    "latin.csv": (TABLE.encode("cp1252"), "line 2, byte 4: 0xe9 is not UTF-8; save it as UTF-8"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "caf\xe9"}', "line 2, byte 14: 0xe9 is not UTF-8"),
    "late.csv": (TABLE.encode() * 3000 + b"caf\xe9,1\n", "line 63001, byte 4: 0xe9 is not UTF-8"),
    "latin.txt": (("caf\u00e9 " * 900 + "\n").encode("cp1252") * 3, "line 1, byte 4: 0xe9 is not UTF-8"),
    "utf16.csv": (TABLE.encode("utf-16"), "is UTF-16 text, not UTF-8 text; save it as UTF-8, or convert it: iconv"),
    "empty.csv": (b"", "is empty"),
    "blank.csv": (b"\n\n", "is empty"),
    "blank.jsonl": (b"\n\n", "is empty"),
    "header.csv": (b"text,label\n", "leaves an empty split"),
    "ragged.csv": (TABLE.encode() + b"a, b, c,1\n", "Expected 2 fields in line 22, saw 4; put cells that hold the sep"),
    "first.csv": (b"text,label\nHello, world,1\nand,0\n", "line 2 has more cells than line 1; put cells"),
    "quote.csv": (b'text,label\n"cut here,1\nb,0\n', "EOF inside string"),
    "tie.csv": (b"text;a,b\n1;2,3\n", "line 1 has as many ',' as ';'"),
    "twice.csv": (b"text,text,label\na,b,0\n", "line 1 names two columns 'text'"),
    "hole.csv": (TABLE.encode() + b",1\n", "column 'text' is empty in 1 rows, such as row 21"),
    "cut.jsonl": (LINES.encode() + b'\n{"text": "un', "line 21, column 10: Unterminated string"),
    "cut.json": (b'[{"text": "a"},\n {"text": ', "line 2, column 11: Expecting value"),
    "value.jsonl": (b'{"text": "a"}\n"b"\n', "line 2 is no object; give a list of objects"),
    "value.json": (b'[{"text": "a"}, 3]', "element 2 is no object"),
    "nested.json": (b'{"version": 1, "data": [{"text": "a"}]}', "element 1 is no object; give a list of objects"),
    "number.jsonl": (b'{"text": 3}\n' * 20, "column 'text' holds numbers, not text (row "),
    "list.jsonl": (b'{"text": ["a"]}\n' * 20, "column 'text' holds lists, not text"),
    "half.jsonl": (b'{"text": "\\ud83d"}\n' * 20, "holds half a character, U+D83D"),
    "mixed.jsonl": (b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n' * 9, "holds int and str; labels are"),
    "lists.jsonl": (b'{"text": "a", "label": [1]}\n' * 9, "column 'label' holds list; labels are texts or numbers"),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer in place of the file"),
    "pointer.csv": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer in place of the file"),
    "table.parquet": (TABLE.encode(), "is a CSV, not Parquet"),
    "cut.parquet": (b"PAR1 and no more", "is damaged or not Parquet"),
    "sheet.csv": (b"PK\x03\x04 and a spreadsheet", "is a ZIP archive, not UTF-8 text"),
    "sheet.xlsx": (b"PK\x03\x04 and a spreadsheet", "ends in '.xlsx', a ZIP archive; convert it to .csv, .tsv"),
    "name.json": (b'[{"a\\ud800": 1}]', "a column's name holds half a character"),
    "lines.csv": (b'"a\nb",c\n1,2\n', "no column 'text'; known: a b, c"),
    "latin.csv.gz": (gzip.compress(TABLE.encode("cp1252"))[:-8], "latin.csv.gz"),
    "cut.csv.gz": (gzip.compress(os.urandom(999).hex().encode())[:-50], "its compression is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_data_file_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    content, wanted = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError) as told:
        load_data(str(tmp_path / name))
    assert name in str(told.value)
    assert wanted in str(told.value)
    assert "\n" not in str(told.value)


def test_missing_columns_name_the_option(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("review,stars\nfine,3\npoor,1\n")
    with pytest.raises(InputError, match=r"no column 'text'; known: review, stars; name it with --text COLUMN"):
        load_data(str(path))
    with pytest.raises(InputError, match=r"no column 'star'; did you mean 'stars'; name it with --label COLUMN"):
        load_data(str(path), text="review", label="star")
    with pytest.raises(InputError, match="hold at least 1 row out"):
        load_data(str(path), text="review", test_rows=-1)


def test_targets_are_finite_numbers(tmp_path: Path) -> None:
    for value, told in (("inf", "inf is not finite, row 3"), ("3,5", "could not convert.*row 3"), ([1], "row 3")):
        rows = [{"text": str(i), "label": value if i == 2 else i / 2} for i in range(9)]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(InputError, match=f"must hold numbers .*{told}"):
            load_data(str(tmp_path / "a.jsonl"), task="regression", test_rows=1)


def test_chats_are_their_turns_contents_and_it_is_said(tmp_path: Path, caplog: Any) -> None:
    chats = [[{"role": "user", "content": f"why {i}?"}, {"role": "assistant", "content": "so"}] for i in range(20)]
    pd.DataFrame({"messages": chats}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    for ending in ("parquet", "jsonl"):
        caplog.clear()
        found = items(tmp_path / f"a.{ending}", text="messages", task="features")
        assert set(found) == {f"why {i}?\n\nso" for i in range(20)}
        (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "column 'messages' holds chats; their turns' contents are joined by blank lines" in said
    chats[7] = [{"role": "user", "content": [{"type": "image"}]}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    with pytest.raises(InputError, match="'messages' holds lists, not text"):
        load_data(str(tmp_path / "a.jsonl"), text="messages")


def test_one_kind_of_item_in_a_column(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("text\n" + "look at image.png\nand more\n" * 5)
    assert load_data(str(table)).train.kind == "text"
    table.write_text("text\n" + "".join(f"{i}.png\n" for i in range(9)) + "9.heic\n")
    with pytest.raises(InputError, match=r"begins with a file of images \('.*png'\), but row 10 is none"):
        load_data(str(table), test_rows=1)


def test_a_home_folder_and_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "50% [1] caf\u00e9.csv").write_text(TABLE)
    assert len(items(Path("~/50% [1] caf\u00e9.csv"))) == 20
