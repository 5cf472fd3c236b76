"""Glances: what is to be seen in each figure of an answer to `vanish`.

As in `caption`, plain numbers, each a citation; an interval that includes 0 is said to settle nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from rmpipe import figure
from rmpipe.citation import link, place, signed
from rmpipe.recovery import ENOUGH
from rmpipe.remark import settled

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHY = {
    "enough": f"the fewest labels whose share surely reaches {ENOUGH:.0%}",
    "best": f"none with fewer labels surely reaches {ENOUGH:.0%} of it",
    "nothing": "nothing was surely gained",
}
"""Why an arm is advised."""
Number = Mapping[str, Any]
"""{"value", "low", "high"}."""
Lines = Mapping[str, tuple["NDArray[Any]", "NDArray[Any]"]]
"""Name -> steps and numbers, (runs, looks) each."""


def digits(value: float) -> str:
    """Three digits that count, or all before the point; what is 0 but for rounding is 0."""
    value = round(value, 9) + 0.0
    return signed(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def told(number: Number, target: str) -> Markup:
    """A number that leads to an entry, with its interval in brackets."""
    known = number["low"] is not None and number["high"] is not None
    ends = f" ({digits(number['low'])} to {digits(number['high'])})" if known else ""
    return link(digits(number["value"]), target) + ends


def _unless(number: Number, words: str) -> str:
    """What is to be said of a number whose interval includes 0, or that has none."""
    return "" if settled(dict(number)) else f", {words}"


# -- before training --------------------------------------------------------------------------------------------------


def norms(points: Mapping[str, Any], few: NDArray[np.bool_], exponent: Number | None, target: str) -> Markup:
    """How many prompts lie at 0, how long gradients are on either side, and how they grow with the std.

    Args:
        points: std and norm of prompts, (prompts,) each, of one run.
        few: which of them are of low std, (prompts,).
        exponent: the power of the std that the norm grows with, of all runs.
        target: the entry that the numbers lead to.
    """
    std, norm = (np.asarray(points[name], float) for name in ("std", "norm"))
    said, zero = [], int(((std <= 0) | (norm <= 0)).sum())
    if zero:
        said.append(Markup("{} of {} prompts lie at 0, at the edge").format(zero, len(std)))
    if few.any() and not few.all():
        words = "the median norm of low-std prompts is {}, of the others {}"
        said.append(Markup(words).format(*(link(digits(float(np.median(norm[one]))), target) for one in (few, ~few))))
    if found := figure.slope(std, norm, log=True):
        words = "the line has the slope {}, drawn to 1 by the noise of samples"
        said.append(Markup(words).format(link(digits(found[0]), target)))
    if exponent:
        words = "over all runs, the noise of samples taken out, the norm grows with the std to the power {}{}"
        said.append(Markup(words).format(told(exponent, target), _unless(exponent, "which settles nothing")))
    return _sentence(said)


# -- what arms gained -------------------------------------------------------------------------------------------------


def gaps(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Under which arms prompts of high std gain more than those of low std, and under which less.

    Args:
        rows: of one policy and reward.
    """
    known = [row for row in rows if row["gap"]]
    clear, said = [row for row in known if settled(row["gap"])], []
    for word, sign in (("more", 1), ("less", -1)):
        mine = [row for row in clear if sign * row["gap"]["value"] > 0]
        named = [Markup("{} by {}").format(row["arm"], told(_times(sign, row["gap"]), _of(row))) for row in mine]
        if named:
            said.append(Markup("high-std prompts gain {} than low-std ones under {}").format(word, _joined(named)))
    if rest := [row["arm"] for row in known if row not in clear]:
        said.append(Markup("under {} the gap is not settled").format(_joined(rest)))
    return _sentence(said)


def _times(sign: int, number: Number) -> Number:
    low, high = (number["low"], number["high"])[::sign]
    return {"value": sign * number["value"], "low": sign * low, "high": sign * high}


def quarters(parts: Sequence[Mapping[str, Any]], target: str) -> Markup:
    """What the prompts of least and of most std gained."""
    ends = [_told_from_0(part["gain"], target) for part in (parts[0], parts[-1])]
    return Markup("The quarter of least std gains {}, that of most {}.").format(*ends)


def _told_from_0(number: Number, target: str) -> Markup:
    return told(number, target) + _unless(number, "not told from 0")


def related(row: Mapping[str, Any]) -> Markup:
    """Whether the gain goes with the initial std, over all runs."""
    number, target = row["spearman"], _of(row)
    if not number:
        return Markup("Whether the gain goes with the std is not known.")
    more = Markup(", Pearson {}").format(told(row["pearson"], target)) if row["pearson"] else ""
    rises = "rises" if number["value"] > 0 else "falls"
    words = f"The gain {rises} with the std" if settled(number) else "Whether the gain goes with the std is not settled"
    return Markup("{}: over all runs Spearman {}{}.").format(words, told(number, target), more)


