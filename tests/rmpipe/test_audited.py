"""What an answer says of its audits."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from rmpipe import audited


class Examined:
    """As `rmpipe.artifact.Audit` is asked."""

    def __init__(self, address: str, **checks: tuple[str, float, str]):
        self.address, self.checks = address, checks

    def table(self) -> pd.DataFrame:
        return pd.DataFrame([
            {"check": check, "group": "sanity", "verdict": verdict, "amount": amount, "unit": unit,
             "found": f"{check} is {amount}.", "remedy": "mend it" if verdict == "fail" else ""}
            for check, (verdict, amount, unit) in self.checks.items()
        ])  # fmt: skip


@pytest.fixture
def told() -> list[dict[str, Any]]:
    fine = {"order": ("pass", 0.0, "sd"), "random": ("none", 0.5, "accuracy")}
    return audited.told({
        "fine": [Examined("audit/1", **fine), Examined("audit/2", **fine)],
        "long": [Examined("audit/3", doubled=("drift", 0.6, "share")),
                 Examined("audit/4", doubled=("pass", 0.4, "share"))],
        "torn": [Examined("audit/5", loading=("pass", 0.0, "sd")), Examined("audit/6", loading=("fail", 3.0, "sd"))],
    })  # fmt: skip


def test_the_worst_seed_of_each_check_is_told_and_the_worst_reward_model_comes_first(told):
    assert [(item["reward_model"], item["verdict"]) for item in told] == [
        ("torn", "fail"), ("long", "drift"), ("fine", "pass"),
    ]  # fmt: skip
    (check,) = told[0]["checks"]
    assert (check["amount"], check["least"], check["greatest"], check["remedy"]) == (1.5, 0.0, 3.0, "mend it")
    assert told[0]["addresses"] == ["audit/5", "audit/6"]
    assert audited.unsound(told) == ["torn"]


def test_what_fails_and_is_ranked_all_the_same_is_said_and_so_is_what_rests_on_it(told):
    first, last = audited.sentences(told, "gold")
    assert first == "UNSOUND † torn fails its audit, and is ranked since the study allows it: loading is 3.0."
    assert last == "Audited: 2 others pass; what moves their scores, and what else was found, is in the report."
    assert "every ground-truth gain rests on it" in audited.sentences(told, "torn")[0]
    assert audited.sentences([], None) == []
    assert audited.sentences(told[2:], None) == ["Audited: none of the 1 reward models fails."]


def test_the_page_has_each_amount_in_its_unit_with_its_range_over_seeds(told):
    found = {item["reward_model"]: [check["told"] for check in item["checks"]] for item in audited.section(told)}
    assert found == {
        "torn": ["1.50 sd (0.00 sd to 3.00 sd)"], "long": ["50% (40% to 60%)"], "fine": ["0.00 sd", "0.50"],
    }  # fmt: skip
