"""A controlled experiment in a report: what each method gained, and what was so before any of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rmpipe import exhibit
from rmpipe.citation import place
from rmpipe.vanished import BOUNDS
from tests.rmpipe.test_remark import MINUS, words
from tests.rmpipe.test_vanished import experiment


@pytest.fixture
def item() -> dict[str, Any]:
    return experiment()


def test_each_method_has_its_gains_with_intervals_and_its_accuracy(item):
    told = exhibit.shown(item, BOUNDS)
    lines = {line["name"]: [(cell["text"], cell["ends"]) for cell in line["cells"]] for line in told["lines"]}
    assert lines["expected_reinforce"] == [
        ("0.05", f"{MINUS}0.05 to 0.15"), ("0.5", "0.4 to 0.6"), ("0.45", "0.35 to 0.55"), ("0.9", "")
    ]  # fmt: skip
    assert {cell["target"] for line in told["lines"] for cell in line["cells"]} == {place("control", "digits")}


def test_what_was_not_taken_before_finetuning_has_no_column(item):
    told = exhibit.shown(item, BOUNDS)
    assert told["initial"][-2:] == ["Spearman of both", BOUNDS["tighter"]]
    assert len(told["initial"]) == len(told["before"][0]["cells"]) == 6


def test_norms_are_drawn_on_a_logarithmic_scale_unless_one_is_0(item):
    def ticks(told: dict[str, Any]) -> list[str]:
        (svg,) = (svg for title, svg, _ in told["watched"] if title == "Gradient norm under supervised")
        return re.findall(r">([\d.]+)</text>", svg)

    assert {"0.01", "0.1", "1"} <= set(ticks(exhibit.shown(item, BOUNDS)))
    item["curves"][0]["norm_modified"][2] = 0.0
    assert "0.01" not in ticks(exhibit.shown(item, BOUNDS))


def test_a_caption_says_of_which_method_the_gap_is_not_settled(item):
    item["methods"][1]["gap"] |= {"low": -0.1}
    (gained,) = exhibit.shown(item, BOUNDS)["gained"]
    assert words(gained[2]).endswith(f"expected_reinforce 0.45 ({MINUS}0.1 to 0.55), not settled.")
