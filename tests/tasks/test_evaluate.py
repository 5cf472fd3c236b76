"""How a reward model fares on a set: shares have an interval even where every pair is right."""

from __future__ import annotations

import pandas as pd
import pytest

from tasks.evaluate import _numbers

RIGHT = 0.025 ** (1 / 9)


def pairs(correct: list[float]) -> pd.DataFrame:
    """Two pairs a prompt, of two groups in turn."""
    rows = [
        {"asked": str(n // 2), "group": "ab"[n % 2], "correct": value, "margin": 1.0, "chosen_reward": value,
         "rejected_reward": 0.5} for n, value in enumerate(correct)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_with_every_pair_right_or_wrong_the_interval_is_that_of_as_many_prompts():
    numbers = _numbers(pairs([1.0] * 18), 100)
    for name in ("accuracy", "accuracy.a", "accuracy.b"):
        assert numbers[name] == {"value": 1.0, "low": pytest.approx(RIGHT), "high": 1.0}, name
    assert _numbers(pairs([0.0] * 18), 100)["accuracy"]["high"] == pytest.approx(1 - RIGHT)


def test_what_is_no_share_is_bootstrapped_though_all_pairs_have_one_value():
    assert _numbers(pairs([1.0] * 18), 100)["chosen"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_with_some_right_the_prompts_are_drawn():
    number = _numbers(pairs([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), 100)["accuracy"]
    assert number["value"] == 0.5
    assert 0 <= number["low"] < 0.5 < number["high"] <= 1