def curves(lines: Lines, where: tuple[str, str]) -> Markup:
    """Which arm ends highest and which lowest, and where each began.

    Args:
        lines: of arms.
        where: policy and reward.
    """
    means = {name: up.mean(axis=0) for name, (_, up) in lines.items()}
    steps = max(int(across[0][-1]) for across, _ in lines.values())
    ordered = sorted(means, key=lambda name: -means[name][-1])
    ends = {ordered[0]: "highest, "} | {ordered[-1]: "lowest, "} if ordered[1:] else {ordered[0]: ""}
    said = []
    for name, word in ends.items():
        last, first = (link(digits(float(means[name][look])), place("from", *where, name)) for look in (-1, 0))
        said.append(Markup("{} ends {}at {}, from {}").format(name, word, last, first))
    return Markup("After {} steps {}.").format(steps, Markup("; ").join(said))


def labels(lines: Mapping[str, Sequence[Mapping[str, Any]]], number: str) -> Markup:
    """What the fewest and the most labels of each line gave.

    Args:
        lines: line -> points of an answer's `labelled`, by labels.
        number: "recovered" or "gain".
    """
    said = []
    for name, points in lines.items():
        ends = [_with(point, number) for point in (points[0], *points[1:][-1:])]
        said.append(Markup("{}: {}").format(name, Markup("; ").join(ends)))
    return Markup(". ").join(said) + "."


def _with(point: Mapping[str, Any], number: str) -> Markup:
    count = point["labels"]["value"]
    words = f"{digits(count) if count else 'no'} {'label' if count == 1 else 'labels'}"
    return Markup("{} with {}").format(_told_from_0(point[number], _of(point)), words)


def advised(item: Mapping[str, Any]) -> Markup:
    """How many labels are worth it, and why.

    Args:
        item: of an answer's `advice`.
    """
    why = WHY.get(item["why"], item["why"])
    if item["arm"] is None:
        return Markup("Nothing is advised: {}.").format(why)
    target, count = _of(item), item["labels"]["value"] if item["labels"] else 0
    what = f"Label {digits(count)} inputs and take {item['sft_steps']} steps of SFT" if count else "Label none"
    without = f"; without labels {item.get('without')} has {{}} of it"
    parts = {", which has {} of the highest gain": item["recovered"], without: item.get("alone") if count else None}
    shares = [Markup(words).format(told(share, target)) for words, share in parts.items() if share]
    return Markup("{} ({}){}. Why: {}.").format(what, item["arm"], Markup("").join(shares), why)


# -- the controlled experiment ----------------------------------------------------------------------------------------


def methods(items: Sequence[Mapping[str, Any]], target: str) -> Markup:
    """Under which methods modified inputs gain less than the others."""
    said = [
        Markup("{} {}{}").format(item["method"], told(item["gap"], target), _unless(item["gap"], "not settled"))
        for item in items
        if item["gap"]
    ]
    return Markup("The gain of the others less that of modified inputs: {}.").format(Markup("; ").join(said))


def course(lines: Lines, target: str) -> Markup:
    """From where to where a number went, a line each."""
    said = []
    for name, (_, up) in lines.items():
        ends = [link(digits(float(value)), target) for value in up.mean(axis=0)[[0, -1]]]
        said.append(Markup("{} inputs go from {} to {}").format(name, *ends))
    return _sentence(said)


def scattered(groups: Mapping[str, tuple[Any, Any]], spearman: Number | None, target: str) -> Markup:
    """The median norm of each group of inputs, and how norms go with stds."""
    said = [
        Markup("the median norm of {} inputs is {}").format(name, link(digits(float(np.median(norm))), target))
        for name, (_, norm) in groups.items()
        if len(norm)
    ]
    if spearman:
        words = "over all runs Spearman of std and norm is {}{}"
        unsure = _unless(spearman, "which settles nothing")
        said.append(Markup(words).format(told(spearman, target), unsure))
    return _sentence(said)


def _of(item: Mapping[str, Any]) -> str:
    """The entry of an arm."""
    return place("from", item["policy"], item["reward"], item["arm"])


def _joined(parts: Sequence[Any]) -> Markup:
    head = Markup(", ").join(parts[:-1])
    return Markup("{} and {}").format(head, parts[-1]) if head else Markup("{}").format(parts[-1])


def _sentence(parts: Sequence[Markup]) -> Markup:
    """Parts as one sentence, none of which begins with a name."""
    text = Markup("; ").join(parts)
    return text[:1].upper() + text[1:] + "." if text else text
