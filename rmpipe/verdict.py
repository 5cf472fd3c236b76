"""The verdict: what the ranked table supports, in plain sentences, and the table for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from rmpipe.contrast import GAINS, WORDS
from rmpipe.interval import Estimate

WIDTH = 110
"""Columns of the terminal table."""
FEW = 6
"""Reward models below which a correlation is called too thin to lean on."""
CONTRASTED = {
    "variance": "reward variance",
    "accuracy_mean": "accuracy (mean of on and off policy)",
    "variance_and_accuracy": "the mean of variance and accuracy",
}
PUBLISHED = (
    "Published: variance tracks the PROXY gain (2503.15477, Table 2: Spearman 1.00 over 6 reward models); variance AND"
    " accuracy together track the ground-truth gain (0.83; variance alone 0.71, on-policy accuracy alone 0.20). Over"
    " the four public reward models of each policy (Tables 10 to 12) Pearson of variance with the ground-truth gain"
    " runs from -0.82 to 0.23, with the proxy gain from 0.48 to 0.94. So neither variance nor accuracy alone is shown"
    " to choose a teacher, nor is this table's order shown to carry over to another policy."
)
NO_TRUTH = (
    "WARNING: no ground truth is known, so the rank goes by the PROXY gain, which each reward model awards itself. A"
    " faulty reward model inflates exactly that: the rank says which is easiest to climb, not which teaches what people"
    " want."
)


def sentences(rows: list[dict[str, Any]], correlations: list[dict[str, Any]]) -> list[str]:
    """What the table supports and what it does not, a few plain sentences.

    Args:
        rows: ranked, of `rmpipe.ranking.ranks`.
        correlations: of `rmpipe.ranking.correlations`.
    """
    if not rows:
        return ["Nothing was measured."]
    said = [NO_TRUTH] if any(row["ranked_by"] == "proxy" for row in rows) else []
    for mine in _groups(rows):
        said += [_first(mine), *_inflated(mine), *_related(mine, correlations)]
    return [*said, _rests_on(rows), PUBLISHED]


def _groups(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows by policy and algorithm, in the order given."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["algorithm"]), []).append(row)
    return list(groups.values())


def _first(rows: list[dict[str, Any]]) -> str:
    """Who comes first, or between whom the table cannot choose."""
    where, gain = f"{rows[0]['policy']}, {rows[0]['algorithm']}", rows[0]["ranked_by"]
    leaders = [row for row in rows if row["rank"] in ("1", "1=")]
    if not leaders:
        return f"{where}: no gain is known, so nothing is ranked."
    top = f"{leaders[0]['reward_model']} ({WORDS[gain]} {estimate(leaders[0][GAINS[gain]])})"
    unsure = listed(leaders[0]["not_told_from"])
    if len(leaders) > 1:
        others = listed([row["reward_model"] for row in leaders[1:]])
        wide = f" (nor, so uncertain is its own gain, from {unsure})" if unsure else ""
        advice = "take any of them, or run more seeds"
        return f"{where}: {top} is highest, but not told apart from {others}{wide}; {advice}."
    if len(rows) == 1 or rows[1]["rank"] == "?":
        return f"{where}: {top} is the only reward model with a known gain, so there is nothing to choose between."
    best = "teaches best" if gain == "truth" else "raises its own reward most"
    wide = f"; yet, so uncertain are their gains, not from {unsure}" if unsure else ""
    return f"{where}: {top} {best}, told apart from the next, {rows[1]['reward_model']}{wide}."


def listed(names: list[str]) -> str:
    """Names in one phrase: `a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def _inflated(rows: list[dict[str, Any]]) -> list[str]:
    """Reward models whose own reward rose while the ground truth fell."""
    names = [
        row["reward_model"] for row in rows
        if (_end(row, "proxy_gain", "low") or 0) > 0 and (_end(row, "truth_gain", "high") or 0) < 0
    ]  # fmt: skip
    where = f"{rows[0]['policy']}, {rows[0]['algorithm']}"
    return [f"{where}: under {', '.join(names)} the proxy reward rose while the ground truth FELL."] if names else []


def _end(row: dict[str, Any], name: str, end: str) -> float | None:
    return row[name][end] if row[name] else None


def _related(rows: list[dict[str, Any]], correlations: list[dict[str, Any]]) -> list[str]:
    """Variance, accuracy and both against the two gains, over all reward models and over the trained ones alone."""
    policy, algorithm = rows[0]["policy"], rows[0]["algorithm"]
    said = []
    for over in ("all", "trained"):
        found = {
            (item["property"], item["gain"]): item for item in correlations
            if (item["policy"], item["algorithm"], item["over"]) == (policy, algorithm, over) and item["spearman"]
        }  # fmt: skip
        gains = [gain for gain in GAINS if any((name, gain) in found for name in CONTRASTED)]
        if gains:
            parts = [f"{words} {_beside(found, name, gains)}" for name, words in CONTRASTED.items()]
            with_what = " / ".join(WORDS[gain] for gain in gains)
            few = _how_few([item for (name, _), item in found.items() if name in CONTRASTED])
            said.append(f"{policy}, {algorithm}: over {few}, Spearman with the {with_what}: {', '.join(parts)}.")
    return said


def _beside(found: dict[tuple[str, str], dict[str, Any]], name: str, gains: list[str]) -> str:
    return " / ".join(estimate(found[name, gain]["spearman"] if (name, gain) in found else None) for gain in gains)


def _how_few(items: list[dict[str, Any]]) -> str:
    """How many reward models, how many of them built for the purpose, and what that leaves open."""
    n, constructed = max((item["n"], item["constructed"]) for item in items)
    built = (
        f"{constructed} of them constructed, some to set variance against accuracy" if constructed else "all trained"
    )
    ends = [(item["spearman"]["low"], item["spearman"]["high"]) for item in items]
    unsettled = any(low is not None and low <= 0 <= high for low, high in ends)
    thin = "; too few to lean on" if n < FEW else "; an interval that includes 0 settles nothing" if unsettled else ""
    return f"{n} reward models ({built}{thin})"


def _rests_on(rows: list[dict[str, Any]]) -> str:
    fewest, most = min(row["seeds"] for row in rows), max(row["seeds"] for row in rows)
    if fewest == 1:
        return "Some cells have ONE seed: their intervals are over prompts, and another seed may order them otherwise."
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"Intervals are Student's over {seeds} seeds, uncorrected for the number of comparisons."


def estimate(number: dict[str, Any] | None) -> str:
    """A number with its interval, a dash for what is not known."""
    return "-" if number is None else str(Estimate.of(number))


def columns(title: str, lines: list[list[str]]) -> str:
    """A table of text below its title, each column as wide as its widest cell."""
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, *text, ""])


COLUMNS = {
    "truth_gain": "truth gain", "proxy_gain": "proxy gain", "variance": "variance", "accuracy_on": "acc. on",
    "accuracy_off": "acc. off",
}  # fmt: skip
BARE = ("accuracy_off",)
"""Shown without an interval, for want of room."""


def table(answer: dict[str, Any]) -> str:
    """The answer as a terminal shows it: reward models ranked per policy and algorithm, then the claims judged.

    No line is wider than 110 columns.

    Args:
        answer: of `rmpipe.ranking.answer`.
    """
    blocks = [_block(rows) for rows in _groups(answer["rows"])]
    notes = [NO_TRUTH] if any(row["ranked_by"] == "proxy" for row in answer["rows"]) else []
    notes.append("Gains are in standard deviations of each reward under the initial policy.")
    one = any(row["seeds"] == 1 for row in answer["rows"])
    notes.append("In brackets: 95 % intervals" + (", over prompts where there is ONE seed." if one else "."))
    if any(not row["trained"] for row in answer["rows"]):
        notes[-1] += " * constructed, not trained."
    if any(row["rank"].endswith("=") for row in answer["rows"]):
        notes[-1] += " = not told apart from the others of that rank."
    if not all(row.get("sound", True) for row in answer["rows"]):
        notes[-1] += " † failed its audit."
    claims = [f"{item['name']}. {item['sentence']}" for item in answer.get("contrasts", ())]
    if claims:
        notes += ["", "Claimed beforehand:", *claims]
    return "\n".join([*blocks, *(textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes)]) + "\n"


def _block(rows: list[dict[str, Any]]) -> str:
    """One policy and algorithm; a column that nobody has a number in is left out, long names are cut."""
    shown = [name for name in COLUMNS if any(row[name] for row in rows)]
    lines = [["rank", "reward model", *(COLUMNS[name] for name in shown)]]
    for row in rows:
        name = row["reward_model"] + ("" if row["trained"] else " *") + ("" if row.get("sound", True) else " †")
        numbers = [_bare(row[column]) if column in BARE else estimate(row[column]) for column in shown]
        lines.append([row["rank"], name, *numbers])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    widths[1] = max(12, min(widths[1], WIDTH - sum(widths) + widths[1] - 2 * (len(widths) - 1)))
    text = ["  ".join(map(_fitted, line, widths)).rstrip() for line in lines]
    return "\n".join([f"{rows[0]['policy']}, {rows[0]['algorithm']}", *text, *_wrapped(_first(rows)), ""])


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence.split(": ", 1)[1], WIDTH)


def _fitted(text: str, width: int) -> str:
    """Text at a width; of a long one the middle goes, for names differ at their end, and the mark is there."""
    if len(text) <= width:
        return text.ljust(width)
    return f"{text[: width // 2]}…{text[len(text) - (width - width // 2 - 1) :]}"


def _bare(number: dict[str, Any] | None) -> str:
    return "-" if number is None else f"{number['value']:.2f}"
