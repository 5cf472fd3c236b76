"""An exhibit: a controlled experiment in a report, some of whose inputs were modified so that their std is small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rmpipe import figure, glance, remark
from rmpipe.citation import cell, place
from rmpipe.glance import digits

if TYPE_CHECKING:
    from markupsafe import Markup

INPUTS = ("modified", "unmodified")
METHODS = {
    "modified": "Modified", "unmodified": "Others", "gap": "Others less modified", "accuracy": "Accuracy",
}  # fmt: skip
"""What is told of a method: gains in reward units, and the share of inputs whose label it learnt."""
INITIAL = {
    "std_modified": "Std, modified", "std_unmodified": "Std, others", "norm_modified": "Norm, modified",
    "norm_unmodified": "Norm, others", "spearman": "Spearman of both",
}  # fmt: skip
"""What is told of its inputs before finetuning."""
WATCHED = {"reward": "expected reward", "norm": "gradient norm"}
"""What is followed while it is finetuned."""

Drawn = list[tuple[str, str, "Markup"]]


def shown(item: dict[str, Any], bounds: Mapping[str, str]) -> dict[str, Any]:
    """What is told of an experiment: what each method gained, what it did step by step, and what was so beforehand.

    Args:
        item: of an answer's `controlled`.
        bounds: what a gradient's norm is measured against, by the names of the numbers.
    """
    target, before, heads = place("control", item["name"]), item["before"], INITIAL | dict(bounds)
    known = [name for name in heads if before.get(name)]
    lines = [
        {"name": each["method"], "cells": [cell(each[name], target, digits) for name in METHODS]}
        for each in item["methods"]
    ]
    return {
        "name": item["name"], "seeds": item["seeds"], "gained": _gained(item, target),
        "scatter": _scatter(item, target),
        "columns": list(METHODS.values()), "lines": lines, "watched": _watched(item, target),
        "initial": [heads[name] for name in known],
        "before": [{"name": item["name"], "cells": [cell(before[name], target, digits) for name in known]}],
    }  # fmt: skip


def _gained(item: dict[str, Any], target: str) -> Drawn:
    """The gain of modified inputs and of the others, method by method."""
    colour = figure.colours(INPUTS)
    drawn = [
        (f"{each['method']}\n{part}", each[part], colour[part], remark.settled(each[part]))
        for each in item["methods"] for part in INPUTS if each[part]
    ]  # fmt: skip
    scale = figure.reach([number for _, number, *_ in drawn])
    svg = figure.bars(drawn, "gain, reward units", item["name"], None, scale)
    return [("What each method gained", svg, glance.methods(item["methods"], target))] if svg else []


def _scatter(item: dict[str, Any], target: str) -> Drawn:
    """Gradient norm against std of inputs before finetuning."""
    import numpy as np

    points = item["points"]
    std, norm, modified = (np.asarray(points[name]) for name in ("std", "norm", "modified"))
    groups = {name: (std[part], norm[part]) for name, part in zip(INPUTS, (modified, ~modified), strict=True)}
    words = ("std of the reward at an input", "gradient norm")
    svg = figure.scatter(groups, figure.colours(INPUTS), words, item["name"], log=True)
    return [("Before finetuning", svg, glance.scattered(groups, item["before"]["spearman"], target))] if svg else []


def _watched(item: dict[str, Any], target: str) -> Drawn:
    """Rewards and gradient norms over steps, a panel a method."""
    drawn = []
    for name, words in WATCHED.items():
        for method in dict.fromkeys(each["method"] for each in item["curves"]):
            mine = [each for each in item["curves"] if each["method"] == method]
            lines = {part: figure.runs(mine, f"{name}_{part}") for part in INPUTS}
            log = name == "norm" and all((up > 0).all() for _, up in lines.values())
            svg = figure.learning(lines, figure.colours(INPUTS), words, f"{item['name']}, {method}", None, log)
            drawn.append((f"{words.capitalize()} under {method}", svg, glance.course(lines, target)))
    return drawn
