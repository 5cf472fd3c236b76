"""A race over a policy's own samples: a row a round and reward model, few labels, resumed where a kill left it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from rmpipe import engine
from rmpipe.config import StudyError
from rmpipe.racing import Racing
from rmpipe.study import Sampling
from tasks import race as module
from tasks.race import race

PROMPTS = 40


class Asking:
    """Policy, reward models and ground truth that count what they are asked: numbers are in the texts."""

    def __init__(self, monkeypatch):
        self.drawn, self.scored = [], {}
        monkeypatch.setattr(engine, "draw", self.draw)
        monkeypatch.setattr(module, "scorer_of", self.scorer_of)

    def draw(self, policy, prompts, sampling, *, seed):
        self.drawn += prompts
        return [
            SimpleNamespace(
                responses=[f"{each:.6f}" for each in self.random(prompt, seed).normal(size=sampling.responses)]
            )
            for prompt in prompts
        ]

    def random(self, *of):
        return np.random.default_rng([int(text.split()[-1]) if isinstance(text, str) else text for text in of])

    def scorer_of(self, model):
        def scorer(prompts, responses):
            self.scored[model.address] = self.scored.get(model.address, 0) + len(responses)
            right = np.array([float(text) for text in responses])
            noise = np.array([self.random(int(1e6 * abs(each))).normal() for each in right])
            return (model.share * right + (1 - abs(model.share)) * noise) / model.told

        return scorer


def model(name, share, told=1.0):
    return SimpleNamespace(address=name, share=share, told=told)


@pytest.fixture
def asking(monkeypatch):
    return Asking(monkeypatch)


@pytest.fixture
def prompts():
    ids, texts = [f"p{n}" for n in range(PROMPTS)], [f"prompt {n}" for n in range(PROMPTS)]
    return SimpleNamespace(prompts=lambda split: (ids, texts))


def raced(out, log, prompts, *, teachers=None, sampling=None, truth=None, **told):
    teachers = teachers or {"good": model("good", 0.9), "fair": model("fair", 0.7), "bad": model("bad", -0.5)}
    how = Sampling(responses=8) if sampling is None else sampling
    truth = truth or model("truth", 1.0)
    race.function(Racing(**told), how, "correlation", "whitened", None, teachers, truth, prompts, 1, out=out, log=log)
    return pd.read_parquet(out / "rounds.parquet"), json.loads((out / "race.json").read_text())


def test_a_row_a_round_and_reward_model_says_how_it_stands_and_what_was_spent(out, log, prompts, asking):
    table, answer = raced(out, log, prompts)
    assert answer["winner"] == "good"
    assert answer["outcome"] == "settled"
    assert table.groupby("round")["reward_model"].apply(list)[0] == ["good", "fair", "bad"]
    last = table[table["round"] == table["round"].max()]
    assert last["labels"].iloc[0] == answer["spent"]["labels"] == asking.scored["truth"]
    assert last["samples"].iloc[0] == answer["spent"]["samples"] == 4 * len(asking.drawn)
    told = {name: count for name, count in asking.scored.items() if name != "truth"}
    assert answer["spent"]["scored_by"] == told
    assert asking.scored["bad"] <= asking.scored["good"]
    assert answer["prompt_ids"] == [f"p{n}" for n in range(len(asking.drawn))]
    assert log.told[-1] == (len(asking.drawn), PROMPTS)


def test_only_the_chosen_responses_are_labelled(out, log, prompts, asking):
    _, answer = raced(out, log, prompts, labels=3)
    assert asking.scored["truth"] == 3 * answer["spent"]["prompts"]


def test_fewer_responses_than_the_sampling_has_are_drawn_where_they_are_asked_for(out, log, prompts, asking):
    _, answer = raced(out, log, prompts, responses=5, labels=3)
    spent = answer["spent"]
    assert (spent["samples"], spent["labels"]) == (5 * spent["prompts"], 3 * spent["prompts"])
    assert asking.scored["good"] == spent["samples"]
    assert answer["pool"] == {"prompts": PROMPTS, "samples": 320, "labels": 320, "scored": 960}


def test_labels_that_are_all_alike_are_said_to_be(out, log, prompts, asking):
    table, answer = raced(out, log, prompts, truth=model("truth", 0.0, np.inf))
    assert (answer["outcome"], answer["winner"], answer["spent"]["prompts"]) == ("open", None, PROMPTS)
    assert set(table["forecast"]) == {0.0}
    assert "the labels of each prompt are all alike" in answer["sentence"]


def test_a_killed_race_goes_on_from_the_rounds_it_had(out, log, prompts, asking, monkeypatch):
    labels = module.Asked.labels

    def dying(self, part, mask):
        if part.start == 16:
            raise KeyboardInterrupt
        return labels(self, part, mask)

    monkeypatch.setattr(module.Asked, "labels", dying)
    with pytest.raises(KeyboardInterrupt):
        raced(out, log, prompts)
    monkeypatch.setattr(module.Asked, "labels", labels)
    table, answer = raced(out, log, prompts)
    assert len(asking.drawn) == answer["spent"]["prompts"]  # none was drawn, and none labelled, a second time
    assert asking.scored["truth"] == answer["spent"]["labels"]
    log.scratch = out / "afresh"
    log.scratch.mkdir()
    again, whole = raced(out, log, prompts)
    assert table.equals(again)
    assert answer == whole


def test_no_more_labels_are_asked_for_than_may_be_spent(out, log, prompts, asking):
    twins = {"good": model("good", 0.9), "fair": model("fair", 0.89)}
    _, answer = raced(out, log, prompts, teachers=twins, budget=60, labels=2, tolerance=0)
    assert answer["outcome"] == "open"
    assert asking.scored["truth"] == 60


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"sampling": Sampling(responses=8, prompts=20)}, r"^sampling\.prompts: 20, and nothing .* 24 prompts with 96"),
        ({"budget": 90}, r"^racing\.budget: 90, and nothing is decided before 24 .* raise it, or lower racing\.labels"),
        ({"teachers": {"good": model("good", 1)}}, r"^reward_models: 1 to race"),
        (
            {"teachers": {"a": model("a", 1), "b": model("score/b", 1, np.nan)}},
            r"^score/b: of 32 of 32 .*; leave it out",
        ),
        (
            {"truth": model("score/t", 1, np.nan)},
            r"^score/t: of 32 of 32 .* name another ground_truth, or label a pool",
        ),
    ],
)
def test_what_can_decide_nothing_is_refused(out, log, prompts, asking, told, said):
    with pytest.raises(StudyError, match=said):
        raced(out, log, prompts, **told)


def test_a_policy_is_sampled_by_its_engine(out, log, base, monkeypatch):
    monkeypatch.setattr(module, "scorer_of", lambda one: lambda prompts, texts: [one.share * len(t) for t in texts])
    asked = SimpleNamespace(prompts=lambda split: ([str(n) for n in range(8)], [f"the kettle {n}" for n in range(8)]))
    how, config = Sampling(responses=4, max_new_tokens=5), Racing(fewest=8, labels=2)
    teachers = {"long": model("long", 1.0), "short": model("short", -1.0)}
    told = (config, how, "correlation", "whitened", base, teachers, model("truth", 1.0), asked, 1)
    draft = race.function(*told, out=out, log=log)
    assert draft.metrics["samples"] == 32
    assert draft.summary == json.loads((out / "race.json").read_text())["sentence"]
    assert pd.read_parquet(out / "rounds.parquet")["forecast"].abs().max() <= 2
