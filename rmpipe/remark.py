"""Remarks: what is to be seen in each figure of an answer to `generalise`, and its answer in a sentence or two.

As in `caption`, plain numbers, each a citation; an interval that includes 0 is said to settle nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rmpipe import figure
from rmpipe.citation import RANKING, interval, link, place, signed
from rmpipe.generalisation import above_a_coin, below_a_coin, counted

if TYPE_CHECKING:
    import numpy as np


def digits(value: float) -> str:
    """Three digits that count, for numbers of any size."""
    return signed(f"{value:.3g}")


def five(value: float) -> str:
    """Five digits that count, for two numbers whose order is to be seen."""
    return signed(f"{value:.5g}")


def three(value: float) -> str:
    """Three decimals, for shares that are small."""
    return signed(f"{value:.3f}")


def settled(number: dict[str, Any] | None) -> bool:
    """Whether an interval excludes 0; what has none settles nothing."""
    if number is None or number["low"] is None or number["high"] is None:
        return False
    return bool(number["low"] > 0 or number["high"] < 0)


def lead(rows: list[dict[str, Any]]) -> list[Markup]:
    """Whom to trust where, and where nobody can be: a leader told from no other, or from no coin.

    Args:
        rows: of one place; each set's most accurate first.
    """
    tops: dict[str, dict[str, Any]] = {}
    for row in rows:
        tops.setdefault(row["set"], row)
    said, alone = [], len({row["reward_model"] for row in rows}) == 1
    better = [row for row in tops.values() if above_a_coin(row)]
    clear = [row for row in better if not row["not_told_from"] and not alone]
    open_ = [row for row in better if row["not_told_from"]]
    if alone:
        said.append(Markup("There is one reward model, and so nothing to choose."))
    if clear:
        names = dict.fromkeys(row["reward_model"] for row in clear)
        parts = [_on(name, [row for row in clear if row["reward_model"] == name]) for name in names]
        said.append(Markup("{}, trust {}.").format(_basis(rows), _joined(parts)))
    if open_:
        parts = [_top(row) for row in open_]
        words = (
            "{}, the most accurate on {} is not told apart from one or more others: who is best there is not settled."
        )
        basis = Markup("There too") if clear else _basis(rows)
        said.append(Markup(words).format(basis, _joined(parts)))
    return [*said, *_no_better(rows, [row for row in tops.values() if not above_a_coin(row)])]


def _no_better(rows: list[dict[str, Any]], tops: list[dict[str, Any]]) -> list[Markup]:
    """Where the most accurate is not told from a coin, and where all are below one."""
    there = {row["set"]: [each for each in rows if each["set"] == row["set"]] for row in tops}
    below = [row for row in tops if all(map(below_a_coin, there[row["set"]]))]
    apart = [row for row in tops if any(map(above_a_coin, there[row["set"]]))]
    rest = [row for row in tops if row not in below and row not in apart]
    words = {
        "On {} nobody is told from a coin for the better: trust none there.": rest,
        "On {} every reward model is below a coin: trust none there.": below,
        "On {} the most accurate is not told from a coin, and others are: who is best there is not settled.": apart,
    }
    return [Markup(text).format(_joined([_top(row) for row in mine])) for text, mine in words.items() if mine]


def _top(row: dict[str, Any]) -> Markup:
    return Markup("{} ({} {})").format(row["set"], row["reward_model"], _cited(row))


def won(items: list[dict[str, Any]]) -> Markup:
    """Who wins most often, and which differences in accuracy are told from 0.

    Args:
        items: of `rmpipe.generalised.duels`, under one kind of shift.
    """
    best = max(items, key=lambda item: item["wins"])
    told = Markup("{} wins {} of {} against {}{}; ").format(
        best["first"], link(f"{best['wins']:.0%}", RANKING), counted(best["runs"]), best["second"],
        ", no other a greater share" if items[1:] else "",
    )  # fmt: skip
    apart = [item for item in items if settled(item["difference"])]
    if not apart:
        return told + ("the" if len(items) == 1 else "every") + " interval of the difference includes 0: not settled."
    named = [
        Markup("{} less {} {} ({})").format(
            item["first"], item["second"], link(item["difference"]["value"], RANKING), interval(item["difference"])
        )
        for item in sorted(apart, key=lambda item: -abs(item["difference"]["value"]))[:2]
    ]
    words = "{} of {} differences in accuracy told from 0: {}{}."
    more = f", and {len(apart) - 2} more" if apart[2:] else ""
    return told + Markup(words).format(len(apart), len(items), Markup(", ").join(named), more)


def accuracy(rows: list[dict[str, Any]]) -> Markup:
    """Who is highest, whom it is not told apart from, and how many are above chance.

    Args:
        rows: of one place and set, the most accurate first.
    """
    top, others = rows[0], rows[0]["not_told_from"]
    told = Markup("{} is highest, {}{}").format(top["reward_model"], _cited(top), _within(top["accuracy"]))
    if rows[1:]:
        told += ", not told apart from " + _joined(list(others)) if others else ", told apart from all others"
    above = sum(map(above_a_coin, rows))
    verb = "lies" if above == 1 else "lie"
    return told + f"; {above or 'none'} of {len(rows)} intervals {verb} wholly above one half."


def margin(rows: list[dict[str, Any]]) -> Markup:
    """Who sets pairs farthest apart, and who least."""
    ordered = sorted(rows, key=lambda row: -row["margin"]["value"])
    first, last = ordered[0], ordered[-1]
    words = "{} sets pairs farthest apart, {}{}"
    told = Markup(words).format(first["reward_model"], _cited(first, "margin"), _within(first["margin"]))
    if first is last:
        return told + "."
    low, high = first["margin"]["low"], last["margin"]["high"]
    between = "" if None in (low, high) else f"; their intervals {'do not overlap' if low > high else 'overlap'}"
    words = "; {} least, {}{}{}."
    return told + Markup(words).format(last["reward_model"], _cited(last, "margin"), _within(last["margin"]), between)


def learning(lines: dict[str, tuple[np.ndarray, np.ndarray]], rows: list[dict[str, Any]]) -> Markup:
    """Who ends highest and lowest, and where each stood at the first look."""
    where = rows[0]["policy"]
    means = {name: (across.mean(axis=0), up.mean(axis=0)) for name, (across, up) in lines.items()}
    ordered = sorted(means, key=lambda name: -means[name][1][-1])
    told = []
    for name, words in zip((ordered[0], ordered[-1]), ("ends highest,", "lowest,"), strict=True):
        (across, up), target = means[name], place("from", where, name)
        text = Markup("{} {} {} ({} at step {:.0f})")
        told.append(text.format(name, words, link(float(up[-1]), target), link(float(up[0]), target), across[0]))
    return Markup("; ").join(told if ordered[1:] else told[:1]) + "."


def cues(items: list[tuple[str, dict[str, Any], bool]], target: str) -> Markup:
    """How much tokens explain where they were fitted, and where they explain least.

    Args:
        items: set, share, and whether the weights of tokens were fitted there.
        target: the entry that the numbers lead to.
    """
    told = [
        Markup("tokens explain {}{} on {}").format(link(share["value"], target), _within(share), name)
        for name, share, fitted in items
        if fitted
    ]
    away = [(name, share) for name, share, fitted in items if not fitted]
    if away:
        name, share = min(away, key=lambda item: item[1]["value"])
        words = "carried over{}, {}{} on {}"
        least = " least" if away[1:] else ""
        told.append(Markup(words).format(least, link(share["value"], target), _within(share), name))
    text = Markup("; ").join(told)
    return text[:1].upper() + text[1:] + "."


def claims(known: list[tuple[str, dict[str, Any]]], marks: list[str]) -> Markup:
    """How many claims held, and whose differences are told from 0."""
    words = {"held": "held", "reversed": "reversed", "open": "not settled"}
    counts = [f"{marks.count(mark)} {text}" for mark, text in words.items() if mark in marks]
    told = Markup("{} of {} claims; ").format(", ".join(counts), len(marks))
    apart = [(name, number) for name, number in known if settled(number)]
    if not apart:
        return told + "no interval excludes 0."
    named = [
        Markup("{} {}{}").format(name, link(number["value"], place("from", "claim", name)), _within(number))
        for name, number in apart
    ]
    verb = "interval excludes" if len(apart) == 1 else "intervals exclude"
    return told + Markup("{} {} 0: {}.").format(len(apart), verb, Markup(", ").join(named))


def forests(items: list[dict[str, Any]], marks: list[str], units: list[str], order: Sequence[str]) -> list[Any]:
    """A forest of judged claims for each unit that their numbers are in, with what is to be seen in it.

    Args:
        items: of an answer's contrasts.
        marks: how each is marked.
        units: the unit of each.
        order: the units in the order of their forests.
    """
    found = []
    for unit in order:
        mine = [(item, mark) for item, mark, one in zip(items, marks, units, strict=True) if one == unit]
        known = [(item["name"], item["difference"]) for item, _ in mine if item["difference"]]
        if svg := figure.forest(known, unit):
            found.append((svg, claims(known, [mark for _, mark in mine])))
    return found


def foretold(items: list[dict[str, Any]], target: str) -> Markup:
    """On which sets the separator of the training pairs does best and worst, or that there was none."""
    seeds = {item["seed"] for item in items}
    known = {item["seed"] for item in items if "separator.positive" in item}
    count = Markup("The training pairs can be separated with {} of {} seeds").format(len(known), len(seeds))
    if not known:
        return count + ": nothing is foretold by a separator."
    means: dict[str, float] = {}
    for name in dict.fromkeys(item["set"] for item in items):
        shares = [item["separator.positive"] for item in items if item["set"] == name and item["seed"] in known]
        means[name] = sum(shares) / len(shares)
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    words = "; the separator ranks {} of {} right{}."
    other = Markup(" and {} of {}").format(link(three(means[least]), target), least) if least != most else ""
    return count + Markup(words).format(link(three(means[most]), target), most, other)


def unit(rows: list[dict[str, Any]]) -> str:
    """Over what the means of parts of a set have their intervals."""
    bases, runs = (max(row[name] for row in rows) for name in ("bases", "runs"))
    if bases > 1:
        return f"In the tables below means have Student's intervals over {bases} bases."
    if runs > 1:
        return f"In the tables below means have Student's intervals over {runs} seeds: they say nothing of other bases."
    return "In the tables below accuracies have intervals over prompts: they say nothing of other seeds and bases."


def _basis(rows: list[dict[str, Any]]) -> Markup:
    bases = max(row["bases"] for row in rows)
    if bases == 0:
        return Markup("Over prompts")
    if bases == 1:
        return Markup("On one base, which another may contradict")
    return Markup("Over {} bases").format(bases)


def _on(name: str, rows: list[dict[str, Any]]) -> Markup:
    places = [Markup("{} ({})").format(row["set"], _cited(row)) for row in rows]
    return Markup("<b>{}</b> on {}").format(name, _joined(places))


def _cited(row: dict[str, Any], number: str = "accuracy") -> Markup:
    return link(row[number]["value"], place("from", row["policy"], row["reward_model"]))


def _within(number: dict[str, Any]) -> str:
    return f" ({text})" if (text := interval(number)) else ""


def _joined(parts: list[Any]) -> Markup:
    """Parts in one phrase, escaped."""
    head = Markup(", ").join(parts[:-1])
    return Markup("{} and {}").format(head, parts[-1]) if head else Markup("{}").format(parts[-1])
