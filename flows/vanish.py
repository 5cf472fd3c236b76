"""Where does the gradient of a reward vanish, and what cures it? (2310.20703)

Every prompt is gauged before any training: how much the rewards of the policy's own responses vary, and how long the
gradient of their expectation is. Each arm then finetunes on labels, reinforces the reward, or does one after the other;
the answer says what prompts of low and of high std gained, and how many labels are worth it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from flows.branch import Branch
from rmpipe.artifact import (
    Gauge,
    Labelled,
    Measurement,
    Policy,
    Preferences,
    Prompts,
    Report,
    Rollouts,
    Scores,
    Sieve,
    Weights,
)  # fmt: skip
from rmpipe.vanishing import Trial, Vanishing
from tasks.align import align
from tasks.conclude import conclude
from tasks.control import control
from tasks.gauge import gauge
from tasks.imitate import imitate
from tasks.label import label
from tasks.prepare import prepare
from tasks.report import report
from tasks.sample import sample
from tasks.score import score
from tasks.sift import sift
from tasks.stage import labelled

GAUGED = 1_000_003
"""What is added to a seed for the draws that say where a reward varies; those that gains are measured on are others."""


def vanish(study: Vanishing) -> Report:
    """Gauge a study's prompts, try its arms, and conclude which prompts each has taught."""
    branches = {seed: Cure(study, seed) for seed in study.seeds}
    places, trials = list(study.places()), list(study.trials())
    arms = [branches[each.seed].under(each) for each in trials]
    about: dict[str, Any] = {
        "flow": study.flow, "study": study.name, "question": study.question, "seeds": list(study.seeds),
        "policies": list(study.policies), "rewards": list(study.climbed()) if study.policies else [],
        "low": study.gauging.low, "threshold": study.gauging.threshold, "samples": study.gauging.responses,
        "answers": list(study.gauging.answers),
        "reference": study.reference, "followed": study.sampling.split,
        "arms": {name: _told(study, name) for name in study.arms},
        "places": [branches[seed].place(policy) | {"reward": reward} for seed, policy, reward in places],
        "trials": [vars(each) | branches[each.seed].place(each.policy) for each in trials],
        "controlled": [[name, seed] for name in study.controlled for seed in study.seeds],
    }  # fmt: skip
    return report(conclude(
        about, [claim.model_dump(exclude_none=True) for claim in study.claims],
        [branches[seed].gauge(policy, reward) for seed, policy, reward in places],
        [branches[seed].scores(policy, reward) for seed, policy, reward in places],
        [arm.scores for arm in arms], [arm.imitated for arm in arms], [arm.aligned for arm in arms],
        [arm.sieve for arm in arms],
        [branches[seed].controlled(name) for name in study.controlled for seed in study.seeds],
    ))  # fmt: skip


def _told(study: Vanishing, name: str) -> dict[str, Any]:
    """What an arm does, as the answer tells it."""
    arm = study.arms[name]
    learnt = study.finetunings[arm.finetuning] if arm.finetuning else None
    taught = study.algorithms[arm.algorithm] if arm.algorithm else None
    return {
        "finetuning": arm.finetuning, "algorithm": arm.algorithm, "sifted": arm.sifted,
        "share": learnt.share if learnt else 0.0, "of": learnt.of if learnt else None,
        "sft_steps": learnt.training.steps if learnt else 0, "rlhf_steps": taught.steps if taught else 0,
    }  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """What an arm left: rewards after it, and what was made on the way."""

    scores: Scores
    imitated: Weights | None
    aligned: Policy | None
    sieve: Sieve | None


