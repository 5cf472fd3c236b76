"""Figures: what is drawn is what was told, and what is not known is not drawn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from rmpipe import figure

INK = figure.colours(["ex", "im"])


def bar(name: str, value: float, low: float | None = None, high: float | None = None, full: bool = True) -> Any:
    return (name, {"value": value, "low": low, "high": high}, INK["ex"], full)


def strokes(svg: str) -> int:
    """Lines in the text's colour that are neither axes nor ticks: intervals, the line at 0, and the one beside it."""
    return len(re.findall(r"<path [^>]*clip-path[^>]*stroke: currentColor", svg))


def test_bars_say_what_they_show_to_those_who_do_not_see_them():
    svg = figure.bars([bar("ex\nagainst im", 0.25), bar("b", -0.5)], "share won", "small")
    assert 'aria-label="small, share won: ex against im 0.25; b -0.50"' in svg
    assert figure.bars([], "share won", "small") == ""


def test_an_interval_and_a_line_at_chance_are_drawn_where_there_are_any():
    bare = strokes(figure.bars([bar("a", 0.4), bar("b", 0.6)], "x", "small"))
    one = strokes(figure.bars([bar("a", 0.4, 0.1, 0.7), bar("b", 0.6)], "x", "small"))
    chance = strokes(figure.bars([bar("a", 0.4, 0.1, 0.7), bar("b", 0.6)], "x", "small", 0.5))
    assert (one, chance) == (bare + 1, bare + 2)


def test_a_hollow_bar_is_not_filled():
    full = figure.bars([bar("a", 0.4)], "x", "small")
    hollow = figure.bars([bar("a", 0.4, full=False)], "x", "small")
    assert f"fill: {INK['ex']}" in full
    assert f"fill: {INK['ex']}" not in hollow


def test_a_long_name_loses_its_middle():
    svg = figure.bars([bar("an_implicit_reward_model\nagainst x", 0.5)], "x", "small")
    drawn = re.findall(r">([^<>\n]+)</text>", svg)
    assert "an_implic…rd_model" in drawn
    assert "against x" in drawn


def test_learning_draws_every_run_and_names_the_end_of_the_mean():
    steps = np.array([[10.0, 20.0]] * 3)
    lines = {"ex": (steps, np.array([[0.5, 0.6], [0.5, 0.7], [0.5, 0.8]])), "im": (steps[:1], np.array([[0.6, 0.9]]))}
    svg = figure.learning(lines, INK, "accuracy, test", "small", 0.5)
    assert (
        'aria-label="small, accuracy, test while training, one line a reward model; at the end: ex 0.70; im 0.90"'
        in svg
    )
    assert len(re.findall(f"stroke: {INK['ex']}; stroke-opacity: 0.5", svg)) == 3
    assert f"stroke: {INK['im']}; stroke-opacity: 0.5" not in svg  # a single run is its own mean
    assert figure.learning({}, INK, "accuracy, test", "small", 0.5) == ""
