"""Sifting: the table says what becomes of each prompt, and training takes the prompts that it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("trl")

from rmpipe import world
from rmpipe.algorithm import Optimiser
from rmpipe.artifact import Rollouts, Sieve
from rmpipe.config import StudyError
from rmpipe.reinforcement import Rloo
from rmpipe.sieve import Sifting, written
from rmpipe.study import Sampling
from rmpipe.teaching import Evaluation
from tasks.align import align
from tasks.sift import sift
from tests.tasks.conftest import preferences

CHAT = [{"role": "user", "content": "tell me"}]
REWARDS = [[1.0, 5.0], [3.0, 3.0], [2.0, 4.0], [3.0, 3.01]]
PROMPTS = ["loud", CHAT, "louder", "quiet"]


def sieve_of(out: Path, config: Sifting, rewards: Any = REWARDS) -> Any:
    """What `sift` leaves of four prompts, read back as a rollouts table is."""
    rows = {"prompt_id": ["p0", "p1", "p2", "p3"], "prompt": PROMPTS, "responses": [["a", "b"]] * 4}
    asked = pd.DataFrame(rows).assign(prompt=[p if isinstance(p, str) else np.array(p) for p in PROMPTS])
    rollouts, scores = SimpleNamespace(table=lambda: asked), SimpleNamespace(rewards=lambda: np.array(rewards))
    return sift.function(config, rollouts, scores, out=out, log=None)


# -- the artifact -----------------------------------------------------------------------------------------------------


def test_a_row_a_prompt_says_what_becomes_of_it(out: Path):
    draft = sieve_of(out, Sifting())
    table = pd.read_parquet(out / "sieve.parquet")
    assert list(table) == ["prompt_id", "prompt", "mean", "std", "white_std", "fate"]
    assert [json.loads(text) for text in table["prompt"]] == PROMPTS
    assert table["fate"].to_list() == ["keep", "drop", "keep", "drop"]
    assert draft.metrics == {"kept": 2, "dropped": 2, "deferred": 0}
    assert draft.summary == "drops 2 of 4 prompts"


def test_what_waits_is_counted_apart(out: Path):
    draft = sieve_of(out, Sifting(low=0.25, fate="defer"))
    assert draft.metrics == {"kept": 3, "dropped": 0, "deferred": 1}
    assert draft.summary == "defers 1 of 4 prompts"


def test_whoever_browses_sees_the_prompts_of_least_std_first(out: Path):
    sieve_of(out, Sifting())
    shown = Sieve.at(out).preview()
    assert shown is not None
    assert shown["prompt_id"].to_list() == ["p1", "p3", "p2", "p0"]
    assert "tell me" in shown["prompt"][0]
    assert "role" not in shown["prompt"][0]


@pytest.mark.parametrize(
    ("told", "rewards", "said"),
    [
        ({"threshold": 5.0}, REWARDS, r"sifting.threshold: no prompt of 4 has a reward std of 5.0 or more, whitened"),
        ({"fate": "defer"}, [[1.0, 1.0]] * 4, r"sifting.threshold: no prompt of 4 has .*, whitened"),
        ({"low": 0.5}, [[1.0, 2.0]] * 4, r"sifting.low: no prompt of 4 has a reward std above their quantile 0.5"),
    ],
)
def test_a_sieve_that_keeps_nothing_is_refused(out: Path, told: dict[str, Any], rewards: Any, said: str):
    with pytest.raises(StudyError, match=f"^{said}; lower it, or train with another reward model$"):
        sieve_of(out, Sifting(**told), rewards)
    assert list(out.iterdir()) == []


# -- training on what it leaves ---------------------------------------------------------------------------------------


def sieve(**by: list[str]) -> Any:
    """A sieve by fate."""
    rows = [{"prompt": written(prompt), "fate": fate} for fate, prompts in by.items() for prompt in prompts]
    return SimpleNamespace(address="sift/0123456789ab", table=lambda: pd.DataFrame(rows))


@pytest.fixture
def asked(base: Any, out: Path, log: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Aligns the smallest of policies; the prompts that it was asked in training, in order, each once a step."""
    prompts = world.prompts(0, 12)
    split = ["policy"] * 8 + ["test"] * 4
    data = preferences(pd.DataFrame({"id": [f"p{n}" for n in range(12)], "prompt": prompts, "split": split}))
    held_out, seen = {*prompts[8:]}, []

    def score(given: list[str], responses: list[str]) -> Any:
        seen.extend(prompt for prompt in given[::2] if prompt not in held_out)
        return np.array([float(len(response)) for response in responses])

    monkeypatch.setattr("tasks.align.scorer_of", lambda teacher: score)
    log.logged = {}
    monkeypatch.setattr(type(log), "metrics", lambda self, values, step=None: self.logged.update(values))

    def run(sifted: Any, steps: int = 4, per_step: int = 2) -> list[str]:
        config = Rloo(
            steps=steps, prompts_per_step=per_step, samples_per_prompt=2, max_new_tokens=3, evaluations=2,
            optimiser=Optimiser(learning_rate=1e-3),
        )  # fmt: skip
        scores = SimpleNamespace(rewards=lambda: np.array(REWARDS))
        settings = config, Evaluation(prompts=2, responses=1), Sampling(responses=2, max_new_tokens=3)
        align.function(*settings, base, None, scores, None, None, data, 1, sifted, out=out, log=log)
        return seen

    return run


