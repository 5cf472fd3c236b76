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


class Judge:
    """Cannot read one answer of those that it was ever given."""

    unparsed = 0

    def __init__(self, reward: float):
        self.reward = reward

    def __call__(self, prompts, responses):
        self.unparsed += 1
        return np.array([self.reward, *range(1, len(responses))])


def test_how_many_answers_could_not_be_read_is_a_number_of_the_run_even_where_scores_are_refused(
    out, log, pairs, monkeypatch
):
    model, texts = SimpleNamespace(address="derive/0", looks=list), pairs(1, held_out=2)
    monkeypatch.setattr("tasks.score.scorer_of", lambda model, **_: Judge(0.0))
    scores = score.function(Scoring(), model, texts, out=out, log=log)
    assert scores.metrics["unparsed"] == 1
    monkeypatch.setattr("tasks.score.scorer_of", lambda model, **_: Judge(float("nan")))
    with pytest.raises(StudyError, match="of 1 of 4 responses it cannot tell"):
        score.function(Scoring(), model, texts, out=out, log=log)
    assert [(name, value) for name, value, *_ in log.curve] == [("unparsed", 1.0)]
