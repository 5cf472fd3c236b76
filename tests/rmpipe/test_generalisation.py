"""Comparisons over bases: the base is the unit, prompts where there is one, and claims are judged by their interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.generalisation import EVERY, contests, difference, judged, over_runs, rows
from rmpipe.interval import Estimate, t_interval

GAPS = {"a": [0.30, 0.10], "b": [0.20, 0.20], "c": [0.10, 0.30]}
"""Base -> how much the explicit one is ahead in each of two seeds."""


def trials(gaps: dict[str, list[float]], sets: dict[str, str] = {"para": "token"}, policy: str = "p") -> pd.DataFrame:  # noqa: B006
    found: list[dict[str, Any]] = []
    for place, (base, values) in enumerate(gaps.items()):
        for seed, gap in enumerate(values):
            for name, accuracy in (("ex", 0.6 + gap), ("im", 0.6)):
                for one, shift in sets.items():
                    row = {"trial": len(found), "policy": policy, "base": base, "seed": 10 * place + seed, "set": one}
                    row |= {"reward_model": name, "kind": name, "trained": True, "shift": shift}
                    row |= {"made_here": True}
                    row |= {"of_training": False, "accuracy": accuracy}
                    row |= {"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1}
                    for other in ("margin", "loss", "chosen", "rejected", "cues", "carried"):
                        row |= {other: None, f"{other}_low": None, f"{other}_high": None}
                    found.append(row)
    return pd.DataFrame(found)


def pairs_of(table: pd.DataFrame, correct: dict[str, list[float]]) -> pd.DataFrame:
    """Each trial's pairs, by reward model."""
    return pd.DataFrame(
        [
            {"trial": row.trial, "set": row.set, "id": str(place), "asked": str(place), "correct": value}
            for row in table.itertuples()
            for place, value in enumerate(correct[row.reward_model])
        ]
    )


NONE = pd.DataFrame(columns=["trial", "set", "id", "asked", "correct"])


def test_runs_that_share_a_base_are_one_unit():
    told = difference(trials(GAPS), NONE, "ex", "im")
    assert (told["bases"], told["runs"], told["wins"]) == (3, 6, 1.0)
    means = t_interval([np.mean(values) for values in GAPS.values()])
    assert told["difference"].value == pytest.approx(means.value)
    assert (told["difference"].low, told["difference"].high) == pytest.approx((means.low, means.high))


def test_drawing_bases_keeps_the_runs_of_a_base_together():
    told = difference(trials({"a": [0.3, 0.3], "b": [-0.1, -0.1]}), NONE, "ex", "im")
    assert (told["by_base"]["low"], told["by_base"]["high"]) == pytest.approx((-0.1, 0.3))


def test_with_one_base_prompts_are_drawn():
    table = trials({"a": [0.5]})
    pairs = pairs_of(table, {"ex": [1, 1, 1, 1, 0.5, 1], "im": [0, 1, 0, 0, 0.5, 1]})
    told = difference(table, pairs, "ex", "im")
    assert told["by_base"] is None
    assert told["difference"].value == pytest.approx(0.5)
    assert 0 <= told["difference"].low < 0.5 < told["difference"].high <= 1


def test_a_tied_run_is_half_won_and_what_one_side_has_not_is_left_out():
    table = trials({"a": [0.0, 0.2], "b": [-0.1, 0.1]})
    table = table[~((table["reward_model"] == "im") & (table["seed"] == 11))]
    told = difference(table, NONE, "ex", "im")
    assert (told["runs"], told["wins"]) == (3, pytest.approx((0.5 + 1 + 0) / 3))


@pytest.mark.parametrize(
    ("gaps", "outcome"),
    [
        ({"a": [0.2], "b": [0.22], "c": [0.18]}, "Held"),
        ({"a": [-0.2], "b": [-0.22], "c": [-0.18]}, "Reversed"),
        ({"a": [0.2], "b": [-0.2], "c": [0.1]}, "Not settled, the interval includes 0"),
    ],
)
def test_a_claim_of_more_is_judged_by_its_interval(gaps, outcome):
    claim = {"name": "n", "claim": "c", "shift": "token", "higher": "ex", "lower": "im", "within": 0.05}
    (found,) = judged([claim], trials(gaps), NONE)
    assert found["outcome"] == outcome
    assert found["sentence"].startswith(f"{outcome}: accuracy of ex less that of im on para is ")


@pytest.mark.parametrize(
    ("gaps", "outcome"),
    [
        ({"a": [0.010], "b": [-0.010], "c": [0.0]}, "Held"),
        ({"a": [0.2], "b": [0.21], "c": [0.19]}, "Reversed"),
        ({"a": [0.04], "b": [0.0], "c": [-0.04]}, "Not settled, the interval leaves ±0.05"),
    ],
)
def test_a_claim_of_likeness_holds_only_where_the_whole_interval_is_within(gaps, outcome):
    claim = {"name": "n", "claim": "c", "set": "para", "alike": ["ex", "im"], "within": 0.05}
    (found,) = judged([claim], trials(gaps), NONE)
    assert found["outcome"] == outcome