POLICY = world.prompts(0, 8)


def test_what_is_dropped_is_never_asked_and_what_was_never_sampled_is(asked: Any, log: Any):
    gone, known = POLICY[:4], POLICY[4:6]
    found = asked(sieve(drop=gone, keep=known), steps=6)
    assert set(found) == set(POLICY[4:])
    told = {name: value for name, value in log.logged.items() if name.startswith("prompts.")}
    assert told == {"prompts.keep": 2, "prompts.unsampled": 2, "prompts.drop": 4, "prompts.defer": 0}


def test_what_waits_comes_after_all_others_in_each_pass(asked: Any):
    waiting = POLICY[2:5]
    found = asked(sieve(defer=waiting, keep=POLICY[:2], drop=POLICY[7:]), steps=6)
    for once in (found[:6], found[6:]):
        assert sorted(once[:4]) == sorted([*POLICY[:2], *POLICY[5:7]])
        assert set(once[4:]) < set(waiting)
    assert len(found) == 12


def test_without_a_sieve_every_prompt_is_asked(asked: Any, log: Any):
    assert sorted(asked(None)) == sorted(POLICY)
    assert not [name for name in log.logged if name.startswith("prompts.")]


def test_fewer_prompts_than_a_step_takes_are_refused_before_anything_is_loaded(asked: Any, log: Any):
    told = r"^sifting: sift/0123456789ab leaves 1 of 8 prompts, and prompts_per_step = 2; lower that, or set sifting.f"
    with pytest.raises(StudyError, match=told):
        asked(sieve(drop=POLICY[:7]))
    assert not list(log.scratch.iterdir())
    assert len(set(asked(sieve(defer=POLICY[:7])))) == 8


def test_a_sieve_is_made_of_rollouts_and_shows_them_as_they_are(tmp_path: Path):
    rows = {"prompt_id": ["0", "1"], "prompt": [CHAT, CHAT[:1]], "responses": [["a", "b"], ["c", "d"]]}
    pd.DataFrame(rows).to_parquet(tmp_path / "rollouts.parquet")
    scores = SimpleNamespace(rewards=lambda: np.array([[0.0, 1.0], [1.0, 1.0]]))
    sift.function(Sifting(), Rollouts.at(tmp_path), scores, out=tmp_path, log=None)
    assert [json.loads(text) for text in Sieve.at(tmp_path).table()["prompt"]] == [CHAT, CHAT]
