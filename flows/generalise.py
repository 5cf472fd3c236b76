"""Explicit, implicit or generative: which reward model survives a shift? (2507.07981)

Reward models of each kind are trained from the same policies, on the same pairs; each is asked about every set of
pairs: held out, rewritten, from elsewhere; the answer says which to trust where, and what was not settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from flows.branch import Branch, diagnoses, sound
from rmpipe.artifact import Audit, Measurement, Preferences, Report, RewardModel, Rollouts, Scores
from rmpipe.generalising import Generalising, Trial
from rmpipe.reward import Trained
from tasks.evaluate import evaluate
from tasks.generate import generate
from tasks.judge import judge
from tasks.report import report
from tasks.score import score
from tasks.separate import separate
from tasks.shift import shift
from tasks.stage import labelled


def generalise(study: Generalising) -> Report:
    """Compare a study's reward models on every set of pairs."""
    branches = {seed: Examination(study, seed) for seed in study.seeds}
    trials: list[dict[str, Any]] = []
    measured: list[Measurement] = []
    written: list[Rollouts | None] = []
    for trial in study.trials():
        branch = branches[trial.seed]
        trials.append(branch.about(trial))
        measured.append(branch.measurement(trial))
        written.append(branch.generated(trial))
    separations = [branches[seed].separation(policy) for seed in study.seeds for policy in study.policies]
    about: dict[str, Any] = {
        "flow": study.flow, "study": study.name, "question": study.question, "ground_truth": study.ground_truth,
        "sets": {name: one.shift for name, one in study.sets().items()},
        "of_training": [name for name, one in study.sets().items() if one.split == "reward"],
        "places": [[seed, policy] for seed in study.seeds for policy in study.policies],
        "draws": study.evaluating.draws,
    }  # fmt: skip
    about |= {"allow_unsound": True} if study.allow_unsound else {}
    claims = [claim.model_dump(exclude_none=True) for claim in study.claims]
    places = [(trial.seed, trial.policy) for trial in study.trials()]
    audits: dict[str, list[Audit]] = {}
    for trial in study.trials():
        audits.setdefault(trial.reward_model, []).append(branches[trial.seed].examined(trial))
    if study.ground_truth:
        audits[study.ground_truth] = [branch.audit(study.ground_truth) for branch in branches.values()]
    with sound(study, chain.from_iterable(audits.values())):
        answer = judge(trials, claims, about, measured, separations, written, audits)
    return report(answer, diagnoses(branches, places))


@dataclass(eq=False)
class Examination(Branch):
    """Everything of one seed, with what its reward models are asked."""

    study: Generalising

    def about(self, trial: Trial) -> dict[str, Any]:
        """What a trial is of; bases at one address are one base, whatever the seed and however they were finetuned."""
        kind = self.study.reward_models[trial.reward_model]
        base = self.base(self.study.policies[trial.policy].base).address
        steps = kind.training.steps if isinstance(kind, Trained) else None
        told = {"made_here": self.study.made_here(trial.reward_model), "trained": not kind.constructed}
        return {**vars(trial), "base": base, "kind": kind.kind, **told, "steps": steps}

    @cache  # noqa: B019 - a branch lives as long as its plan
    def asked(self, name: str) -> Preferences:
        """A set of pairs; those from elsewhere are labelled by the ground truth where there is one."""
        one = self.study.sets()[name]
        truth = None if one.aligned or self.study.ground_truth is None else self.reward_model(self.study.ground_truth)
        with labelled(set=name, seed=self.seed):
            return shift(one, one.content(), self.study.ties, self.preferences(), truth, self.seed)

    @cache  # noqa: B019
    def sets(self) -> dict[str, Preferences]:
        """Every set of pairs."""
        return {name: self.asked(name) for name in self.study.sets()}

    def taught(self, trial: Trial) -> RewardModel:
        """The reward model of a trial."""
        return self.reward_model(trial.reward_model, self.start(trial))

    def examined(self, trial: Trial) -> Audit:
        """Whether its scores can be trusted."""
        return self.audit(trial.reward_model, self.start(trial))

    def start(self, trial: Trial) -> str | None:
        """The policy that its reward model starts from, where it is made here."""
        return trial.policy if self.study.made_here(trial.reward_model) else None

    def scores(self, trial: Trial, name: str) -> Scores:
        """A reward model's rewards over a set of pairs."""
        with labelled(policy=trial.policy, reward_model=trial.reward_model, set=name, seed=self.seed):
            return score(self.study.scoring, self.taught(trial), self.asked(name))

    def measurement(self, trial: Trial) -> Measurement:
        """How a reward model fares on every set."""
        scored = {name: self.scores(trial, name) for name in self.study.sets()}
        with labelled(policy=trial.policy, reward_model=trial.reward_model, seed=self.seed):
            base = self.policy(trial.policy)
            return evaluate(self.study.evaluating, self.taught(trial), base, self.sets(), scored)

    @cache  # noqa: B019
    def separation(self, policy: str) -> Measurement:
        """What a policy's representations foretell before any training."""
        with labelled(policy=policy, seed=self.seed):
            return separate(self.study.separating, self.policy(policy), self.preferences(), self.sets())

    def generated(self, trial: Trial) -> Rollouts | None:
        """What an implicit reward model writes itself, judged by the ground truth, where the study asks for it."""
        asked, kind = self.study.generating, self.study.reward_models[trial.reward_model]
        if asked is None or kind.kind != "implicit":
            return None
        with labelled(policy=trial.policy, reward_model=trial.reward_model, seed=self.seed):
            truth = self.reward_model(str(self.study.ground_truth))
            before = self.policy(trial.policy)
            return generate(asked, self.taught(trial), before, truth, self.preferences(), self.seed)
