"""Rollouts of a policy: the same table whichever engine draws."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("torch")

from rmpipe import engine, offline
from rmpipe.study import Sampling
from tasks.sample import sample

STANDIN = Path(__file__).parents[1] / "standin" / "offline"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's stand-in draws in this process."""
    monkeypatch.syspath_prepend(STANDIN)
    monkeypatch.setattr(engine, "_answered", offline.drawn)
    yield
    sys.modules.pop("vllm", None)


@pytest.mark.parametrize("by", ["transformers", "vllm"])
def test_rollouts_have_a_row_a_prompt_with_what_was_drawn(by, base, pairs, here, out, log):
    config = Sampling(engine=by, responses=3, prompts=4, max_new_tokens=5, split="test")
    policy = SimpleNamespace(model=base.model, dtype="float32")
    draft = sample.function(config, policy, pairs(1, held_out=5), 1, out=out, log=log)
    table = pd.read_parquet(out / "rollouts.parquet")
    kept = ["prompt_id", "prompt", "split", "responses", "tokens", "finished", "logprobs"]
    assert table.columns.to_list() == kept
    assert len(table) == 4
    assert all(len(cell) == 3 for name in kept[3:] for cell in table[name])
    kinds = {name: type(table[name][0][0]).__name__ for name in kept[3:]}
    assert kinds == {"responses": "str", "tokens": "int64", "finished": "bool", "logprobs": "float64"}
    assert draft.summary == "4 prompts x 3"
    assert log.told[-1] == (4, 4)
