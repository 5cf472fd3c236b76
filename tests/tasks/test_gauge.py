"""Gauging: a row a prompt with its std and gradient, exact where all answers are known, none where none was taken."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import gradient, world
from rmpipe import policy as lm
from rmpipe.artifact import Gauge
from rmpipe.gauge import Gauging, moments
from tasks.gauge import gauge

PROMPTS = world.prompts(0, 4)
ANSWERS = (" red", " cheap", " old")
RESPONSES = [[" red", " cheap", " old", " red"], [" it is fine"] * 4, [" oh", " no", " oh", " yes cheers"],
             [" love", " hate", " red", " old"]]  # fmt: skip
OTHERS = [[" old", " yes", " red", " cheap"], [" oh", " it is", " no", " hate"], [" love"] * 4,
          [" red", " red", " cheers", " old"]]  # fmt: skip
"""Draws of which gradients are taken."""
OTHER_REWARDS = np.array([[0.0, 0.5, 1.0, 0.0], [0.0, 1.0, 0.0, 0.5], [0.25] * 4, [1.0, 1.0, 0.0, 0.0]])
REWARDS = np.array([[1.0, 0.0, 0.0, 1.0], [0.5] * 4, [0.0, 1.0, 0.25, 1.0], [0.0, 0.0, 0.0, 1.0]])


def drawn(prompts: list[Any] = PROMPTS, responses: list[list[str]] = RESPONSES) -> Any:
    """As rollouts are read back."""
    told = {"prompt_id": [f"p{n}" for n in range(len(prompts))], "responses": [np.array(each) for each in responses]}
    finished, tokens = [np.array([True] * 3 + [False])] * len(prompts), [np.array([2, 2, 3, 4])] * len(prompts)
    table = pd.DataFrame(told | {"finished": finished, "tokens": tokens}).assign(prompt=prompts)
    return SimpleNamespace(table=lambda: table)


def gauged(
    base: Any, out: Path, log: Any, config: Gauging, rewards: Any = REWARDS, rollouts: Any = None, others: Any = None
) -> Gauge:  # fmt: skip
    """A gauge of these draws; `others` are the rollouts, and their rewards, of which gradients are taken."""
    drawn_again, rewards_again = others or (drawn(responses=OTHERS), OTHER_REWARDS)
    scores, again = (
        SimpleNamespace(rewards=lambda told=told: np.asarray(told, dtype=np.float32))
        for told in (rewards, rewards_again)
    )
    return gauge.function(
        config, base, rollouts or drawn(), scores, drawn_again, again, SimpleNamespace(), 1, out=out, log=log
    )


@pytest.fixture(scope="module")
def taken(base: Any) -> gradient.Gradients:
    """What the noun says of the other draws."""
    finished = np.stack(drawn().table()["finished"].to_list())
    return gradient.policy_gradients(lm.load(base.model), PROMPTS, OTHERS, OTHER_REWARDS, finished=finished)


def length(base: Any) -> float:
    """Of all weights of a model as one vector."""
    weights = lm.load(base.model).model.parameters()
    return math.hypot(*(float(weight.detach().double().norm()) for weight in weights))


def test_a_row_a_prompt_has_its_moments_and_its_gradient(base, out, log, taken):
    found = gauged(base, out, log, Gauging())
    table = found.table()
    assert list(table) == ["prompt_id", "prompt", "response", "samples", "mean", "std", "white_std", "flat", "norm",
                           "normalised", "squared", "gamma", "bound", "tighter"]  # fmt: skip
    for name, values in moments(REWARDS, 0.05).items():
        assert table[name].to_list() == pytest.approx(values.tolist()), name
    assert table["norm"].to_list() == pytest.approx(taken.norm.tolist(), rel=1e-4)
    assert table["squared"].to_list() == pytest.approx(taken.squared.tolist(), rel=1e-4)
    assert table["normalised"].to_list() == pytest.approx((taken.norm / length(base)).tolist(), rel=1e-4)
    assert table["norm"][2] == table["squared"][2] == 0  # of the other draws, which are all alike there
    assert table["std"][1] == 0 < table["norm"][1]
    assert [json.loads(text) for text in table["prompt"]] == PROMPTS
    assert table[["gamma", "bound", "tighter"]].isna().all(axis=None)


def test_numbers_are_told_with_intervals_and_what_is_not_known_is_none(base, out, log):
    found = gauged(base, out, log, Gauging())
    told = found.numbers()
    assert told["flat"]["value"] == told["zero"]["value"] == 0.25
    assert told["flat"]["low"] < 0.25 < told["flat"]["high"]
    assert told["norm_low"] == {"value": 0.0, "low": None, "high": None}  # of one prompt
    assert told["bound"] is told["spearman"] is None
    assert found.metrics == {name: number["value"] for name, number in told.items() if number}
    assert found.summary == f"std {told['std']['value']:.3f}, 25% of 4 prompts teach nothing"


@pytest.mark.parametrize("count", [0, 2, 9])
def test_gradients_are_taken_of_no_more_prompts_than_asked(base, out, log, taken, count):
    table = gauged(base, out, log, Gauging(gradients=count)).table()
    for name in ("norm", "normalised", "squared"):
        assert table[name].notna().to_list() == [n < count for n in range(4)], name
    assert table["norm"][:count].to_list() == pytest.approx(taken.norm[:count].tolist(), rel=1e-4)
    assert log.told[-1:] == ([(min(count, 4), min(count, 4))] if count else [])


def test_gradients_are_of_the_first_prompts_that_have_other_draws(base, out, log, taken):
    others = drawn(PROMPTS[:2], OTHERS[:2]), OTHER_REWARDS[:2]
    for asked in (None, 9):
        table = gauged(base, out, log, Gauging(gradients=asked), others=others).table()
        assert table["norm"].notna().to_list() == [True, True, False, False]
        assert table["norm"][:2].to_list() == pytest.approx(taken.norm[:2].tolist(), rel=1e-4)
        assert table["std"].to_list() == pytest.approx(moments(REWARDS, 0.05)["std"].tolist())
    table = gauged(base, out, log, Gauging(bounds=4), others=others).table()
    assert table["gamma"].notna().to_list() == [True, False, False, False]


def test_bounds_are_taken_at_the_first_prompts_where_something_varies(base, out, log):
    table = gauged(base, out, log, Gauging(bounds=2)).table()
    assert table["gamma"].notna().to_list() == [True, False, True, False]
    place = 0
    squared = table["squared"][place]
    gammas = gradient.jacobian_norm(lm.load(base.model), PROMPTS[place], RESPONSES[place][0], places=3, seed=1)
    assert table["gamma"][place] == pytest.approx(gammas.max(), rel=1e-4)
    std = table["std"][place]
    assert table["bound"][place] == pytest.approx(
        squared / (0.5 * 6 * 4 * gammas.max() * (std / 0.5) ** (2 / 3)) ** 2, rel=1e-3
    )
    assert table["tighter"][place] == pytest.approx(squared / (2 * gammas.max() * std) ** 2, rel=1e-3)  # sqrt(4) ...
    assert (table["tighter"].dropna() <= 1).all()


def test_where_all_rewards_are_equal_nothing_is_bounded_and_nothing_breaks(base, out, log):
    alike = drawn(responses=OTHERS), np.ones((4, 4))
    found = gauged(base, out, log, Gauging(bounds=3), np.ones((4, 4)), others=alike)
    table = found.table()
    assert table["gamma"].isna().all()
    assert not table[["std", "white_std", "norm", "squared"]].any(axis=None)
    assert table["flat"].all()
    assert found.numbers()["norm_high"] is None


def test_where_all_answers_are_known_everything_is_exact_over_them(base, out, log, monkeypatch):
    worth = dict(zip(ANSWERS, (1.0, 0.0, 0.5), strict=True))
    equal = PROMPTS[3]

    def score(prompts: list[Any], responses: list[str]) -> Any:
        return np.array(
            [0.5 if prompt == equal else worth[text] for prompt, text in zip(prompts, responses, strict=True)]
        )

    monkeypatch.setattr("tasks.gauge.scorer_of", lambda reward: score)
    table = gauged(base, out, log, Gauging(answers=ANSWERS), np.full((4, 4), 9.0)).table()  # samples tell nothing here
    model = lm.load(base.model)
    rewards = np.array([list(worth.values())] * 3 + [[0.5] * 3])
    taken = gradient.exact_gradients(model, PROMPTS, list(ANSWERS), rewards)
    for name in ("mean", "std", "norm"):
        assert table[name].to_list() == pytest.approx(getattr(taken, name).tolist(), rel=1e-4), name
    assert table["squared"].to_list() == pytest.approx((table["norm"] ** 2).to_list())
    assert table["normalised"].to_list() == pytest.approx((table["norm"] / length(base)).to_list(), rel=1e-4)
    assert table["std"][3] == table["norm"][3] == 0
    assert table["flat"].to_list() == [False, False, False, True]
    whole = math.sqrt((taken.std**2).mean() + taken.mean.var())
    assert table["white_std"].to_list() == pytest.approx((taken.std / whole).tolist(), rel=1e-4)
    assert log.told == [(done, 4) for done in (1, 2, 3, 4)]  # each gradient once


def test_unlike_responses_are_kept_with_their_rewards_the_best_first(base, out, log):
    responses = [[" a", " b", " c", " d", " e", " a"]] * 4
    rewards = np.array([[0.0, 5.0, 3.0, 1.0, 4.0, 0.0]] * 4)
    rollouts = drawn(responses=responses)
    rollouts.table()["finished"] = [np.ones(6, bool)] * 4
    table = gauged(base, out, log, Gauging(gradients=0), rewards, rollouts).table()
    told = [(each["response"], each["reward"]) for each in json.loads(table["samples"][0])]
    assert told == [(" b", 5.0), (" e", 4.0), (" d", 1.0), (" a", 0.0)]
    assert table["response"][0] == " b"


def test_messages_stay_messages_and_whoever_browses_reads_them(base, out, log):
    turns = [np.array([{"role": "user", "content": f"tell me {n}"}]) for n in range(4)]
    found = gauged(base, out, log, Gauging(gradients=0), rollouts=drawn(prompts=turns))
    assert json.loads(found.table()["prompt"][1]) == [{"role": "user", "content": "tell me 1"}]
    shown = found.preview()
    assert shown["prompt_id"].to_list()[0] == "p1"  # the least std first
    assert "tell me 1" in shown["prompt"].to_list()[0]


def test_what_was_asked_for_and_from_whom_is_its_address(tmp_path):
    from rmpipe.artifact import RewardModel, Rollouts, Scores, Weights
    from rmpipe.store import Store
    from tasks.stage import planning

    kinds = (Weights, Rollouts, Scores, Rollouts, Scores, RewardModel)

    def address(config: Gauging, seed: int = 1) -> str:
        made = [kind(f"{kind.__name__.lower()}/0", tmp_path) for kind in kinds]
        return gauge(config, *made, seed).address

    with planning(Store(tmp_path)):
        here = address(Gauging())
        assert address(Gauging(batch_size=1)) == here
        assert len({here, address(Gauging(bounds=1)), address(Gauging(threshold=0.1)), address(Gauging(), 2)}) == 4
