"""Slopes as they are kept: in half precision, a row a prompt, with what they are to be multiplied by."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import policy as lm
from rmpipe import world
from rmpipe.artifact import Gradients
from rmpipe.foreseeing import Differentiating
from rmpipe.slopes import slopes
from tasks.differentiate import differentiate

PROMPTS = world.prompts(0, 2)
RESPONSES = [[" red", " it is fine", ""], [" oh", " love", " it is lovely"]]
FINISHED = [[True, False, True], [True, True, False]]


def drawn(**columns: Any) -> Any:
    """As rollouts are read back."""
    table = pd.DataFrame({"prompt_id": ["p0", "p1"], "responses": [np.array(each) for each in RESPONSES]})
    table = table.assign(prompt=PROMPTS, **columns)
    return SimpleNamespace(table=lambda: table)


def differentiated(base: Any, out: Path, log: Any, rollouts: Any, weights: int = 500) -> Gradients:
    differentiate.function(Differentiating(weights=weights), base, rollouts, 1, out=out, log=log)
    return Gradients("", out)


def test_slopes_come_back_to_within_half_precision(base, out, log):
    found = differentiated(base, out, log, drawn(finished=[np.array(each) for each in FINISHED])).slopes()
    asked = slopes(lm.load(base.model), PROMPTS, RESPONSES, finished=np.array(FINISHED), weights=500, seed=1)
    assert found.share == asked.share
    assert found.values.dtype == np.float32
    assert np.load(out / "slopes.npy").dtype == np.float16
    largest = float(np.abs(asked.values).max())
    assert found.values == pytest.approx(asked.values, rel=2**-10, abs=2**-24 * largest / 2**11)
    assert np.abs(asked.values - found.values).max() > 0
    assert log.told[-1] == (2, 2)


def test_the_length_of_a_response_is_told_with_its_end(base, out, log):
    lengths = [[1, 3, 0], [1, 1, 3]]
    differentiated(base, out, log, drawn(finished=[np.array(each) for each in FINISHED]), weights=5)
    told = json.loads((out / "slopes.json").read_text())
    assert told["tokens"] == pytest.approx(np.mean(lengths) + np.mean(FINISHED))
    differentiated(base, out, log, drawn(), weights=5)
    assert json.loads((out / "slopes.json").read_text())["tokens"] == pytest.approx(np.mean(lengths) + 1)


def test_of_a_policy_that_says_nothing_there_are_slopes_of_0(base, out, log, monkeypatch):
    monkeypatch.setitem(globals(), "RESPONSES", [["", ""]] * 2)
    never = [np.array([False, False])] * 2
    assert not differentiated(base, out, log, drawn(finished=never)).slopes().values.any()