@dataclass(eq=False)
class Cure(Branch):
    """Everything of one seed, with what is tried against vanishing gradients."""

    study: Vanishing

    def place(self, policy: str) -> dict[str, Any]:
        """What a number is of; bases at one address are one base, whatever the seed and however they were finetuned."""
        return {"seed": self.seed, "policy": policy, "base": self.base(self.study.policies[policy].base).address}

    @cache  # noqa: B019 - a branch lives as long as its plan
    def inputs(self) -> Labelled:
        """The inputs with their labels."""
        assert self.study.dataset is not None
        with labelled(seed=self.seed):
            return label(self.study.dataset, self.study.dataset.content(), self.seed)

    @cache  # noqa: B019
    def raw(self) -> Preferences:
        """The pairs of the study."""
        assert self.study.preferences is not None
        with labelled(seed=self.seed):
            return prepare(self.study.preferences, self.study.preferences.content(), self.seed)

    def texts(self) -> Prompts:
        """The labelled inputs: their labels are what responses are compared with."""
        return self.inputs()

    def pairs(self) -> Prompts:
        """Those of the study; without any, demonstrations are from elsewhere."""
        return self.raw() if self.study.preferences is not None else self.inputs()

    @cache  # noqa: B019
    def drawn(self, policy: str, reward: str) -> tuple[Rollouts, Scores]:
        """Responses of an initial policy with their rewards, that say where the reward varies and nothing else."""
        asked = self.study.gauging
        told = {"responses": asked.responses, "prompts": asked.prompts or self.study.sampling.prompts}
        how = self.study.sampling.model_copy(update=told)
        with labelled(policy=policy, draws="gauged", seed=self.seed):
            rollouts = sample(how, self.policy(policy), self.inputs(), (self.seed + GAUGED) % 2**32)
        with labelled(policy=policy, reward=reward, draws="gauged", seed=self.seed):
            return rollouts, score(self.study.scoring, self.reward_model(reward), rollouts)

    @cache  # noqa: B019
    def gauge(self, policy: str, reward: str) -> Gauge:
        """What a policy can learn of a reward at each prompt."""
        draws = (*self.drawn(policy, reward), self.rollouts(policy), self.scores(policy, reward))
        with labelled(policy=policy, reward=reward, seed=self.seed):
            return gauge(self.study.gauging, self.policy(policy), *draws, self.reward_model(reward), self.seed)

    @cache  # noqa: B019
    def rollouts(self, policy: str) -> Rollouts:
        """Responses of an initial policy."""
        with labelled(policy=policy, seed=self.seed):
            return sample(self.study.sampling, self.policy(policy), self.inputs(), self.seed)

    @cache  # noqa: B019
    def scores(self, policy: str, reward: str) -> Scores:
        """Rewards before any training."""
        with labelled(policy=policy, reward=reward, seed=self.seed):
            return score(self.study.scoring, self.reward_model(reward), self.rollouts(policy))

    def under(self, trial: Trial) -> Tried:
        """What an arm does to a policy, and the rewards after it."""
        arm, names = self.study.arms[trial.arm], {"policy": trial.policy, "reward": trial.reward, "arm": trial.arm}
        imitated = self.imitated(trial.policy, trial.reward, arm.finetuning) if arm.finetuning else None
        sieve = self.sieve(trial.policy, trial.reward) if arm.sifted else None
        start = imitated or self.policy(trial.policy)
        aligned = self.aligned(trial, start, sieve) if arm.algorithm else None
        with labelled(**names, seed=self.seed):
            rollouts = sample(self.study.sampling, aligned or start, self.inputs(), self.seed)
            after = score(self.study.scoring, self.reward_model(trial.reward), rollouts)
        return Tried(after, imitated, aligned, sieve)

    @cache  # noqa: B019
    def imitated(self, policy: str, reward: str, finetuning: str) -> Weights:
        """A policy that has learnt labels; only those of some prompts are chosen by what a reward does there."""
        how, names = self.study.finetunings[finetuning], {"policy": policy, "finetuning": finetuning}
        chosen = None if how.of == "all" else self.gauge(policy, reward)
        with labelled(**names, **({} if chosen is None else {"reward": reward}), seed=self.seed):
            cut = 0.0 if chosen is None else self.study.gauging.low
            return imitate(how, self.policy(policy), self.inputs(), self.study.measured(), chosen, cut, self.seed)

    @cache  # noqa: B019
    def sieve(self, policy: str, reward: str) -> Sieve:
        """Which prompts are left out of what an algorithm trains on."""
        rollouts, scores = self.drawn(policy, reward)
        with labelled(policy=policy, reward=reward, seed=self.seed):
            return sift(self.study.sifting, rollouts, scores)

    def aligned(self, trial: Trial, start: Weights, sieve: Sieve | None) -> Policy:
        """A policy taught by a reward; the reward is scaled alike in all arms, as the initial policy's samples say."""
        study, truth = self.study, self.study.ground_truth
        algorithm = str(study.arms[trial.arm].algorithm)
        names = {"policy": trial.policy, "reward": trial.reward, "arm": trial.arm, "algorithm": algorithm}
        scores, teacher = self.scores(trial.policy, trial.reward), self.reward_model(trial.reward)
        true_scores = self.scores(trial.policy, truth) if truth else None
        with labelled(**names, seed=self.seed):
            return align(
                study.algorithms[algorithm], study.evaluation, study.sampling, start, teacher, scores,
                self.reward_model(truth) if truth else None, true_scores, self.inputs(), self.seed, sieve,
            )  # fmt: skip

    def controlled(self, name: str) -> Measurement:
        """A controlled experiment."""
        experiment = self.study.controlled[name]
        with labelled(experiment=name, seed=self.seed):
            return control(experiment, experiment.content(), self.seed)
