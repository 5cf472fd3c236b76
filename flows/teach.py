"""Which reward model teaches this policy best? (2503.15477)

Every policy is sampled once; every reward model scores those samples; each cell of policy x reward model x seed is
measured, then aligned with the same budget, on all prompts or on those that a sieve leaves; the ranking says what came
of it. Where a reward model fails its audit nobody is taught, unless the study allows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from flows.branch import Branch, diagnoses, sound
from rmpipe.artifact import Audit, Measurement, Policy, Report, RewardModel, Rollouts, Scores, Sieve
from rmpipe.mending import Sieved
from rmpipe.reward import Kind
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
    cells: list[dict[str, Any]] = []
    measurements: list[Measurement] = []
    branches = {seed: Lesson(study, seed) for seed in study.seeds}
    for branch in branches.values():
        for cell in study.cells():
            if cell.seed == branch.seed:
                kind = study.reward_models[cell.reward_model]
                cells.append({**vars(cell), "kind": kind.kind, "trained": not kind.constructed})
                measurements.append(branch.measurement(cell.policy, cell.reward_model))
    claims = [claim.model_dump(exclude_none=True) for claim in study.claims]
    about: dict[str, Any] = {"study": study.name, "question": study.question, "ground_truth": study.ground_truth}
    about |= {"allow_unsound": True} if study.allow_unsound else {}
    places = [(cell.seed, cell.policy) for cell in study.cells()]
    audits = audited(study, branches.values())
    with sound(study, chain.from_iterable(audits.values())):  # RLHF is not paid for before all are examined
        policies = [
            branches[cell["seed"]].aligned(cell["policy"], cell["reward_model"], cell["algorithm"]) for cell in cells
        ]
        answer = rank(cells, claims, about, measurements, policies, audits)
    return report(answer, diagnoses(branches, places))


def audited(study: Teaching, branches: Iterable[Lesson]) -> dict[str, list[Audit]]:
    """The audits, one a seed, of the reward models that are ranked, and of the ground truth."""
    ranked = dict.fromkeys(cell.reward_model for cell in study.cells())
    judges = {study.ground_truth: None} if study.ground_truth else {}
    return {name: [branch.audit(name) for branch in branches] for name in ranked | judges}


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

    def pooled(self, kind: Kind) -> Scores | None:
        """Rewards over a policy's samples, for a reward model that must know them."""
        return self.scores(*kind.pool) if kind.pool else None

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
        """The prompts at which a reward model teaches a policy nothing; None where nobody asks to sift."""
        kind = self.study.reward_models[name]
        sifting = kind.sifting if isinstance(kind, Sieved) else self.study.sifting
        if sifting is None:
            return None
        with labelled(policy=policy, reward_model=name, seed=self.seed):
            return sift(sifting, self.rollouts(policy), self.scores(policy, name))

    def aligned(self, policy: str, name: str, algorithm: str) -> Policy:
        """The policy after RLHF on a reward model."""
        study = self.study
        scores, true_scores, sieve = self.scores(policy, name), self.true_scores(policy), self.sieve(policy, name)
        names = {"policy": policy, "reward_model": name, "algorithm": algorithm}
        with labelled(**names, seed=self.seed):
            return align(
                study.algorithms[algorithm], study.evaluation, study.sampling, self.policy(policy),
                self.reward_model(name), scores, self.truth(), true_scores, self.raw(), self.seed, sieve,
            )  # fmt: skip
