"""Rows of texts from files: JSONL, JSON, parquet, and folders that `datasets` saved. Every source reads through here.

What is wrong is said with file and row, and with the remedy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError, first_line, nearest

Row = dict[str, Any]

TOLD = 5
"""Rows that are told one by one when they cannot be used; the rest are counted."""


def read(path: Path) -> list[Row]:
    """The rows of a file or folder.

    Raises:
        StudyError: it is not there, or not of the form that its name promises; names the row where there is one.
    """
    if not path.exists():
        raise StudyError(f"{path}: nothing there; paths are read from the study file's folder")
    form = _folder if path.is_dir() else {".parquet": _parquet, ".json": _json}.get(path.suffix, _lines)
    try:
        return form(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}); give a file that can") from error


def checked(raw: list[Row], name: str, look: Callable[[Row], Row]) -> list[Row]:
    """What `look` makes of each row, with the row's number in `row`.

    Args:
        raw: the rows as they were read.
        name: what to call their origin.
        look: takes a row apart, or raises StudyError with the field, what is wrong with it and the remedy.

    Raises:
        StudyError: there are no rows, or some cannot be used; names the first of them.
    """
    if not raw:
        raise StudyError(f"{name}: no rows; give one with a row at least")
    rows, faults = [], []
    for number, row in enumerate(raw, 1):
        try:
            rows.append({**look(row), "row": number})
        except StudyError as fault:
            faults.append(f"{name}: row {number}: {fault}")
    if len(faults) > TOLD:
        told = f"{name}: {len(faults)} rows of {len(raw)} cannot be used; the first are above"
        raise StudyError("\n".join([*faults[:TOLD], told]))
    if faults:
        raise StudyError("\n".join(faults))
    return rows


def renamed(
    rows: list[Row], columns: dict[str, str], needed: tuple[str, ...], kept: tuple[str, ...], name: str
) -> list[Row]:
    """Rows with our names for their columns, and only those that we know.

    Args:
        columns: ours to theirs.
        needed: ours that must be there.
        kept: ours that are kept where the data has them.
        name: what to call their origin.

    Raises:
        StudyError: a column is missing; names the nearest.
    """
    found = dict.fromkeys(key for row in rows for key in row)
    for ours, theirs in columns.items():
        if ours not in (*kept, *needed):
            raise StudyError(f"dataset.columns.{ours}: no column of ours; {nearest(ours, [*kept, *needed])}")
        if rows and theirs not in found:
            told = f"column {theirs!r}, named in dataset.columns.{ours}, is not there"
            raise StudyError(f"{name}: {told}; {nearest(theirs, list(found))}")
    wanted = {ours: columns.get(ours, ours) for ours in (*kept, *needed)}
    for ours in needed:
        if rows and wanted[ours] not in found:
            told = f"column {wanted[ours]!r} is missing; {nearest(wanted[ours], list(found))}"
            raise StudyError(f"{name}: {told}; dataset.columns can name it")
    return [{ours: row[theirs] for ours, theirs in wanted.items() if theirs in row} for row in rows]


def once_each(rows: list[Row]) -> list[Row]:
    """Rows of one id told apart: `id`, `id.2`, `id.3`, in the order of the data; `numbered` marks them."""
    taken, seen = {row["id"] for row in rows}, Counter[str]()
    for row in rows:
        key = row["id"]
        seen[key] += 1
        if seen[key] > 1:
            while (told := f"{key}.{seen[key]}") in taken:  # another row's own: `a`, `a`, `a.2`
                seen[key] += 1
            taken.add(told)
            row |= {"id": told, "numbered": True}
    return rows


def check_form(rows: list[Row], name: str) -> None:
    """A column of a table holds one form: prompts are all strings, or all messages.

    Raises:
        StudyError: there are both; names a row of each.
    """
    first: dict[bool, Row] = {}
    for row in rows:
        first.setdefault(isinstance(row["prompt"], str), row)
    if len(first) == 2:
        told = f"row {first[True]['row']} has text and row {first[False]['row']} messages"
        raise StudyError(f"{name}: prompt: {told}; use one form for all rows")


# -- forms ------------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> list[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
        if isinstance(saved, DatasetDict):  # the name of each part stands for a split column
            return [{"split": str(name), **row} for name, part in saved.items() for row in part.to_list()]
        return saved.to_list()
    except Exception as error:
        told = f"not a folder that datasets.save_to_disk wrote whole ({first_line(error)})"
        raise StudyError(f'{path}: {told}; write it again, or use source = "hub" for other forms') from error


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except Exception as error:  # pyarrow's own, and what its codecs raise
        raise StudyError(f"{path}: not a whole parquet file ({first_line(error)}); write it again") from error


def _json(path: Path) -> list[Row]:
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: not JSON ({error}); use .jsonl for one row a line") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"{path}: expected a list of rows; use .jsonl for one row a line")
    return rows


def _lines(path: Path) -> list[Row]:
    lines = _text(path).split("\n")  # not splitlines: texts may hold U+2028 and other ends of lines as they are
    return [_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: row {number}: not JSON ({error}); one object a line is expected") from None
    if not isinstance(row, dict):
        raise StudyError(f"{path}: row {number}: expected an object, got {line[:40]}; one object a line is expected")
    return row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
