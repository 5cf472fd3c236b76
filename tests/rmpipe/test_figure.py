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


def test_a_bar_of_no_length_still_shows_its_colour_and_whether_it_is_full():
    full = figure.bars([bar("a", 0.0)], "x", "small")
    hollow = figure.bars([bar("a", 0.0, full=False)], "x", "small")
    disc = f'style="fill: {INK["ex"]}; stroke: {INK["ex"]}'
    assert (full.count(disc), hollow.count(disc)) == (1, 0)
    assert disc not in figure.bars([bar("a", 0.4)], "x", "small")


def test_a_long_name_loses_its_middle():
    svg = figure.bars([bar("an_implicit_reward_model\nagainst implicit_fixed", 0.5)], "x", "small")
    drawn = re.findall(r">([^<>\n]+)</text>", svg)
    assert "an_implic…rd_model" in drawn
    assert "against implicit_fixed" in drawn  # two words, either short enough


def test_learning_draws_every_run_and_names_the_end_of_the_mean():
    steps = np.array([[10.0, 20.0]] * 3)
    lines = {"ex": (steps, np.array([[0.5, 0.6], [0.5, 0.7], [0.5, 0.8]])), "im": (steps[:1], np.array([[0.6, 0.9]]))}
    svg = figure.learning(lines, INK, "accuracy, test", "small", 0.5)
    assert 'aria-label="small, accuracy, test while training, a line each; at the end: ex 0.70; im 0.90"' in svg
    assert len(re.findall(f"stroke: {INK['ex']}; stroke-opacity: 0.5", svg)) == 3
    assert f"stroke: {INK['im']}; stroke-opacity: 0.5" not in svg  # a single run is its own mean
    assert figure.learning({}, INK, "accuracy, test", "small", 0.5) == ""


def test_a_ladder_has_a_line_an_interval_a_rung_where_there_is_one_and_its_name():
    def rung(at: float, value: float, *ends: float) -> Any:
        return at, {"value": value, "low": ends[0] if ends else None, "high": ends[1] if ends else None}

    told = ({"ches": "#0077bb"}, "quantile", "change, nats", "small, dpo")
    bare = figure.ladder({"ches": [rung(0, 1.0), rung(0.5, -1.0)]}, *told)
    assert 'aria-label="small, dpo, change, nats, over the quantile: ches 1.00, -1.00"' in bare
    assert ">ches</text>" in bare
    full = figure.ladder({"ches": [rung(0, 1.0, 0.5, 1.5), rung(0.5, -1.0, -2.0, 0.0)]}, *told)
    inked = [len(re.findall(r"<path [^>]*clip-path[^>]*stroke: #0077bb", svg)) for svg in (bare, full)]
    assert inked[1] == inked[0] + 2
    assert figure.ladder({}, *told) == ""


def test_two_forests_of_one_page_are_told_apart_by_whose_they_are():
    items = [("ches", {"value": 0.5, "low": None, "high": None})]
    assert 'aria-label="Spearman: ches 0.50"' in figure.forest(items, "Spearman")
    assert 'aria-label="small, Spearman: ches 0.50"' in figure.forest(items, "Spearman", where="small")
