"""Captions: one line a figure that says what is to be seen in it, from the numbers that it draws.

They give plain numbers, say where an interval does not tell the first from others, and leave how to read a figure to
the page. Every number is a citation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from rmpipe import figure
from rmpipe.citation import RANKING, cite, decimals, entry, interval, link
from rmpipe.foretold import candidates

FALL = 0.1
"""A line is said to fall when it ends below its height by more than this share of the best gain."""
ASIDE = " (the ground truth itself aside)"
"""Where who is best is told of those alone that one can choose."""


def plane(rows: list[dict[str, Any]], accuracy: str) -> Markup:
    """Where the best teacher stands, and what the most accurate ones gained."""
    gain = _gain(rows)
    known = [row for row in rows if row[accuracy] and row["variance"] and row[gain]]
    best = max(known, key=lambda row: row[gain]["value"])
    top = max(decimals(row[accuracy]["value"]) for row in known)
    most = sorted((row for row in known if decimals(row[accuracy]["value"]) == top), key=lambda row: row[gain]["value"])
    where = Markup("<b>{}</b> gained most, {}, at accuracy {} and variance {}; ").format(
        best["reward_model"], cite(best, gain), cite(best, accuracy), cite(best, "variance")
    )
    if most == [best]:
        return where + "it is also the most accurate."
    if len(most) == 1:
        words = "the most accurate, <b>{}</b> ({}), gained {}."
        return where + Markup(words).format(most[0]["reward_model"], cite(most[0], accuracy), cite(most[0], gain))
    words = "the {} most accurate ({}) gained {} to {}."
    ends = cite(most[0], gain), cite(most[-1], gain)
    return where + Markup(words).format(len(most), cite(most[0], accuracy), *ends)


def curve(rows: list[dict[str, Any]], curves: list[dict[str, Any]], x: str, y: str) -> Markup:
    """Who ends highest and who lowest or fell; over KL, who went how far for it."""
    drawn = {item["reward_model"] for item in curves}
    known = [row for row in rows if row[f"{y}_gain"] and row["kl"] and row["reward_model"] in drawn]
    known.sort(key=lambda row: -row[f"{y}_gain"]["value"])
    if x == "kl" or not known:
        return _far(known, y) if known else Markup()
    first, last = known[0], known[-1]
    steps = max(item["steps"][-1] for item in curves)
    words = "<b>{}</b> ends highest, {} sd after {} steps{}"
    told = Markup(words).format(first["reward_model"], cite(first, f"{y}_gain"), steps, _unsure(first, rows, y))
    if y == "proxy" and first["truth_gain"]:
        return told + Markup("; by the ground truth it gained {}.").format(cite(first, "truth_gain"))
    if fall := _fall(known, curves, y):
        return told + fall
    ends = Markup("; <b>{}</b> lowest, {}").format(last["reward_model"], cite(last, f"{y}_gain"))
    return told + (ends if last is not first else "") + "."


def parted(told: list[dict[str, Any]]) -> Markup:
    """Who turns, at which KL and for what loss, the greatest named; else that none does.

    Args:
        told: rows of `rmpipe.overoptimisation.answer`.
    """
    turned = [row for row in told if row["outcome"] == "turns"]
    if not turned:
        return Markup("No ground truth is seen to turn.")
    worst = max(turned, key=lambda row: row["fall"]["value"])
    target = entry(worst, "truth_gain")
    words = "{} of {} {}. <b>{}</b> loses most, {} sd after a KL of {}; its own reward {} {} meanwhile."
    more = worst["meanwhile"]["value"]
    lost, kl, own = (link(value, target) for value in (worst["fall"]["value"], worst["peak"]["kl"], abs(more)))
    way, verb = "gains" if more > 0 else "loses", "turns" if len(turned) == 1 else "turn"
    return Markup(words).format(len(turned), len(told), verb, worst["reward_model"], lost, kl, way, own)


def foretold(rows: list[dict[str, Any]]) -> Markup:
    """Who gained most, and what those gained that the forecast puts first; the ground truth itself is aside.

    Args:
        rows: of an answer's forecast, of one policy, algorithm and ground truth.
    """
    told = candidates(rows)
    known = [row for row in told if row["gain"]]
    if not known:
        return Markup("The ground truth itself, which is nobody to choose.")
    best = max(known, key=lambda row: row["gain"]["value"])
    first = sorted((row for row in known if row["rank"] == told[0]["rank"]), key=lambda row: row["gain"]["value"])
    aside = ASIDE if any(row["reward_model"] == row["truth"] for row in rows) else ""
    most = Markup("<b>{}</b> gained most, {}{}").format(best["reward_model"], _came(best), aside)
    if not first:
        return most + "; of who is put first it is not known."
    if first == [best]:
        return most + ", as was foretold."
    if len(first) == 1:
        return most + Markup("; <b>{}</b>, foretold to be first, {}.").format(first[0]["reward_model"], _came(first[0]))
    ends = _came(first[0]), _came(first[-1])
    return most + Markup("; the {} foretold to be first {} to {}.").format(len(first), *ends)


def _came(row: dict[str, Any]) -> Markup:
    return link(row["gain"]["value"], RANKING)


def tilted(curves: list[dict[str, Any]]) -> Markup:
    """Who gets highest, at which KL, and whose ground truth turns first.

    Args:
        curves: of a forecast, as the figure draws them.
    """
    curves, aside = _others(curves)
    peaks = []
    for item in curves:
        across, up = figure.followed(item)
        peaks.append((float(up.max()), float(across[up.argmax()]), item["reward_model"]))
    gain, kl, name = max(peaks)
    highest = Markup("<b>{}</b> gets highest, {} sd at a KL of {}{}").format(name, *_cited(gain, kl), aside)
    turned = sorted((*at, item["reward_model"]) for item in curves if (at := figure.turning(item)) is not None)
    if not turned:
        return highest + "; none is seen to turn."
    kl, gain, name = turned[0]
    words = "; {} of {} {}, <b>{}</b> first, at {} sd and a KL of {}."
    verb = "turns" if len(turned) == 1 else "turn"
    return highest + Markup(words).format(len(turned), len(curves), verb, name, *_cited(gain, kl))


def best_of_n(curves: list[dict[str, Any]]) -> Markup:
    """By whom the best is best and worst, and whose fell most below its height, if one fell to be seen.

    Args:
        curves: of a forecast, as the figure draws them.
    """
    curves, aside = _others(curves)
    ends = sorted((item["gain"][-1], item["reward_model"]) for item in curves)
    words = "The best of {} by <b>{}</b> gains most, {} sd{}"
    told = Markup(words).format(curves[0]["n"][-1], ends[-1][1], link(ends[-1][0], RANKING), aside)
    if ends[1:]:
        told += Markup("; by <b>{}</b> least, {}").format(ends[0][1], link(ends[0][0], RANKING))
    fallen = max(curves, key=_fallen)
    if _fallen(fallen) <= FALL * abs(ends[-1][0]):
        return told + "."
    peak, end = max(fallen["gain"]), fallen["gain"][-1]
    count = fallen["n"][fallen["gain"].index(peak)]
    words = "; <b>{}</b> falls from {} at {} to {}."
    return told + Markup(words).format(fallen["reward_model"], link(peak, RANKING), count, link(end, RANKING))


def _others(curves: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The curves of all but the ground truth itself, if there are others, and that it is aside."""
    others = [item for item in curves if item["reward_model"] != item["truth"]]
    return (others, ASIDE if len(others) < len(curves) else "") if others else (curves, "")


