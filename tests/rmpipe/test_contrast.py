"""Claims stated beforehand: held, reversed, not settled or not tested, and each said in one sentence."""

from __future__ import annotations

import pandas as pd
import pytest

from rmpipe import ranking


def cells(**gains):
    """`weak_a=[...]`: the ground-truth gains of reward model a on policy weak, seed by seed."""
    rows = []
    for name, values in gains.items():
        policy, _, model = name.partition("_")
        for seed, gain in enumerate(values):
            row = {
                "seed": seed,
                "policy": policy,
                "algorithm": "rloo",
                "reward_model": model,
                "kind": "x",
                "trained": True,
            }
            rows.append(row | {"truth_gain": gain, "proxy_gain": 2 * gain})
    return pd.DataFrame(rows)


def judged(table, **claim):
    return ranking.contrasts(table, ranking.rows(table), [{"name": "n", "claim": "c"} | claim])


def test_a_claim_holds_when_the_interval_of_the_paired_difference_is_above_zero():
    (found,) = judged(cells(weak_a=[0.3, 0.5, 0.7], weak_b=[0.2, 0.39, 0.61]), policy="weak", higher="a", lower="b")
    assert found["holds"] is True
    assert found["seeds"] == 3
    # differences .10, .11, .09: mean .1, deviation .01, t(.975, 2) / sqrt(3) = 2.48414
    assert found["difference"] == pytest.approx({"value": 0.1, "low": 0.0751586, "high": 0.1248414}, abs=1e-6)
    expected = (
        "Held: ground-truth gain of a on weak less that of b on weak (rloo) is 0.10 [0.08, 0.12] (3 seeds, paired)."
    )
    assert found["sentence"] == expected


def test_a_claim_the_wrong_way_round_is_called_reversed():
    (found,) = judged(cells(weak_a=[0.3, 0.5, 0.7], weak_b=[0.2, 0.39, 0.61]), higher="b", lower="a", gain="proxy")
    assert found["holds"] is False
    assert found["sentence"].startswith("Reversed: proxy gain of b")
    assert found["difference"]["value"] == pytest.approx(-0.2)


def test_an_interval_that_includes_zero_settles_nothing():
    (found,) = judged(cells(weak_a=[0.3, 0.5], weak_b=[0.2, 0.6]), higher="a", lower="b")
    assert found["holds"] is False
    assert found["sentence"].startswith("Not settled, the interval includes 0")


def test_one_seed_is_judged_over_its_prompts_and_says_so():
    table = cells(weak_a=[0.35], weak_b=[0.15])
    table["truth_gain_per_prompt"] = [[0.3, 0.4, 0.3, 0.4], [0.1, 0.2, 0.1, 0.2]]
    (found,) = judged(table, higher="a", lower="b")
    assert found["holds"] is True
    assert "1 seed, over its prompts: its luck is not in the interval" in found["sentence"]


def test_one_seed_without_its_prompts_settles_nothing():
    (found,) = judged(cells(weak_a=[0.35], weak_b=[0.15]), higher="a", lower="b")
    assert found["holds"] is False
    assert found["difference"] == {"value": pytest.approx(0.2), "low": None, "high": None}
    assert found["sentence"].startswith("Not settled, there is no interval")


def test_only_seeds_that_both_have_are_compared():
    (found,) = judged(cells(weak_a=[0.3, 0.5, 9.0], weak_b=[0.2, 0.4]), higher="a", lower="b")
    assert found["seeds"] == 2
    assert found["difference"]["value"] == pytest.approx(0.1)


def test_a_crossover_compares_policies_under_one_reward_model():
    table = cells(weak_a=[0.3, 0.5], strong_a=[0.1, 0.3])
    (found,) = judged(table, reward_model="a", policy_higher="weak", policy_lower="strong")
    assert found["holds"] is True
    assert found["policy"] is None
    assert "of a on weak less that of a on strong" in found["sentence"]


def test_a_claim_without_a_policy_is_judged_on_each():
    found = judged(cells(weak_a=[0.3, 0.5], weak_b=[0.1, 0.3], strong_a=[0.1], strong_b=[0.2]), higher="a", lower="b")
    assert [(item["policy"], item["seeds"]) for item in found] == [("weak", 2), ("strong", 1)]


def test_what_was_not_run_is_not_tested_and_stops_nothing():
    table = cells(weak_a=[0.3, 0.5])
    found = judged(table, higher="a", lower="missing") + judged(table)
    assert [item["holds"] for item in found] == [None, None]
    assert "no shared seed has a ground-truth gain of both a on weak and missing on weak" in found[0]["sentence"]
    assert "name higher and lower" in found[1]["sentence"]


