"""Mending a teacher: order within a prompt is kept, spread is levelled, and what cannot be is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rmpipe.accuracy import on_policy_accuracy
from rmpipe.config import StudyError
from rmpipe.mending import Levelled, Sieved
from rmpipe.reward import Ensemble, Kind, Scorer
from rmpipe.variance import flat_share, reward_variance, whiten

PROMPTS, SAMPLES = 40, 8
ASKED = [f"prompt {place}" for place in range(PROMPTS)]
SPREADS = np.where(np.arange(PROMPTS) % 2, 1.0, 0.001)[:, None]  # the paper's: half of the prompts, x 0.001


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(PROMPTS, SAMPLES))


def said(rewards: np.ndarray) -> Scorer:
    """Who gives these rewards; a response is its place among a prompt's samples."""
    places = dict(zip(ASKED, rewards, strict=True))

    def score(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        known = [places.get(prompt, rewards[0])[int(text)] for prompt, text in zip(prompts, responses, strict=True)]
        return np.array(known, dtype=np.float32)

    return score


def levelled(folder: Path, rewards: np.ndarray, **told: object) -> np.ndarray:
    """The rewards of the same samples once they are mended, (prompts, samples)."""
    kind = Levelled(of="off", policy="weak", **told)
    kind.learn(folder, ASKED, rewards)
    prompts = [prompt for prompt in ASKED for _ in range(SAMPLES)]
    return kind.scorer(folder, [said(rewards)])(prompts, [*map(str, range(SAMPLES))] * PROMPTS).reshape(
        PROMPTS, SAMPLES
    )


def share(rewards: np.ndarray) -> float:
    """Of all whitened variance, what lies within prompts."""
    return float(reward_variance(whiten(rewards)).mean())


@pytest.mark.parametrize(
    "faulty", [lambda truth: truth + 9 * np.arange(PROMPTS)[:, None], lambda truth: (truth + 3) * SPREADS]
)
def test_without_a_prior_the_variance_of_what_was_levelled_is_1_and_its_accuracy_what_it_was(tmp_path, truth, faulty):
    noisy = truth + np.random.default_rng(1).normal(size=truth.shape)
    rewards = faulty(noisy)
    mended = levelled(tmp_path, rewards, prior=0)
    assert share(rewards) < 0.6
    assert share(mended) == pytest.approx(SAMPLES / (SAMPLES - 1), abs=0.01)
    accuracies = [on_policy_accuracy(each, truth, "half").mean() for each in (noisy, mended)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-3)  # float32 may tie what is nearly equal
    assert flat_share(whiten(mended), 0.05) == 0


def test_a_constant_a_prompt_goes_without_dividing_too(tmp_path, truth):
    rewards = truth + 9 * np.arange(PROMPTS)[:, None]
    mended = levelled(tmp_path, rewards, scale="pool")
    spread = np.sqrt(truth.var(axis=1, ddof=1).mean())
    assert mended == pytest.approx((truth - truth.mean(axis=1, keepdims=True)) / spread, abs=1e-4)
    assert share(mended) == pytest.approx(SAMPLES / (SAMPLES - 1), abs=0.01)


def test_a_prior_keeps_what_hardly_varies_from_being_blown_up(tmp_path, truth):
    rewards = truth * SPREADS
    variances = rewards.var(axis=1, ddof=1)
    for prior in (1.0, 4.0):
        expected = ((SAMPLES - 1) * variances + prior * variances.mean()) / (SAMPLES - 1 + prior)
        mended = levelled(tmp_path, rewards, prior=prior).var(axis=1, ddof=1)
        assert mended == pytest.approx(variances / expected, rel=1e-3)
        assert max(mended[::2]) < 1e-3


def test_ties_by_chance_do_not_let_few_prompts_hold_most_of_the_variance(tmp_path):
    """Ratings of a judge: four samples tie at many prompts, and others of the same prompt do not."""
    drawn = np.random.default_rng(2).normal(5.5, 0.66, (2000, SAMPLES + 4))
    ratings = np.clip(np.round(drawn), 1, 10)
    asked = [f"prompt {place}" for place in range(len(ratings))]
    kind = Levelled(of="off", policy="weak")
    kind.learn(tmp_path, asked, ratings[:, :4])
    change, prompts = kind.change(tmp_path), [prompt for prompt in asked for _ in range(SAMPLES)]
    mended = change(ratings[:, 4:].ravel(), prompts, []).reshape(len(ratings), SAMPLES)
    variances = np.sort(mended.var(axis=1, ddof=1))
    assert np.ptp(ratings[:, :4], axis=1).min() == 0
    assert variances[-200:].sum() / variances.sum() < 0.4


@pytest.mark.parametrize(("prior", "share"), [(0, 1), (1, 0.5), (9, 0.75**0.5)])
def test_what_ties_throughout_is_divided_by_a_share_of_the_pooled_std(tmp_path, prior, share):
    rewards = np.array([[0.1] * 4, [0.0, 2, 0, 2]])
    kind = Levelled(of="off", policy="weak", prior=prior)
    kind.learn(tmp_path, ASKED[:2], rewards)
    pooled = np.sqrt(rewards.var(axis=1, ddof=1).mean())
    changed = kind.change(tmp_path)(np.array([1.1]), ASKED[:1], [""])
    assert changed == pytest.approx(1 / (share * pooled))


def test_a_prompt_that_was_not_sampled_has_the_pooled_numbers(tmp_path, truth):
    rewards = truth + 9
    kind = Levelled(of="off", policy="weak")
    kind.learn(tmp_path, ASKED, rewards)
    score = kind.scorer(tmp_path, [said(rewards)])
    spread = np.sqrt(rewards.var(axis=1, ddof=1).mean())
    assert score(["another"], ["3"])[0] == pytest.approx((rewards[0, 3] - rewards.mean()) / spread, abs=1e-5)


def test_messages_are_known_again(tmp_path, truth):
    asked = [[{"role": "user", "content": prompt}] for prompt in ASKED]
    kind = Levelled(of="off", policy="weak", prior=0)
    kind.learn(tmp_path, asked, truth)
    changed = kind.change(tmp_path)(truth[3], [asked[3]] * SAMPLES, [""] * SAMPLES)
    assert changed.mean() == pytest.approx(0)
    assert changed.std(ddof=1) == pytest.approx(1)


def test_two_units_weigh_alike_in_an_ensemble_of_levelled_ones(tmp_path, truth):
    parts = []
    for name, unit in (("one", 1.0), ("other", 1000.0)):
        (tmp_path / name).mkdir()
        rewards = unit * np.random.default_rng(len(name)).permuted(truth, axis=1)
        kind = Levelled(of=name, policy="weak", scale="pool")
        kind.learn(tmp_path / name, ASKED, rewards)
        parts.append(kind.scorer(tmp_path / name, [said(rewards)]))
    prompts, responses = [ASKED[0]] * SAMPLES, [*map(str, range(SAMPLES))]
    mean = Ensemble(of=("one", "other")).scorer(None, parts)(prompts, responses)
    assert mean == pytest.approx((parts[0](prompts, responses) + parts[1](prompts, responses)) / 2, abs=1e-5)
    assert abs(parts[0](prompts, responses)).max() == pytest.approx(abs(parts[1](prompts, responses)).max(), rel=1e-3)


def test_what_never_varies_cannot_be_levelled(tmp_path):
    told = "off gives all responses of weak to a prompt the same reward; there is nothing to level, leave it out"
    with pytest.raises(StudyError, match=told):
        Levelled(of="off", policy="weak").learn(tmp_path, ASKED, np.arange(PROMPTS)[:, None] * np.ones(SAMPLES))


def test_what_is_sieved_scores_as_the_other_does(tmp_path, truth):
    kind = Kind.parse({"kind": "sieved", "of": "off", "sifting": {"fate": "defer"}}, "")
    assert isinstance(kind, Sieved)
    assert kind.describe() == "sieved: off, its prompts of low std deferred"
    assert kind.scorer(tmp_path, [said(truth)])(ASKED, ["2"] * PROMPTS) == pytest.approx(truth[:, 2])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "mean and std of a prompt"), ({"scale": "pool"}, "mean of a prompt and std of a pool"),
        ({"centre": False}, "mean of a pool and std of a prompt"),
    ],
)  # fmt: skip
def test_it_says_by_what_it_is_levelled(told, words):
    kind = Kind.parse({"kind": "levelled", "of": "off", "policy": "weak"} | told, "")
    assert kind.describe() == f"levelled: off, by the {words} under weak"
    assert kind.pool == ("weak", "off")