def _fallen(curve: dict[str, Any]) -> float:
    """By how much a gain ends below its height; 0 of one that never rose."""
    height = max(curve["gain"])
    return float(height - curve["gain"][-1]) if height > 0 else 0.0


def _cited(*numbers: float) -> list[Markup]:
    return [link(number, RANKING) for number in numbers]


def scored(items: list[tuple[str, dict[str, Any]]]) -> Markup:
    """Which predictor orders reward models best, and which next.

    Args:
        items: label and {"value", "low", "high"}, as the figure draws them.
    """
    named = [
        Markup("<b>{}</b> {}").format(label, link(number["value"], RANKING))
        for label, number in sorted(items, key=lambda item: -item[1]["value"])[:2]
    ]
    return Markup("Best {}{}.").format(named[0], Markup(", then {}").format(named[1]) if named[1:] else "")


def spread(prompts: dict[str, list[float]], rows: list[dict[str, Any]]) -> Markup:
    """Whose middle prompt varies least, and whose most."""
    medians = {name: float(np.median(values)) for name, values in prompts.items()}
    least, most = (choose(medians, key=lambda name: medians[name]) for choose in (min, max))
    cells = {row["reward_model"]: row for row in rows}
    shown = [link(medians[name], entry(cells[name], "variance")) for name in (least, most)]
    told = Markup("Half of the prompts lie below {} under <b>{}</b>").format(shown[0], least)
    return told + (Markup(", below {} under <b>{}</b>.").format(shown[1], most) if most != least else ".")


