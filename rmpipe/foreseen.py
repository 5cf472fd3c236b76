"""What was foretold, and what came true, as a report shows it: a table and a picture each, and how forecasts did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rmpipe import caption, figure
from rmpipe.citation import KEYS, RANKING, cell, entry
from rmpipe.forecast import PLACE
from rmpipe.foretold import PAID, groups
from rmpipe.judgement import PREDICTORS, SCORES
from rmpipe.verdict import listed

if TYPE_CHECKING:
    from markupsafe import Markup

OVER = {"all": "all reward models", "trained": "trained ones alone"}


def section(answer: dict[str, Any], ink: dict[str, str]) -> dict[str, Any] | None:
    """The forecasts of an answer; None of one without.

    Args:
        answer: of `teach`.
        ink: of `figure.colours`.
    """
    if not (told := answer.get("forecast")):
        return None
    ink = figure.colours([row["reward_model"] for row in told["rows"]]) | ink
    taught = {tuple(row[key] for key in KEYS): row for row in answer["rows"]}
    several = len({row["truth"] for row in told["rows"]}) > 1
    scored = told["scorecard"] or {"pooled": [], "sentences": []}
    return {
        "sentences": list(dict.fromkeys([*told["sentences"], *scored["sentences"]])),
        "groups": [_group(rows, answer, taught, ink, several) for rows in groups(told["rows"])],
        "scored": _scored(scored["pooled"]),
        "paid": listed(list(told.get("paid", ()))),
        "curves": list(_curves(told, ink)),
        "ink": ink,
    }


def _group(
    rows: list[dict[str, Any]], answer: dict[str, Any], taught: dict[tuple[str, ...], dict[str, Any]],
    ink: dict[str, str], several: bool,
) -> dict[str, Any]:  # fmt: skip
    """What is foretold of one policy under one algorithm and ground truth."""
    first = rows[0]
    where = f"{first['policy']}, {first['algorithm']}{', by ' + first['truth'] if several else ''}"
    own = first["truth"] == answer["ground_truth"]
    free = [row for row in rows if not row.get("calibrates")]
    svg = figure.foretold(free, ink, where)
    lines = [_line(row, taught.get(tuple(row[key] for key in KEYS)), own) for row in rows]
    paid = [row["reward_model"] for row in rows if row.get("calibrates")]
    aside = f" Paid for, and not drawn: {listed(paid)}." if paid else ""
    drawn = (svg, caption.foretold(free) + aside) if svg else None
    known = {name: any(line[name] for line in lines) for name in ("came", "foretold")}
    return {"where": where, "lines": lines, "drawn": drawn, **known}


def _line(row: dict[str, Any], taught: dict[str, Any] | None, own: bool) -> dict[str, Any]:
    """One reward model: what was foretold, what came true, and its rank there if by the same ground truth."""
    target = entry(row, "truth_gain") if taught else RANKING
    foretold = cell(row.get("gain_foretold"), RANKING)
    if row.get("calibrates"):
        foretold = {"text": PAID, "ends": "", "target": target}
    return {name: row[name] for name in ("reward_model", "kind", "trained", "rank", "refused")} | {
        "forecast": cell(row["forecast"], RANKING),
        "foretold": foretold,
        "gain": cell(row["gain"], target),
        "came": taught["rank"] if taught and own and taught["ranked_by"] == "truth" else "",
    }


def _curves(told: dict[str, Any], ink: dict[str, str]) -> Iterator[list[tuple[str, Markup, str]]]:
    """Of each policy what tilting it and choosing the best of n gain, by the first ground truth and algorithm.

    Yields:
        two figures, each with its caption and title.
    """
    trained = {row["reward_model"]: row["trained"] for row in told["rows"]}
    first: dict[str, dict[str, Any]] = {}
    for item in told.get("tilted", ()):
        first.setdefault(item["policy"], item)
    for policy, one in first.items():
        tilted = [item for item in told["tilted"] if all(item[name] == one[name] for name in PLACE)]
        best = [item for item in told["best_of_n"] if all(item[name] == one[name] for name in ("truth", "policy"))]
        where = f"{policy}, {one['algorithm']}"
        yield [
            (figure.tilted(tilted, ink, trained, where), caption.tilted(tilted), f"{where}, tilted"),
            (figure.best_of_n(best, ink, trained, policy), caption.best_of_n(best), f"{policy}, best of n"),
        ]


def _scored(pooled: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How predictors did, a picture and a table for each algorithm and set of reward models."""
    found = []
    for algorithm, over in dict.fromkeys((row["algorithm"], row["over"]) for row in pooled):
        mine = [row for row in pooled if (row["algorithm"], row["over"]) == (algorithm, over)]
        known = [(PREDICTORS[row["predictor"]], row["spearman"]) for row in mine if row["spearman"]]
        svg = figure.forest(known, "Spearman with the gain", (-1.05, 1.05), f"{algorithm}, {OVER[over]}")
        cells = [[cell(row[name], RANKING) for name in SCORES] for row in mine]
        lines = [{"name": PREDICTORS[row["predictor"]], "cells": each} for row, each in zip(mine, cells, strict=True)]
        title = f"{algorithm}, {OVER[over]} ({mine[0]['models']})"
        drawn = (svg, caption.scored(known)) if svg else None
        columns = [text.capitalize() for text in SCORES.values()]
        found.append({"title": title, "columns": columns, "lines": lines, "drawn": drawn})
    return found
