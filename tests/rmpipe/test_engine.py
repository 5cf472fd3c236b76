"""Drawing by vLLM, over a stand-in of its API: what comes out is what transformers' drawing leaves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from rmpipe import engine, offline
from rmpipe import policy as lm
from rmpipe.config import StudyError
from rmpipe.study import Sampling, Study
from rmpipe.text import encode, response_text

STANDIN = Path(__file__).parents[1] / "standin" / "offline"
PROMPTS = ["tell me of the kettle", "is it fine", "tell me of the lovely red kettle"]
SAMPLING = Sampling(engine="vllm", responses=24, max_new_tokens=8, temperature=1.4, top_k=150, top_p=0.98)


@pytest.fixture(scope="module")
def policy(base: Path) -> Any:
    return SimpleNamespace(model=base, dtype="float32")


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STANDIN), *filter(None, sys.path)]))
    monkeypatch.syspath_prepend(STANDIN)
    yield
    sys.modules.pop("vllm", None)


def asked(policy: Any, prompts: list[str], seed: int = 1, **more: Any) -> list[Any]:
    """Drawn in this process."""
    tokenizer = lm.load(policy.model).tokenizer
    ids = [encode(tokenizer, prompt) for prompt in prompts]
    told = lm.options(SAMPLING.model_copy(update={"responses": 3, **more}))
    return offline.drawn(engine.request(policy, ids, tokenizer.eos_token_id, told, seed))


def test_samples_have_the_tokens_texts_and_log_probabilities_that_transformers_finds(policy, standin):
    told: list[Any] = []
    drawn = engine.draw(policy, PROMPTS, SAMPLING, seed=1, progress=lambda *done: told.append(done))
    model = lm.load(policy.model)
    pairs = [(encode(model.tokenizer, prompt), ids) for prompt, item in zip(PROMPTS, drawn, strict=True)
             for ids in item.ids]  # fmt: skip
    assert lm.likelihoods(model, pairs).tolist() == pytest.approx(
        [p for item in drawn for p in item.logprobs], abs=1e-4
    )
    end = model.tokenizer.eos_token_id
    for prompt, item in zip(PROMPTS, drawn, strict=True):
        asked = encode(model.tokenizer, prompt)
        assert item.responses == [response_text(model.tokenizer, asked, ids) for ids in item.ids]
        assert len({*map(tuple, item.ids)}) == 24
        assert item.tokens == [len(ids) for ids in item.ids]
        assert item.finished == [ids[-1] == end for ids in item.ids]
        assert all(len(ids) == 8 or ids[-1] == end for ids in item.ids)
    assert {True, False} == {ended for item in drawn for ended in item.finished}
    assert told == [(3, 3)]


def test_neither_the_other_prompts_nor_their_order_change_what_a_prompt_is_answered_with(policy, standin):
    drawn = asked(policy, PROMPTS)
    assert asked(policy, PROMPTS[::-1]) == drawn[::-1]
    assert asked(policy, PROMPTS[1:2]) == drawn[1:2]
    assert asked(policy, PROMPTS, seed=2) != drawn


def test_the_model_is_loaded_in_the_policy_s_precision(base, standin):
    policy = SimpleNamespace(model=base, dtype="bfloat16")
    exact, rough = asked(SimpleNamespace(model=base, dtype="float32"), PROMPTS), asked(policy, PROMPTS)
    assert exact != rough


def test_a_prompt_that_leaves_no_room_is_refused_before_vllm_is_begun(policy):
    with pytest.raises(StudyError, match=r"prompt 0 has .* tokens and 5000 are to be drawn"):
        engine.draw(policy, PROMPTS, SAMPLING.model_copy(update={"max_new_tokens": 5000}), seed=1)


def test_where_vllm_fails_there_is_no_answer(policy, monkeypatch):
    monkeypatch.setenv("RMPIPE_VLLM", "/bin/false")
    with pytest.raises(RuntimeError, match="vLLM ended with exit code 1"):
        engine.draw(policy, PROMPTS, SAMPLING, seed=1)


@pytest.mark.parametrize("python", ["", "/nowhere/python"])
def test_a_study_that_asks_for_vllm_is_refused_where_there_is_none(python, monkeypatch):
    monkeypatch.setenv("RMPIPE_VLLM", python)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    study = Study.read(Path("flows/studies/pocket.toml"), ['sampling.engine="vllm"'])
    with pytest.raises(StudyError, match=r"^sampling.engine: vllm, and .* has none; .*RMPIPE_VLLM"):
        study.check_sources()


def test_a_study_that_asks_for_vllm_is_taken_where_it_is(standin):
    Study.read(Path("flows/studies/pocket.toml"), ['sampling.engine="vllm"']).check_sources()


def test_a_temperature_that_vllm_would_alter_is_refused():
    with pytest.raises(StudyError, match=r"^sampling.temperature: 2.5, and vLLM draws from 0.01 to 2.0"):
        engine.check("sampling", SAMPLING.model_copy(update={"temperature": 2.5}))
