"""Reckoning: a claim holds, is reversed or stays open by its interval, over the unit that there is, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe.generalisation import EVERY
from rmpipe.interval import t_interval
from rmpipe.reckoning import ALL, judged
from rmpipe.recovery import Run, recovered, rows
from tests.rmpipe.test_recovery import ARMS, drawn_twice, gauged, only, run, several

CLAIM = {"name": "a", "claim": "c", "number": "gain", "arm": "few", "than": "rft"}
NO_GAUGES: list[Any] = []


def told(
    claim: dict, runs: list[Run], reference: str | None = None, gauges: list[Any] = NO_GAUGES, **more: Any
) -> dict:
    (found,) = judged([claim], gauges, runs, reference, more)
    return found


def test_a_claim_holds_is_reversed_or_is_not_settled_by_its_interval():
    assert told(CLAIM, several(few=[2.0, 2.1], rft=[1.0, 1.0]))["outcome"] == "Held"
    assert told(CLAIM, several(few=[1.0, 1.0], rft=[2.0, 2.1]))["outcome"] == "Reversed"
    assert told(CLAIM, several(few=[1.0, 3.0], rft=[2.0, 2.0]))["outcome"] == "Not settled, the interval includes 0"
    assert told(CLAIM, several(few=[2.0], rft=[1.0]))["outcome"] == "Held"  # of a single run, at each of its prompts
    one = [run(arm, gain, seed, base="a", policy=policy)
           for policy, seed in (("p", 1), ("q", 1)) for arm, gain in (("few", 2.0), ("rft", 1.0))]  # fmt: skip
    for runs in ([], several(few=[2.0]), one):
        assert told(CLAIM, runs)["outcome"] == "Not settled, there is no interval"


def test_a_claim_says_what_it_is_of_and_what_its_interval_is_over():
    found = told(CLAIM, several(few=[2.0, 2.1], rft=[1.0, 1.0]))
    assert found["sentence"] == "Held: gain under few less that of rft is 1.05 [0.41, 1.69] (2 bases, 2 runs)."
    assert (found["policy"], found["reward"], found["bases"], found["runs"]) == (EVERY, ALL, 2, 2)
    one = [run(arm, gain, seed, base="a") for arm, gain in (("few", 2), ("rft", 1)) for seed in (1, 2)]
    assert told(CLAIM, one)["sentence"].endswith("(1 base, 2 runs).")
    assert told(CLAIM, [])["sentence"] == (
        "Not settled, there is no interval: gain under few less that of rft is not known, of too few prompts or of"
        " none."
    )
    few = {"name": "a", "claim": "c", "number": "correlation", "above": 0.5}
    assert told(few, [])["sentence"].endswith(" is not known, of too few prompts or of none, claimed above 0.5.")


def test_a_claim_may_be_of_one_arm_above_something():
    claim, mine = {"name": "a", "claim": "c", "number": "low", "arm": "few"}, several(few=[2.0, 2.1, 2.2])
    found = told(claim | {"above": 1.5}, mine)
    assert (found["outcome"], ", claimed above 1.5 (3 bases" in found["sentence"]) == ("Held", True)
    assert told(claim | {"above": 3.0}, mine)["outcome"] == "Reversed"
    assert told(claim | {"above": 2.0}, mine)["outcome"] == "Not settled, the interval includes 2"
    assert told(claim, mine)["outcome"] == "Held"


@pytest.mark.parametrize(
    ("number", "value"), [("gain", 0.4), ("low", 0.1), ("high", 0.7), ("gap", 0.6), ("recovered", 0.5),
                          ("recovered_low", 0.25), ("recovered_high", 0.7 / 1.2)],
)  # fmt: skip
def test_each_number_of_an_arm_may_be_claimed_of(number, value):
    mine = [run(arm, [scale * gain for gain in gains], seed) for seed in (1, 2) for arm, gains, scale in
            (("few", [0.0, 0.2, 0.6, 0.8], 1.0), ("both", [0.4, 0.4, 1.2, 1.2], 1.0))]  # fmt: skip
    found = told({"name": "a", "claim": "c", "number": number, "arm": "few"}, mine, "both")
    assert found["difference"]["value"] == pytest.approx(value)
    assert found["outcome"] == "Held"


@pytest.mark.parametrize("number", ["gain", "low", "high", "gap", "spearman"])
def test_of_a_single_run_a_claim_has_the_interval_that_its_row_has(number):
    few, whole = drawn_twice()
    claim = {"name": "a", "claim": "c", "number": number, "arm": "few"}
    row = only(rows([few, whole], "both", ARMS), arm="few")
    assert told(claim, [few, whole])["difference"] == pytest.approx(row[number])
    assert row[number]["low"] is not None


def test_of_a_single_run_a_share_is_claimed_over_prompts():
    few, whole = drawn_twice()
    claim = {"name": "a", "claim": "c", "number": "recovered_high", "arm": "few", "above": 0.3}
    found = told(claim, [few, whole], "both")
    assert found["difference"] == pytest.approx(recovered([few, whole], "few", "both", "high"))
    assert found["outcome"] == "Held"
    rft = run("rft", (0.1 * whole.table["gain"]).tolist(), std=whole.table["std"].tolist())
    less = told(claim | {"number": "recovered", "than": "rft"}, [few, whole, rft], "both")["difference"]
    share = recovered([few, whole], "few", "both")
    assert [less[end] for end in less] == pytest.approx([share[end] - 0.1 for end in share])


def test_shares_claimed_of_several_rewards_are_those_of_each_whatever_its_scale():
    gains = {("r", "few"): 0.2, ("r", "both"): 1.0, ("s", "few"): 800.0, ("s", "both"): 1000.0}
    mine = [run(arm, gain, seed, reward=reward) for seed in (1, 2) for (reward, arm), gain in gains.items()]
    found = told({"name": "a", "claim": "c", "number": "recovered", "arm": "few"}, mine, "both")
    assert found["difference"]["value"] == pytest.approx(0.5)
    assert (found["bases"], found["runs"]) == (2, 4)


def test_a_share_is_claimed_less_that_of_another_arm():
    mine = several(both=[2.9, 3.1], few=[1.0, 3.0], rft=[0.5, 1.0])
    found = told(CLAIM | {"number": "recovered"}, mine, "both")
    less, whole = 2.5 / 6.0, 3.0  # of gains 0.5 and 2 more than rft's, over 2.9 and 3.1
    each = [less + (gain - less * of) / whole for gain, of in ((0.5, 2.9), (2.0, 3.1))]
    assert found["difference"] == pytest.approx(t_interval(each).json())
    assert "share of the gain of both that few has less that of rft is 0.42" in found["sentence"]


def test_a_claim_is_of_its_own_policy_and_reward_and_policies_of_one_base_are_one_unit():
    mine = [run("few", gain, seed, base=f"b{seed}", policy=policy)
            for policy, gains in (("p", [1.0, 2.0]), ("q", [5.0, 8.0])) for seed, gain in enumerate(gains)]  # fmt: skip
    claim = {"name": "a", "claim": "c", "number": "gain", "arm": "few"}
    assert told(claim | {"policy": "q"}, mine)["difference"] == pytest.approx(t_interval([5.0, 8.0]).json())
    every = told(claim, mine)
    assert every["difference"] == pytest.approx(t_interval([3.0, 5.0]).json())
    assert every["sentence"].endswith("(2 bases, 4 runs).")
    assert told(claim | {"reward": "s"}, mine)["difference"] is None


def test_before_training_a_claim_is_of_norms_or_of_their_correlation():
    gauges = [gauged(seed, norm_gap=0.9 + seed, spearman=0.5 + seed / 10) for seed in (1, 2)]
    found = told({"name": "a", "claim": "c", "number": "norm"}, [], gauges=gauges)
    assert found["difference"] == pytest.approx(t_interval([1.9, 2.9]).json())
    assert found["sentence"].startswith("Not settled, the interval includes 0: gradient norm of prompts of high std")
    found = told({"name": "a", "claim": "c", "number": "correlation"}, [], gauges=gauges)
    assert found["difference"] == pytest.approx(t_interval([0.6, 0.7]).json())
    unknown = [gauged(1, norm_gap=None)]
    assert told({"name": "a", "claim": "c", "number": "norm"}, [], gauges=unknown)["difference"] is None


def test_before_training_a_claim_of_a_single_run_has_its_interval_over_prompts_and_no_other_has():
    claim = {"name": "a", "claim": "c", "number": "correlation"}
    alone = told(claim, [], gauges=[gauged(1, spearman=0.6)])["difference"]
    assert alone == pytest.approx({"value": 0.6, "low": -8.4, "high": 9.6})
    among = told(claim, [], gauges=[gauged(1, spearman=0.6), gauged(2, spearman=None)])["difference"]
    assert among == {"value": 0.6, "low": None, "high": None}


def test_in_an_experiment_arms_are_its_methods_and_seeds_the_unit():
    seeds = [(seed, {"supervised": {"modified": 1.0 + seed / 10, "unmodified": 1.5},
                     "reinforce": {"modified": 0.1, "unmodified": 1.5}}) for seed in (1, 2, 3)]  # fmt: skip
    claim = {"name": "a", "claim": "c", "number": "modified", "arm": "supervised", "than": "reinforce",
             "controlled": "digits"}  # fmt: skip
    found = told(claim, [], digits=seeds)
    assert found["difference"] == pytest.approx(t_interval([1.0, 1.1, 1.2]).json())
    said = "gain of modified inputs under supervised in digits less that of reinforce is 1.10 [0.85, 1.35] (3 seeds)."
    assert found["sentence"] == f"Held: {said}"
    gap = told(claim | {"number": "gap", "than": None, "arm": "reinforce"}, [], digits=seeds)
    assert (gap["difference"]["value"], gap["outcome"]) == (pytest.approx(1.4), "Held")
