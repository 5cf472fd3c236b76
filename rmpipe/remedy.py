"""A remedy: what the answer to `vanish` says in sentences, how many labels it advises, and its table for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from rmpipe.recovery import ENOUGH
from rmpipe.verdict import WIDTH, columns, estimate, listed

PUBLISHED = (
    "Published, as others tell of it (2310.20703; GRUE's seven data sets, GPT-2 and T5): where the reward std is small"
    " under the pretrained policy, reinforcement falls behind supervised finetuning; per-input correlations of std with"
    " the reward's change are 0.48 and 0.46 under reinforcement (NarrativeQA, ToTTo), 0.05 and 0.16 under supervision;"
    " larger learning rates, temperatures and entropy bonuses do not help; supervised finetuning on 1 % of the inputs"
    " for 40 % of the steps, then reinforcement, reaches 96 % of the reward of the whole of both."
)
SHOWN = {
    "gain": "gain", "low": "low std", "high": "high std", "recovered": "of all", "recovered_low": "low, of all",
    "labels": "labels",
}  # fmt: skip
"""What a terminal shows of each arm."""
BARE = ("high", "recovered_low")
"""Shown without an interval, for want of room."""
KEYS = ("value", "low", "high")
VANISHED = 0.25
"""The share of the others' gradient norm below which that of low-std prompts is called vanished."""


def sentences(answer: dict[str, Any]) -> list[str]:
    """Where the gradient vanishes, who gained, and what cures it.

    Args:
        answer: of `tasks.conclude`, without its sentences.
    """
    said = [text for row in answer["vanished"] for text in _where(answer, row)]
    said += [text for policy, reward in _cells(answer) for text in _gained(answer, policy, reward)]
    said += [_advised(item, answer["arms"]) for item in answer["advice"]]
    said += [_sieved(item) for item in answer["sieves"]]
    said += [_controlled(item) for item in answer["controlled"]]
    return [*said, rests_on(answer), PUBLISHED]


def significant(number: dict[str, Any] | None) -> str:
    """A number with its interval, of two digits that count: gradients have no scale of their own."""
    if number is None:
        return "-"
    low, high = number["low"], number["high"]
    return f"{number['value']:.2g}" + ("" if low is None or high is None else f" [{low:.2g}, {high:.2g}]")


def units(number: dict[str, Any] | None, scale: float = 1.0) -> str:
    """A number with its interval, in reward units.

    Args:
        scale: the largest of those that it stands among: of rewards of a small scale more decimals are told.
    """
    if number is None:
        return "-"
    places = min(8, max(2, 1 - math.floor(math.log10(scale)))) if scale else 2
    value, low, high = (None if number[key] is None else round(number[key], places) + 0.0 for key in KEYS)
    return f"{value:.{places}f}" + ("" if low is None or high is None else f" [{low:.{places}f}, {high:.{places}f}]")


def _scale(rows: Sequence[dict[str, Any]], *names: str) -> float:
    """The largest of some numbers of some rows."""
    return max((abs(row[name]["value"]) for row in rows for name in names if row.get(name)), default=0.0)


def _cells(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["policy"], row["reward"]) for row in answer["rows"]))


def where(row: dict[str, Any]) -> str:
    """Whose a number is."""
    return f"{row['policy']}, {row['reward']}"


