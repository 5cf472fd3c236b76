"""What a forecast says: plain sentences, a table for a terminal, and rows and numbers for whoever browses the runs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rmpipe.forecast import LABELS, PLACE, PREDICTORS
from rmpipe.verdict import WIDTH, columns, estimate, listed

UNIT = "Forecasts are shares of what {whose} would teach as a reward: 1.00 is as much, below 0 the ground truth falls."
GAIN = " Gains are in its standard deviations under the initial policy."
ORDER = "No gains are told, since pairs tell an order and no distances: standard deviations of them mean nothing."
REHEARSED = (
    "A rehearsal holds near the initial policy: what lies far from it, where a reward is over-optimised, its samples"
    " do not show. Its intervals are over the prompts that it is told of and that teach, too wide rather than too"
    " narrow where these are few, and do not know how far the formula itself may be wrong."
)
FIRST = (
    "A rule is of the first steps: it tells who starts fastest, not how far anybody gets, and rests on samples of the"
    " initial policy."
)
SHOWN = {"gain_foretold": "gain", "correlation": "corr.", "covariance": "cov.", "variance": "variance"}
"""What the table has beside the forecast."""
FIRST_SEED = "Labels of your own are of each policy's first seed: of its others nothing is foretold."
PAID = "paid for"
"""In the place of a gain that was not foretold: RLHF of it scales the others' gains."""


def groups(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows by truth, policy and algorithm, in the order given."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in PLACE), []).append(row)
    return list(found.values())


def candidates(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one place whom something is foretold of; the ground truth itself, foretold 1, is nobody to choose."""
    return [row for row in rows if row["forecast"] and row["reward_model"] != row["truth"]]


def sentences(answer: dict[str, Any]) -> list[str]:
    """Who is foretold to teach best, who is not told apart, what is refused and why, and what it rests on."""
    several = len({row["truth"] for row in answer["rows"]}) > 1
    said = [_first(rows, several) for rows in groups(answer["rows"])]
    said += [f"{name}: {each['why']}." for name, each in answer["formulas"].items()]
    rehearsed = {each["predictor"] == "rehearsed" for each in answer["formulas"].values()}
    limits = [text for text, there in ((REHEARSED, True), (FIRST, False)) if there in rehearsed]
    order = [ORDER] if answer.get("pairs") else []
    order += [FIRST_SEED] if answer.get("first_seed") else []
    return [*said, *order, *_scaled(answer["rows"], several), _spent(answer["spent"]), *limits]


def _scaled(rows: Iterable[dict[str, Any]], several: bool) -> list[str]:
    """By what gains are scaled, or why by nothing: once for all places of which the same is true."""
    where: dict[str, list[str]] = {}
    for mine in groups(rows):
        if "scaling" in mine[0]:
            where.setdefault(mine[0]["scaling"], []).append(_where(mine[0], several))
    if len(where) == 1:
        return [f"{text[0].upper()}{text[1:]}." for text in where]
    return [f"{'; '.join(places)}: {text}." for text, places in where.items()]


def _whose(truth: str) -> str:
    return "of your own" if truth == LABELS else f"of {truth}"


def _where(row: dict[str, Any], several: bool) -> str:
    return ", ".join([row["policy"], row["algorithm"], *([f"by {row['truth']}"] if several else [])])


def _first(rows: Sequence[dict[str, Any]], several: bool) -> str:
    """Who comes first, or between whom the labels cannot choose."""
    where, untold = _where(rows[0], several), _untold(rows)
    told = [row for row in rows if row["forecast"]]
    known = candidates(rows)
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
    if unsure := known[0]["not_told_from"]:
        return f"{said}, but for {listed(unsure)}, which it is not told apart from{rest}."
    return f"{said}, told apart from the others{rest}."


def _untold(rows: Sequence[dict[str, Any]]) -> list[tuple[list[str], str]]:
    """Who is refused, with the reason that they share."""
    reasons = dict.fromkeys(row["refused"] for row in rows if row["refused"])
    return [([row["reward_model"] for row in rows if row["refused"] == why], why) for why in reasons]


def _because(untold: Sequence[tuple[list[str], str]]) -> str:
    return "; ".join(f"{listed(names)}: not told, as {why}" for names, why in untold)


def _spent(spent: dict[str, Any]) -> str:
    """What it rests on, and what RLHF would have drawn."""
    labels = listed([f"{count:,} labels {_whose(truth)}" for truth, count in spent["labels"].items()])
    labels += f" (of {spent['pairs']:,} pairs)" if spent.get("pairs") else ""
    share = spent["samples"] / spent["rlhf_samples"]
    rlhf = f"RLHF on every one of them draws {spent['rlhf_samples']:,}"
    return f"It rests on {spent['samples']:,} samples and {labels}; {rlhf}, and this is {share:.1%} of it."


# -- tables -----------------------------------------------------------------------------------------------------------


def table(answer: dict[str, Any]) -> str:
    """A forecast as a terminal shows it; no line is wider than `verdict.WIDTH` columns."""
    several = len({row["truth"] for row in answer["rows"]}) > 1
    blocks = [_block(rows, several) for rows in groups(answer["rows"])]
    gains = GAIN if any(row.get("gain_foretold") for row in answer["rows"]) else ""
    mine = {row["truth"] for row in answer["rows"]} == {LABELS}
    unit = UNIT.format(whose="your labels" if mine else "the ground truth itself")
    notes = [unit + gains, "In brackets: 95 % intervals over prompts. = not told apart from the others of that rank."]
    if any(not row["trained"] for row in answer["rows"]):
        notes[-1] += " * constructed, not trained."
    notes += answer["sentences"]
    return "\n".join([*blocks, *(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)]) + "\n"


def _block(rows: Sequence[dict[str, Any]], several: bool) -> str:
    shown = [name for name in SHOWN if any(row.get(name) for row in rows)]
    lines = [["rank", "reward model", "forecast", *(SHOWN[name] for name in shown)]]
    for row in rows:
        told = estimate(row["forecast"]) if row["forecast"] else "not told"
        numbers = {name: estimate(row.get(name)) for name in shown}
        if row.get("calibrates"):
            numbers["gain_foretold"] = PAID
        lines.append([row["rank"], row["reward_model"] + ("" if row["trained"] else " *"), told, *numbers.values()])
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
    """One line: of how many, and who is first most often, the ground truth itself aside."""
    known = [candidates(rows) for rows in groups(answer["rows"])]
    first = [row["reward_model"] for rows in known for row in rows if row["rank"] == rows[0]["rank"]]
    places = len(known)
    told = f"{places} {'place' if places == 1 else 'places'}"
    return f"{told}, first most often {max(first, key=first.count)}" if first else f"{told}, nothing foretold"


def metrics(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Forecasts by truth, policy, algorithm and reward model, as runs compare them."""
    return {
        ".".join([*(row[name] for name in PLACE), row["reward_model"]]): row["forecast"]["value"]
        for row in rows if row["forecast"]
    }  # fmt: skip
