"""Reward models that need no training: what lies in their folders, and the function that these stand for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.artifact import Labelled, Preferences, Prompts, RewardModel, Rollouts
from rmpipe.config import StudyError
from rmpipe.reward import Kind
from tasks.derive import derive, scorer_of
from tasks.stage import Call

LABELS = pd.DataFrame(
    {
        "id": ["0", "1", "2"], "prompt": ["Where?", "When?", "Where?"], "split": ["policy", "test", "test"],
        "references": [["in the garden"], ["at noon", "at twelve o'clock"], ["out of doors"]],
    }
)  # fmt: skip
PAIRS = pd.DataFrame(
    {
        "id": ["0", "1"], "prompt": ["Where?", "When?"], "split": ["reward", "policy"],
        "chosen": [" in the garden", " at noon"], "rejected": [" no", " no"],
    }
)  # fmt: skip


def written(kind: type[Prompts], table: pd.DataFrame, home: Path) -> Prompts:
    """An artifact that holds the table."""
    made = kind("prepare/0", home)
    made.path.mkdir(parents=True)
    table.to_parquet(made.path / made.main)
    return made


def derived(
    name: str, table: dict, prompts: Prompts, components: tuple[RewardModel, ...] = (), **more: Any
) -> RewardModel:
    """As the store holds what the stage makes."""
    made = RewardModel(f"derive/{name}", prompts.home)
    made.path.mkdir(parents=True)
    config, parts = Kind.parse(table, f"reward_models.{name}"), list(components)
    derive.function(config, parts, prompts, **more, out=made.path, log=None)
    record = {"kind": "RewardModel", "inputs": {"components": [part.address for part in parts]}}
    (made.path / "record.json").write_text(json.dumps(record))
    return made


def test_a_metric_keeps_the_references_of_labelled_inputs(tmp_path):
    model = derived("metric", {"kind": "metric", "name": "rouge1"}, written(Labelled, LABELS, tmp_path))
    score = scorer_of(model)
    prompts, responses = ["Where?", "Where?", "When?", "When?"], ["out of doors", "at noon", "at twelve o'clock", ""]
    assert score(prompts, responses).tolist() == [1, 0, 1, 0]
    with pytest.raises(StudyError, match=r"no reference for the prompt 'Why\?'"):
        score(["Why?"], ["at noon"])


def test_a_metric_keeps_the_chosen_responses_of_pairs_and_what_it_is_made_into_reads_them(tmp_path):
    pairs = written(Preferences, PAIRS, tmp_path)
    metric = derived("metric", {"kind": "metric", "name": "rouge1"}, pairs)
    scaled = derived("scaled", {"kind": "scaled", "of": "metric", "factor": 0.5}, pairs, (metric,))
    assert scorer_of(scaled)(["Where?", "When?"], [" in the garden", " in the garden"]).tolist() == [0.5, 0]
    assert not (scaled.path / "references.json").exists()


def test_what_is_levelled_scores_by_what_its_pool_said(tmp_path):
    pairs = written(Preferences, PAIRS, tmp_path)
    metric = derived("metric", {"kind": "metric", "name": "rouge1"}, pairs)
    rollouts = Rollouts("sample/0", tmp_path)
    rollouts.path.mkdir(parents=True)
    pd.DataFrame({"prompt_id": ["1"], "prompt": ["When?"], "responses": [[" at noon", " no"]]}).to_parquet(
        rollouts.path / "rollouts.parquet"
    )
    scores = SimpleNamespace(inputs={"texts": rollouts}, rewards=lambda: np.array([[1.0, 0.0]]))
    table = {"kind": "levelled", "of": "metric", "policy": "weak"}
    levelled = derived("levelled", table, pairs, (metric,), scores=scores)
    spread = np.sqrt(0.5)
    assert scorer_of(levelled)(["When?", "When?"], [" at noon", " no"]) == pytest.approx([0.5 / spread, -0.5 / spread])


def test_what_is_levelled_must_know_every_prompt_that_is_trained_on(tmp_path):
    pairs = written(Preferences, PAIRS.assign(prompt=["Where?", "When?"], split="policy"), tmp_path)
    table = pd.DataFrame({"prompt": ["When?"]})
    scores = SimpleNamespace(inputs={"texts": SimpleNamespace(table=lambda: table)})
    with pytest.raises(
        StudyError, match=r"sampling\.prompts: 1 of 2 prompts are sampled, and levelled: metric, by .* knows"
    ):
        derived("levelled", {"kind": "levelled", "of": "metric", "policy": "weak"}, pairs, scores=scores)


def test_no_address_of_earlier_reward_models_has_moved():
    tables = [
        {"kind": "truth", "function": "length"}, {"kind": "pretrained", "path": "some/id", "output": 1},
        {"kind": "scaled", "of": "t", "factor": 0.1},
    ]  # fmt: skip
    parts = [[], [], [RewardModel("derive/0123456789ab", "home")]]
    told = {"preferences": Preferences("prepare/0123456789ab", "home"), "content": "c", "scores": None}
    calls = [
        Call(derive, {"config": Kind.parse(table, ""), "components": part, **told})
        for table, part in zip(tables, parts, strict=True)
    ]
    addresses = ["derive/ad359e9c7542", "derive/d67738bd4b3e", "derive/9cf9eb908ba2"]
    assert [call.address for call in calls] == addresses
