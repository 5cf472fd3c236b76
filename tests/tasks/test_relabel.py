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


def test_pairs_that_the_ground_truth_cannot_tell_are_counted_and_a_split_of_them_alone_is_told(tmp_path, monkeypatch):
    def length(prompts: list[str], texts: list[str]) -> list[float]:
        return [float("nan") if text == "?" else len(text) for text in texts]

    rows = [("reward", "aa", "b"), ("reward", "?", "b"), ("policy", "a", "bb"), ("test", "aa", "b")]
    table = pd.DataFrame([{"prompt": "p", "split": split, "chosen": a, "rejected": b} for split, a, b in rows])
    monkeypatch.setattr("tasks.relabel.scorer_of", lambda truth: length)
    preferences = SimpleNamespace(table=lambda: table, json=lambda name: {})
    draft = relabel.function(preferences, None, out=tmp_path, log=None)
    assert draft.summary == "3 pairs, 1 swapped, 1 not told"
    assert json.loads((tmp_path / "summary.json").read_text())["relabel"]["untold"] == 1
    table.loc[3, "chosen"] = "?"
    with pytest.raises(StudyError, match="cannot tell, or gives, every pair of the test split one score"):
        relabel.function(preferences, None, out=tmp_path, log=None)


def test_a_split_of_ties_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StudyError, match=r'^ties: .* every pair of the test split one score; set ties = "keep"$'):
        given(tmp_path, monkeypatch, ("aa", "bb"))
    assert given(tmp_path, monkeypatch, ("aa", "bb"), "keep")["relabel"]["ties"] == 1
