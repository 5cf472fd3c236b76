"""The frame of every report: one look, and the pieces that pages share."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rmpipe import citation

if TYPE_CHECKING:
    from jinja2 import Template

OUTCOMES = {"Held": "held", "Reversed": "reversed"}
"""How the page marks a judged claim, by the first word of its sentence; all others are open."""

SHARED = ("frame.html", "diagnosed.html", "audited.html", "flat.html", "foreseen.html")


def judged(item: dict[str, Any], sides: list[tuple[str, str]]) -> dict[str, Any]:
    """A claim as the page tells it: its sentence parted into the outcome and the rest.

    Args:
        item: of an answer's contrasts.
        sides: what it was judged on, each with its entry.
    """
    outcome, rest = item["sentence"].split(":", 1)
    return {
        "name": item["name"], "claim": item["claim"], "id": citation.place("from", "claim", item["name"]),
        "outcome": outcome, "mark": OUTCOMES.get(outcome, "open"), "rest": rest, "sides": sides,
    }  # fmt: skip


@cache
def template(name: str) -> Template:
    """A page's template, which may import what is shared and cite.

    Args:
        name: of the file beside this one.
    """
    from jinja2 import DictLoader, Environment

    parts = {part: files("rmpipe").joinpath(part).read_text(encoding="utf-8") for part in (*SHARED, name)}
    environment = Environment(loader=DictLoader(parts), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": citation.interval, "linked": citation.linked, "link": citation.link}
    environment.globals |= {"cite": citation.cite, "entry": citation.entry, "place": citation.place}
    return environment.get_template(name)
