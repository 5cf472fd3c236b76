"""Scores: a judge that cannot tell of some responses labels pairs, and gives no rewards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rmpipe.config import StudyError
from rmpipe.study import Scoring
from tasks.score import score


def test_what_cannot_be_told_is_no_reward(out, pairs, monkeypatch):
    verdicts = [1.0, float("nan"), 0.0, 1.0]
    monkeypatch.setattr("tasks.score.scorer_of", lambda model, **_: lambda prompts, texts: np.array(verdicts))
    model = SimpleNamespace(address="derive/0", looks=list)
    with pytest.raises(StudyError, match=r"^derive/0: of 1 of 4 responses it cannot tell; it may label pairs"):
        score.function(Scoring(), model, pairs(1, held_out=2), out=out, log=None)
    verdicts[1] = 0.0
    assert score.function(Scoring(), model, pairs(1, held_out=2), out=out, log=None).summary == "2 x 2"
