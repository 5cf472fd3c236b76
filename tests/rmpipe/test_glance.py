"""Glances: what is seen in a figure of `vanish`, and no more than its intervals allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmpipe import glance
from tests.rmpipe.test_remark import MINUS, number, words


def arm(name: str, **numbers: Any) -> dict[str, Any]:
    return {"policy": "p", "reward": "r", "arm": name} | numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (-0.01234, f"{MINUS}0.0123"), (1234.5, "1,234"), (-1e-17, "0"), (1.23e-5, f"1.23e{MINUS}05")],
)
def test_three_digits_count(value, text):
    assert glance.digits(value) == text


def test_norms_are_told_on_either_side_and_how_many_are_0():
    std = [0.0, 0.01, 0.1, 1.0]
    few = np.array([True, True, False, False])
    told = glance.norms({"std": std, "norm": [2 * one for one in std]}, few, number(0.9, -0.1, 1.9), "x")
    assert words(told) == (
        "1 of 4 prompts lie at 0, at the edge; the median norm of low-std prompts is 0.01, of the others 1.1; the line"
        " has the slope 1, drawn to 1 by the noise of samples; over all runs, the noise of samples taken out, the norm"
        f" grows with the std to the power 0.9 ({MINUS}0.1 to 1.9), which settles nothing."
    )
    assert words(glance.norms({"std": [1.0], "norm": [1.0]}, np.array([True]), None, "x")) == ""


def test_gaps_are_named_by_the_side_that_they_are_settled_on():
    rows = [arm("a", gap=number(0.5, 0.4, 0.6)), arm("b", gap=number(-0.5, -0.6, -0.4)), arm("c", gap=number(0.1)),
            arm("d", gap=None)]  # fmt: skip
    assert words(glance.gaps(rows)) == (
        "High-std prompts gain more than low-std ones under a by 0.5 (0.4 to 0.6); high-std prompts gain less than"
        " low-std ones under b by 0.5 (0.4 to 0.6); under c the gap is not settled."
    )


def test_a_quarter_whose_interval_includes_0_is_not_told_from_it():
    parts = [{"gain": number(0.1, -0.1, 0.3)}, {"gain": number(0.5)}, {"gain": number(0.5, 0.4, 0.6)}]
    told = f"The quarter of least std gains 0.1 ({MINUS}0.1 to 0.3), not told from 0, that of most 0.5 (0.4 to 0.6)."
    assert words(glance.quarters(parts, "x")) == told


@pytest.mark.parametrize(
    ("spearman", "expected"),
    [
        (number(0.4, 0.2, 0.6), "The gain rises with the std: over all runs Spearman 0.4 (0.2 to 0.6), Pearson 0.3."),
        (number(-0.4, -0.6, -0.2), "The gain falls with the std: over all runs"),
        (number(0.1, -0.1, 0.3), "Whether the gain goes with the std is not settled: over all runs"),
        (None, "Whether the gain goes with the std is not known."),
    ],
)
def test_whether_the_gain_goes_with_the_std_is_said_as_far_as_it_is_settled(spearman, expected):
    assert words(glance.related(arm("a", spearman=spearman, pearson=number(0.3)))).startswith(expected)


def test_curves_tell_both_ends_and_where_they_began():
    steps = np.array([[0.0, 40.0]] * 2)
    lines = {"a": (steps, np.array([[0.0, 1.0], [0.0, 3.0]])), "b": (steps, np.array([[0.5, 0.75]] * 2))}
    told = glance.curves(lines, ("p", "r"))
    assert words(told) == "After 40 steps a ends highest, at 2, from 0; b ends lowest, at 0.75, from 0.5."
    assert 'href="#from/p/r/b"' in told
    assert words(glance.curves({"a": lines["a"]}, ("p", "r"))) == "After 40 steps a ends at 2, from 0."


def test_labels_tell_the_fewest_and_the_most():
    points = [arm("a", labels=number(float(count)), recovered=number(part, 0.1, 1.1)) for count, part in
              ((0, 0.25), (1, 0.5), (60, 1.0))]  # fmt: skip
    told = words(glance.labels({"SFT, then RLHF": points, "SFT alone": points[1:2]}, "recovered"))
    assert told == (
        "SFT, then RLHF: 0.25 (0.1 to 1.1) with no labels; 1 (0.1 to 1.1) with 60 labels. SFT alone: 0.5 (0.1 to 1.1)"
        " with 1 label."
    )


ADVICE = arm("few", labels=number(12.0), sft_steps=30, recovered=number(0.9), alone=number(0.25), why="enough") | {
    "without": "rft"
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "Label 12 inputs and take 30 steps of SFT (few), which has 0.9 of the highest gain; without labels rft "
             "has 0.25 of it. Why: the fewest labels whose share surely reaches 80%."),
        ({"labels": None, "arm": "rft"}, "Label none (rft), which has 0.9 of the highest gain. Why: the fewest labels"),
        ({"why": "best", "alone": None}, "has 0.9 of the highest gain. Why: none with fewer labels surely reaches"),
        ({"arm": None, "why": "nothing"}, "Nothing is advised: nothing was surely gained."),
        ({"why": "as somebody says"}, "Why: as somebody says."),
    ],
)  # fmt: skip
def test_advice_says_how_many_labels_and_why(changed, expected):
    assert expected in words(glance.advised(ADVICE | changed))


def test_groups_are_told_by_their_median_and_an_empty_one_is_not():
    groups = {"modified": ([0.1], [0.5]), "unmodified": ([], [])}
    told = words(glance.scattered(groups, number(0.2, -0.2, 0.6), "x"))
    assert told == (
        "The median norm of modified inputs is 0.5; over all runs Spearman of std and norm is 0.2"
        f" ({MINUS}0.2 to 0.6), which settles nothing."
    )