def _where(answer: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """What varies and what does not before any training; the first sentence of it is the verdict."""
    teach = f"{estimate(row['flat'])} of the prompts teach nothing (whitened std under {answer['threshold']:g})"
    scale = _scale([row], "std", "std_low", "std_high")
    if row["norm_low"] is None or row["norm_high"] is None:
        return [f"{where(row)}: {teach}. Reward std {units(row['std'], scale)}; no gradient was taken of both halves."]
    low, high = (f"{significant(row[f'norm_{side}'])} at the prompts of {side} std ({units(row[f'std_{side}'], scale)})"
                 for side in ("low", "high"))  # fmt: skip
    gap = f", a difference of {significant(row['norm_gap'])}" if row["norm_gap"] else ""
    answers = [text.strip() for text in answer.get("answers", ())]
    exact = f" (exact, over the answers {listed(answers)})" if answers else ""
    norms = f"Its norm is {low} and {high}{gap}{exact}; Spearman with the std {estimate(row['spearman'])}"
    return [f"{where(row)}: {_verdict(row)}. {norms}; {teach}.", *_limits(row)]


def _verdict(row: dict[str, Any]) -> str:
    """Whether gradients are shorter where rewards vary less, by the difference of both norms."""
    low, high, gap = row["norm_low"], row["norm_high"], row["norm_gap"]
    if gap is None or gap["low"] is None:
        return "whether the gradient is shorter where rewards vary less is not settled"
    if gap["low"] > 0:
        gone = low["value"] <= VANISHED * high["value"]
        return f"the gradient {'vanishes where rewards hardly vary' if gone else 'is shorter where rewards vary less'}"
    if gap["high"] < 0:
        return "the gradient is NOT shorter where rewards vary less"
    return "whether the gradient is shorter where rewards vary less is not settled"


def _limits(row: dict[str, Any]) -> list[str]:
    said = []
    power = row["exponent"]
    if power and (power["low"] is None or not power["low"] <= 0 <= power["high"]):
        goes = "grows" if power["value"] > 0 else "falls"
        said.append(f"the norm {goes} with the std to the power {estimate(power)}")
    if row["bound"]:
        said.append(f"the norm is {significant(row['bound'])} of the published bound and {significant(row['tighter'])}"
                    " of that of Cauchy and Schwarz (root means)")  # fmt: skip
    return [f"{where(row)}: {'; '.join(said)}."] if said else []


def _gained(answer: dict[str, Any], policy: str, reward: str) -> list[str]:
    """Who gained where."""
    rows = [row for row in answer["rows"] if (row["policy"], row["reward"]) == (policy, reward)]
    scale, leader = _scale(rows, "gain", "low", "high"), rows[0]
    most = "loses least" if leader["gain"] and leader["gain"]["value"] <= 0 else "gains most"
    top = f"{policy}, {reward}: {leader['arm']} {most}, {units(leader['gain'], scale)}"
    top += f", not told apart from {listed(others)}" if (others := leader["not_told_from"]) else ""
    found: dict[str, list[str]] = {"left behind": [], "ahead": [], "not settled": []}
    for row in rows:
        if row["gap"] is not None:
            low, high = (units({**row[side], "low": None, "high": None}, scale) for side in ("low", "high"))
            found[_side(row["gap"])].append(f"{row['arm']} ({low} against {high})")
    said = [f"{policy}, {reward}: {told}." for told in _sides(found)]
    return [f"{top}.", *said, *_begun(answer, policy, reward)]


def _sides(found: dict[str, list[str]]) -> list[str]:
    """Under which arms low-std prompts are left behind or ahead; of those that settle nothing, how many."""
    parts = [f"{words} under {listed(names)}" for words, names in found.items() if names and words != "not settled"]
    if not parts:
        return ["whether the prompts of low std are left behind is not settled under any arm"] * any(found.values())
    count = len(found["not settled"])
    parts += [f"under {count} arm{'' if count == 1 else 's'} it is not settled"] if count else []
    return [f"the prompts of low std are, beside the others, {'; '.join(parts)}"]


def _begun(answer: dict[str, Any], policy: str, reward: str) -> list[str]:
    """How much room there is above prompts of low and of high std."""
    mine = [row for row in answer["vanished"] if (row["policy"], row["reward"]) == (policy, reward)]
    if not mine or None in (mine[0]["mean_low"], mine[0]["mean_high"]):
        return []
    low, high = (units(mine[0][name], _scale(mine, "mean_low", "mean_high")) for name in ("mean_low", "mean_high"))
    told = f"before any training the mean reward is {low} at the prompts of low std, {high} at the others"
    return [f"{policy}, {reward}: {told}."]


def _side(gap: dict[str, Any]) -> str:
    """Where low-std prompts are left, by the gain of the others less theirs."""
    if gap["low"] is None or gap["low"] <= 0 <= gap["high"]:
        return "not settled"
    return "left behind" if gap["low"] > 0 else "ahead"


def _advised(item: dict[str, Any], arms: dict[str, dict[str, Any]]) -> str:
    """How many labels are worth it."""
    start = f"{where(item)}:"
    if item["why"] == "nothing":
        return f"{start} no arm surely gained, so no number of labels is advised."
    share = f"{estimate(item['recovered'])} of the highest gain ({item['best']})"
    if not item["sft_steps"]:
        has = "gains most, without any" if item["why"] == "best" else f"has {share}"
        return f"{start} no label is needed: {item['arm']} {has}."
    alone = f"; without labels {item['without']} has {estimate(item['alone'])}" if item["alone"] else ""
    if item["why"] == "best":
        told = f"no arm with fewer labels surely reaches {ENOUGH:.0%} of what {item['best']} gains{alone}"
        return f"{start} {told}. Label {_labels(item)}, or run more seeds."
    then = "before" if arms[item["arm"]]["rlhf_steps"] else "without"
    return f"{start} {_labels(item)} {then} reinforcement are enough: {item['arm']} has {share}{alone}."


def _labels(item: dict[str, Any]) -> str:
    labels = round(item["labels"]["value"])
    inputs = "input" if labels == 1 else "inputs"
    return f"{labels} {inputs} and {item['sft_steps']} steps of supervised finetuning"


def _sieved(item: dict[str, Any]) -> str:
    left = " and ".join(
        f"{item[name]['value']:.0f} {name}" for name in ("dropped", "deferred") if item[name] and item[name]["value"]
    )
    kept = f"{item['kept']['value']:.0f} are kept, {left or 'none left out'}"
    return f"{where(item)}: of the prompts that were gauged {kept}; those that were not are trained on unsifted."


def _controlled(item: dict[str, Any]) -> str:
    changed, others = (
        ", ".join(f"{one['method']} {estimate(one[part])}" for one in item["methods"])
        for part in ("modified", "unmodified")
    )
    low, high = (significant(item["before"][f"norm_{part}"]) for part in ("modified", "unmodified"))
    norms = f"gradient norms before, {low} and {high}"
    return f"{item['name']}: inputs whose label was changed gain {changed}; the others {others}; {norms}."


def rests_on(answer: dict[str, Any]) -> str:
    """What intervals are over; a number is of one policy, however many there are."""
    places, seeds = answer["places"], len(answer["seeds"])
    if not places:
        return f"Intervals are Student's over {seeds} seeds." if seeds > 1 else "ONE seed: there are no intervals."
    alike: dict[str, list[str]] = {}
    for policy in dict.fromkeys(place["policy"] for place in places):
        alike.setdefault(_unit([place for place in places if place["policy"] == policy]), []).append(policy)
    if len(alike) == 1:
        return f"{next(iter(alike))}."
    return " ".join(f"Of {listed(policies)}: {unit}." for unit, policies in alike.items())


def _unit(places: list[dict[str, Any]]) -> str:
    """What the intervals of one policy are over."""
    bases, seeds = (len({place[name] for place in places}) for name in ("base", "seed"))
    if bases > 1:
        return f"Intervals are Student's over the means of {bases} bases, uncorrected for the number of comparisons"
    if seeds > 1:
        return f"ONE base: intervals are over {seeds} seeds, and another base may do otherwise"
    return "ONE base and ONE seed: intervals are over prompts, and another base may do otherwise"


# -- as a terminal shows it -------------------------------------------------------------------------------------------


def table(answer: dict[str, Any]) -> str:
    """The answer as a terminal shows it: what vanishes, the arms, the advice, the claims.

    Args:
        answer: of `tasks.conclude`.
    """
    blocks = [_vanished(answer), *(_arms(answer, *cell) for cell in _cells(answer))]
    notes = ["In brackets: 95 % intervals. Gains in reward units; = not told apart from the highest."]
    notes += [text for text in answer["sentences"] if text != PUBLISHED]
    if answer["contrasts"]:
        notes += ["", "Claimed beforehand:", *(f"{item['name']}. {item['sentence']}" for item in answer["contrasts"])]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes]
    return "\n".join([*(block for block in blocks if block), *wrapped]) + "\n"


