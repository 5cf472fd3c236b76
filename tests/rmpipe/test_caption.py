"""Captions: they say what this figure shows, and no more than its numbers do."""

from __future__ import annotations

import re
from typing import Any

from rmpipe import caption


def row(name: str, truth: float | None, proxy: float = 0.5, kl: float = 1.0, **more: Any) -> dict[str, Any]:
    numbers = {"truth_gain": truth, "proxy_gain": proxy, "kl": kl, "accuracy_on": 0.7, "variance": 0.9} | more
    names = {"policy": "weak", "algorithm": "rloo", "reward_model": name, "rank": name, "not_told_from": []}
    ends = {"low": None, "high": None}
    found = {key: None if value is None else {"value": value} | ends for key, value in numbers.items()}
    return names | found | {"ranked_by": "proxy" if truth is None else "truth"}


def line(name: str, *up: float) -> dict[str, Any]:
    steps = [10 * place for place in range(len(up))]
    return {"reward_model": name, "steps": steps, "truth": list(up), "proxy": list(up), "kl": steps}


def words(told: str) -> str:
    return re.sub(r"<[^>]+>", "", told)


def test_the_best_teacher_is_set_beside_the_most_accurate():
    rows = [row("off", 0.53), row("truth", 0.47, accuracy_on=1.0), row("flat", 0.13, accuracy_on=0.999)]
    told = words(caption.plane(rows, "accuracy_on"))
    assert told == (
        "off gained most, 0.53, at accuracy 0.70 and variance 0.90; the 2 most accurate (1.00) gained 0.13 to 0.47."
    )
    assert words(caption.plane(rows[:2], "accuracy_on")).endswith("the most accurate, truth (1.00), gained 0.47.")
    assert words(caption.plane(rows[1:2], "accuracy_on")).endswith("it is also the most accurate.")


def test_a_leader_who_is_not_told_apart_is_said_to_be_so():
    rows = [row("a", 0.5), row("b", 0.4), row("c", 0.3)]
    rows[0] |= {"rank": "1=", "not_told_from": ["c"]}
    rows[1] |= {"rank": "1="}
    told = words(caption.curve(rows, [line("a", 0, 0.5), line("b", 0, 0.4), line("c", 0, 0.3)], "steps", "truth"))
    assert told == "a ends highest, 0.50 sd after 10 steps (not told apart from 2 of the other 2); c lowest, 0.30."


def test_a_line_that_falls_is_named_with_its_height():
    rows = [row("a", 0.5), row("b", -0.1)]
    told = words(caption.curve(rows, [line("a", 1, 1.2, 1.5), line("b", 0, 0.2, -0.1)], "steps", "truth"))
    assert told == "a ends highest, 0.50 sd after 20 steps; b falls from 0.20 at step 10 to \N{MINUS SIGN}0.10."


def test_the_highest_proxy_stands_beside_its_ground_truth_where_one_is_known():
    curves = [line("a", 0, 2), line("b", 0, 1)]
    known = words(caption.curve([row("a", -0.1, 2.0), row("b", 0.3, 1.0)], curves, "steps", "proxy"))
    assert known == "a ends highest, 2.00 sd after 10 steps; by the ground truth it gained \N{MINUS SIGN}0.10."
    unknown = words(caption.curve([row("a", None, 2.0), row("b", None, 1.0)], curves, "steps", "proxy"))
    assert unknown == "a ends highest, 2.00 sd after 10 steps; b lowest, 1.00."


def told(name: str, rank: str, gain: float, forecast: float | None = 1.0) -> dict[str, Any]:
    """A row of a forecast."""
    row = {"reward_model": name, "rank": rank, "gain": {"value": gain}, "truth": "gold"}
    return row | {"forecast": forecast and {"value": forecast}}


def test_what_the_first_of_a_forecast_gained_stands_beside_who_gained_most():
    first, best, other = told("off", "1", 0.3), told("truth", "2", 0.5), told("flat", "3", 0.1)
    assert words(caption.foretold([first, best, other])) == "truth gained most, 0.50; off, foretold to be first, 0.30."
    assert words(caption.foretold([best | {"rank": "1"}, other])) == "truth gained most, 0.50, as was foretold."
    tied = [row | {"rank": "1="} for row in (first, best)]
    assert words(caption.foretold([*tied, other])).endswith("; the 2 foretold to be first 0.30 to 0.50.")
    assert words(caption.foretold([first | {"gain": None}, best])).endswith("; of who is put first it is not known.")


def test_the_ground_truth_itself_is_not_said_to_have_been_foretold_to_be_first():
    rows = [told("gold", "1", 0.9), told("off", "2", 0.3), told("flat", "3", 0.1)]
    assert words(caption.foretold(rows)) == ("off gained most, 0.30 (the ground truth itself aside), as was foretold.")
    assert words(caption.foretold(rows[:1])) == "The ground truth itself, which is nobody to choose."


