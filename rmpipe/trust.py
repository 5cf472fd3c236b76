"""Whom to trust: what the comparison of reward models over sets of pairs supports, in sentences, and as a table."""

from __future__ import annotations

import textwrap
from typing import Any

from rmpipe.generalisation import EVERY, SHIFTS, above_a_coin, below_a_coin
from rmpipe.verdict import WIDTH, estimate, listed

WORDS = {"in-distribution": "in-distribution", "token": "under token-level shift", "domain": "under domain shift"}
PUBLISHED = (
    "Published (2507.07981; six models of 1B to 8B parameters, UltraFeedback): accuracy of explicit and implicit reward"
    " models in-distribution 0.75 and 0.65, under token-level shift 0.67 and 0.60, under domain shift 0.62 and 0.72."
)


def sentences(rows: list[dict[str, Any]], generation: list[dict[str, Any]]) -> list[str]:
    """For each base and set, which reward model to trust, by how much, and what was not settled.

    Args:
        rows: of `rmpipe.generalisation.rows`.
        generation: how often each implicit reward model wrote what is right.
    """
    said = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        for name in dict.fromkeys(row["set"] for row in rows):
            said.append(_first([row for row in rows if (row["policy"], row["set"]) == (policy, name)]))
    said += [_written(item) for item in generation]
    return [*said, _rests_on(rows), PUBLISHED]


def _first(rows: list[dict[str, Any]]) -> str:
    """Who is most accurate on a set, or between whom it cannot choose; trusted only where a coin would do worse."""
    leader, others = rows[0], rows[0]["not_told_from"]
    where = f"{leader['policy']}, {leader['set']} ({WORDS[leader['shift']]})"
    top = f"{leader['reward_model']} ({estimate(leader['accuracy'])})"
    if len(rows) == 1:
        return f"{where}: {top} is the only reward model{'' if above_a_coin(leader) else _no_better(rows)}."
    behind = [row for row in rows[1:] if row["reward_model"] not in others]
    last = f"; told apart from {listed([_with(row) for row in behind])}" if behind else ""
    alike = f", not told apart from {listed(others)}" if others else ""
    if not above_a_coin(leader):
        return f"{where}: {top} is highest{alike}{last}{_no_better(rows)}."
    return f"{where}: {top} is highest{alike}{last}." if others else f"{where}: trust {top}{last}."


def _no_better(rows: list[dict[str, Any]]) -> str:
    """How those on a set stand beside a coin, where their leader is not told from it."""
    alone = len(rows) == 1
    if above := [row["reward_model"] for row in rows if above_a_coin(row)]:
        return f"; it is not told from a coin, as {listed(above)} {'is' if len(above) == 1 else 'are'}"
    below = [row["reward_model"] for row in rows if below_a_coin(row)]
    if len(below) == len(rows):
        return f"; {'it is' if alone else 'all are'} below a coin"
    but = f" but {listed(below)}, below it" if below else ""
    return f"; {'it is not' if alone else 'nobody is'} told from a coin{but}"


def _with(row: dict[str, Any]) -> str:
    return f"{row['reward_model']} ({row['accuracy']['value']:.2f})"


def _written(item: dict[str, Any]) -> str:
    accuracy = (
        "" if item["accuracy"] is None else f"tells right from wrong with accuracy {estimate(item['accuracy'])}, and "
    )
    return (
        f"{item['policy']}, {item['reward_model']}: {accuracy}writes what is right itself for"
        f" {estimate(item['solved'])} of the prompts (its base for {estimate(item['solved_by_base'])})."
    )


def _rests_on(rows: list[dict[str, Any]]) -> str:
    bases = max(row["bases"] for row in rows)
    if bases == 0:
        return "No reward model starts from a base: intervals are over prompts."
    if bases == 1:
        return "ONE base: intervals are over prompts, and another base may order them otherwise."
    alone = " (where there is one base or none, over prompts)" if min(row["bases"] for row in rows) < 2 else ""
    over = f"Student's over the means of {bases} bases{alone}"
    return f"Intervals are {over}, uncorrected for the number of comparisons."


def table(answer: dict[str, Any]) -> str:
    """The answer as a terminal shows it: accuracies by reward model and set, then whom to trust, then the claims.

    No line is wider than 110 columns.

    Args:
        answer: of `tasks.judge`.
    """
    blocks = []
    for policy in dict.fromkeys(row["policy"] for row in answer["rows"]):
        blocks.append(_block(policy, [row for row in answer["rows"] if row["policy"] == policy]))
    leads = [text for text in answer["sentences"] if text != PUBLISHED]
    notes = ["Accuracy, ties one half; in brackets 95 % intervals; = not told apart from the most accurate.", *leads]
    if answer["contrasts"]:
        notes += ["", "Claimed beforehand:", *(f"{item['name']}. {item['sentence']}" for item in answer["contrasts"])]
    return "\n".join([*blocks, *(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)]) + "\n"


def _block(policy: str, rows: list[dict[str, Any]]) -> str:
    """One policy: a line a reward model; sets that do not fit beside each other go below."""
    cells = {(row["reward_model"], row["set"]): row for row in rows}
    alike = {(name, row["set"]) for row in rows for name in row["not_told_from"]}
    alike |= {(row["reward_model"], row["set"]) for row in rows if row["not_told_from"]}
    names = list(dict.fromkeys(row["reward_model"] for row in sorted(rows, key=_order)))
    sets = sorted(dict.fromkeys(row["set"] for row in rows), key=lambda name: SHIFTS.index(_shift(rows, name)))
    marks = {row["reward_model"]: "" if row.get("sound", True) else " †" for row in rows}
    first = max(12, *(len(name + marks[name]) for name in names))
    width, text = 19, [policy if policy != EVERY else f"{EVERY}, together"]
    for start in range(0, len(sets), per := max(1, (WIDTH - first) // (width + 2))):
        part = sets[start : start + per]
        text.append("  ".join(["reward model".ljust(first), *(name[:width].ljust(width) for name in part)]).rstrip())
        for name in names:
            shown = [_cell(cells.get((name, one)), (name, one) in alike) for one in part]
            text.append("  ".join([(name + marks[name]).ljust(first), *(c.ljust(width) for c in shown)]).rstrip())
    return "\n".join([*text, ""])


def _cell(row: dict[str, Any] | None, alike: bool) -> str:
    return "" if row is None else f"{estimate(row['accuracy'])}{'=' if alike else ''}"


def _shift(rows: list[dict[str, Any]], name: str) -> str:
    return str(next(row["shift"] for row in rows if row["set"] == name))


def _order(row: dict[str, Any]) -> tuple[str, str]:
    return (row["kind"], row["reward_model"])
