"""Legends: what is seen in a figure of `displace`, and no more than its intervals allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmpipe import legend
from tests.rmpipe.test_remark import MINUS, number, words


def test_those_that_are_settled_are_named_the_clearest_first_on_either_side_of_0():
    known = [("a", number(-0.2, -0.3, -0.1)), ("b", number(-0.5, -0.6, -0.4)), ("c", number(0.1, -0.1, 0.3))]
    text = words(legend.ranked(known, "x"))
    assert text.startswith("2 of 3 intervals lie below 0 (the more alike, the more displaced): b ")
    assert f"a {MINUS}0.20 ({MINUS}0.30 to {MINUS}0.10)" in text
    assert "c " not in text
    both = words(legend.ranked([*known, ("d", number(0.4, 0.2, 0.6))], "x"))
    assert "displaced), 1 above: b" in both


def test_what_is_not_settled_is_said_to_be_shown_by_nothing():
    assert "nothing here is shown" in legend.ranked([("a", number(-0.5)), ("b", number(-0.2, -0.5, 0.1))], "x")


def test_the_quarters_at_either_end_are_told():
    parts = [
        {"change": number(value, value - 1, value + 1), "displaced": number(0.25)} for value in (2.0, 1.0, 0.5, -3.0)
    ]
    first, last = "2.00 (1.00 to 3.00)", f"{MINUS}3.00 ({MINUS}4.00 to {MINUS}2.00)"
    told = f"The lowest quarter moves by {first} nats, the highest by {last}; displaced 0.25 and 0.25."
    assert words(legend.quarters(parts, "x")) == told


def test_a_ladder_is_told_by_its_ends_and_how_far_it_is_in_order():
    item: dict[str, Any] = {"policy": "p", "training": "dpo", "order": number(-0.9, -1.0, -0.8)}
    item["rungs"] = [{"at": at, "subset": f"q{at}", "chosen": number(value)} for at, value in ((0.0, 1.0), (0.9, -2.0))]
    told = legend.ladders([item], ["ches"])
    assert words(told) == (
        f"ches: 1.00 at the 0% quantile, {MINUS}2.00 at the 90%; Spearman with the quantile {MINUS}0.90"
        f" ({MINUS}1.00 to {MINUS}0.80)."
    )
    assert 'href="#from/p/dpo/q0.9"' in told
    assert "Spearman" not in legend.ladders([item | {"order": None}], ["ches"])


def test_curves_tell_both_ends_and_how_many_fall():
    steps = np.array([[0.0, 30.0]] * 2)
    lines = {"a": (steps, np.array([[0.0, -1.0], [0.0, -3.0]])), "b": (steps, np.array([[0.0, 1.0]] * 2))}
    ends = f"b ends highest, 1.00; a ends lowest, {MINUS}2.00"
    assert words(legend.curves(lines, ("p", "dpo"))) == f"After 30 steps {ends}; 1 of 2 end below where they began."
    one = words(legend.curves({"a": lines["a"]}, ("p", "dpo")))
    assert one == f"After 30 steps a ends at {MINUS}2.00; 1 of 1 end below where they began."


def test_refusals_tell_the_most_the_least_and_before():
    rows = [{"policy": "p", "training": "dpo", "subset": name, "refusal": number(value), "refusal_before": number(0.9)}
            for name, value in (("low", 0.25), ("all", 0.75))]  # fmt: skip
    assert words(legend.refusals(rows)) == "all refuses 0.75, low refuses 0.25; before training 0.90."
    assert words(legend.refusals(rows[:1])) == "low refuses 0.25; before training 0.90."
