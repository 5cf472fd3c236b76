"""Which preference pairs push the preferred response away? (2410.08847)

Every pair is diagnosed before training; some are trained on alone, which is what the theory speaks of; whole subsets
are trained on and followed; the answer says which similarity the data bears out, and which pairs to drop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from flows.branch import Branch
from rmpipe.artifact import Measurement, Preferences, Preferred, Report
from rmpipe.displacing import Displacing, Treatment
from rmpipe.subset import Other
from tasks.classify import classify
from tasks.prefer import prefer
from tasks.prepare import prepare
from tasks.report import report
from tasks.select import select
from tasks.single import single
from tasks.stage import labelled
from tasks.track import track
from tasks.weigh import weigh


def displace(study: Displacing) -> Report:
    """Diagnose a study's pairs, train on them, and weigh what displaced the preferred responses."""
    branches = {seed: Trial(study, seed) for seed in study.seeds}
    places = [(seed, policy) for seed in study.seeds for policy in study.policies]
    treatments = list(study.treatments())
    about: dict[str, Any] = {
        "flow": study.flow, "study": study.name, "question": study.question,
        "similarities": list(study.diagnosing.similarities),
        "places": [branches[seed].place(policy) for seed, policy in places],
        "treatments": [vars(each) | branches[each.seed].place(each.policy) for each in treatments],
        "subsets": {name: subset.rule() for name, subset in study.subsets.items()},
        "trainings": list(study.trainings),
    }  # fmt: skip
    claims = [claim.model_dump(exclude_none=True) for claim in study.claims]
    diagnoses = [branches[seed].diagnosis(policy) for seed, policy in places]
    singles = [branches[seed].alone(policy) for seed, policy in places] if study.single else []
    tracked = [branches[each.seed].tracked(each) for each in treatments]
    before = [branches[seed].refusal(policy) for seed, policy in places] if study.refusing else []
    after = [branches[each.seed].refusal(each.policy, each) for each in treatments] if study.refusing else []
    return report(weigh(about, claims, diagnoses, singles, tracked, before, after))


@dataclass(eq=False)
class Trial(Branch):
    """Everything of one seed, with what its pairs are tried in."""

    study: Displacing

    def place(self, policy: str) -> dict[str, Any]:
        """What a number is of; bases at one address are one base, whatever the seed and however they were finetuned."""
        return {"seed": self.seed, "policy": policy, "base": self.base(self.study.policies[policy].base).address}

    def alone(self, policy: str) -> Measurement:
        """Pairs trained on alone."""
        assert self.study.single is not None
        with labelled(policy=policy, seed=self.seed):
            return single(self.study.single, self.policy(policy), self.diagnosis(policy), self.seed)

    def learnable(self, policy: str) -> Preferences:
        """The pairs to learn from: the data set's, or two samples each of the policy, labelled by the ground truth."""
        return self.collected(policy) if self.study.on_policy else self.preferences()

    @cache  # noqa: B019 - a branch lives as long as its plan
    def selected(self, policy: str, name: str) -> Preferences:
        """A subset of the pairs, as a policy's diagnosis chooses it."""
        subset, least = self.study.subsets[name], self.study.batch(name)
        if isinstance(subset, Other):
            with labelled(subset=name, seed=self.seed):
                other = prepare(subset.data, subset.data.content(), self.seed)
                return select(subset, other, self.preferences(), None, self.seed, least)
        with labelled(policy=policy, subset=name, seed=self.seed):
            pairs, diagnosis = self.learnable(policy), self.diagnosis(policy)
            return select(subset, pairs, self.preferences(), diagnosis, self.seed, least)

    @cache  # noqa: B019
    def trained(self, treatment: Treatment) -> Preferred:
        """A policy after training on a subset."""
        policy, training = self.policy(treatment.policy), self.study.trainings[treatment.training]
        with labelled(**_names(treatment)):
            return prefer(training, policy, self.selected(treatment.policy, treatment.subset), self.seed)

    def tracked(self, treatment: Treatment) -> Measurement:
        """What that training did."""
        pairs = self.selected(treatment.policy, treatment.subset)
        with labelled(**_names(treatment)):
            return track(self.study.tracking, self.policy(treatment.policy), self.trained(treatment), pairs, self.seed)

    def refusal(self, policy: str, treatment: Treatment | None = None) -> Measurement:
        """How often a policy refuses: as it began, or after a training."""
        assert self.study.refusing is not None
        weights = self.policy(policy) if treatment is None else self.trained(treatment)
        names = {"policy": policy, "seed": self.seed} if treatment is None else _names(treatment)
        with labelled(**names):
            judge = self.study.refusing.judge.content()
            return classify(self.study.refusing, judge, weights, self.preferences(), self.seed)


def _names(treatment: Treatment) -> dict[str, Any]:
    return {
        "policy": treatment.policy, "training": treatment.training, "subset": treatment.subset, "seed": treatment.seed
    }  # fmt: skip
