"""AlpacaFarm, on copies of the form that its script reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmpipe.config import StudyError
from rmpipe.labels import Labels, prepare

ROWS = [{"instruction": f"Say {n}.", "input": "loudly" * (n % 2), "output": f"{n}!"} for n in range(40)]


def instructions(folder: Path, rows: list[dict[str, str]] = ROWS) -> Labels:
    (folder / "sft.json").write_text(json.dumps(rows))
    return Labels.parse({"source": "alpacafarm", "path": str(folder), "test_fraction": 0.1}, "labels")


def test_an_instruction_with_its_input_on_a_line_of_its_own_is_labelled_by_its_output(tmp_path: Path):
    table, _ = prepare(instructions(tmp_path), 1)
    told = dict(zip(table["prompt"], table["references"], strict=True))
    assert len(told) == 40
    assert told["Say 2."] == ["2!"]
    assert told["Say 3.\nloudly"] == ["3!"]
    assert table["split"].value_counts().to_dict() == {"policy": 36, "test": 4}


def test_a_file_of_another_form_is_named_with_its_row(tmp_path: Path):
    with pytest.raises(StudyError, match=r"row 1: not a row of alpacafarm .*KeyError: 'output'"):
        prepare(instructions(tmp_path, [{"instruction": "a", "input": ""}]), 1)
