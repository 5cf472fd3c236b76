"""What 2503.15477's own numbers say of telling the better teacher, recomputed from its Tables 10 to 12."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmpipe import scorecard

TABLES = Path(__file__).parents[2] / "shared" / "reference" / "published_tables_2503_15477.json"
pytestmark = pytest.mark.skipif(not TABLES.exists(), reason="needs ../shared/reference")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(TABLES.read_text())["section_4_2"]
    return told


@pytest.fixture(scope="module")
def card(published: dict[str, Any]) -> dict[str, Any]:
    """The scorecard of four public reward models, with six policies under RLOO and three under GRPO."""
    rows = []
    for name, policies in published["tables"].items():
        for policy, told in policies.items():
            for place, model in enumerate(published["reward_models"]):
                on, off, variance = told["on"][place], published["off_policy_acc"][place], told["var"][place]
                both = (on + off) / 2
                row = {"truth": "gold", "seed": 0, "policy": policy, "algorithm": "grpo" if "GRPO" in name else "rloo",
                       "reward_model": model, "trained": True, "gain": told["G"][place], "variance": variance,
                       "accuracy_on": on, "accuracy_off": off, "accuracy_mean": both,
                       "variance_and_accuracy": (variance + both) / 2}  # fmt: skip
                rows.append(row)
    return scorecard.card(pd.DataFrame(rows), draws=200)


def mean(card: dict[str, Any], score: str) -> dict[str, float]:
    """Of each predictor over the nine cells."""
    means = pd.DataFrame(card["cells"]).groupby("predictor")[score].mean().round(2)
    return {name: float(value) for name, value in means.items() if name != "random"}


def test_neither_variance_nor_accuracy_nor_their_mean_tells_the_ground_truth_gain_of_public_reward_models(card):
    assert len(card["cells"]) == 9 * 6
    assert mean(card, "pearson") == {"variance": -0.28, "accuracy_on": 0.49, "accuracy_off": 0.10,
                                     "accuracy_mean": 0.35, "variance_and_accuracy": -0.07}  # fmt: skip
    assert mean(card, "spearman") == {"variance": -0.43, "accuracy_on": 0.44, "accuracy_off": 0.14,
                                      "accuracy_mean": 0.14, "variance_and_accuracy": -0.16}  # fmt: skip


def test_trusting_the_variance_of_public_reward_models_loses_more_than_a_random_pick(card):
    lost = {row["predictor"]: row["regret_share"] for row in card["pooled"] if row["algorithm"] == "rloo"}
    assert {name: round(share["value"], 2) for name, share in lost.items()} == {
        "variance": 1.86, "accuracy_on": 0.46, "accuracy_off": 0.75, "accuracy_mean": 0.75,
        "variance_and_accuracy": 0.52, "random": 1.0,
    }  # fmt: skip
    assert any(", too few to lean on, with " in text for text in card["sentences"])


def test_every_cell_correlates_as_the_tables_were_found_to(published, card):
    known = {"reward_variance": "variance", "on_policy_acc": "accuracy_on", "off_policy_acc": "accuracy_off",
             "reward_variance_and_acc": "variance_and_accuracy"}  # fmt: skip
    found = {(row["algorithm"], row["policy"], row["predictor"]): row for row in card["cells"]}
    for where, told in published["correlations_over_four_rms_computed_here"].items():
        table, policy = where.split("|")
        for name, predictor in known.items():
            row = found["grpo" if "GRPO" in table else "rloo", policy, predictor]
            assert row["pearson"] == pytest.approx(told[name]["pearson_gt"], abs=6e-4)
            assert row["spearman"] == pytest.approx(told[name]["spearman_gt"], abs=6e-4)
