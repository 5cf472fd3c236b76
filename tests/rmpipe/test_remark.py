"""Remarks: what is seen in a figure, and no more than its intervals allow."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from rmpipe import remark

MINUS = "\N{MINUS SIGN}"


def number(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def row(name: str, told: dict[str, Any], not_told_from: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    names = {"policy": "p", "reward_model": name, "set": "test", "bases": 3}
    return {**names, "accuracy": told, "margin": told, "not_told_from": list(not_told_from), **more}


def words(told: str) -> str:
    return re.sub(r"<[^>]+>", "", told)


def duel(first: str, wins: float, *difference: float) -> dict[str, Any]:
    return {"first": first, "second": "im", "wins": wins, "runs": 4, "difference": number(*difference)}


@pytest.mark.parametrize(("ends", "told"), [((0.1, 0.2), True), ((-0.2, -0.1), True), ((-0.1, 0.2), False),
                                            ((0.0, 0.2), False), ((None, None), False)])  # fmt: skip
def test_an_interval_settles_something_only_without_0(ends, told):
    assert remark.settled(number(0.1, *ends)) is told
    assert not remark.settled(None)


def test_nobody_is_trusted_where_the_leader_is_not_told_apart():
    rows = [row("ex", number(0.8, 0.7, 0.9)), row("im", number(0.6, 0.5, 0.7))]
    rows += [row("im", number(0.7, 0.6, 0.8), ("ex",), set="topics")]
    assert [words(text) for text in remark.lead(rows)] == [
        "Over 3 bases, trust ex on test (0.80).",
        "There too, the most accurate on topics (im 0.70) is not told apart from one or more others: who is best"
        " there is not settled.",
    ]
    one = [each | {"bases": 1} for each in rows[:2]]
    assert words(remark.lead(one)[0]).startswith("On one base, which another may contradict, trust ex")
    assert words(remark.lead(rows[:1])[0]) == "There is one reward model, and so nothing to choose."


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (([0.52, 0.45, 0.6], [0.4, 0.2, 0.5]), "On test (ex 0.52) nobody is told from a coin for the better: trust no"),
        (([0.3, 0.2, 0.4], [0.2, 0.1, 0.3]), "On test (ex 0.30) every reward model is below a coin: trust none there."),
        (([0.8, 0.4, 1.2], [0.7, 0.6, 0.8]), "On test (ex 0.80) the most accurate is not told from a coin, and other"),
        (([0.9, None, None], [0.2, None, None]), "On test (ex 0.90) nobody is told from a coin for the better"),
    ],
)
def test_nobody_is_trusted_whom_nothing_tells_from_a_coin(others, told):
    rows = [row(name, number(*ends)) for name, ends in zip(("ex", "im"), others, strict=True)]
    (said,) = remark.lead(rows)  # told apart from each other, which is not enough
    assert words(said).startswith(told)
    assert "trust ex" not in words(said)
    alone = [words(text) for text in remark.lead(rows[:1])]
    assert alone[0] == "There is one reward model, and so nothing to choose."
    assert alone[1].startswith("On test (ex 0.")


def test_one_run_is_one_run():
    assert words(remark.won([duel("ex", 1.0, 0.1, -0.1, 0.3) | {"runs": 1}])).startswith("ex wins 100% of 1 run agai")


def test_who_wins_most_is_not_said_to_be_better_while_0_is_within():
    told = words(remark.won([duel("ex", 0.75, 0.1, -0.1, 0.3), duel("grm", 0.5, 0.0, -0.2, 0.2)]))
    assert told == (
        "ex wins 75% of 4 runs against im, no other a greater share; every interval of the difference includes 0:"
        " not settled."
    )
    told = words(remark.won([duel("ex", 0.75, 0.1, -0.1, 0.3), duel("grm", 0.0, -0.2, -0.3, -0.1)]))
    assert told.endswith(
        f"1 of 2 differences in accuracy told from 0: grm less im {MINUS}0.20 ({MINUS}0.30 to {MINUS}0.10)."
    )


def test_accuracies_are_set_beside_each_other_and_beside_chance():
    rows = [row("ex", number(0.8, 0.6, 1.0), ("im",)), row("im", number(0.7, 0.4, 1.0))]
    assert words(remark.accuracy(rows)) == (
        "ex is highest, 0.80 (0.60 to 1.00), not told apart from im; 1 of 2 intervals lies wholly above one half."
    )
    alone = [row("ex", number(0.8)), row("im", number(0.7))]
    assert words(remark.accuracy(alone)).endswith(
        "told apart from all others; none of 2 intervals lie wholly above one half."
    )


def test_margins_are_told_with_whether_their_intervals_overlap():
    rows = [row("ex", number(0.8, 0.5, 1.1)), row("im", number(1.4, 1.2, 1.6))]
    assert words(remark.margin(rows)).endswith("ex least, 0.80 (0.50 to 1.10); their intervals do not overlap.")
    assert words(remark.margin([row("im", number(1.4, 1.0, 1.6)), rows[0]])).endswith("intervals overlap.")
    assert words(remark.margin([row("im", number(1.4)), rows[0]])).endswith("ex least, 0.80 (0.50 to 1.10).")


def test_lines_are_told_by_their_ends_and_where_they_began():
    steps = np.array([[10.0, 20.0], [10.0, 20.0]])
    lines = {"ex": (steps, np.array([[0.5, 0.6], [0.5, 0.8]])), "im": (steps, np.array([[0.6, 0.9], [0.6, 0.9]]))}
    told = words(remark.learning(lines, [row("im", number(0.9))]))
    assert told == "im ends highest, 0.90 (0.60 at step 10); ex lowest, 0.70 (0.50 at step 10)."


def test_tokens_are_told_where_they_were_fitted_and_where_they_carry_least():
    items = [("test", number(0.8), True), ("topics", number(0.6), False), ("para", number(-0.1, -0.2, 0.0), False)]
    assert words(remark.cues(items, "from")) == (
        f"Tokens explain 0.80 on test; carried over least, {MINUS}0.10 ({MINUS}0.20 to 0.00) on para."
    )


def test_pairs_that_cannot_be_separated_foretell_nothing():
    items = [{"seed": seed, "set": name} for seed in (1, 2) for name in ("test", "para")]
    assert words(remark.foretold(items, "from")) == (
        "The training pairs can be separated with 0 of 2 seeds: nothing is foretold by a separator."
    )
    some = [item | ({"separator.positive": 0.7 if item["set"] == "test" else 0.4} if item["seed"] == 1 else {})
            for item in items]  # fmt: skip
    assert words(remark.foretold(some, "from")) == (
        "The training pairs can be separated with 1 of 2 seeds; the separator ranks 0.700 of test right and 0.400 of"
        " para."
    )


@pytest.mark.parametrize(
    ("bases", "runs", "told"),
    [
        (3, 6, "over 3 bases."),
        (1, 6, "over 6 seeds: they say nothing of other bases."),
        (1, 1, "over prompts: they say nothing of other seeds and bases."),
    ],
)
def test_the_unit_of_the_means_of_parts_is_said(bases, runs, told):
    assert remark.unit([row("ex", number(0.5), runs=runs, bases=bases)]).endswith(told)


def test_reward_models_that_no_base_moves_are_compared_over_prompts():
    rows = [row("ex", number(0.8, 0.7, 0.9), bases=0), row("im", number(0.6, 0.5, 0.7), bases=0)]
    assert words(remark.lead(rows)[0]) == "Over prompts, trust ex on test (0.80)."
