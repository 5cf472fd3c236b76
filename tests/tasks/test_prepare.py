"""Preparation: what became of the ids of a data set is told with its sizes."""

from __future__ import annotations

import json

import pytest

from rmpipe.dataset import LocalSource
from tasks.prepare import prepare


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("abcdefghi", ""),
        ("aacdefghi", ", 1 id that came again was numbered"),
        ("aaadefghi", ", 2 ids that came again were numbered"),
    ],
)
def test_ids_that_came_again_are_counted(tmp_path, out, log, ids, told):
    rows = [{"id": key, "prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n, key in enumerate(ids)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    draft = prepare.function(LocalSource(path=str(tmp_path / "pairs.jsonl")), "", 0, out=out, log=log)
    assert draft.summary == f"3 policy, 5 reward, 1 test{told}"
    assert json.loads((out / "summary.json").read_text()).get("ids numbered", 0) == len(ids) - len(set(ids))