def _vanished(answer: dict[str, Any]) -> str:
    if not answer["vanished"]:
        return ""
    shown = {"flat": "flat", "norm_low": "norm, low std", "norm_high": "norm, high std", "spearman": "Spearman"}
    names = [name for name in shown if any(row[name] for row in answer["vanished"])]
    lines = [["policy, reward", *(shown[name] for name in names)]]
    lines += [[where(row), *(_form(name)(row[name]) for name in names)] for row in answer["vanished"]]
    return columns("Before any training: flat prompts, gradient norm, and how it goes with the reward std", lines)


def _form(name: str) -> Callable[[Any], str]:
    return significant if name.startswith("norm") else estimate


def _arms(answer: dict[str, Any], policy: str, reward: str) -> str:
    rows = [row for row in answer["rows"] if (row["policy"], row["reward"]) == (policy, reward)]
    names = [name for name in SHOWN if any(row[name] for row in rows)]
    lines = [["rank", "arm", *(SHOWN[name] for name in names)]]
    scale = _scale(rows, "gain", "low", "high")
    lines += [[row["rank"], row["arm"], *(_cell(row, name, scale) for name in names)] for row in rows]
    return columns(f"{policy}, {reward}", lines)


def _cell(row: dict[str, Any], name: str, scale: float) -> str:
    if name == "labels":
        return "" if row[name] is None else f"{row[name]['value']:.0f}"
    number = row[name] and row[name] | ({"low": None, "high": None} if name in BARE else {})
    return units(number, scale) if name in ("gain", "low", "high") else estimate(number)
