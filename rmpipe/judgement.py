"""The judgement: what a scorecard supports, in plain sentences, and its table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmpipe import forecast
from rmpipe.verdict import FEW, columns, estimate, listed

PREDICTORS = {
    "forecast": "the forecast", **forecast.PREDICTORS, "accuracy_off": "off-policy accuracy",
    "accuracy_mean": "mean of both accuracies", "variance_and_accuracy": "mean of variance and accuracy",
    "random": "a random pick",
}  # fmt: skip
"""What may tell a gain beforehand, in words: the forecast, the formulas that it is chosen from, and its rivals."""
RIVALS = ("variance", "accuracy_on", "accuracy_off", "accuracy_mean", "variance_and_accuracy", "proxy", "random")
NOTHING = (
    "Nowhere is the ground-truth gain of three reward models known, the ground truth itself aside, so no forecast can"
    " be scored."
)
NO_ENDS = "Over so few the forecast has no interval"
CHANCE = 0.05
"""Reward models differ beyond what differs by seed where that would part them so far less often than this."""
SCORES = {"spearman": "Spearman", "pearson": "Pearson", "regret": "loses, sd", "regret_share": "of random"}
"""What is shown of each predictor; a regret is what its first choice loses of the best gain."""


def sentences(pooled: Sequence[dict[str, Any]], agreed: Sequence[dict[str, Any]]) -> list[str]:
    """What a scorecard supports and what it does not.

    Args:
        pooled: of `card`.
        agreed: of `reliability`.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in pooled:
        groups.setdefault((row["algorithm"], row["over"]), {})[row["predictor"]] = row
    if not groups:
        return [NOTHING]
    said = []
    for algorithm in dict.fromkeys(name for name, _ in groups):
        mine = [groups[algorithm, over] for over in ("all", "trained") if (algorithm, over) in groups]
        said += [text for rows in mine for text in (_ordered(rows), _beside(rows)) if text]
        said += [_repeated(row) for row in agreed if row["algorithm"] == algorithm]
    return [*said, _limits(pooled)]


def _ordered(rows: Mapping[str, Any]) -> str:
    """How the forecast did, of how many."""
    row = rows.get("forecast", rows["random"])
    trained = "trained " if row["over"] == "trained" else ""
    built = f" ({row['constructed']} constructed)" if row["constructed"] else ""
    places = [_many(row["policies"], "policy", "policies"), _many(row["truths"], "ground truth", "ground truths")]
    where = f"{row['algorithm']}: over {row['n']} {trained}reward models{built}, {' and '.join(places)}"
    if "forecast" not in rows:
        return f"{where}, there is no forecast."
    untold = f"; {row['refused']} of {row['asked']} forecasts are refused, and count as tied" if row["refused"] else ""
    silent = rows["random"]["cells"] - row["cells"]
    untold += f"; of {_many(silent, 'policy', 'policies')} by a ground truth it tells nothing" if silent else ""
    first = f"its first choice loses {estimate(row['regret'])} sd of the best gain{_of_random(row)}"
    aside = "the ground truth itself aside, " if row["aside"] else ""
    told = f"{aside}Spearman of the forecast with what came true is {estimate(row['spearman'])}"
    return f"{where}, {told}; {first}{untold}."


def _of_random(row: Mapping[str, Any]) -> str:
    share = row["regret_share"]
    return f", {share['value']:.0%} of what a random pick loses" if share else ""


def _beside(rows: Mapping[str, Any]) -> str:
    """The best rival, and whether the forecast is above them all."""
    rivals = [rows[name] for name in RIVALS if name in rows and rows[name]["spearman"]]
    if not rivals:
        return ""
    best = max(rivals, key=lambda row: row["spearman"]["value"])
    least = min(rivals, key=lambda row: row["regret"]["value"])
    where = f"{best['algorithm']}{', trained alone' if best['over'] == 'trained' else ''}"
    less = f" (the forecast less that: {estimate(best['difference']['spearman'])})" if best["difference"] else ""
    told = f"{PREDICTORS[best['predictor']]}, has {estimate(best['spearman'])}{less} and loses {_lost(best)}"
    told += f"; {PREDICTORS[least['predictor']]} loses least of them, {_lost(least)}" if least is not best else ""
    if "forecast" not in rows or not rows["forecast"]["spearman"]:
        return f"{where}: the best, {told}."
    low, top = rows["forecast"]["spearman"]["low"], best["spearman"]["value"]
    lies = "lies" if low is not None and low > top else "does not lie"
    above = f"The interval of the forecast {lies} wholly above every rival's value" if low is not None else NO_ENDS
    return f"{where}: the best rival, {told}. {above}."


def _lost(row: Mapping[str, Any]) -> str:
    return f"{row['regret']['value']:.2f} sd" if row["regret"] else "what is not known"


def _repeated(row: Mapping[str, Any]) -> str:
    """How far gains agree with themselves, and where reward models do not differ beyond seeds."""
    if row["spearman"] is None:
        return f"{row['algorithm']}: how far its gains agree between seeds is not known, for want of seeds."
    lost = listed([f"{item['policy']} by {item['truth']}" for item in row["by_seed"]])
    alike = f" On {lost} reward models are not shown to differ beyond what differs by seed (F test at {CHANCE:.0%})."
    agree = f"{row['algorithm']}: the gains of two seeds agree at Spearman {row['spearman']:.2f}"
    return (
        f"{agree}, and {row['between']:.0%} of their variance is between reward models: who does not know the seed"
        f" could not be expected to correlate with the mean of {row['seeds']} at more than {row['ceiling']:.2f}"
        f" (Pearson); who sees each seed's own reward models may.{alike if lost else ''}"
    )


def _limits(pooled: Sequence[dict[str, Any]]) -> str:
    """What none of it supports."""
    most = max(pooled, key=lambda row: row["n"])
    built = f" ({most['constructed']} constructed, which stand for no others)" if most["constructed"] else ""
    few = ", too few to lean on" if most["n"] < FEW else ""
    return (
        "Not supported: that any of this holds for another policy, ground truth, algorithm or optimiser. Intervals are"
        f" over {most['n']} reward models{built}{few}, with the policies and ground truths held as they are; none is"
        " corrected for the number of comparisons."
    )


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def table(told: Mapping[str, Any], over: str = "all") -> str:
    """A scorecard as a terminal shows it: a block an algorithm, a line a predictor.

    Args:
        told: of `card`.
        over: `"all"` or `"trained"`.
    """
    blocks = []
    for algorithm in dict.fromkeys(row["algorithm"] for row in told["pooled"] if row["over"] == over):
        lines = [["predictor", *SCORES.values()]]
        for row in told["pooled"]:
            if (row["algorithm"], row["over"]) == (algorithm, over):
                lines.append([PREDICTORS[row["predictor"]], *(estimate(row[name]) for name in SCORES)])
        blocks.append(columns(f"{algorithm}, {over} reward models", lines))
    return "\n".join(blocks)
