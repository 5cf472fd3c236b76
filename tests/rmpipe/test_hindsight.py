"""A forecast beside what came true: each gain at its own truth, policy, algorithm and reward model."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import hindsight
from rmpipe.forecast import PREDICTORS

MODELS = {"a": 0.1, "b": 0.5, "c": 0.9}


def foretold(truth: str, model: str, value: float | None) -> dict[str, Any]:
    number = None if value is None else {"value": value, "low": value - 0.1, "high": value + 0.1}
    row = {"truth": truth, "policy": "weak", "algorithm": "rloo", "reward_model": model, "refused": None, "rank": "1"}
    return row | dict.fromkeys(("forecast", *PREDICTORS), number)


def came(seed: int, model: str) -> dict[str, Any]:
    row = {"seed": seed, "policy": "weak", "algorithm": "rloo", "reward_model": model, "kind": "explicit"}
    gains = {"proxy_gain": 1.0, "truth_gain": MODELS[model] + 0.01 * seed, "truth.other_gain": -MODELS[model]}
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


def test_where_nothing_came_true_the_forecast_speaks_for_itself():
    told = hindsight.told({"rows": [foretold("people", "a", 0.1)], "sentences": ["told"]}, [], "people")
    assert told["rows"][0]["gain"] is None
    assert told["scorecard"] is None
    assert hindsight.sentences(told) == ["told"]
