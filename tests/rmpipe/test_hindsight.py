"""A forecast beside what came true: each gain at its own truth, policy, algorithm and reward model."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import hindsight
from rmpipe.forecast import LABELS, PREDICTORS

MODELS = {"a": 0.1, "b": 0.5, "c": 0.9}


def foretold(truth: str, model: str, value: float | None) -> dict[str, Any]:
    number = None if value is None else {"value": value, "low": value - 0.1, "high": value + 0.1}
    row = {"truth": truth, "policy": "weak", "algorithm": "rloo", "reward_model": model, "refused": None, "rank": "1"}
    return row | dict.fromkeys(("forecast", *PREDICTORS), number)


def came(seed: int, model: str) -> dict[str, Any]:
    row = {"seed": seed, "policy": "weak", "algorithm": "rloo", "reward_model": model, "kind": "explicit"}
    gains = {"proxy_gain": 1.0, "truth_gain": MODELS[model] + 0.01 * seed, "truth.other_gain": -MODELS[model]}
    for name in ("truth_gain", "truth.other_gain"):
        gains |= {f"{name}_low": gains[name] - 0.2, f"{name}_high": gains[name] + 0.3}
    return row | {"trained": True, "accuracy_on": 0.7, "accuracy_off": 0.9, "variance": 0.4} | gains


@pytest.fixture
def told() -> dict[str, Any]:
    rows = [foretold(truth, model, value) for truth in ("people", "other") for model, value in MODELS.items()]
    return hindsight.told({"rows": rows, "sentences": ["told"]}, [came(s, m) for s in (1, 2) for m in MODELS], "people")


def test_each_row_has_the_gain_of_its_own_truth_over_seeds(told: dict[str, Any]):
    gains = {(row["truth"], row["reward_model"]): row["gain"] for row in told["rows"]}
    assert gains["people", "b"]["value"] == pytest.approx(0.515)
    assert gains["people", "b"]["low"] < 0.51 < gains["people", "b"]["high"]
    assert gains["other", "c"]["value"] == -0.9


def test_of_one_seed_each_gain_has_its_own_interval_over_prompts():
    rows = [foretold("people", "b", 0.5), foretold("other", "b", 0.5)]
    told = hindsight.told({"rows": rows, "sentences": []}, [came(1, "b")], "people")
    first, second = (row["gain"] for row in told["rows"])
    assert first == pytest.approx({"value": 0.51, "low": 0.31, "high": 0.81})
    assert second == pytest.approx({"value": -0.5, "low": -0.7, "high": -0.2})
    bare = came(1, "b") | {"truth_gain_low": None, "truth_gain_high": None}
    assert hindsight.told({"rows": rows, "sentences": []}, [bare], "people")["rows"][0]["gain"]["low"] is None


def test_the_scorecard_is_of_every_truth(told: dict[str, Any]):
    cells = {(row["truth"], row["predictor"], row["over"]): row for row in told["scorecard"]["cells"]}
    assert cells["people", "forecast", "all"]["spearman"] == pytest.approx(1)
    assert cells["other", "forecast", "all"]["spearman"] == pytest.approx(-1)
    assert hindsight.sentences(told) == told["scorecard"]["sentences"]


def test_the_accuracy_off_policy_is_that_of_the_first_truth_alone():
    on = {"accuracy_on": {"value": 0.7, "low": 0.6, "high": 0.8}}
    rows = [foretold("people", "a", 0.1) | on, foretold("other", "a", 0.1) | on]
    first, second = hindsight.cells(rows, [came(1, "a")], "people")
    assert (first["accuracy_mean"], first["variance_and_accuracy"]) == pytest.approx((0.8, 0.6))
    assert second["accuracy_on"] == 0.7
    assert second["accuracy_mean"] != second["accuracy_mean"]  # NaN: they are measured against another's labels


def test_labels_of_ones_own_are_compared_by_the_ground_truth_of_the_study_and_that_is_said():
    rows = [foretold(LABELS, model, value) for model, value in MODELS.items()]
    told = hindsight.told({"rows": rows, "sentences": ["told"]}, [came(s, m) for s in (1, 2) for m in MODELS], "people")
    assert told["rows"][1]["gain"]["value"] == pytest.approx(0.515)
    assert {(row["predictor"], row["over"]): row for row in told["scorecard"]["cells"]}["forecast", "all"]["spearman"]
    assert hindsight.sentences(told)[0] == hindsight.JUDGED.format(truth="people")
    (cell,) = hindsight.cells(rows[:1], [came(1, "a")], "people")
    assert cell["accuracy_off"] == 0.9  # by the labels of the truth that the gain is of


def test_labels_of_ones_own_without_a_ground_truth_are_said_to_be_compared_with_nothing():
    gains = {"truth_gain": None, "truth.other_gain": None}
    rows = [came(seed, model) | gains for seed in (1, 2) for model in MODELS]
    told = hindsight.told({"rows": [foretold(LABELS, "a", 0.1)], "sentences": ["told"]}, rows, None)
    assert told["scorecard"] is None
    assert hindsight.sentences(told) == ["told", hindsight.UNJUDGED]


def test_where_nothing_came_true_the_forecast_speaks_for_itself():
    told = hindsight.told({"rows": [foretold("people", "a", 0.1)], "sentences": ["told"]}, [], "people")
    assert told["rows"][0]["gain"] is None
    assert told["scorecard"] is None
    assert hindsight.sentences(told) == ["told"]
