"""Labelling by the ground truth: what is counted, and a split that would be left empty."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from rmpipe.config import StudyError
from tasks.relabel import relabel


def given(folder: Path, monkeypatch: pytest.MonkeyPatch, test: tuple[str, str], ties: str = "drop") -> dict:
    """The summary of three pairs labelled by their length, one a split."""
    rows = [("reward", "aa", "b"), ("policy", "a", "bb"), ("test", *test)]
    table = pd.DataFrame([{"prompt": "p", "split": split, "chosen": a, "rejected": b} for split, a, b in rows])
    monkeypatch.setattr("tasks.relabel.scorer_of", lambda truth: lambda prompts, texts: [len(text) for text in texts])
    preferences = SimpleNamespace(table=lambda: table, json=lambda name: {"read": 3})
    relabel.function(preferences, None, ties, out=folder, log=None)
    return json.loads((folder / "summary.json").read_text())


def test_what_is_left_of_each_split_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = {"reward": 1, "policy": 1, "test": 1}
    told = {"read": 3, "relabel": {"swapped": 1, "ties": 0, "kept": kept}}
    assert given(tmp_path, monkeypatch, ("aa", "b")) == told


def test_a_split_of_ties_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StudyError, match=r'^ties: .* every pair of the test split one score; set ties = "keep"$'):
        given(tmp_path, monkeypatch, ("aa", "bb"))
    assert given(tmp_path, monkeypatch, ("aa", "bb"), "keep")["relabel"]["ties"] == 1
