"""Which reward model teaches this policy best? (2503.15477)

Every policy is sampled once; every reward model scores those samples; each cell of policy x reward model x seed is
measured, then aligned with the same budget, on all prompts or on those that a sieve leaves; the ranking says what came
of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from flows.branch import Branch, diagnoses
from rmpipe.artifact import Measurement, Policy, Report, RewardModel, Rollouts, Scores, Sieve
from rmpipe.teaching import Teaching
from tasks.align import align
from tasks.measure import measure
from tasks.rank import rank
from tasks.report import report
from tasks.sample import sample
from tasks.score import score
from tasks.sift import sift
from tasks.stage import labelled


def teach(study: Teaching) -> Report:
    """Rank a study's reward models by what they teach each of its policies."""
    cells, measurements, policies = [], [], []
    branches = {seed: Lesson(study, seed) for seed in study.seeds}
    for branch in branches.values():
        for cell in study.cells():
            if cell.seed == branch.seed:
                kind = study.reward_models[cell.reward_model]
                about = {"kind": kind.kind, "trained": not kind.constructed}
                cells.append({**vars(cell), **about})
                measurements.append(branch.measurement(cell.policy, cell.reward_model))
                policies.append(branch.aligned(cell.policy, cell.reward_model, cell.algorithm))
    claims = [claim.model_dump(exclude_none=True) for claim in study.claims]
    about = {"study": study.name, "question": study.question, "ground_truth": study.ground_truth}
    places = [(cell.seed, cell.policy) for cell in study.cells()]
    return report(rank(cells, claims, about, measurements, policies), diagnoses(branches, places))


@dataclass(eq=False)
class Lesson(Branch):
    """Everything of one seed, with what its policies are taught."""

    study: Teaching

    @cache  # noqa: B019
    def rollouts(self, policy: str) -> Rollouts:
        """One pool of samples a policy, that every reward model scores."""
        with labelled(policy=policy, seed=self.seed):
            return sample(self.study.sampling, self.policy(policy), self.raw(), self.seed)

    @cache  # noqa: B019
    def scores(self, policy: str, name: str) -> Scores:
        """A reward model's rewards over a policy's samples."""
        with labelled(policy=policy, reward_model=name, seed=self.seed):
            return score(self.study.scoring, self.reward_model(name), self.rollouts(policy))

    @cache  # noqa: B019
    def truth(self) -> RewardModel | None:
        """What stands for what people want."""
        return self.reward_model(self.study.ground_truth) if self.study.ground_truth else None

    @cache  # noqa: B019
    def true_scores(self, policy: str) -> Scores | None:
        """The ground truth's rewards over a policy's samples."""
        return self.scores(policy, self.study.ground_truth) if self.study.ground_truth else None

    def measurement(self, policy: str, name: str) -> Measurement:
        """What can be told of a reward model under a policy before RLHF."""
        with labelled(reward_model=name, seed=self.seed):
            pairs = score(self.study.scoring, self.reward_model(name), self.preferences())
        scores, truth = self.scores(policy, name), self.true_scores(policy)
        with labelled(policy=policy, reward_model=name, seed=self.seed):
            return measure(self.study.measuring, scores, pairs, self.rollouts(policy), truth)

    @cache  # noqa: B019
    def sieve(self, policy: str, name: str) -> Sieve | None:
        """The prompts at which a reward model teaches a policy nothing; None where the study does not sift."""
        if self.study.sifting is None:
            return None
        with labelled(policy=policy, reward_model=name, seed=self.seed):
            return sift(self.study.sifting, self.rollouts(policy), self.scores(policy, name))

    def aligned(self, policy: str, name: str, algorithm: str) -> Policy:
        """The policy after RLHF on a reward model."""
        study = self.study
        scores, true_scores, sieve = self.scores(policy, name), self.true_scores(policy), self.sieve(policy, name)
        with labelled(policy=policy, reward_model=name, algorithm=algorithm, seed=self.seed):
            return align(
                study.algorithms[algorithm], study.evaluation, study.sampling, self.policy(policy),
                self.reward_model(name), scores, self.truth(), true_scores, self.raw(), self.seed, sieve,
            )  # fmt: skip
