"""What a report tells of the pairs before training, whichever question it answers."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmpipe import diagnosed, page
from rmpipe.artifact import Diagnosis
from tests.rmpipe import test_generalised, test_page
from tests.rmpipe.test_displaced import words

TITLE = "Which pairs may push the preferred response away"


@pytest.fixture
def diagnose(tmp_path: Path):
    """Makes a diagnosis of some pairs with these values of CHES."""

    def make(name: str, ches: list[float]) -> Diagnosis:
        folder = tmp_path / "store" / "diagnose" / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"stage": "diagnose", "kind": "Diagnosis", "inputs": {}}))
        told = {f"ches.{key}": {"value": ches[0], "low": None, "high": None} for key in ("q0", "q50", "q100")}
        told |= {"ches.length": {"value": 0.8, "low": 0.7, "high": 0.9}, "length.q50": told["ches.q50"]}
        (folder / "measurement.json").write_text(json.dumps(told))
        rows = [
            {"prompt": json.dumps([{"role": "user", "content": f"ask {value}"}]), "chosen": f" <b>yes {value}",
             "rejected": " no", "ches": value, "length": -2.0}
            for value in ches
        ]  # fmt: skip
        pd.DataFrame(rows).to_parquet(folder / "pairs.parquet")
        return Diagnosis(f"diagnose/{name}", tmp_path)

    return make


@pytest.mark.parametrize("answer", [test_page.told, test_generalised.told], ids=["teach", "generalise"])
def test_a_page_has_the_section_where_the_study_asked_and_its_numbers_lead_to_the_diagnosis(diagnose, answer):
    answer = answer()
    places = [diagnosed.key(*place) for place in product(answer["seeds"], answer["policies"])]
    made = {place: diagnose(f"{index:012x}", [5.0, 9.0]) for index, place in enumerate(places)}
    html = page.render(answer, "rank/0", made)
    part = html.split('id="diagnosed"')[1].split("</section>")[0]
    assert re.search(r'href="#(from/diagnose/[^"]+)">5<', part)
    assert "&lt;b&gt;yes 9.0" in part
    assert "is said to tell which pairs displace (2410.08847)" in part  # which is not what real pairs showed
    entries = re.findall(r"rmpipe why (diagnose/\w+)</code>", html.split('id="from"')[1])
    assert sorted(entries) == [f"diagnose/{index:012x}" for index in range(len(places))]
    links = set(re.findall(r'href="#([^"]+)"', part))
    assert links <= set(re.findall(r' id="([^"]+)"', html))
    assert TITLE not in page.render(answer, "rank/0")


def test_the_highest_pairs_of_the_first_seed_are_shown_and_what_is_unknown_is_a_dash(diagnose):
    answer: dict[str, Any] = {"seeds": [1, 2], "policies": ["p"]}
    section = diagnosed.told(answer, {"1 p": diagnose("a", [1.0, 4.0, 3.0, 2.0]), "2 p": diagnose("b", [9.0])})
    assert [item["prompt"] for item in section["pairs"]] == ["user: ask 4.0", "user: ask 3.0", "user: ask 2.0"]
    (table,) = section["tables"]
    cells = dict(zip(diagnosed.COLUMNS, table["lines"][0]["cells"], strict=True))
    assert (cells["q50"]["text"], cells["q50"]["ends"]) == ("5", "1 to 9")
    assert cells["q5"] is None
    assert table["addresses"] == [("diagnose/a", "seed 1"), ("diagnose/b", "seed 2")]
    assert words(table["caption"]) == "The order of CHES goes with that of the difference in length with Spearman" \
                                      " 0.80 (0.80 to 0.80)."  # fmt: skip
    assert diagnosed.told(answer, {}) is None


def test_a_diagnosis_stands_under_its_own_policy_whatever_the_order_and_a_grid_may_leave_some_out(diagnose):
    answer: dict[str, Any] = {"seeds": [2, 1], "policies": ["strong", "weak"]}
    made = {"1 weak": diagnose("a", [1.0]), "1 strong": diagnose("b", [2.0]), "2 strong": diagnose("c", [3.0])}
    section = diagnosed.told(answer, made)
    told = {table["policy"]: table["addresses"] for table in section["tables"]}
    assert told == {
        "strong": [("diagnose/c", "seed 2"), ("diagnose/b", "seed 1")],
        "weak": [("diagnose/a", "seed 1")],
    }
    assert (section["policy"], section["seed"], section["pairs"][0]["prompt"]) == ("strong", 2, "user: ask 3.0")


@pytest.mark.parametrize(
    ("tokens", "said"), [(1, "1 token more than"), (-3, "3 tokens fewer than"), (0, "as many tokens as")]
)
def test_length_is_told_in_words(tokens, said):
    assert diagnosed.longer(tokens) == f"{said} the chosen one"


@pytest.mark.parametrize(
    ("value", "said"), [(-3350.9, "−3,351"), (103.741, "103.7"), (0.5, "0.5"), (2.6e-5, "2.6e−05")]
)
def test_numbers_of_any_size_have_few_digits(value, said):
    assert diagnosed.short(value) == said.replace("−", "\N{MINUS SIGN}")
