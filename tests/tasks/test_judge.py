"""The answer of `generalise`: curves to the end of training, intervals over what there is, as many draws as asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tasks.judge import _as_writer, judge

CORRECT = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]


def measured(correct: list[float], looks: list[dict[str, Any]], phrase: float) -> Any:
    """What `evaluate` leaves of one reward model on one set of pairs."""
    share = {"value": sum(correct) / len(correct), "low": 0.0, "high": 1.0}
    table = pd.DataFrame([
        {"set": "test", "id": str(n), "asked": f'"{n}"', "chosen": "a", "rejected": "b", "chosen_reward": 1.0,
         "rejected_reward": 0.0, "correct": value} for n, value in enumerate(correct)
    ])  # fmt: skip
    files = {"looks.json": looks, "phrases.json": {"test": {"nope": phrase}}}
    numbers = {"test.accuracy": share, "test.accuracy.g": share}
    return SimpleNamespace(numbers=lambda: numbers, table=lambda: table, json=files.__getitem__, address="evaluate/0")


def answered(folder: Path, draws: int = 100, bases: tuple[str, ...] = ("base", "base")) -> dict[str, Any]:
    """Two seeds of one reward model that was looked at halfway, and of one that was not trained."""
    looks = [{"step": 30, "test": {"accuracy": 0.5, "loss": 0.7}}]
    trials, measurements = [], []
    for seed, base in enumerate(bases):
        told = {"seed": seed, "policy": "p", "base": base, "trained": True}
        trials += [told | {"reward_model": "ex", "kind": "explicit", "made_here": True, "steps": 50},
                   told | {"reward_model": "hub", "kind": "pretrained", "made_here": False, "steps": None}]  # fmt: skip
        measurements += [measured(CORRECT, looks, 0.1 * seed), measured(CORRECT[::-1], [], 0.3)]
    about = {
        "study": "s",
        "ground_truth": None,
        "sets": {"test": "in-distribution"},
        "of_training": [],
        "places": [],
        "draws": draws,
    }
    judge.function(trials, [], about, measurements, [], [None] * len(trials), out=folder, log=None)
    return json.loads((folder / "answer.json").read_text())


def test_a_curve_ends_at_the_last_step_with_the_accuracy_of_the_end(tmp_path: Path):
    curves = answered(tmp_path)["curves"]
    assert [(curve["steps"], curve["sets"]) for curve in curves[:2]] == [([30, 50], {"test": [0.5, 0.75]}), ([], {})]


def test_groups_and_phrases_of_one_base_have_intervals_over_seeds(tmp_path: Path):
    answer = answered(tmp_path)
    phrase = next(item["reward"] for item in answer["phrases"] if item["reward_model"] == "ex")
    half = 12.706 * 0.05  # Student's of one degree of freedom, times the standard error of 0 and 0.1
    assert (phrase["value"], phrase["low"], phrase["high"]) == pytest.approx((0.05, 0.05 - half, 0.05 + half), abs=1e-3)
    assert all(item["accuracy"]["low"] is not None for item in answer["groups"])


def test_what_no_base_moves_has_an_interval_over_prompts(tmp_path: Path):
    rows = {row["reward_model"]: row for row in answered(tmp_path, bases=("one", "two"))["rows"]}
    assert (rows["ex"]["bases"], rows["hub"]["bases"]) == (2, 0)
    assert rows["hub"]["accuracy"]["low"] < 0.75 < rows["hub"]["accuracy"]["high"]


def test_as_many_resamples_are_drawn_as_the_study_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rmpipe import interval

    asked, whole = set(), interval.bootstrap
    monkeypatch.setattr(interval, "bootstrap", lambda *a, **k: (asked.add(k["draws"]), whole(*a, **k))[1])
    answered(tmp_path, draws=123)
    assert asked == {123}


def test_a_writer_that_solves_nothing_is_not_said_never_to():
    table = pd.DataFrame({"solved_after": [False] * 9, "solved_before": [True, False] * 4 + [True]})
    told = _as_writer([{"base": "a", "accuracy": {"value": 0.7, "low": 0.6, "high": 0.8}, "table": table}], 100)
    assert told["solved"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 9))}
    assert 0 < told["solved_by_base"]["low"] < 5 / 9 < told["solved_by_base"]["high"]