def test_the_leader_is_told_apart_only_by_the_difference_s_interval():
    close = {row["reward_model"]: row for row in rows(trials({"a": [0.3], "b": [-0.1], "c": [0.1]}), NONE)}
    assert close["ex"]["rank"] == close["im"]["rank"] == "1="
    assert close["ex"]["not_told_from"] == ["im"]
    clear = {row["reward_model"]: row for row in rows(trials(GAPS), NONE)}
    assert (clear["ex"]["rank"], clear["im"]["rank"], clear["ex"]["not_told_from"]) == ("1", "2", [])


def test_several_policies_are_told_apart_and_together():
    table = pd.concat([trials(GAPS, policy="p"), trials({"d": [0.4]}, policy="q")], ignore_index=True)
    table["trial"] = range(len(table))
    found = contests(table, pairs_of(table, {"ex": [1, 1, 0], "im": [1, 0, 0]}))
    by_policy = {item["policy"]: item for item in found}
    assert set(by_policy) == {EVERY, "p", "q"}
    assert by_policy[EVERY]["bases"] == 4
    assert by_policy[EVERY]["difference"]["value"] == pytest.approx(0.25)


def test_the_accuracy_of_one_base_has_an_interval_over_prompts_whatever_its_seeds():
    table = trials({"a": [0.1, 0.1]})
    found = rows(table, pairs_of(table, {"ex": [1, 1, 1, 0], "im": [1, 0, 0, 0]}))
    best = found[0]["accuracy"]
    assert best["value"] == pytest.approx(0.75)
    assert 0 <= best["low"] < 0.75 < best["high"] <= 1


def test_an_accuracy_of_all_right_over_prompts_is_not_said_to_be_certain():
    table = trials({"a": [0.4, 0.4]})
    found = rows(table, pairs_of(table, {"ex": [1] * 4, "im": [1, 0, 0, 0]}))
    assert found[0]["accuracy"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 4)), "high": 1.0}


def test_a_single_run_is_said_to_be_one():
    claim = {"name": "n", "claim": "c", "set": "para", "higher": "ex", "lower": "im"}
    table = trials({"a": [0.1]})
    (found,) = judged([claim], table, pairs_of(table, {"ex": [1, 1, 1, 0], "im": [1, 0, 0, 0]}))
    assert found["sentence"].endswith("ex wins 100% of 1 run.")


def test_with_one_base_what_is_not_known_by_prompts_has_an_interval_over_seeds():
    runs = [("a", Estimate(value)) for value in (0.1, 0.2, 0.6)]
    assert over_runs(runs) == t_interval([0.1, 0.2, 0.6]).json()
    assert over_runs([*runs, ("b", Estimate(0.5))]) == t_interval([0.3, 0.5]).json()
    assert over_runs([("a", Estimate(0.1, 0.0, 0.2))]) == {"value": 0.1, "low": 0.0, "high": 0.2}


def foreign(gaps: dict[str, list[float]]) -> pd.DataFrame:
    """The explicit one, here somebody's own, is the same whatever the base."""
    return trials(gaps).assign(made_here=lambda table: table["reward_model"] != "ex")


def test_a_reward_model_that_no_base_moves_has_no_interval_over_bases():
    table = foreign({"a": [0.1], "b": [0.1], "c": [0.1]})
    table["margin"] = 1.5
    found = {row["reward_model"]: row for row in rows(table, pairs_of(table, {"ex": [1, 1, 1, 0], "im": [1, 0, 0, 0]}))}
    assert (found["ex"]["bases"], found["im"]["bases"]) == (0, 3)
    assert found["ex"]["margin"] == {"value": 1.5, "low": None, "high": None}
    assert found["ex"]["accuracy"]["low"] < 0.75 < found["ex"]["accuracy"]["high"]  # over prompts


def test_bases_are_drawn_only_where_they_move_one_of_the_two():
    table = foreign({"a": [0.1], "b": [0.1], "c": [0.1]})
    pairs = pairs_of(table, {"ex": [1, 1, 1, 0], "im": [1, 0, 0, 1]})
    assert difference(table, pairs, "ex", "im")["bases"] == 3
    (claim,) = judged(
        [{"name": "n", "claim": "c", "set": "para", "higher": "ex", "lower": "im", "within": 0.05}],
        table.assign(made_here=False), pairs,
    )  # fmt: skip
    assert claim["by_base"] is None
    assert claim["outcome"] == "Not settled, the interval includes 0"
    assert "(no base, prompts drawn)" in claim["sentence"]