def forest(items: list[tuple[str, dict[str, Any] | None]]) -> Markup:
    """Which correlations have an interval without 0, the two greatest of them named.

    Args:
        items: label and {"value", "low", "high"}, as the figure draws them.
    """
    known = [(label, number) for label, number in items if number]
    apart = [(label, number) for label, number in known if (number["low"] or 0) > 0 or (number["high"] or 0) < 0]
    if not apart:
        return Markup("No interval excludes 0: nothing here is shown to go with the gain.")
    apart.sort(key=lambda item: -abs(item[1]["value"]))
    named = [
        Markup("{} {} ({})").format(label, link(number["value"], RANKING), interval(number))
        for label, number in apart[:2]
    ]
    more = f", and {len(apart) - 2} more" if apart[2:] else ""
    verb = "excludes" if len(apart) == 1 else "exclude"
    return Markup("{} of {} intervals {} 0: {}{}.").format(len(apart), len(known), verb, Markup(", ").join(named), more)


def differences(numbers: list[dict[str, Any]]) -> str:
    """How many intervals of a claim's differences are above 0."""
    above = sum((number["low"] or 0) > 0 for number in numbers)
    if len(numbers) == 1:
        return "The interval lies right of 0." if above else "The interval does not lie right of 0."
    return f"{above} of {len(numbers)} intervals {'lies' if above == 1 else 'lie'} wholly right of 0."


def _gain(rows: list[dict[str, Any]]) -> str:
    return "truth_gain" if any(row["truth_gain"] for row in rows) else "proxy_gain"


def _far(known: list[dict[str, Any]], gain: str) -> Markup:
    """What the highest gain cost in KL, and what the greatest distance bought."""
    first, far = known[0], max(known, key=lambda row: row["kl"]["value"])
    words = "<b>{}</b> gained most, {} sd, at a KL of {} nats"
    told = Markup(words).format(first["reward_model"], cite(first, f"{gain}_gain"), cite(first, "kl"))
    if far is first:
        return told + ", and went farthest."
    words = "; <b>{}</b> went farthest, {} nats, for {} sd."
    return told + Markup(words).format(far["reward_model"], cite(far, "kl"), cite(far, f"{gain}_gain"))


def _unsure(first: dict[str, Any], rows: list[dict[str, Any]], gain: str) -> str:
    """From how many the first is not told apart, where the rank goes by this gain."""
    if first["ranked_by"] != gain:
        return ""
    same = sum(row["rank"] == first["rank"] for row in rows) - 1
    others = same + len(first["not_told_from"])
    return f" (not told apart from {others} of the other {len(rows) - 1})" if others else ""


def _fall(known: list[dict[str, Any]], curves: list[dict[str, Any]], y: str) -> Markup:
    """The reward model whose mean line fell most below its own height, if one fell to be seen."""
    falls = []
    for row in known:
        mine = [item for item in curves if item["reward_model"] == row["reward_model"]]
        across, up = (lines.mean(axis=0) for lines in figure.stacked(mine, "steps", y))
        falls.append((up.max() - up[-1], up.max(), int(across[up.argmax()]), row))
    fell, peak, step, row = max(falls, key=lambda item: item[0])
    if fell <= FALL * abs(known[0][f"{y}_gain"]["value"]):
        return Markup()
    words = "; <b>{}</b> falls from {} at step {} to {}."
    target = entry(row, f"{y}_gain")
    return Markup(words).format(row["reward_model"], link(float(peak), target), step, cite(row, f"{y}_gain"))
