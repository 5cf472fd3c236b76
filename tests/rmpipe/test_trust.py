"""Whom to trust: nobody whom nothing tells from a coin, however much better than others."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import trust


def row(name: str, value: float, low: float | None, high: float | None, *not_told_from: str) -> dict[str, Any]:
    names = {"policy": "p", "set": "test", "shift": "in-distribution", "bases": 3, "reward_model": name}
    return names | {"accuracy": {"value": value, "low": low, "high": high}, "not_told_from": list(not_told_from)}


def said(*rows: dict[str, Any]) -> str:
    return trust.sentences(list(rows), [])[0].removeprefix("p, test (in-distribution): ")


def test_a_leader_above_a_coin_and_told_apart_is_trusted():
    assert said(row("ex", 0.8, 0.7, 0.9), row("im", 0.6, 0.4, 0.7)) == (
        "trust ex (0.80 [0.70, 0.90]); told apart from im (0.60)."
    )
    assert said(row("ex", 0.8, 0.7, 0.9, "im"), row("im", 0.7, 0.6, 0.8)).endswith("highest, not told apart from im.")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("ex", 0.52, 0.45, 0.60), ("im", 0.48, 0.4, 0.55)], "nobody is told from a coin."),
        ([("ex", 0.5, None, None), ("im", 0.4, None, None)], "nobody is told from a coin."),
        ([("ex", 0.52, 0.45, 0.60), ("im", 0.30, 0.2, 0.4)], "nobody is told from a coin but im, below it."),
        ([("ex", 0.40, 0.35, 0.45), ("im", 0.30, 0.2, 0.4)], "all are below a coin."),
        ([("ex", 0.80, 0.40, 1.20), ("im", 0.7, 0.6, 0.8)], "it is not told from a coin, as im is."),
    ],
)
def test_a_leader_that_a_coin_may_equal_is_not_trusted(rows, told):
    first, second = (row(*each) for each in rows)
    whole = said(first, second)
    assert whole.endswith(f"is highest; told apart from im ({second['accuracy']['value']:.2f}); {told}")
    assert "trust" not in whole
    tied = said(first | {"not_told_from": ["im"]}, second)
    assert tied.endswith(f"is highest, not told apart from im; {told}")


def test_one_alone_stands_beside_a_coin_too():
    assert said(row("ex", 0.8, 0.7, 0.9)) == "ex (0.80 [0.70, 0.90]) is the only reward model."
    assert said(row("ex", 0.5, 0.4, 0.6)).endswith("is the only reward model; it is not told from a coin.")
    assert said(row("ex", 0.3, 0.2, 0.4)).endswith("is the only reward model; it is below a coin.")
