"""Legends: what is to be seen in each figure of an answer to `displace`.

As in `caption`, plain numbers, each a citation; an interval that includes 0 is said to settle nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rmpipe.citation import RANKING, interval, link, place
from rmpipe.remark import settled

if TYPE_CHECKING:
    import numpy as np


def ranked(known: Sequence[tuple[str, dict[str, Any]]], target: str) -> Markup:
    """Which similarities go with displacement, the clearest first.

    Args:
        known: similarity and its rank correlation with the change of log pi(y+).
        target: the entry that the numbers lead to.
    """
    apart = sorted(((name, number) for name, number in known if settled(number)), key=lambda item: item[1]["value"])
    if not apart:
        return Markup("No interval excludes 0: nothing here is shown to go with displacement.")
    named = Markup(", ").join(Markup("{} {}").format(name, told(number, target)) for name, number in apart)
    below = sum(number["value"] < 0 for _, number in apart)
    above = f", {len(apart) - below} above" if below < len(apart) else ""
    words = "{} of {} intervals {} below 0 (the more alike, the more displaced){}: {}."
    return Markup(words).format(below, len(known), "lies" if below == 1 else "lie", above, named)


def quarters(parts: Sequence[dict[str, Any]], target: str) -> Markup:
    """What became of the pairs of the lowest and of the highest quarter."""
    first, last = parts[0], parts[-1]
    words = "The lowest quarter moves by {} nats, the highest by {}; displaced {} and {}."
    numbers = [told(part["change"], target) for part in (first, last)]
    return Markup(words).format(*numbers, *(link(part["displaced"]["value"], target) for part in (first, last)))


def ladders(items: Sequence[dict[str, Any]], names: Sequence[str]) -> Markup:
    """Where each ladder begins and ends, and how far it is in order.

    Args:
        items: of an answer, of one policy and training.
        names: how the figure calls each.
    """
    said = []
    for item, name in zip(items, names, strict=True):
        first, last = item["rungs"][0], item["rungs"][-1]
        ends = [told(rung["chosen"], _of(item, rung["subset"])) for rung in (first, last)]
        places = [f"{rung['at']:.0%}" for rung in (first, last)]
        text = Markup("{}: {} at the {} quantile, {} at the {}").format(name, ends[0], places[0], ends[1], places[1])
        if item["order"] is not None:
            text += Markup("; Spearman with the quantile {}").format(told(item["order"], RANKING))
        said.append(text)
    return Markup(". ").join(said) + "."


def curves(lines: dict[str, tuple[np.ndarray, np.ndarray]], where: tuple[str, str]) -> Markup:
    """After which subset the likelihood ends highest and lowest, and how many fall.

    Args:
        lines: subset -> steps and changes, (runs, looks) each.
        where: policy and training.
    """
    ends = {name: float(up[:, -1].mean()) for name, (_, up) in lines.items()}
    steps = max(int(across[0][-1]) for across, _ in lines.values())
    ordered = sorted(ends, key=lambda name: -ends[name])
    shown = [
        Markup("{} ends {}, {}").format(name, words, link(ends[name], place("from", *where, name)))
        for name, words in zip((ordered[0], ordered[-1]), ("highest", "lowest"), strict=True)
    ]
    if not ordered[1:]:
        shown = [Markup("{} ends at {}").format(ordered[0], link(ends[ordered[0]], place("from", *where, ordered[0])))]
    fallen = sum(value < 0 for value in ends.values())
    return Markup("After {} steps {}; {} of {} end below where they began.").format(
        steps, Markup("; ").join(shown), fallen, len(ends)
    )


def refusals(rows: Sequence[dict[str, Any]]) -> Markup:
    """Who refuses most and least, and how often the policy refused before."""
    ordered = sorted(rows, key=lambda row: -row["refusal"]["value"])
    shown = [Markup("{} refuses {}").format(row["subset"], told(row["refusal"], _of(row, row["subset"])))
             for row in (ordered[:1] + ordered[1:][-1:])]  # fmt: skip
    before = ordered[0]["refusal_before"]
    end = Markup("; before training {}.").format(told(before, _of(ordered[0], ordered[0]["subset"]))) if before else "."
    return Markup(", ").join(shown) + end


def told(number: dict[str, Any], target: str) -> Markup:
    """A number that leads to an entry, with its interval in brackets."""
    ends = interval(number)
    return link(number["value"], target) + (f" ({ends})" if ends else "")


def _of(item: dict[str, Any], subset: str) -> str:
    return place("from", item["policy"], item["training"], subset)
