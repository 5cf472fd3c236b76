"""Which reward model teaches this policy best? (2503.15477)

Every policy is sampled once; every reward model scores those samples; each cell of policy x reward model x seed is
measured, then aligned with the same budget; the ranking says what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rmpipe.artifact import Measurement, Policy, Preferences, Report, RewardModel, Rollouts, Scores, Weights
from rmpipe.reward import Explicit
from rmpipe.source import fingerprint_path
from rmpipe.study import Study, WorldBase
from tasks.align import align
from tasks.collect import collect
from tasks.derive import derive
from tasks.finetune import finetune
from tasks.measure import measure
from tasks.prepare import prepare
from tasks.pretrain import fetch, pretrain
from tasks.rank import rank
from tasks.relabel import relabel
from tasks.report import report
from tasks.sample import sample
from tasks.score import score
from tasks.stage import labelled
from tasks.train import train


def teach(study: Study) -> Report:
    """Rank a study's reward models by what they teach each of its policies."""
    cells, measurements, policies = [], [], []
    for seed in study.seeds:
        branch = Branch(study, seed)
        for cell in study.cells():
            if cell.seed == seed:
                kind = study.reward_models[cell.reward_model]
                about = {"kind": kind.kind, "trained": not kind.constructed}
                cells.append({**vars(cell), **about})
                measurements.append(branch.measurement(cell.policy, cell.reward_model))
                policies.append(branch.aligned(cell.policy, cell.reward_model, cell.algorithm))
    claims = [claim.model_dump(exclude_none=True) for claim in study.claims]
    about = {"study": study.name, "question": study.question, "ground_truth": study.ground_truth}
    return report(rank(cells, claims, about, measurements, policies))


@dataclass(eq=False)
class Branch:
    """Everything of one seed. What is asked for twice has one address, and is made once."""

    study: Study
    seed: int

    @cache  # noqa: B019 - a branch lives as long as its plan
    def raw(self) -> Preferences:
        """The data set as it came, checked and split."""
        with labelled(seed=self.seed):
            return prepare(self.study.dataset, self.study.dataset.content(), self.seed)

    @cache  # noqa: B019
    def preferences(self) -> Preferences:
        """The pairs with the ground truth's labels, or with their own where there is no ground truth."""
        if self.study.ground_truth is None:
            return self.raw()
        with labelled(seed=self.seed):
            return relabel(self.raw(), self.reward_model(self.study.ground_truth), self.study.ties)

    @cache  # noqa: B019
    def base(self, name: str) -> Weights:
        """A base language model."""
        base = self.study.bases[name]
        with labelled(base=name, seed=self.seed):
            return pretrain(base, self.seed) if isinstance(base, WorldBase) else fetch(base, fingerprint_path(base))

    @cache  # noqa: B019
    def policy(self, name: str) -> Weights:
        """An initial policy: a base, finetuned if the study says so."""
        spec = self.study.policies[name]
        if spec.finetuning is None or spec.demonstrations is None:
            return self.base(spec.base)
        with labelled(policy=name, seed=self.seed):
            content = fingerprint_path(spec.demonstrations)
            return finetune(spec.finetuning, spec.demonstrations, content, self.seed, self.base(spec.base), self.raw())

    @cache  # noqa: B019
    def reward_model(self, name: str) -> RewardModel:
        """A reward model: trained here, or made of functions, folders and other reward models."""
        kind = self.study.reward_models[name]
        with labelled(reward_model=name, seed=self.seed):
            if isinstance(kind, Explicit):
                own = self.collected(kind.on_policy_of) if kind.on_policy_of and kind.on_policy else None
                return train(kind, self.policy(kind.base), self.preferences(), own, self.seed)
            parts = [self.reward_model(part) for part in kind.components]
            return derive(kind, parts, self.raw(), kind.content())

    @cache  # noqa: B019
    def collected(self, policy: str) -> Preferences:
        """On-policy pairs of a policy, labelled by the ground truth."""
        with labelled(policy=policy, seed=self.seed):
            truth = self.reward_model(str(self.study.ground_truth))
            return collect(self.study.collecting, self.policy(policy), self.raw(), truth, self.seed)

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

    def aligned(self, policy: str, name: str, algorithm: str) -> Policy:
        """The policy after RLHF on a reward model."""
        study = self.study
        scores, true_scores = self.scores(policy, name), self.true_scores(policy)
        with labelled(policy=policy, reward_model=name, algorithm=algorithm, seed=self.seed):
            return align(
                study.algorithms[algorithm], study.evaluation, study.sampling, self.policy(policy),
                self.reward_model(name), scores, self.truth(), true_scores, self.raw(), self.seed,
            )  # fmt: skip
