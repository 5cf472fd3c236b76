"""Figures: what is drawn is what was told, and what is not known is not drawn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

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


def turning(name: str, outcome: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A curve, and what is told of it."""
    steps = {"steps": [0, 1, 2], "kl": [0.0, 2.0, 4.0], "truth": [0.0, 1.0, 0.5], "proxy": [0.0, 9.0, 99.0]}
    told = {"outcome": outcome, "peak": {"kl": 2.0, "gain": 1.0}, "turn": {"value": 2.0, "low": 1.0, "high": 3.0}}
    return {"reward_model": name, "seed": 1} | steps, {"reward_model": name} | told


def test_ground_truths_and_proxies_part_in_one_panel_and_only_a_turn_is_marked():
    pairs = [turning("ex", "turns"), turning("im", "not settled")]
    curves, told = (list(each) for each in zip(*pairs, strict=True))
    svg = figure.parted(curves, told, INK, {"ex": True, "im": False}, "small")
    told_end = "ex turns, at the end 0.50 and 99.00; im not settled, at the end 0.50 and 99.00"
    assert f'the KL from the initial policy: {told_end}"' in svg
    assert [marks(svg, colour) for colour in INK.values()] == [3, 0]  # a disc, and both ends of its bar
    assert max(float(text) for text in re.findall(r">([\d.]+)</text>", svg)) <= 4  # a proxy that runs away is cut off
    assert figure.parted(curves, [], INK, {}, "small") == ""


def test_without_an_interval_a_turn_is_a_disc_alone():
    curve, told = turning("ex", "turns")
    assert marks(figure.parted([curve], [told | {"turn": None}], INK, {"ex": True}, "small"), INK["ex"]) == 1


def foretold(name: str, forecast: Any, gain: Any, trained: bool = True) -> dict[str, Any]:
    """A row of a forecast: its value with its interval, and the gain that came true."""
    numbers = [
        None if told is None else dict(zip(("value", "low", "high"), told, strict=True)) for told in (forecast, gain)
    ]
    return {"reward_model": name, "trained": trained, "forecast": numbers[0], "gain": numbers[1]}


def test_forecasts_stand_against_what_came_true_each_with_both_intervals_where_known():
    known = (
        foretold("ex", (1.0, 0.8, 1.2), (0.5, 0.4, 0.6)),
        foretold("im", (-0.2, None, None), (0.1, None, None), False),
    )
    svg = figure.foretold([*known, foretold("a", None, (0.3, None, None))], INK, "weak, rloo")
    assert 'aria-label="Forecast against what came true, weak, rloo: ex 1.00 and 0.50; im -0.20 and 0.10"' in svg
    lines = [
        len(re.findall(f"<path [^>]*clip-path[^>]*stroke: {colour}; stroke-opacity: 0.7", svg))
        for colour in INK.values()
    ]
    assert lines == [2, 0]
    assert f"fill: {INK['im']}" not in svg  # constructed, and hollow
    assert figure.foretold([foretold("a", None, None)], INK, "weak, rloo") == ""


def test_a_forecast_of_no_sense_is_left_in_its_place_and_its_interval_is_cut_off():
    svg = figure.foretold([foretold("ex", (1.0, -90.0, 90.0), (0.5, -9.0, 9.0))], INK, "weak, rloo")
    assert max(float(text) for text in re.findall(r">([\d.]+)</text>", svg)) <= 2.5


def test_a_tilted_policy_is_drawn_as_far_as_its_samples_carry_it_and_a_turn_is_marked():
    path = {"eta": [0.0, 1.0, 2.0, 4.0], "kl": [0.0, 0.5, 1.0, 9.0], "ess": [1.0, 0.5, 0.1, 0.01], "least": 0.1}
    curves = [
        path | {"reward_model": "ex", "gain": [0.0, 0.5, 0.2, -9.0], "turn": 1.0},
        path | {"reward_model": "im", "gain": [0.0, 0.1, 0.3, 9.0], "turn": None},
    ]
    svg = figure.tilted(curves, INK, {"ex": True, "im": False}, "weak, rloo")
    said = "ex 0.20 at a KL of 1.00, turned; im 0.30 at a KL of 1.00"
    assert f'aria-label="Tilted policy, weak, rloo, ground-truth gain against KL; at the end: {said}"' in svg
    assert max(float(text) for text in re.findall(r">([\d.]+)</text>", svg)) <= 1
    assert [marks(svg, colour) for colour in INK.values()] == [1, 0]
    assert figure.tilted([], INK, {}, "weak, rloo") == ""


def test_the_best_of_n_stands_over_n_each_twice_the_one_before():
    curves = [{"reward_model": "ex", "n": [1, 2, 4, 8], "gain": [0.0, 0.5, 0.8, 0.7]}]
    svg = figure.best_of_n(curves, INK, {"ex": True}, "weak")
    assert 'aria-label="Best of n, weak, ground-truth gain; at the end: ex 0.70 of 8"' in svg
    places = {text: float(x) for x, text in re.findall(r'x="([\d.]+)" y="[\d.]+"[^>]*>([1248])</text>', svg)}
    assert places["2"] - places["1"] == pytest.approx(places["8"] - places["4"], abs=0.1)
    assert figure.best_of_n([], INK, {}, "weak") == ""


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


