"""Collecting on-policy pairs: from as many prompts as asked for, two responses each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from rmpipe.study import Collecting
from tasks.collect import collect

POLICY = SimpleNamespace(model=None, dtype="float32")


@pytest.mark.parametrize(("asked", "count"), [(None, 6), (4, 4), (9, 6)])
def test_prompts_bound_what_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, count: int
):
    told: dict[str, Any] = {}

    def sample(model: Any, prompts: list[str], **options: Any) -> list[Any]:
        told.update(options, prompts=prompts)
        return [SimpleNamespace(responses=[prompt, f"{prompt} more"]) for prompt in prompts]

    monkeypatch.setattr("tasks.collect.lm.load", lambda *_: None)
    monkeypatch.setattr("tasks.collect.lm.sample", sample)
    monkeypatch.setattr("tasks.collect.scorer_of", lambda truth: lambda prompts, texts: [len(text) for text in texts])
    names = [f"p{i}" for i in range(6)]
    preferences = SimpleNamespace(prompts=lambda split: (names, names))
    config = Collecting(prompts=asked, top_k=3, max_new_tokens=5)
    draft = collect.function(config, POLICY, preferences, None, 1, out=tmp_path, log=SimpleNamespace(progress=None))
    pairs = pd.read_parquet(tmp_path / "preferences.parquet")
    assert pairs["prompt"].tolist() == names[:count]
    assert draft.summary == f"{count} on-policy pairs"
    assert pairs["chosen"].tolist() == [f"{name} more" for name in names[:count]]
    assert json.loads((tmp_path / "summary.json").read_text())["pairs"] == count
    assert (told["samples"], told["top_k"], told["max_new_tokens"]) == (2, 3, 5)


def test_pairs_that_the_ground_truth_cannot_tell_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = [SimpleNamespace(responses=[text, "x"]) for text in ("?", "yes")]
    monkeypatch.setattr("tasks.collect.lm.load", lambda *_: None)
    monkeypatch.setattr("tasks.collect.lm.sample", lambda model, prompts, **_: drawn)
    told = {"?": float("nan"), "yes": 1.0, "x": 0.0}
    monkeypatch.setattr("tasks.collect.scorer_of", lambda truth: lambda prompts, texts: [told[text] for text in texts])
    preferences, log = SimpleNamespace(prompts=lambda split: (["p", "q"], ["p", "q"])), SimpleNamespace(progress=None)
    draft = collect.function(Collecting(), POLICY, preferences, None, 1, out=tmp_path, log=log)
    assert draft.summary == "1 on-policy pairs, 1 not told"
