"""Demonstrations: rows of a file, of the preferred responses, or of the embedded world, drawn by the seed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from rmpipe.config import StudyError
from rmpipe.demonstration import Demonstrations

ROWS = [{"prompt": f"p{i}\u2028", "completion": f"c{i}", "more": i} for i in range(40)]
SHOWN = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS]
PAIRS = pd.DataFrame([{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": "bad"} for i in range(5)])


def written(folder: Path, form: str) -> str:
    path = folder / f"shown.{form}"
    if form == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    elif form == "json":
        path.write_text(json.dumps(ROWS))
    else:  # U+2028 ends a line for some, and is left as it is by many who write JSON
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))
    return str(path)


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_they_are_read_from_every_form_that_preferences_may_have(tmp_path: Path, form: str):
    demonstrations = Demonstrations(source="local", path=written(tmp_path, form))
    demonstrations.check()
    assert demonstrations.rows(1, PAIRS) == SHOWN


def test_a_count_is_a_seeded_draw(tmp_path: Path):
    demonstrations = Demonstrations(source="local", path=written(tmp_path, "jsonl"), count=10)
    one, again, other = (demonstrations.rows(seed, PAIRS) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == 10
    assert one != SHOWN[:10]
    assert all(row in SHOWN for row in one)


def test_the_preferred_responses_are_taken_in_their_order():
    assert Demonstrations(count=2).rows(1, PAIRS) == [
        {"prompt": "q0", "completion": "good 0"},
        {"prompt": "q1", "completion": "good 1"},
    ]
    assert len(Demonstrations().rows(1, PAIRS)) == 5


def test_messages_are_lists_again_after_parquet(tmp_path: Path):
    prompt = [{"role": "user", "content": "hello"}]
    pd.DataFrame([{"prompt": prompt, "chosen": "hi", "rejected": "no"}]).to_parquet(tmp_path / "pairs.parquet")
    (row,) = Demonstrations().rows(1, pd.read_parquet(tmp_path / "pairs.parquet"))
    assert row == {"prompt": prompt, "completion": "hi"}


def test_the_worlds_are_made_from_the_seed():
    rows = Demonstrations(source="world", quality="weak", count=3).rows(1, PAIRS)
    assert len(rows) == 3
    assert set(rows[0]) == {"prompt", "completion"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "row 2: not JSON ("),
        ('{"prompt": "p"}', "row 2: completion: missing; every row needs prompt and completion"),
        ('{"prompt": "\\n", "completion": "c"}', "row 2: prompt: empty; remove the row"),
        ('{"prompt": "p", "completion": " "}', "row 2: completion: empty; remove the row"),
        ('{"prompt": 3, "completion": "c"}', "row 2: prompt: expected text or a list of messages"),
    ],
)
def test_a_row_that_cannot_be_used_is_told(tmp_path: Path, line: str, told: str):
    file = tmp_path / "shown.jsonl"
    file.write_text('{"prompt": "p", "completion": "c"}\n' + line + "\n")
    with pytest.raises(StudyError) as caught:
        Demonstrations(source="local", path=str(file)).check()
    assert str(caught.value).startswith(f"{file}: {told}")


def test_another_data_set_may_be_shown_and_is_looked_into_beforehand(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({**row, "chosen": "c", "rejected": "r"}) for row in ROWS))
    shown = Demonstrations(data={"source": "local", "path": str(file), "policy_fraction": 0})
    shown.check()
    file.write_text('{"prompt": "p", "chosen": "c"}')
    with pytest.raises(StudyError, match="rejected"):
        shown.check()
    with pytest.raises(ValueError, match="data is for source = \"chosen\", not for 'world'"):
        Demonstrations(source="world", data={"source": "world"})


def test_labelled_inputs_are_shown_with_their_first_reference():
    table = pd.DataFrame([{"prompt": f"q{i}", "references": [f"first {i}", "second"]} for i in range(3)])
    shown = Demonstrations(source="labels", labels={"source": "world"}, count=2)
    assert shown.rows(1, table) == [{"prompt": f"q{i}", "completion": f"first {i}"} for i in range(2)]


@pytest.mark.parametrize("told", [{"source": "labels"}, {"source": "chosen", "labels": {"source": "world"}}])
def test_labels_and_their_source_go_together(told: dict[str, object]):
    with pytest.raises(ValueError, match="say both or neither"):
        Demonstrations(**told)


def test_labels_are_read_before_anything_is_spent(tmp_path: Path):
    (tmp_path / "labels.jsonl").write_text('{"prompt": "a"}\n')
    shown = Demonstrations(source="labels", labels={"source": "local", "path": str(tmp_path / "labels.jsonl")})
    with pytest.raises(StudyError, match=r"labels\.jsonl: row 1: references: missing"):
        shown.check()