def test_learning_needs_no_line_and_spans_orders_of_magnitude():
    steps = np.array([[0.0, 10.0]])
    lines = {"ex": (steps, np.array([[0.001, 1.0]]))}
    with_line, without = (figure.learning(lines, INK, "norm", "small", at) for at in (0.5, None))
    assert strokes(with_line) == strokes(without) + 1
    drawn = figure.learning(lines, INK, "norm", "small", None, log=True)
    assert {"0.001", "0.01", "0.1", "1"} <= set(re.findall(r">([\d.]+)</text>", drawn))
    small = figure.learning({"ex": (steps, np.array([[0.01, 0.00125]]))}, INK, "norm", "small", None, log=True)
    assert "at the end: ex 0.00125" in small


def test_counts_stand_on_a_logarithmic_axis_and_none_of_them_at_its_edge():
    number = {"value": 0.5, "low": 0.25, "high": 0.75}
    rungs = {"SFT": [(0, number), (3, number), (300, number)]}
    svg = figure.ladder(rungs, {"SFT": "#0077bb"}, "labels", "share", "small", 1.0, log=True)
    assert [text for text in ("0", "3", "300") if f">{text}</text>" in svg] == ["0", "3", "300"]
    assert 'aria-label="small, share, over the labels: SFT 0.50, 0.50, 0.50"' in svg


def test_an_axis_shared_by_panels_has_0_all_values_and_no_interval_that_hides_them():
    numbers = [{"value": 1.0, "low": 0.5, "high": 1.5}, {"value": -0.5, "low": -90.0, "high": None}]
    assert figure.reach(numbers) == (-2.5, 1.5 * 1.05)
    assert figure.reach([{"value": 2.0, "low": None, "high": None}]) == (0.0, 2.1)


def test_runs_are_stacked_as_far_as_the_shortest_goes():
    across, up = figure.runs([{"steps": [0, 1, 2], "kl": [0.0, 1.0, 2.0]}, {"steps": [0, 1], "kl": [0.0, 3.0]}], "kl")
    assert across.tolist() == [[0, 1], [0, 1]]
    assert up.tolist() == [[0, 1], [0, 3]]


SCATTERED = {"ex": ([0.0, 0.01, 0.1], [0.0, 0.02, 0.2]), "im": ([1.0, 2.0], [2.0, 4.0])}
TOLD = (INK, ("std", "norm"), "small")


def marks(svg: str, colour: str) -> int:
    return len(re.findall(rf'<use [^>]*style="fill: {colour}', svg))


def test_a_scatter_has_every_point_a_mark_for_each_group_and_names_of_several():
    svg = figure.scatter(SCATTERED, *TOLD)
    assert (marks(svg, INK["ex"]), marks(svg, INK["im"])) == (3, 2)
    assert len({re.search(r'd="([^"]+)"', part)[1] for part in svg.split("<defs>")[1:] if INK["ex"] in part
                or INK["im"] in part}) == 2  # fmt: skip
    assert (
        'aria-label="small, norm against std: 3 points ex, medians 0.01 and 0.02; 2 points im, medians 1.5 and 3"'
        in svg
    )
    assert ">ex</text>" in svg
    assert "points, medians" in figure.scatter({"": SCATTERED["ex"]}, {"": "#0077bb"}, ("std", "norm"), "small")
    assert figure.scatter({"ex": ([], [])}, *TOLD) == ""


def test_what_is_0_stands_hollow_at_the_edge_of_a_logarithmic_scatter():
    svg = figure.scatter(SCATTERED, *TOLD, log=True)
    assert marks(svg, INK["ex"]) == 2
    assert svg.count(f"fill-opacity: 0; stroke: {INK['ex']}") == 1
    assert svg.count(">0</text>") == 2


def test_the_line_of_a_scatter_is_drawn_where_there_is_one_and_so_is_that_between():
    bare = strokes(figure.scatter({"ex": ([1.0, 2.0], [2.0, 4.0])}, *TOLD, log=True))
    lean = strokes(figure.scatter({"ex": ([1.0, 2.0, 4.0], [2.0, 4.0, 9.0])}, *TOLD, log=True))
    between = strokes(figure.scatter({"ex": ([1.0, 2.0, 4.0], [2.0, 4.0, 9.0])}, *TOLD, 1.5, log=True))
    assert (lean, between) == (bare + 1, bare + 2)


def test_a_slope_is_of_logarithms_over_what_is_above_0():
    x = np.array([0.0, 1.0, 2.0, 4.0])
    assert figure.slope(x, 3 * x**2, log=True) == pytest.approx((2.0, np.log(3)))
    assert figure.slope(x, 3 * x + 1) == pytest.approx((3.0, 1.0))
    assert figure.slope(x[:3], x[:3], log=True) is None
