"""Whom the numbers of an execution are about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rmpipe.artifact import Measurement, Policy, Scores
from tasks.execution import _subject

MODEL = SimpleNamespace(record={"model_id": "m-1"})
SCORED = SimpleNamespace(inputs={"reward_model": MODEL})


@pytest.mark.parametrize(
    ("output", "told", "expected"),
    [
        (Policy, {"teacher": MODEL}, "m-1"),
        (Measurement, {"scores": SCORED}, "m-1"),
        (Measurement, {"reward_model": MODEL, "scored": {"test": SCORED}}, "m-1"),
        (Measurement, {"base": MODEL}, None),
        (Scores, {"reward_model": MODEL}, None),
    ],
    ids=["aligned", "measured", "evaluated", "separated", "scored"],
)
def test_numbers_are_about_the_reward_model_that_taught_or_was_measured(output: type, told: dict[str, Any], expected):
    assert _subject(SimpleNamespace(told=told, stage=SimpleNamespace(output=output))) == expected