def tilted(name: str, *gain: float, turn: float | None = None) -> dict[str, Any]:
    """A path whose last look the samples do not carry."""
    looks = range(len(gain))
    path = {"eta": [float(eta) for eta in looks], "kl": [0.5 * eta for eta in looks], "gain": list(gain)}
    held = {"ess": [1.0] * (len(gain) - 1) + [0.05], "least": 0.1, "turn": turn}
    return {"truth": "gold", "reward_model": name} | path | held


def test_of_tilted_policies_the_highest_is_named_and_the_one_that_turns_first():
    curves = [tilted("a", 0, 0.4, 0.6, 9.0), tilted("b", 0, 0.3, 0.1, 0.0, turn=1.0)]
    assert words(caption.tilted(curves)) == (
        "a gets highest, 0.60 sd at a KL of 1.00; 1 of 2 turns, b first, at 0.30 sd and a KL of 0.50."
    )
    assert words(caption.tilted(curves[:1])) == "a gets highest, 0.60 sd at a KL of 1.00; none is seen to turn."
    itself = tilted("gold", 0, 1.0, 1.5, 2.0)
    assert words(caption.tilted([itself, curves[0]])) == (
        "a gets highest, 0.60 sd at a KL of 1.00 (the ground truth itself aside); none is seen to turn."
    )


def test_of_the_best_of_n_the_best_the_worst_and_the_one_that_falls_most_are_named():
    n = [1, 2, 4]
    curves = [{"truth": "gold", "reward_model": name, "n": n, "gain": gain}
              for name, gain in (("a", [0, 0.4, 0.8]), ("b", [0, 0.3, 0.1]), ("c", [0, -0.1, -0.5]))]  # fmt: skip
    told = "The best of 4 by a gains most, 0.80 sd; by c least, \N{MINUS SIGN}0.50"
    assert words(caption.best_of_n(curves[::2])) == f"{told}."  # who only falls is the least already
    assert words(caption.best_of_n(curves)) == f"{told}; b falls from 0.30 at 2 to 0.10."
    assert words(caption.best_of_n(curves[:1])) == "The best of 4 by a gains most, 0.80 sd."
    itself = curves[0] | {"reward_model": "gold", "gain": [0, 1.4, 1.9]}
    assert words(caption.best_of_n([itself, curves[0]])) == (
        "The best of 4 by a gains most, 0.80 sd (the ground truth itself aside)."
    )
    assert words(caption.best_of_n([itself])) == "The best of 4 by gold gains most, 1.90 sd."


def test_of_predictors_the_best_two_are_named():
    items = [("variance", {"value": -0.1}), ("the forecast", {"value": 0.9}), ("accuracy", {"value": 0.2})]
    assert words(caption.scored(items)) == "Best the forecast 0.90, then accuracy 0.20."
    assert words(caption.scored(items[:1])) == "Best variance \N{MINUS SIGN}0.10."


def test_over_kl_the_price_of_a_gain_is_named():
    rows, curves = [row("a", 0.5, kl=2.0), row("b", 0.1, kl=9.0)], [line("a", 0, 1), line("b", 0, 1)]
    assert words(caption.curve(rows, curves, "kl", "truth")) == (
        "a gained most, 0.50 sd, at a KL of 2.00 nats; b went farthest, 9.00 nats, for 0.10 sd."
    )


def test_of_several_that_turn_the_one_that_loses_most_is_named():
    names = {
        "policy": "weak",
        "algorithm": "rloo",
        "outcome": "turns",
        "peak": {"kl": 3.0},
        "meanwhile": {"value": -1.0},
    }
    told = [names | {"reward_model": name, "fall": {"value": fall}} for name, fall in (("a", 0.2), ("b", 0.5))]
    told += [names | {"reward_model": "c", "fall": {"value": 0.9}, "outcome": "not settled"}]
    assert words(caption.parted(told)) == (
        "2 of 3 turn. b loses most, 0.50 sd after a KL of 3.00; its own reward loses 1.00 meanwhile."
    )
    assert words(caption.parted(told[2:])) == "No ground truth is seen to turn."


def test_no_correlation_is_named_whose_interval_includes_0():
    wide, apart = {"value": 0.9, "low": -0.1, "high": 1.0}, {"value": -0.8, "low": -0.9, "high": -0.2}
    told = words(caption.forest([("a", wide), ("b", apart), ("c", None)]))
    assert told == "1 of 2 intervals excludes 0: b \N{MINUS SIGN}0.80 (\N{MINUS SIGN}0.90 to \N{MINUS SIGN}0.20)."
    assert caption.forest([("a", wide)]).startswith("No interval excludes 0")


def test_differences_count_what_lies_above_0():
    numbers: list[dict[str, Any]] = [{"low": 0.1}, {"low": -0.1}, {"low": None}]
    assert caption.differences(numbers) == "1 of 3 intervals lies wholly right of 0."
    assert caption.differences(numbers[2:]) == "The interval does not lie right of 0."
