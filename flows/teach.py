"""Which reward model teaches this policy best? (2503.15477)

Every policy is sampled once; every reward model scores those samples; each cell of policy x reward model x seed is
measured, then aligned with the same budget, on all prompts or on those that a sieve leaves; the ranking says what came
of it. Where a reward model fails its audit nobody is taught, unless the study allows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from flows.branch import Branch, diagnoses, sound
from rmpipe.artifact import (
    Audit,
    Forecast,
    Gradients,
    Measurement,
    Policy,
    Race,
    Rehearsal,
    Report,
    RewardModel,
    Rollouts,
    Scores,
    Sieve,
)
from rmpipe.forecast import LABELS, Formula, formula
from rmpipe.mending import Sieved
from rmpipe.recipe import recipe
from rmpipe.reward import Kind
from rmpipe.teaching import Teaching
from tasks.align import align
from tasks.differentiate import differentiate
from tasks.forecast import forecast, key, lesson, pool
from tasks.grade import grade, grade_labels
from tasks.measure import measure
from tasks.race import race
from tasks.rank import rank
from tasks.rehearse import rehearse
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
        foreseen = foresee(study, branches, cells)
        policies = [branches[cell["seed"]].taught(cell) for cell in cells]
        answer = rank(cells, claims, about, measurements, policies, audits, foreseen)
    return report(answer, diagnoses(branches, places))


def foresee(study: Teaching, branches: Mapping[int, Lesson], cells: list[dict[str, Any]]) -> Forecast | None:
    """What each reward model is foretold to teach each policy; None where there are no labels to tell it by.

    Labels of somebody's own are of one policy each, that of its first seed.
    """
    if study.ground_truth is None and study.foresight.labels is None:
        return None
    if study.foresight.labels is not None:
        first: dict[str, int] = {}
        for cell in cells:
            first.setdefault(cell["policy"], cell["seed"])
        cells = [cell for cell in cells if cell["seed"] == first[cell["policy"]]]
    places = dict.fromkeys((cell["seed"], cell["policy"]) for cell in cells)
    algorithms = dict.fromkeys(cell["algorithm"] for cell in cells)
    said = {name: branches[cells[0]["seed"]].formula(name) for name in algorithms}
    labels = {key(truth, seed, policy): given for seed, policy in places
              for truth, given in branches[seed].labels(policy).items()}  # fmt: skip
    asked = any(each.predictor == "rehearsed" or each.rule == "ip_free" for each in said.values())
    gradients = {pool(*place): branches[place[0]].gradients(place[1]) for place in places if asked}
    sifted = [name for name, kind in study.reward_models.items() if study.sifting or isinstance(kind, Sieved)]
    rehearsals = {}
    for cell in cells:
        name = lesson(cell["seed"], cell["policy"], cell["algorithm"])
        if said[cell["algorithm"]].predictor == "rehearsed" and name not in rehearsals:
            rehearsals[name] = branches[cell["seed"]].rehearsal(cell["policy"], cell["algorithm"])
    rewards = [branches[cell["seed"]].appraised(cell["policy"], cell["reward_model"]) for cell in cells]
    paid = [cell for cell in cells if cell["reward_model"] in study.foresight.calibrate]
    rlhf = {name: study.algorithms[name].steps * study.algorithms[name].responses_per_step for name in said}
    truths = list(dict.fromkeys(truth for seed, policy in places for truth in branches[seed].labels(policy)))
    about: dict[str, Any] = {"study": study.name, "ground_truth": study.ground_truth, "truths": truths, "rlhf": rlhf}
    about |= {"first_seed": True} if study.foresight.labels is not None and len(study.seeds) > 1 else {}
    return forecast(
        study.foresight, cells, {name: vars(each) for name, each in said.items()}, about,
        {pool(*place): branches[place[0]].foreseen(place[1]) for place in places}, rewards, labels,
        gradients, rehearsals, sifted, paid, [branches[cell["seed"]].taught(cell) for cell in paid] or None,
    )  # fmt: skip


def audited(study: Teaching, branches: Iterable[Lesson]) -> dict[str, list[Audit]]:
    """The audits, one a seed, of the reward models that are ranked, and of the ground truth."""
    ranked = dict.fromkeys(cell.reward_model for cell in study.cells())
    return {name: [branch.audit(name) for branch in branches] for name in ranked | dict.fromkeys(study.truths)}


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

    @cache  # noqa: B019
    def foreseen(self, policy: str) -> Rollouts:
        """The responses of a policy that forecasts are made from: its samples, or those that somebody labelled."""
        if self.study.foresight.labels is None:
            return self.rollouts(policy)
        with labelled(policy=policy):
            return grade(self.study.foresight.labels, policy, self.study.foresight.labels.content())

    @cache  # noqa: B019
    def labels(self, policy: str) -> dict[str, Scores]:
        """What each ground truth says of these responses."""
        given = self.study.foresight.labels
        if given is None:
            return {truth: self.scores(policy, truth) for truth in self.study.truths}
        with labelled(policy=policy):
            return {LABELS: grade_labels(given, policy, given.content(), self.foreseen(policy))}

    @cache  # noqa: B019
    def gradients(self, policy: str) -> Gradients:
        """How these responses lie to one another."""
        with labelled(policy=policy, seed=self.seed):
            how = self.study.foresight.differentiating
            return differentiate(how, self.policy(policy), self.foreseen(policy), self.seed)

    def formula(self, algorithm: str) -> Formula:
        """How gains are foretold under an algorithm."""
        return formula(self.study.algorithms[algorithm], self.study.sampling, self.study.foresight.gradients)

    def rehearsal(self, policy: str, algorithm: str) -> Rehearsal:
        """What each reward model would teach a policy, gone through on these responses."""
        how = recipe(self.study.algorithms[algorithm], self.study.sampling)
        assert how is not None
        rewards = {name: self.appraised(policy, name) for name in self.ranked(policy, algorithm)}
        with labelled(policy=policy, algorithm=algorithm, seed=self.seed):
            return rehearse(how, self.gradients(policy), rewards, self.labels(policy), self.seed)

    def ranked(self, policy: str, algorithm: str) -> list[str]:
        """The reward models that are ranked for a policy under an algorithm."""
        here = (self.seed, policy, algorithm)
        cells = (cell for cell in self.study.cells() if (cell.seed, cell.policy, cell.algorithm) == here)
        return list(dict.fromkeys(cell.reward_model for cell in cells))

    def appraised(self, policy: str, name: str) -> Scores:
        """A reward model's rewards over these responses."""
        if self.study.foresight.labels is None:
            return self.scores(policy, name)
        with labelled(policy=policy, reward_model=name, seed=self.seed):
            return score(self.study.scoring, self.reward_model(name), self.foreseen(policy))

    def race(self, policy: str, algorithm: str) -> Race:
        """Which of the reward models is foretold to teach a policy best, by as few samples and labels as that takes.

        The ground truth itself, which would win, is not in it.
        """
        study = self.study
        said = formula(study.algorithms[algorithm], study.sampling, gradients=False)
        teachers = {name: self.reward_model(name) for name in self.ranked(policy, algorithm)
                    if name != study.ground_truth}  # fmt: skip
        with labelled(policy=policy, algorithm=algorithm, seed=self.seed):
            return race(
                study.racing, study.sampling, said.predictor, said.felt, self.policy(policy), teachers,
                self.reward_model(str(study.ground_truth)), self.raw(), self.seed,
            )  # fmt: skip

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

    def taught(self, cell: dict[str, Any]) -> Policy:
        """The policy of a cell after RLHF on its reward model."""
        study, policy, name, algorithm = self.study, cell["policy"], cell["reward_model"], cell["algorithm"]
        scores, true_scores, sieve = self.scores(policy, name), self.true_scores(policy), self.sieve(policy, name)
        further = {judge: self.reward_model(judge) for judge in study.further_truths} or None
        further_scores = {judge: self.scores(policy, judge) for judge in study.further_truths} or None
        names = {"policy": policy, "reward_model": name, "algorithm": algorithm}
        with labelled(**names, seed=self.seed):
            return align(
                study.algorithms[algorithm], study.evaluation, study.sampling, self.policy(policy),
                self.reward_model(name), scores, self.truth(), true_scores, self.raw(), self.seed, sieve, further,
                further_scores,
            )  # fmt: skip