@pytest.mark.parametrize(
    ("gains", "value", "chance", "holds"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1.0, 1 / 24, True),
        ([0.1, 0.3, 0.2, 0.4], 0.8, 4 / 24, False),  # as high: the order itself and three with one neighbouring swap
        ([0.4, 0.3, 0.2, 0.1], -1.0, 1.0, False),
    ],
)
def test_a_ladder_asks_whether_the_gain_rises_with_the_measured_variance(gains, value, chance, holds):
    table = cells(**{f"weak_{name}": [gain, gain + 0.02] for name, gain in zip("abcd", gains, strict=True)})
    table["variance"] = [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.9, 0.9]
    (found,) = judged(table, ladder=("a", "b", "c", "d"))
    assert found["spearman"]["value"] == pytest.approx(value)
    assert found["chance"] == pytest.approx(chance)
    assert found["holds"] is holds


def test_a_ladder_of_two_is_not_tested():
    table = cells(weak_a=[0.1], weak_b=[0.2]).assign(variance=[0.1, 0.2])
    (found,) = judged(table, ladder=("a", "b"))
    assert found["holds"] is None
    assert found["sentence"].startswith("Not tested")


def test_a_long_ladder_is_set_against_drawn_orders():
    table = cells(**{f"weak_{name}": [i / 10, i / 10] for i, name in enumerate("abcdefghij")})
    table["variance"] = table["reward_model"].map("abcdefghij".index)
    (found,) = judged(table, ladder=tuple("abcdefghij"))
    assert found["chance"] == pytest.approx(1 / 10_001)
    assert found["holds"] is True


def test_a_ladder_whose_ends_seeds_cannot_tell_apart_does_not_hold():
    table = cells(weak_a=[0.1, 0.9], weak_b=[0.2, 0.9], weak_c=[0.3, 0.9], weak_d=[0.4, 0.9])
    table["variance"] = table["reward_model"].map("abcd".index)
    (found,) = judged(table, ladder=tuple("abcd"))
    assert found["chance"] == pytest.approx(1 / 24)
    assert found["difference"]["value"] == pytest.approx(0.15)  # (0.4 - 0.1 + 0) / 2, and an interval as wide as luck
    assert found["holds"] is False


def test_a_claim_is_tested_only_where_what_it_assumes_was_measured():
    table = cells(weak_a=[0.3, 0.5, 0.7], weak_b=[0.2, 0.39, 0.61])
    claim = {"higher": "a", "lower": "b", "assuming": ("less accurate", "more variance")}
    table["variance"] = [0.9] * 3 + [0.1] * 3
    for accuracies, holds, said in (
        ([0.7] * 3 + [1.0] * 3, True, "Held: "),
        ([1.0] * 3 + [0.7] * 3, None, "Not tested, what it assumes is not so: "),
    ):
        (found,) = judged(table.assign(accuracy_on=accuracies), **claim)
        assert found["holds"] is holds
        assert found["sentence"].startswith(said)
        numbers = f"accuracy {accuracies[0]:.2f} against {accuracies[-1]:.2f}; variance 0.90 against 0.10."
        assert found["sentence"].endswith(numbers)
    (found,) = judged(table, **claim)
    assert found["holds"] is None
    assert "accuracy_on is not known" in found["sentence"]


def test_what_is_no_less_accurate_may_be_more_so_or_short_of_it_by_rounding():
    table = cells(weak_a=[0.3, 0.5, 0.7], weak_b=[0.2, 0.39, 0.61])
    for first, holds in ((0.9, True), (0.798, True), (0.79, None)):
        accuracies = table["reward_model"].map({"a": first, "b": 0.8})
        (found,) = judged(table.assign(accuracy_on=accuracies), higher="a", lower="b", assuming=("no less accurate",))
        assert found["holds"] is holds


def test_a_ladder_of_one_gain_at_every_variance_is_not_settled():
    table = cells(weak_a=[0.3, 0.5], weak_b=[0.3, 0.5], weak_c=[0.3, 0.5])
    table["variance"] = [0.1, 0.1, 0.5, 0.5, 0.9, 0.9]
    (found,) = judged(table, ladder=("a", "b", "c"))
    assert found["holds"] is False
    assert found["sentence"].endswith("the ground-truth gain is 0.40 at every variance.")
