"""What a forecast says: plain sentences, a table for a terminal, and rows and numbers for whoever browses the runs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rmpipe.forecast import LABELS, PLACE, PREDICTORS
from rmpipe.verdict import WIDTH, columns, estimate, listed

UNIT = (
    "Forecasts are shares of what the ground truth itself would teach: 1.00 is as much, below 0 the ground truth falls."
    " Gains are in its standard deviations under the initial policy."
)
REHEARSED = (
    "A rehearsal holds near the initial policy: what lies far from it, where a reward is over-optimised, its samples"
    " do not show. Its intervals are over prompts, with the learnt path held as it is, so that reward models are told"
    " apart a little too easily (for a difference of two they are 0.88 to 0.94 as wide as they should be), and do not"
    " know how far the formula itself may be wrong."
)
FIRST = (
    "A rule is of the first steps: it tells who starts fastest, not how far anybody gets, and rests on samples of the"
    " initial policy."
)
PAID = "Gains are in standard deviations of the ground truth, scaled by what RLHF on {paid} did gain."
SHOWN = {"gain_foretold": "gain", "correlation": "corr.", "covariance": "cov.", "variance": "variance"}
"""What the table has beside the forecast."""


def groups(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows by truth, policy and algorithm, in the order given."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in PLACE), []).append(row)
    return list(found.values())


def sentences(answer: dict[str, Any]) -> list[str]:
    """Who is foretold to teach best, who is not told apart, what is refused and why, and what it rests on."""
    several = len({row["truth"] for row in answer["rows"]}) > 1
    said = [_first(rows, several) for rows in groups(answer["rows"])]
    said += [f"{name}: {each['why']}." for name, each in answer["formulas"].items()]
    paid = [PAID.format(paid=listed(answer["paid"]))] if any("calibrates" in row for row in answer["rows"]) else []
    rehearsed = {each["predictor"] == "rehearsed" for each in answer["formulas"].values()}
    limits = [text for text, there in ((REHEARSED, True), (FIRST, False)) if there in rehearsed]
    return [*said, *paid, _spent(answer["spent"]), *limits]


def _whose(truth: str) -> str:
    return "of your own" if truth == LABELS else f"of {truth}"


def _where(row: dict[str, Any], several: bool) -> str:
    return ", ".join([row["policy"], row["algorithm"], *([f"by {row['truth']}"] if several else [])])


def _first(rows: Sequence[dict[str, Any]], several: bool) -> str:
    """Who comes first, or between whom the labels cannot choose; the ground truth itself is nobody to choose."""
    where, untold = _where(rows[0], several), _untold(rows)
    told = [row for row in rows if row["forecast"]]
    known = [row for row in told if row["reward_model"] != row["truth"]]
    if not told:
        return f"{where}: nothing is foretold: {_because(untold) if untold[1:] else untold[0][1]}."
    if not known:
        return f"{where}: nobody but the ground truth itself is foretold, so there is nothing to choose between."
    best, rest = known[0]["forecast"], f"; {_because(untold)}" if untold else ""
    aside = " (the ground truth itself aside)" if len(known) < len(told) else ""
    top = f"{known[0]['reward_model']} ({estimate(best)})"
    if (best["value"] if best["high"] is None else best["high"]) <= 0:
        return f"{where}: nobody is foretold to teach; the best, {top}, lets the ground truth fall{rest}."
    if (best["value"] if best["low"] is None else best["low"]) <= 0:
        return f"{where}: nobody is told from teaching nothing; {top} is highest{rest}."
    if len(known) == 1:
        return f"{where}: {top} is the only reward model that is foretold, so there is nothing to choose between{rest}."
    others = [row["reward_model"] for row in known[1:] if row["rank"] == known[0]["rank"]]
    said = f"{where}: {top} is foretold to teach best{aside}"
    if others:
        return f"{said}, not told apart from {listed(others)}; more prompts or labels may part them{rest}."
    unsure = f"; yet not from {listed(known[0]['not_told_from'])}" if known[0]["not_told_from"] else ""
    return f"{said}, told apart from the others{unsure}{rest}."


def _untold(rows: Sequence[dict[str, Any]]) -> list[tuple[list[str], str]]:
    """Who is refused, with the reason that they share."""
    reasons = dict.fromkeys(row["refused"] for row in rows if row["refused"])
    return [([row["reward_model"] for row in rows if row["refused"] == why], why) for why in reasons]


def _because(untold: Sequence[tuple[list[str], str]]) -> str:
    return "; ".join(f"{listed(names)}: not told, as {why}" for names, why in untold)


def _spent(spent: dict[str, Any]) -> str:
    """What it rests on, and what RLHF would have drawn."""
    labels = listed([f"{count:,} labels {_whose(truth)}" for truth, count in spent["labels"].items()])
    share = spent["samples"] / spent["rlhf_samples"]
    rlhf = f"RLHF on every one of them draws {spent['rlhf_samples']:,}"
    return f"It rests on {spent['samples']:,} samples and {labels}; {rlhf}, and this is {share:.1%} of it."


# -- tables -----------------------------------------------------------------------------------------------------------


def table(answer: dict[str, Any]) -> str:
    """A forecast as a terminal shows it; no line is wider than `verdict.WIDTH` columns."""
    several = len({row["truth"] for row in answer["rows"]}) > 1
    blocks = [_block(rows, several) for rows in groups(answer["rows"])]
    notes = [UNIT, "In brackets: 95 % intervals over prompts. = not told apart from the others of that rank."]
    if any(not row["trained"] for row in answer["rows"]):
        notes[-1] += " * constructed, not trained."
    notes += answer["sentences"]
    return "\n".join([*blocks, *(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)]) + "\n"


def _block(rows: Sequence[dict[str, Any]], several: bool) -> str:
    shown = [name for name in SHOWN if any(row.get(name) for row in rows)]
    lines = [["rank", "reward model", "forecast", *(SHOWN[name] for name in shown)]]
    for row in rows:
        told = estimate(row["forecast"]) if row["forecast"] else "not told"
        numbers = [estimate(row.get(name)) for name in shown]
        lines.append([row["rank"], row["reward_model"] + ("" if row["trained"] else " *"), told, *numbers])
    return columns(_where(rows[0], several), lines)


def flat(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a column a number, and two for the ends of the forecast's interval."""
    found = []
    for row in rows:
        numbers: dict[str, Any] = {name: row[name] and row[name]["value"] for name in ("forecast", *PREDICTORS)}
        ends = row["forecast"] or {"low": None, "high": None}
        numbers |= {"low": ends["low"], "high": ends["high"], "refused": row["refused"] or ""}
        about = ("rank", *PLACE, "reward_model", "kind", "trained", "formula")
        found.append({name: row[name] for name in about} | numbers)
    return found


def summary(answer: dict[str, Any]) -> str:
    """One line: of how many, and who is first most often."""
    first = [row["reward_model"] for row in answer["rows"] if row["rank"] in ("1", "1=")]
    places = len(groups(answer["rows"]))
    told = f"{places} {'place' if places == 1 else 'places'}"
    return f"{told}, first most often {max(first, key=first.count)}" if first else f"{told}, nothing foretold"


def metrics(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Forecasts by truth, policy, algorithm and reward model, as runs compare them."""
    return {
        ".".join([*(row[name] for name in PLACE), row["reward_model"]]): row["forecast"]["value"]
        for row in rows if row["forecast"]
    }  # fmt: skip
