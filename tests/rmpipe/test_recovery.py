"""Recovery: gains by hand, each interval over the unit that there is, and advice that no interval speaks against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.gauge import FEW
from rmpipe.interval import bootstrap, t_interval
from rmpipe.recovery import (
    BEFORE,
    ENOUGH,
    Run,
    Unit,
    advised,
    counted,
    curve,
    difference,
    each,
    numbers,
    outcome,
    quarters,
    recovered,
    rows,
    vanished,
)

STD = [0.0, 0.1, 0.2, 0.3]
ARMS: dict[str, dict[str, Any]] = {
    name: {"share": share, "of": of, "sft_steps": sft, "rlhf_steps": rlhf}
    for name, share, of, sft, rlhf in (
        ("rft", 0.0, None, 0, 9), ("few", 0.1, "all", 5, 0), ("few_rft", 0.1, "all", 5, 9), ("sft", 1.0, "all", 5, 0),
        ("both", 1.0, "all", 5, 9), ("low_rft", 0.01, "low", 5, 9),
    )
}  # fmt: skip


def run(
    arm: str, gain: float | list[float], seed: int = 1, *, base: str | None = None, policy: str = "p",
    reward: str = "r", std: list[float] = STD, low: list[bool] | None = None, **told: float,
) -> Run:  # fmt: skip
    """What an arm did at prompts of these stds, the first half of which are low unless told."""
    gains = [gain] * len(std) if isinstance(gain, int | float) else gain
    few = [place < len(std) // 2 for place in range(len(std))] if low is None else low
    table = pd.DataFrame({"std": std, "mean": 0.5, "norm": math.nan, "low": few, "before": 0.25, "gain": gains})
    return Run(policy, base or f"b{seed}", seed, reward, arm, table.assign(after=table["before"] + table["gain"]), told)


def several(**gains: list[float]) -> list[Run]:
    """A run an arm and seed, each on a base of its own."""
    return [run(arm, gain, seed) for arm, values in gains.items() for seed, gain in enumerate(values)]


def only(found: list[dict], **keys: Any) -> dict:
    (one,) = [item for item in found if all(item[key] == value for key, value in keys.items())]
    return one


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_prompts_gain_is_its_reward_after_less_that_before_whatever_the_order():
    gauge = pd.DataFrame({"prompt_id": ["a", "b", "c"], "std": [0.3, 0.0, 0.0], "mean": 0.5, "norm": [1.0, 0.0, 0.0]})
    before = pd.DataFrame({"prompt_id": ["c", "b", "a"], "reward": [0.0, 1.0, 2.0]})
    after = pd.DataFrame({"prompt_id": ["b", "a", "c"], "reward": [3.0, 2.5, 0.25]})
    table = outcome(gauge, before, after, cut=0.25)
    assert table["prompt_id"].tolist() == ["a", "b", "c"]
    assert table["gain"].tolist() == [0.5, 2.0, 0.25]
    assert table["low"].tolist() == [False, True, True]
    assert table[["before", "after"]].to_numpy().tolist() == [[2.0, 2.5], [1.0, 3.0], [0.0, 0.25]]


def test_numbers_are_means_over_prompts_and_of_either_part():
    told = numbers(run("rft", [0.0, 0.2, 0.6, 0.8]).table)
    values = {name: number.value for name, number in told.items()}
    assert values == pytest.approx(
        {"gain": 0.4, "low": 0.1, "high": 0.7, "gap": 0.6, "before": 0.25, "after": 0.65, "low_after": 0.35,
         "high_after": 0.95, "spearman": math.nan, "pearson": math.nan}, nan_ok=True,
    )  # fmt: skip
    for name in ("gain", "low", "high", "after"):
        assert told[name].low < told[name].value < told[name].high, name


def test_a_gap_has_an_interval_over_prompts_of_a_run_that_stands_alone():
    random, std = np.random.default_rng(0), np.linspace(0, 1, 40).tolist()
    one = run("rft", list(np.linspace(0, 1, 40) + random.normal(size=40) / 9), std=std)
    alone, among = numbers(one.table)["gap"], numbers(one.table, alone=False)["gap"]
    assert alone.low < alone.value < alone.high
    assert among.value == alone.value == pytest.approx(0.5, abs=0.1)
    assert math.isnan(among.low)


def test_where_all_prompts_are_low_there_is_no_gap():
    told = numbers(run("rft", 0.5, low=[True] * 4).table)
    assert (told["low"].value, told["gap"].json(), told["high"].json()) == (0.5, None, None)


def test_the_gain_goes_with_the_std_where_enough_prompts_say_so():
    std = np.linspace(0, 1, FEW).tolist()
    told = numbers(run("rft", [value**2 for value in std], std=std).table)
    assert told["spearman"].value == pytest.approx(1.0)
    assert told["pearson"].value == pytest.approx(np.corrcoef(std, np.square(std))[0, 1])
    assert numbers(run("rft", [value**2 for value in std][1:], std=std[1:]).table)["spearman"].json() is None


# -- over runs --------------------------------------------------------------------------------------------------------


def test_over_several_bases_an_interval_is_student_s_over_their_means():
    mine = [
        run("rft", gain, seed, base=base) for seed, (gain, base) in enumerate(zip([1, 3, 4, 6], "aabb", strict=True))
    ]
    (row,) = rows(mine, None, ARMS)
    assert row["gain"] == pytest.approx(t_interval([2.0, 5.0]).json())
    assert (row["bases"], row["runs"]) == (2, 4)
    assert row["recovered"] is row["recovered_low"] is row["kl"] is row["labels"] is None


def test_over_one_base_it_is_student_s_over_seeds():
    mine = [run("rft", gain, seed, base="a") for seed, gain in enumerate([1.0, 2.0, 6.0])]
    (row,) = rows(mine, None, ARMS)
    assert row["low"] == pytest.approx(t_interval([1.0, 2.0, 6.0]).json())
    assert (row["bases"], row["runs"]) == (1, 3)


def test_of_a_single_run_it_is_over_its_prompts():
    (row,) = rows([run("rft", [0.0, 0.2, 0.6, 0.8], kl=1.5, tokens=9.0)], None, ARMS)
    assert row["gain"]["low"] < row["gain"]["value"] == pytest.approx(0.4)
    assert row["kl"] == {"value": 1.5, "low": None, "high": None}
    assert (row["rank"], row["not_told_from"], row["rlhf_steps"]) == ("1", [], 9)


def test_a_run_without_a_number_is_left_out_of_those_that_have_one():
    flat = run("rft", 5.0, 3, low=[True] * 4)
    (row,) = rows([run("rft", 1.0, 1), run("rft", 2.0, 2), flat], None, ARMS)
    assert row["high"] == pytest.approx(t_interval([1.0, 2.0]).json())
    assert row["low"] == pytest.approx(t_interval([1.0, 2.0, 5.0]).json())


def test_arms_are_ranked_by_pairs_of_runs_and_what_is_not_told_apart_is_said():
    mine = several(few=[2.0, 3.1, 4.0, 5.0], rft=[1.0, 2.0, 3.0, 4.1], both=[2.1, 3.0, 4.2, 5.1])
    found = rows(mine, None, ARMS)
    assert [(row["arm"], row["rank"]) for row in found] == [("both", "1="), ("few", "1="), ("rft", "3")]
    assert found[0]["not_told_from"] == ["few"]
    assert difference(mine, "few", "rft") == pytest.approx(t_interval([1.0, 1.1, 1.0, 0.9]).json())


def test_places_are_ranked_apart():
    mine = [run(arm, gain, seed, policy=policy, reward=reward)
            for seed in (1, 2) for policy, reward, gains in (("p", "r", (2, 1)), ("p", "s", (0, 5)), ("q", "r", (7, 3)))
            for arm, gain in zip(("rft", "few"), gains, strict=True)]  # fmt: skip
    first = [(row["policy"], row["reward"], row["arm"]) for row in rows(mine, None, ARMS) if row["rank"][0] == "1"]
    assert first == [("p", "r", "rft"), ("p", "s", "few"), ("q", "r", "rft")]


def test_a_difference_is_over_runs_that_both_have():
    gains = {"rft": {1: 5.0, 2: 7.0, 3: 8.0}, "few": {2: 6.0, 3: 5.0, 4: 0.0}}
    mine = [run(arm, gain, seed) for arm, told in gains.items() for seed, gain in told.items()]
    assert difference(mine, "rft", "few") == pytest.approx(t_interval([1.0, 3.0]).json())
    assert difference(mine, "rft", "sft") is None


def drawn_twice(count: int = 40) -> tuple[Run, Run]:
    """Two arms of one run, whose gains go together at each prompt."""
    random, std = np.random.default_rng(3), np.linspace(0, 1, count).tolist()
    shared = random.normal(1.0, 1.0, count)
    few, whole = (list(scale * shared + random.normal(scale=0.1, size=count)) for scale in (0.5, 1.0))
    return run("few", few, std=std), run("both", whole, std=std)


def test_of_a_single_run_prompts_are_drawn_for_both_sides_together():
    few, whole = drawn_twice()
    found = difference([few, whole], "both", "few")
    apart = (whole.table["gain"] - few.table["gain"]).to_numpy()
    assert found == pytest.approx(bootstrap(apart).json())
    assert found["high"] - found["low"] < 0.6 * np.diff([numbers(whole.table)["gain"].low,
                                                         numbers(whole.table)["gain"].high]).item()  # fmt: skip
    part = difference([few, whole], "both", "few", "low")
    assert part == pytest.approx(bootstrap(apart[:20]).json())
    gap = difference([few, whole], "both", "few", "gap")
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["value"] == pytest.approx(apart[20:].mean() - apart[:20].mean())
    assert difference([few, whole], "both", "few", "spearman")["low"] is None


def test_a_share_of_a_single_run_is_over_prompts_drawn_for_both_sides_together():
    few, whole = drawn_twice()
    found = recovered([few, whole], "few", "both")
    assert found["low"] < found["value"] == pytest.approx(few.table["gain"].mean() / whole.table["gain"].mean())
    assert 0.4 < found["low"] < found["high"] < 0.6  # though either gain by itself is far less certain
    parts = [one.table["gain"].to_numpy()[20:] for one in (few, whole)]
    assert recovered([few, whole], "few", "both", "high")["value"] == pytest.approx(parts[0].mean() / parts[1].mean())
    assert recovered([run("few", 1.0), run("both", -1.0)], "few", "both") is None


def test_what_is_recovered_is_a_ratio_of_means_with_the_interval_of_the_delta_method():
    few, both = np.array([1.0, 3.0, 1.5, 2.5]), np.array([2.0, 4.0, 3.5, 2.5])
    found = recovered(several(few=few.tolist(), both=both.tolist()), "few", "both")
    share = 8.0 / 12.0
    # var(a / b) = (var a - 2 r cov(a, b) + r^2 var b) / (n mean(b)^2)
    cov = np.cov(few, both)
    error = np.sqrt((cov[0, 0] - 2 * share * cov[0, 1] + share**2 * cov[1, 1]) / 4) / 3.0
    half = 3.182446 * error  # Student's 97.5 % point, 3 degrees of freedom
    assert found == pytest.approx({"value": share, "low": share - half, "high": share + half}, rel=1e-6)


def test_over_seeds_of_one_base_a_share_has_the_same_interval():
    told = [run(arm, gain, seed, base="a") for arm, gains in (("few", [1.0, 3.0, 2.0]), ("both", [2.0, 4.0, 3.0]))
            for seed, gain in enumerate(gains)]  # fmt: skip
    apart = several(few=[1.0, 3.0, 2.0], both=[2.0, 4.0, 3.0])
    assert recovered(told, "few", "both") == pytest.approx(recovered(apart, "few", "both"))


def test_a_run_of_which_the_reference_gained_next_to_nothing_does_not_carry_the_share_away():
    found = recovered(several(few=[1.0] * 6, both=[0.001, *[2.0] * 5]), "few", "both")
    assert found["value"] == pytest.approx(6 / 10.001)  # a mean of shares would be above 150


def test_shares_of_the_reference_are_1_and_each_part_has_its_own():
    mine = several(both=[2.9, 3.1], few=[1.0, 3.0])
    (first, second) = rows(mine, "both", ARMS)
    assert first["arm"] == "both"
    assert first["recovered"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert second["recovered"]["value"] == pytest.approx(4 / 6)
    parted = [run(arm, [low, low, high, high], seed) for seed in (1, 2)
              for arm, low, high in (("few", 1.0, 1.0), ("both", 4.0, 2.0))]  # fmt: skip
    row = only(rows(parted, "both", ARMS), arm="few")
    assert [row[name]["value"] for name in ("recovered", "recovered_low", "recovered_high")] == pytest.approx(
        [1 / 3, 0.25, 0.5]
    )


def test_of_a_reference_that_gained_nothing_there_is_no_share():
    assert recovered(several(both=[0.0, -1.0], few=[1.0, 1.0]), "few", "both") is None
    assert recovered(several(few=[1.0]), "few", "both") is None


def test_of_a_reference_that_may_have_gained_nothing_there_is_no_share():
    several_runs = several(both=[2.0, 4.0], few=[1.0, 3.0])  # of two runs 3 on average, give or take 13
    alone = [run("both", [-1.0, 1.5, -1.0, 1.5], low=[True, False] * 2), run("few", 1.0, low=[True, False] * 2)]
    assert recovered(several_runs, "few", "both") is None
    assert recovered(alone, "few", "both") is None
    assert recovered(alone, "few", "both", "high")["value"] == pytest.approx(1 / 1.5)
    assert only(rows(several_runs, "both", ARMS), arm="few")["recovered"] is None


def test_each_run_has_its_numbers_by_itself():
    found = each([*several(both=[2.0, 0.0], few=[1.0, 1.0]), run("rft", 1.0, 5, low=[False] * 4, kl=2.0)], "both")
    names = {"policy": "p", "base": "b0", "seed": 0, "reward": "r", "arm": "few"}
    assert only(found, arm="few", seed=0) == names | {"gain": 1, "low": 1, "high": 1, "recovered": 0.5, "kl": None}
    assert only(found, arm="few", seed=1)["recovered"] is None
    last = only(found, arm="rft")
    assert (last["low"], last["kl"], last["recovered"]) == (None, 2.0, None)


# -- before training --------------------------------------------------------------------------------------------------


def gauged(seed: int, base: str | None = None, reward: str = "r", **values: float | None) -> tuple[dict, dict]:
    place = {"policy": "p", "base": base or f"b{seed}", "seed": seed, "reward": reward}
    told = {name: None if value is None else {"value": value, "low": value - 9, "high": value + 9}
            for name, value in values.items()}  # fmt: skip
    return place, told


def test_what_was_so_before_training_is_over_bases_and_not_known_where_no_run_says():
    (row,) = vanished([gauged(1, std=0.25, flat=0.5), gauged(2, std=0.75, flat=0.25)])
    assert row["std"] == pytest.approx(t_interval([0.25, 0.75]).json())
    assert (row["policy"], row["reward"], row["bases"], row["runs"]) == ("p", "r", 2, 2)
    assert {name for name in BEFORE if row[name] is None} == set(BEFORE) - {"std", "flat"}
    assert [item["reward"] for item in vanished([gauged(1), gauged(1, reward="s")])] == ["r", "s"]


def test_of_a_single_run_what_was_so_before_has_its_interval_over_prompts_and_of_no_other():
    (alone,) = vanished([gauged(1, exponent=0.9)])
    assert (alone["exponent"]["low"], alone["exponent"]["high"]) == pytest.approx((-8.1, 9.9))
    (row,) = vanished([gauged(1, exponent=0.9), gauged(2, exponent=None)])
    assert row["exponent"] == {"value": 0.9, "low": None, "high": None}


# -- quarters ---------------------------------------------------------------------------------------------------------


def test_quarters_are_of_one_size_and_ties_stand_in_their_order():
    std, gain = [0.0] * 5 + [0.3, 0.1, 0.2], [float(place) for place in range(8)]
    found = quarters([run("rft", gain, std=std)])
    assert [item["part"] for item in found] == [1, 2, 3, 4]
    assert [item["std"]["value"] for item in found] == pytest.approx([0.0, 0.0, 0.05, 0.25])
    assert [item["gain"]["value"] for item in found] == pytest.approx([0.5, 2.5, (4 + 6) / 2, (7 + 5) / 2])
    assert found[0]["gain"]["low"] < found[0]["gain"]["value"] < found[0]["gain"]["high"]


def test_quarters_are_means_over_bases_of_those_of_each_run():
    std = np.linspace(0, 1, 8).tolist()
    mine = [run("rft", [seed + value for value in std], seed, std=std) for seed in (1, 2, 3)]
    found = quarters(mine)
    assert found[0]["gain"] == pytest.approx(t_interval([seed + np.mean(std[:2]) for seed in (1, 2, 3)]).json())
    assert quarters([run("rft", 1.0, std=std[:7])]) == []


# -- the curve and the advice -----------------------------------------------------------------------------------------


def test_the_measured_curve_is_of_labels_of_any_inputs_alone_and_before_reinforcement():
    found = rows(several(low_rft=[9.0], both=[5.0], rft=[1.0], few=[2.0], sft=[3.0], few_rft=[4.0]), "both", ARMS)
    told = curve(found)
    assert [(item["arm"], item["rlhf"]) for item in told] == [
        ("few", False), ("sft", False), ("rft", True), ("few_rft", True), ("both", True)
    ]  # fmt: skip
    assert told[0]["recovered"]["value"] == 0.4


def advice(**gains: list[float]) -> dict[str, Any]:
    mine = [run(arm, gain, seed, **({"labels": 100 * ARMS[arm]["share"]} if ARMS[arm]["sft_steps"] else {}))
            for arm, values in gains.items() for seed, gain in enumerate(values)]  # fmt: skip
    (told,) = advised(mine, rows(mine, None, ARMS))
    return told


def test_the_fewest_labels_that_surely_bring_enough_are_advised():
    told = advice(rft=[1.0, 1.2], few_rft=[9.0, 9.1], both=[10.0, 10.2], sft=[9.6, 9.7])
    assert (told["arm"], told["why"], told["best"], told["sft_steps"]) == ("few_rft", "enough", "both", 5)
    assert (told["labels"]["value"], told["recovered"]["low"] > ENOUGH) == (10.0, True)
    assert told["alone"]["value"] == pytest.approx(2.2 / 20.2)
    assert told["without"] == "rft"


def test_what_may_be_too_little_is_not_enough():
    told = advice(few_rft=[9.9, 5.0], both=[10.0, 10.0])
    assert (told["arm"], told["why"], told["recovered"]["value"], told["alone"]) == ("both", "best", 1.0, None)
    told = advice(few_rft=[7.9, 7.9], both=[10.0, 10.0])  # surely less than ENOUGH
    assert told["arm"] == "both"
    assert advice(few_rft=[9.9], both=[10.0])["why"] == "enough"  # of a single run: at each of its prompts


def test_no_label_is_advised_where_reinforcement_alone_does_as_well_or_nothing_does():
    told = advice(rft=[9.0, 9.1], both=[10.0, 10.1])
    assert (told["arm"], told["why"], told["labels"], told["sft_steps"]) == ("rft", "enough", None, 0)
    told = advice(rft=[9.0, 9.0], few=[1.0, 1.0])
    assert (told["arm"], told["why"], told["best"]) == ("rft", "best", "rft")
    told = advice(rft=[-1.0, 0.0], few=[-1.0, -1.0])
    assert (told["arm"], told["why"], told["labels"], told["recovered"]) == (None, "nothing", None, None)


def test_nothing_is_advised_where_not_even_the_best_gain_is_told_from_0():
    told = advice(rft=[-1.0, 0.1], both=[-1.0, 4.0])
    assert (told["arm"], told["why"], told["best"]) == (None, "nothing", "both")
    told = advice(rft=[-1.0, 0.1], both=[3.9, 4.0])
    assert (told["arm"], told["why"]) == ("both", "best")


def test_without_labels_is_the_best_arm_that_learnt_none():
    more = {"fast": ARMS["rft"]}
    mine = several(rft=[1.0, 1.2], fast=[2.0, 2.2], both=[10.0, 10.2])
    (told,) = advised(mine, rows(mine, None, ARMS | more))
    assert (told["without"], told["alone"]["value"]) == ("fast", pytest.approx(4.2 / 20.2))
    assert advice(both=[10.0, 10.2])["without"] is None


def test_labels_of_chosen_inputs_are_never_advised():
    told = advice(low_rft=[10.0, 10.0], few_rft=[8.0, 8.0], rft=[1.0, 1.0])
    assert (told["arm"], told["best"]) == ("few_rft", "few_rft")
    mine = several(low_rft=[1.0, 2.0])
    assert advised(mine, rows(mine, None, ARMS)) == []


def test_units_are_of_places_and_of_runs():
    assert Unit.of({"base": "a", "seed": 3, "policy": "p"}) == Unit("a", 3)
    assert counted(["a", "a", "b"]) == {"bases": 2, "runs": 3}
