"""What was foretold, and what came true, as a report shows it: a table and a picture each, and how forecasts did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmpipe import caption, figure
from rmpipe.citation import KEYS, RANKING, cell, entry
from rmpipe.foretold import groups
from rmpipe.judgement import PREDICTORS

SCORES = {"spearman": "Spearman", "pearson": "Pearson", "regret": "Loses, sd", "regret_share": "Of random"}
"""What the page shows of each predictor."""
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
    svg = figure.foretold(rows, ink, where)
    lines = [_line(row, taught.get(tuple(row[key] for key in KEYS)), own) for row in rows]
    drawn = (svg, caption.foretold(rows)) if svg else None
    known = {name: any(line[name] for line in lines) for name in ("came", "foretold")}
    return {"where": where, "lines": lines, "drawn": drawn, **known}


def _line(row: dict[str, Any], taught: dict[str, Any] | None, own: bool) -> dict[str, Any]:
    """One reward model: what was foretold, what came true, and its rank there if by the same ground truth."""
    target = entry(row, "truth_gain") if taught else RANKING
    return {name: row[name] for name in ("reward_model", "kind", "trained", "rank", "refused")} | {
        "forecast": cell(row["forecast"], RANKING),
        "foretold": cell(row.get("gain_foretold"), RANKING),
        "gain": cell(row["gain"], target),
        "came": taught["rank"] if taught and own and taught["ranked_by"] == "truth" else "",
    }


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
        found.append({"title": title, "columns": list(SCORES.values()), "lines": lines, "drawn": drawn})
    return found
