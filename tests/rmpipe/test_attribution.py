"""Attribution: on outcomes whose cause is known, over the unit that there is, and nothing where there is too little."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rmpipe.attribution import (
    ALONE,
    FEW,
    Outcome,
    correlations,
    difference,
    judged,
    ladders,
    measured,
    parts,
    rows,
    savings,
)
from rmpipe.generalisation import EVERY
from rmpipe.interval import t_interval


def outcome(seed: int = 0, base: str = "b", policy: str = "p", count: int = 60, **columns: float) -> Outcome:
    """Pairs whose change is the sum of what is told of CHES, length and noise: `outcome(ches=-1, noise=0.1)`."""
    random = np.random.default_rng(seed)
    told = {"ches": random.normal(size=count), "length": random.integers(-3, 4, size=count).astype(float)}
    told["edit"] = np.random.default_rng(seed + 50).normal(size=count)
    change = sum(weight * told.get(name, random.normal(size=count)) for name, weight in columns.items())
    names = [str(n) for n in range(count)]
    table = pd.DataFrame({"id": names, "prompt": names, "chosen_tokens": 8.0, **told, "change": change})
    return Outcome(policy, base, seed, ALONE, "", table)


def only(found: list[dict], **keys: str) -> dict:
    (one,) = [item for item in found if all(item[key] == value for key, value in keys.items())]
    return one


# -- units of intervals -----------------------------------------------------------------------------------------------


def test_over_several_bases_the_interval_is_student_s_over_their_means():
    mine = [outcome(seed, base, ches=-1, noise=1) for seed, base in enumerate("aabbcc")]
    found = only(correlations(mine, ["ches"]))
    each = [only(correlations([one], ["ches"]))["spearman"]["value"] for one in mine]
    expected = t_interval([np.mean(each[start : start + 2]) for start in (0, 2, 4)])
    assert found["spearman"] == pytest.approx(expected.json())
    assert (found["bases"], found["runs"], found["pairs"]) == (3, 6, 360)
    low, high = (found["by_base"][end] for end in ("low", "high"))
    assert expected.low < low <= expected.value <= high < expected.high  # drawing three bases is narrower


def test_over_one_base_it_is_student_s_over_runs_and_nothing_is_drawn_over_bases():
    mine = [outcome(seed, "a", ches=-1, noise=1) for seed in range(3)]
    each = [only(correlations([one], ["ches"]))["spearman"]["value"] for one in mine]
    found = only(correlations(mine, ["ches"]))
    assert found["spearman"] == pytest.approx(t_interval(each).json())
    assert found["by_base"] is None


def test_of_a_single_run_pairs_are_drawn_and_those_of_equal_length_among_themselves():
    one = outcome(count=200, ches=-1, noise=1)
    found = only(correlations([one], ["ches"]))
    assert found["equal"] == int((one.table["length"] == 0).sum()) >= FEW
    for test in ("spearman", "given_length", "equal_length"):
        assert found[test]["low"] < found[test]["value"] < found[test]["high"] < 0, test
    assert (
        found["equal_length"]["high"] - found["equal_length"]["low"]
        > found["spearman"]["high"] - found["spearman"]["low"]
    )


# -- what is the cause ------------------------------------------------------------------------------------------------


def test_what_length_alone_does_is_gone_once_length_is_given_and_stays_of_length():
    some = outcome(1, count=1000, length=-1, noise=0.5)
    some.table["ches"] += some.table["length"]  # CHES knows length, and nothing else that matters
    found = only(correlations([some], ["ches"]))
    assert found["spearman"]["high"] < -0.3
    assert found["given_length"]["low"] < 0 < found["given_length"]["high"]
    assert found["equal_length"]["low"] < 0 < found["equal_length"]["high"]
    assert found["length_given"]["high"] < -0.3


def test_what_ches_does_stays_among_pairs_of_equal_length():
    found = only(correlations([outcome(count=600, ches=-1, noise=0.5)], ["ches"]))
    assert found["equal_length"]["high"] < -0.5
    assert found["length_given"]["low"] < 0 < found["length_given"]["high"]


def test_an_interval_over_many_pairs_is_drawn_block_by_block_and_the_same(monkeypatch):
    from rmpipe import attribution

    rows = np.random.default_rng(0).normal(size=(40, 2))
    whole = attribution.over_pairs(rows, attribution.spearman)
    monkeypatch.setattr(attribution, "BLOCK", 100)  # two resamples at a time
    assert attribution.over_pairs(rows, attribution.spearman) == whole


def test_length_has_no_correlation_given_itself():
    found = only(correlations([outcome(length=-1, noise=1)], ["length"]))
    assert found["spearman"]["high"] < 0
    assert found["given_length"] is found["equal_length"] is found["length_given"] is None
    assert found["given_edit"]["high"] < 0


def test_what_edits_alone_do_is_gone_once_the_edit_similarity_is_given():
    some = outcome(1, count=1000, edit=-1, noise=0.5)
    some.table["ches"] = some.table["edit"] + np.random.default_rng(7).normal(size=1000)
    ches, edit = (only(correlations([some], [name])) for name in ("ches", "edit"))
    assert ches["given_length"]["high"] < -0.3
    assert ches["given_edit"]["low"] < 0 < ches["given_edit"]["high"]
    assert edit["given_edit"] is None


def test_pairs_of_one_prompt_are_drawn_together():
    one = outcome(count=40, ches=-1, noise=1)
    four = Outcome("p", "b", 0, ALONE, "", pd.concat([one.table] * 4, ignore_index=True))  # each prompt four times
    apart = Outcome("p", "b", 0, ALONE, "", four.table.assign(prompt=[str(n) for n in range(160)]))
    alone, together, loose = (only(correlations([each], ["ches"]))["spearman"] for each in (one, four, apart))
    widths = [each["high"] - each["low"] for each in (alone, together, loose)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)
    assert widths[2] < 0.6 * widths[0]
    (five, *_) = savings([four], "ches")
    (loose_five, *_) = savings([apart], "ches")
    together, loose = (each["saved"]["high"] - each["saved"]["low"] for each in (five, loose_five))
    assert together > 1.5 * loose


def test_where_few_pairs_are_of_equal_length_those_of_nearly_that_stand_for_them():
    one = outcome(count=200, ches=-1, noise=0.5)
    one.table["length"] = np.arange(200) % 41 - 20.0  # 5 pairs of equal length, or 24 within a tenth of 20 tokens
    one.table["chosen_tokens"] = 20.0
    found = only(correlations([one], ["ches"]))
    assert (found["within"], found["equal"]) == (0.1, int((one.table["length"].abs() <= 2).sum()))
    assert found["equal_length"]["high"] < 0
    claim = CLAIM | {"test": "equal_length"}
    assert "among pairs of equal length within 10% is" in judged([claim], [one], [])[0]["sentence"]
    assert only(correlations([outcome(count=200)], ["ches"]))["within"] == 0


def test_what_was_finetuned_from_one_base_is_no_unit_of_its_own():
    mine = [outcome(seed, "b", policy, ches=-1, noise=1) for seed in (1, 2) for policy in ("p", "q")]
    every = only(correlations(mine, ["ches"]), policy=EVERY)["spearman"]
    each = [only(correlations([one], ["ches"]))["spearman"]["value"] for one in mine]
    assert every == pytest.approx(t_interval([np.mean(each[:2]), np.mean(each[2:])]).json())
    lone = only(correlations(mine[:2], ["ches"]), policy=EVERY)["spearman"]
    assert lone["value"] == pytest.approx(np.mean(each[:2]))
    assert lone["low"] is lone["high"] is None


def test_too_few_or_constant_pairs_give_no_number_and_no_part():
    few, flat = outcome(count=FEW - 1, ches=-1), outcome(ches=-1)
    flat.table["ches"] = 0.0
    for one in (few, flat):
        found = only(correlations([one], ["ches"]))
        assert found["spearman"] is found["given_length"] is found["equal_length"] is None
    assert parts([flat], ["ches"]) == []
    unequal = outcome(ches=-1, noise=1)
    unequal.table["length"] += 10.0
    assert only(correlations([unequal], ["ches"]))["equal_length"] is None


def test_a_run_without_a_number_is_left_out_of_those_that_have_one():
    flat = outcome(9, "b", ches=-1)
    flat.table["ches"] = 0.0
    flat = Outcome("p", "c", 9, ALONE, "", flat.table)
    known = [outcome(seed, base, ches=-1, noise=1) for seed, base in enumerate("ab")]
    found = only(correlations([*known, flat], ["ches"]))
    assert found["spearman"] == only(correlations(known, ["ches"]))["spearman"]
    assert (found["bases"], found["runs"]) == (2, 2)
    assert found["used"]["given_length"] == {"bases": 2, "runs": 2}
    assert judged([CLAIM], [*known, flat], [])[0]["sentence"].endswith("(2 bases, 2 runs).")


def test_policies_stand_together_and_apart():
    mine = [outcome(seed, "b", policy, ches=-1, noise=1) for seed in range(2) for policy in ("p", "q")]
    assert [item["policy"] for item in correlations(mine, ["ches"])] == [EVERY, "p", "q"]
    assert only(correlations(mine, ["ches"]), policy="q")["runs"] == 2


def test_a_quarter_s_change_is_the_mean_of_its_pairs():
    one = outcome(count=80, ches=-1)
    found = parts([one], ["ches"])
    quarters = np.sort(one.table["change"])[::-1].reshape(4, 20).mean(1)  # the change is minus CHES: lowest first
    assert [item["change"]["value"] for item in found] == pytest.approx(quarters.tolist())
    assert [item["part"] for item in found] == [1, 2, 3, 4]
    assert found[0]["displaced"]["value"] == 0
    assert found[3]["displaced"]["value"] == 1


# -- subsets ----------------------------------------------------------------------------------------------------------


def run(subset: str, seed: int, chosen: float, base: str | None = None, policy: str = "p") -> dict:
    told = {"policy": policy, "training": "dpo", "base": base or f"b{seed}", "pairs": 8, "address": f"track/{seed}"}
    return told | {"subset": subset, "seed": seed, "chosen": {"value": chosen, "low": None, "high": None}}


def test_subsets_are_ranked_by_pairs_of_runs_and_what_is_not_told_apart_is_said():
    runs = [run(name, seed, value + seed) for name, value in (("low", 2.0), ("same", 1.9), ("high", -9.0))
            for seed in range(4)]  # fmt: skip
    runs[4]["chosen"]["value"] += 3  # `same` is now above `low` once, below it thrice
    found = rows(runs)
    assert [(row["subset"], row["rank"]) for row in found] == [("same", "1="), ("low", "1="), ("high", "3")]
    assert found[0]["not_told_from"] == ["low"]
    assert found[0]["addresses"]["track"] == [f"track/{seed}" for seed in range(4)]
    assert found[0]["refusal"] is None


def test_a_difference_is_over_runs_that_both_have_each_with_its_own():
    runs = [run("a", 1, 5.0), run("a", 2, 7.0), run("b", 2, 6.0), run("b", 3, 0.0)]
    assert difference(runs, "a", "b") == {"value": 1.0, "low": None, "high": None}
    assert difference(runs, "a", "c") is None


def test_subsets_of_unlike_trainings_are_compared_where_each_has_one():
    runs = [run("a", seed, 5.0 + seed) for seed in (1, 2)]
    others = [run("b", seed, 3.0) | {"training": "gold"} for seed in (1, 2)]
    assert difference(runs + others, "a", "b")["value"] == 3.5
    several = [run("b", seed, 3.0) | {"training": name} for seed in (1, 2) for name in ("gold", "sft")]
    assert difference(runs + several, "a", "b") is None


def test_a_ladder_is_in_order_where_each_rung_is_below_the_one_before():
    names = {"q0": 0.0, "q1": 1.0, "half": 0.5}
    rules = {name: {"kind": "quantile", "by": "ches", "equal_length": None, "at": at} for name, at in names.items()}
    runs = [run(name, seed, -at + seed) for name, at in names.items() for seed in range(2)]
    (one,) = ladders(rows(runs), rules, runs)
    assert [rung["subset"] for rung in one["rungs"]] == ["q0", "half", "q1"]
    assert one["order"]["value"] == -1.0
    runs[0]["chosen"]["value"] = -5.0  # of one seed of two the lowest quantile fell furthest: -5, -0.5, -1
    (one,) = ladders(rows(runs), rules, runs)
    assert one["order"]["value"] == pytest.approx((0.5 - 1) / 2)


# -- claims -----------------------------------------------------------------------------------------------------------

CLAIM = {"name": "a", "claim": "c", "similarity": "ches", "test": "spearman"}


def told(claim: dict, outcomes: list[Outcome], runs: list[dict] | None = None) -> str:
    (found,) = judged([claim], outcomes, runs or [])
    return found["outcome"]


def test_a_claim_holds_is_reversed_or_is_not_settled_by_its_interval():
    assert told(CLAIM, [outcome(ches=-1, noise=0.5)]) == "Held"
    assert told(CLAIM, [outcome(ches=1, noise=0.5)]) == "Reversed"
    assert told(CLAIM, [outcome(noise=1)]) == "Not settled, the interval includes 0"
    assert told(CLAIM, []) == told(CLAIM, [outcome(count=3, ches=-1)]) == "Not settled, there is no interval"
    assert told(CLAIM | {"policy": "q"}, [outcome(ches=-1)]) == "Not settled, there is no interval"


def test_one_similarity_is_compared_with_another_by_the_same_test():
    one = outcome(count=400, ches=-1, length=-2, noise=1)
    one.table["twin"] = one.table["length"] + np.random.default_rng(5).normal(size=400) / 9
    claim = CLAIM | {"similarity": "ches", "than": "twin"}
    assert told(claim, [one]) == "Reversed"  # length did more than CHES did, and its twin has that plainly
    assert told(claim | {"test": "given_length"}, [one]) == told(claim | {"test": "equal_length"}, [one]) == "Held"


def test_two_subsets_are_claimed_of_over_every_run_of_both():
    claim = {"name": "b", "claim": "c", "higher": "low", "lower": "random", "test": "spearman"}
    runs = [run(name, seed, value + seed / 9) for name, value in (("low", 2.0), ("random", 1.0)) for seed in range(3)]
    runs[0]["chosen"]["value"] += 0.1
    (found,) = judged([claim], [], runs)
    assert found["outcome"] == "Held"
    assert (found["bases"], found["runs"]) == (3, 3)
    (fewer,) = judged([claim], [], runs[:5])  # the third seed has no random
    assert fewer["sentence"].endswith("(2 bases, 2 runs).")
    assert told(claim, [], runs[:1] + runs[3:4]) == "Not settled, there is no interval"
    assert told(claim, [], []) == "Not settled, there is no interval"


def test_a_claim_is_of_each_subset_s_own_pairs_or_of_the_same_held_out_ones():
    claim = {"name": "b", "claim": "c", "higher": "low", "lower": "random", "number": "chosen"}
    runs = [run(name, seed, value + seed / 9) for name, value in (("low", 2.0), ("random", 1.0)) for seed in range(3)]
    for index, each in enumerate(runs):
        each["held_out"] = {"value": -each["chosen"]["value"] * (1 + index / 99), "low": None, "high": None}
    assert "Held: change of log pi(y+) of its own pairs after low less" in judged([claim], [], runs)[0]["sentence"]
    held_out = judged([claim | {"number": "held_out"}], [], runs)[0]["sentence"]
    assert held_out.startswith("Reversed: change of log pi(y+) of held-out pairs after low less")


def test_a_filter_is_measured_training_by_training_on_held_out_pairs_with_its_cost():
    runs = [run(name, seed, value) for name, value in (("low", 2.0), ("random", 1.0)) for seed in range(3)]
    for each in runs:
        below = each["subset"] == "low"
        each["held_out"] = {"value": -3.0 * below, "low": None, "high": None}
        each["held_out_accuracy"] = {"value": 0.9 - 0.2 * below, "low": None, "high": None}
    other = [each | {"training": "ipo", "held_out": each["chosen"]} for each in runs]
    dpo, ipo = measured([*runs, *other], "low", "random")
    values = [dpo[name]["value"] for name in ("held_out", "chosen", "accuracy")]
    assert values == pytest.approx([-3.0, 1.0, -0.2])
    assert (ipo["training"], ipo["held_out"]["value"], ipo["pairs"]) == ("ipo", 1.0, 8)
    assert measured(runs[:3], "low", "random") == []


# -- what is saved ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_the_mean_of_those_that_stay_less_that_of_all():
    one = outcome(count=100, ches=-1)
    change = np.sort(one.table["change"])
    for item in savings([one], "ches"):
        stay = change[round(item["share"] * 100) :]  # those that fell furthest are dropped: CHES is the cause, alone
        assert item["saved"]["value"] == pytest.approx(stay.mean() - change.mean())
        assert item["displaced"]["value"] == pytest.approx((stay < 0).mean())
        assert item["displaced_all"]["value"] == pytest.approx((change < 0).mean())


def test_of_a_single_run_the_cut_is_made_anew_in_each_draw():
    one = outcome(count=40, ches=-1, noise=0.3)
    (*_, half) = savings([one], "ches")
    change, order = one.table["change"].to_numpy(), np.argsort(one.table["ches"].to_numpy())
    random, drawn = np.random.default_rng(3), []
    for _ in range(2000):
        rows = random.integers(40, size=40)
        stay = rows[np.argsort(one.table["ches"].to_numpy()[rows])[:20]]
        drawn.append(change[stay].mean() - change[rows].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (half["saved"]["low"], half["saved"]["high"]) == pytest.approx((low, high), abs=0.06)
    assert half["saved"]["value"] == pytest.approx(change[order[:20]].mean() - change.mean())
    every = half["displaced_all"]
    assert every["low"] < every["value"] < every["high"]
    assert half["displaced"]["value"] == 0 < half["displaced"]["high"]  # a draw may keep one that fell


def test_where_all_draws_are_alike_there_is_no_interval():
    for one in (outcome(count=100, ches=-1), outcome(count=100, ches=0)):
        one.table["change"] -= 9.0  # all fell
        five = savings([one], "ches")[0]
        assert five["displaced"] == five["displaced_all"] == {"value": 1.0, "low": None, "high": None}
    assert only(correlations([outcome(ches=-1)], ["ches"]))["spearman"] == {"value": -1.0, "low": None, "high": None}


def test_numbers_are_those_of_json_and_never_nan():
    found = correlations([outcome(ches=-1, noise=1)], ["ches", "length"])
    numbers = [number for item in found for number in item.values() if isinstance(number, dict) and "value" in number]
    values = [number[end] for number in numbers for end in number]
    assert all(value is None or math.isfinite(value) for value in values)
