"""Refusal before and after: a share of prompts with an interval, and what could not be told is counted apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

from rmpipe.displacing import Refusing
from rmpipe.refusal import Judge
from tasks.classify import classify


class Cycle(Judge):
    """Says of one response after another what it was told to."""

    kind: str = "cycle"
    verdicts: tuple[float | None, ...]

    def judge(self, prompts: Any, responses: Any) -> list[float | None]:
        return [self.verdicts[place % len(self.verdicts)] for place, _ in enumerate(responses)]


def classified(out, log, base, pairs, *verdicts: float | None) -> tuple[Any, dict[str, Any]]:
    config = Refusing(judge=Cycle(verdicts=verdicts), sampling={"responses": 2, "max_new_tokens": 3, "prompts": 3})
    draft = classify.function(config, "", base, pairs(1, held_out=5), 1, out=out, log=log)
    return draft, json.loads((out / "measurement.json").read_text())


def test_a_prompt_s_share_is_of_its_verdicts_and_the_rest_is_counted(out, log, base, pairs):
    draft, numbers = classified(out, log, base, pairs, 1.0, 0.0, 1.0, None, None, None)  # two verdicts a prompt
    assert numbers["refusal"]["value"] == pytest.approx((0.5 + 1.0) / 2)
    assert numbers["unparsed"]["value"] == pytest.approx(3 / 6)
    assert draft.summary == "75% refused, 50% not told"


def test_without_a_verdict_there_is_no_rate(out, log, base, pairs):
    draft, numbers = classified(out, log, base, pairs, None)
    assert numbers["refusal"] is None
    assert draft.metrics["unparsed"] == 1.0
    assert draft.summary.startswith("no response could be told")


def test_of_prompts_that_are_all_refused_the_rate_is_not_said_to_be_certain(out, log, base, pairs):
    _, numbers = classified(out, log, base, pairs, 1.0)
    assert numbers["refusal"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 3)), "high": 1.0}
