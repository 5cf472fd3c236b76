"""Labelling: the inputs of a source as an artifact, with their sizes."""

from __future__ import annotations

import json

from rmpipe.labels import LocalLabels, WorldLabels
from tasks.label import label


def test_inputs_are_kept_by_split_with_their_references(tmp_path, out, log):
    draft = label.function(WorldLabels(inputs=40), "", 1, out=out, log=log)
    assert draft.summary == "34 policy, 6 test"
    assert draft.metrics == {"inputs.policy": 34.0, "inputs.test": 6.0}
    assert json.loads((out / "summary.json").read_text())["kept"] == {"policy": 34, "test": 6}
    table = draft.split("policy")
    assert set(table.columns) == {"id", "prompt", "references", "group", "split"}
    keys, prompts = draft.prompts("test")
    assert len(set(keys)) == len(set(prompts)) == 6
    assert list(draft.preview()["response"]) == [texts[0] for texts in draft.table()["references"]]


def test_several_references_are_told_of(tmp_path, out, log):
    rows = [{"prompt": f"p{n}", "references": ["a", "b", "c"][: 1 + n % 3]} for n in range(9)]
    (tmp_path / "inputs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    draft = label.function(LocalLabels(path=str(tmp_path / "inputs.jsonl")), "", 1, out=out, log=log)
    assert draft.summary == "8 policy, 1 test, 2.0 references each, at most 3"
