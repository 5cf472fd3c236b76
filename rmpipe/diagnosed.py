"""The section of a report on pairs before any training: which of them may push the preferred response away.

A study of any question may ask for it; the page of `displace` has it of itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from markupsafe import Markup

from rmpipe.artifact import Diagnosis
from rmpipe.citation import cell, decimals, link, place, signed, spanned
from rmpipe.diagnosis import LENGTH
from rmpipe.text import readable

COLUMNS = {
    "q0": "Least", "q5": "5 %", "q25": "25 %", "q50": "Median", "q75": "75 %", "q95": "95 %", "q100": "Greatest",
    LENGTH: "Spearman with length",
}  # fmt: skip
"""What the table shows of each similarity, and how it calls it."""
SHOWN = 3
"""The pairs of highest CHES that stand on the page."""


def short(value: float) -> str:
    """Four digits that count, or all before the point."""
    return signed(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")


def longer(tokens: float) -> str:
    """By how many tokens the rejected response of a pair is the longer one, in words."""
    count = abs(round(tokens))
    words = f"{count} {'token' if count == 1 else 'tokens'} {'more' if tokens > 0 else 'fewer'} than"
    return f"{words if count else 'as many tokens as'} the chosen one"


def key(seed: int, policy: str) -> str:
    """What a diagnosis is called among those of a report: which seed and policy it is of."""
    return f"{seed} {policy}"


def told(answer: dict[str, Any], diagnoses: Mapping[str, Diagnosis]) -> dict[str, Any] | None:
    """The section of an answer that knows nothing of it; None without a diagnosis.

    Args:
        answer: of any question.
        diagnoses: by `key`, of its seeds and policies; a grid may leave some of these out.
    """
    if not diagnoses:
        return None
    items = []
    places = [place for place in product(answer["seeds"], answer["policies"]) if key(*place) in diagnoses]
    for seed, policy in places:
        diagnosis = diagnoses[key(seed, policy)]
        known: dict[str, dict[str, Any]] = {}
        for called, number in diagnosis.numbers().items():
            name, _, what = called.rpartition(".")
            known.setdefault(name, {})[what] = number and number["value"]
        items.append({"seed": seed, "policy": policy, "address": diagnosis.address, "similarities": known})
    highest = diagnoses[key(*places[0])].table().sort_values("ches", ascending=False, kind="stable").head(SHOWN)
    target = place("from", "diagnose", items[0]["policy"])
    pairs = [
        {"prompt": readable(json.loads(row["prompt"])), "chosen": row["chosen"], "rejected": row["rejected"],
         "ches": link(short(row["ches"]), target), "length": longer(row[LENGTH])}
        for row in highest.to_dict("records")
    ]  # fmt: skip
    return {"tables": tables(items), "pairs": pairs, "policy": items[0]["policy"], "seed": items[0]["seed"]}


def tables(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table a policy: quantiles of each similarity, the mean over seeds and its range.

    Args:
        items: policy, seed, address, and of each of `similarities` the values of `COLUMNS`.
    """
    found = []
    for policy in dict.fromkeys(item["policy"] for item in items):
        mine = [item for item in items if item["policy"] == policy]
        target = place("from", "diagnose", policy)
        lines = []
        for name in mine[0]["similarities"]:
            each = [item["similarities"][name] for item in mine]
            values = {what: [one[what] for one in each if one.get(what) is not None] for what in COLUMNS}
            cells = [cell(spanned(values[what]), target, decimals if what == LENGTH else short) for what in COLUMNS]
            lines.append({"name": name, "cells": cells})
        addresses = [(item["address"], f"seed {item['seed']}") for item in mine]
        caption = _caption(mine, target)
        found.append({"policy": policy, "lines": lines, "id": target, "addresses": addresses, "caption": caption})
    return found


def _caption(mine: list[dict[str, Any]], target: str) -> Markup:
    """How far CHES is length under another name."""
    values = [item["similarities"].get("ches", {}).get(LENGTH) for item in mine]
    known = spanned([value for value in values if value is not None])
    if known is None:
        return Markup("How the order of CHES goes with that of length is not known.")
    words = "The order of CHES goes with that of the difference in length with Spearman {}{}."
    ends = "" if known["low"] is None else f" ({decimals(known['low'])} to {decimals(known['high'])})"
    return Markup(words).format(link(known["value"], target), ends)
