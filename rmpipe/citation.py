"""A citation: a number on the report's page that is a link to where it came from, and the entries that they lead to.

A cell (a reward model that teaches a policy under an algorithm) has two entries: what was measured of it before RLHF,
and what was taught. A claim has one, which names the cells that it compares; the ranking itself has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

KEYS = ("policy", "algorithm", "reward_model")
TAUGHT = ("truth_gain", "proxy_gain", "kl", "length_gain")
"""The numbers that come from training the policy; all others are measured before."""
SOURCES = {"measure": "Measured", "align": "Taught"}
"""The stages that a cell's numbers come from, and how the page calls what each gave."""
RANKING = "from/rank"
"""Where the entry of the ranking itself stands."""


def decimals(value: float | None) -> str:
    """A number as the page writes it; nothing for what is unknown."""
    return "" if value is None else signed(f"{value:.2f}")


def signed(text: str) -> str:
    """A number's text with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def interval(number: dict[str, Any]) -> str:
    """The interval of a number in words, nothing where it has none."""
    if number["low"] is None or number["high"] is None:
        return ""
    return f"{decimals(number['low'])} to {decimals(number['high'])}"


def place(kind: str, *names: str) -> str:
    """The id of a place on the page, for these names alone."""
    return "/".join((kind, *(quote(name, safe="") for name in names)))


def entry(row: dict[str, Any], column: str) -> str:
    """The id of the entry that a column of a cell leads to."""
    return place("from", *(row[key] for key in KEYS), "align" if column in TAUGHT else "measure")


def link(value: float | str | None, target: str) -> Markup:
    """A number that leads to an entry."""
    text = value if isinstance(value, str) else decimals(value)
    return Markup('<a class="n" href="#{}">{}</a>').format(target, text)


def cite(row: dict[str, Any], column: str) -> Markup:
    """A cell's number that leads to where it came from."""
    return link(row[column]["value"], entry(row, column))


def linked(sentence: str, target: str) -> Markup:
    """A sentence in which every number leads to an entry; intervals, in brackets, stay text."""
    told, end = Markup(), 0
    for found in re.finditer(r"\[[^\]]*\]|(?<![\w.])-?\d+\.\d+(?:e[+-]\d+)?%?", sentence):
        text = signed(found[0])
        told += escape(sentence[end : found.start()]) + (escape(text) if text[0] == "[" else link(text, target))
        end = found.end()
    return told + escape(sentence[end:])


def cell(number: dict[str, Any] | None, target: str, form: Callable[[float], str] = decimals) -> dict[str, str] | None:
    """A number of a table: as text, the ends of its interval, and where it leads."""
    if number is None:
        return None
    ends = [form(number[end]) for end in ("low", "high") if number[end] is not None]
    return {"text": form(number["value"]), "ends": " to ".join(ends), "target": target}


def spanned(values: list[float]) -> dict[str, Any] | None:
    """The mean with the least and the greatest: no interval, for seeds may share a base."""
    if not values:
        return None
    ends = (min(values), max(values)) if len(values) > 1 else (None, None)
    return {"value": sum(values) / len(values), "low": ends[0], "high": ends[1]}


def once(html: str) -> str:
    """The page with each target in the order of the Tab key once, at its first number.

    Every number stays a link for a pointer and a screen reader; without this, a table of a hundred numbers would be a
    hundred stops on the way to the next.
    """
    seen: set[str] = set()

    def aside(found: re.Match[str]) -> str:
        if found[1] in seen:
            return f'<a class="n" tabindex="-1" href="{found[1]}">'
        seen.add(found[1])
        return found[0]

    return re.sub(r'<a class="n" href="([^"]+)">', aside, html)


def sources(row: dict[str, Any], curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two entries of a cell: what it gave, where it stands, and a line a seed with what to type.

    Args:
        row: of an answer; its addresses stand in the order of its seeds.
        curves: of the same answer, which name the seeds in that order.
    """
    seeds = [item["seed"] for item in curves if all(item[key] == row[key] for key in KEYS)]
    told = []
    for stage, words in SOURCES.items():
        found = row["addresses"][stage]
        named = [f"seed {seed}" for seed in seeds] if len(seeds) == len(found) else [""] * len(found)
        target = place("from", *(row[key] for key in KEYS), stage)
        told.append({"id": target, "words": words, "lines": list(zip(found, named, strict=True))})
    return told


def compared(judged: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that a judged claim names; for a ladder, whose sentence names none, all of its policy and algorithm."""
    mine = [row for row in rows if row["algorithm"] == judged["algorithm"]]
    named = [row for row in mine if f" of {row['reward_model']} on {row['policy']} " in judged["sentence"]]
    return named or [row for row in mine if row["policy"] == judged["policy"]]
