"""Imitating: labels of the inputs that may be labelled are learnt, and how many they were is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("trl")

from rmpipe import policy as lm
from rmpipe import world
from rmpipe.algorithm import Finetuning, Optimiser
from rmpipe.config import StudyError
from rmpipe.imitation import Imitation, rows
from tasks.imitate import imitate
from tests.tasks.conftest import preferences

LABELS = world.labelled(0, 24)


def imitation(steps: int = 1, rate: float = 1e-3, **told: Any) -> Imitation:
    training = Finetuning(steps=steps, batch_size=4, optimiser=Optimiser(learning_rate=rate))
    return Imitation(training=training, **told)


@pytest.fixture
def labelled() -> Any:
    """20 inputs to learn from, and 4 held out."""
    table = pd.DataFrame(LABELS).assign(split=["policy"] * 20 + ["test"] * 4)
    return preferences(table)


def gauge(**std: float) -> Any:
    """What prompts vary by; the others were not sampled."""
    table = pd.DataFrame({"prompt_id": [key.replace("_", "-") for key in std], "std": list(std.values())})
    return SimpleNamespace(table=lambda: table)


@pytest.fixture
def learnt(base: Any, labelled: Any, out: Path, log: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What finetuning is given, in place of doing it, and how many inputs that were."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("tasks.imitate.finetune", lambda base, rows, out, **more: seen.update(rows=rows, **more))
    policy = SimpleNamespace(model=base.model, address="pretrain/0")

    def run(
        config: Imitation, gauged: Any = None, cut: float = 0.25, measured: int = 0
    ) -> tuple[list[dict[str, Any]], float]:
        made = imitate.function(config, policy, labelled, measured, gauged, cut, 3, out=out, log=log)
        assert made.summary == f"pretrain/0 on the labels of {made.metrics['labels']:.0f} inputs"
        return seen["rows"], made.metrics["labels"]

    return run


def test_a_share_of_the_policy_split_is_labelled_and_none_held_out(learnt, labelled):
    found, count = learnt(imitation(share=0.3))
    assert count == len(found) == 6
    assert found == rows(labelled.split("policy"), np.ones(20, bool), imitation(share=0.3), 3)
    answers = {row["prompt"]: row["references"][0] for row in LABELS[:20]}
    assert all(row["completion"] == answers[row["prompt"]] for row in found)


def test_only_prompts_of_low_or_of_high_std_are_labelled_where_the_study_says_so(learnt):
    gauged = gauge(world_0=0.0, world_1=0.0, world_2=0.0, world_3=0.4, world_4=0.5, world_5=0.6, world_6=0.7)
    prompts = {f"world-{n}": LABELS[n]["prompt"] for n in range(7)}
    for of, count in (("low", 3), ("high", 4)):
        found, told = learnt(imitation(share=1.0, of=of), gauged)
        few = [prompts[f"world-{n}"] for n in range(3)]
        assert {row["prompt"] for row in found} == ({*few} if of == "low" else {*prompts.values()} - {*few}), of
        assert told == len(found) == count
    found, told = learnt(imitation(share=0.1, of="high"), gauged)  # as many as a tenth of all inputs
    assert told == len(found) == 2


def test_inputs_whose_gain_is_measured_are_never_labelled_and_a_share_is_of_the_others(learnt, labelled):
    found, count = learnt(imitation(), measured=12)
    assert count == len(found) == 8
    assert {row["prompt"] for row in found} == {row["prompt"] for row in LABELS[12:20]}
    found, count = learnt(imitation(share=0.5), measured=12)
    assert found == rows(labelled.split("policy")[12:], np.ones(8, bool), imitation(share=0.5), 3)
    assert count == 4


def test_of_the_others_those_that_were_gauged_may_be_labelled_low_among_all_that_were(learnt):
    std = {f"world_{n}": value for n, value in enumerate((0.1, 0.9, 0.2, 0.8, 0.3, 0.7))}
    for of, place in (("low", (4,)), ("high", (3, 5))):
        found, count = learnt(imitation(of=of), gauge(**std), 0.5, measured=3)
        assert {row["prompt"] for row in found} == {LABELS[n]["prompt"] for n in place}, of
        assert count == len(place)
    with pytest.raises(StudyError, match=r'of = "low": no input of that kind is left; raise gauging\.prompts'):
        learnt(imitation(of="low"), gauge(**std), 0.5, measured=5)


def test_the_cut_says_which_are_low(learnt):
    gauged = gauge(world_0=0.1, world_1=0.2, world_2=0.3, world_3=0.4)
    assert learnt(imitation(of="low"), gauged, 0.25)[1] == 1
    assert learnt(imitation(of="low"), gauged, 0.75)[1] == 3


def test_where_none_may_be_labelled_that_is_refused_before_anything_is_learnt(learnt):
    with pytest.raises(StudyError, match=r'^finetunings: of = "high": no input of that kind is left; raise gauging'):
        learnt(imitation(of="high"), gauge(world_0=0.3, world_22=0.5))  # the one of high std is held out
    with pytest.raises(StudyError, match=r'of = "low": no input of that kind is left'):
        learnt(imitation(of="low"), gauge(world_22=0.0, world_23=0.5))  # held out, both
    with pytest.raises(StudyError, match=r'of = "all": no input of that kind is left; lower sampling\.prompts'):
        learnt(imitation(), measured=20)


@pytest.mark.parametrize("of", ["low", "high"])
def test_where_rewards_vary_alike_at_every_prompt_none_is_low_or_high(learnt, of):
    told = f'^finetunings: of = "{of}": rewards vary alike at every prompt, .*; say of = "all"'
    with pytest.raises(StudyError, match=told):
        learnt(imitation(of=of), gauge(world_0=0.3, world_1=0.3))


def test_labels_are_learnt(base, labelled, out, log):
    policy = SimpleNamespace(model=base.model, address="pretrain/0")
    made = imitate.function(imitation(20, 2e-2), policy, labelled, 0, None, 0.0, 3, out=out, log=log)
    prompts, texts = [row["prompt"] for row in LABELS[:20]], [row["references"][0] for row in LABELS[:20]]
    before, after = (
        lm.log_probabilities(lm.load(folder), prompts, texts) for folder in (base.model, made.path / "model")
    )
    assert float(after.mean()) > float(before.mean()) + 5
    assert made.metrics == {"labels": 20.0}
