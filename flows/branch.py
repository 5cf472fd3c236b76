"""Everything of one seed that studies of all kinds share: pairs, bases, policies, reward models.

What is asked for twice has one address, and is made once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rmpipe.artifact import Audit, Diagnosis, Preferences, Prompts, RewardModel, Scores, Weights
from rmpipe.demonstration import Demonstrations
from rmpipe.diagnosed import key
from rmpipe.published import Pretrained
from rmpipe.reward import Kind, Trained
from rmpipe.source import fingerprint_path
from rmpipe.study import Study, WorldBase
from tasks.audit import audit
from tasks.collect import collect
from tasks.derive import derive
from tasks.diagnose import diagnose
from tasks.finetune import finetune
from tasks.label import label
from tasks.prepare import prepare
from tasks.pretrain import fetch, pretrain
from tasks.relabel import relabel
from tasks.stage import guarded, labelled
from tasks.train import train

if TYPE_CHECKING:
    from rmpipe.generalising import Generalising
    from rmpipe.teaching import Teaching


def diagnoses(branches: Mapping[int, Branch], places: Iterable[tuple[int, str]]) -> dict[str, Diagnosis] | None:
    """What the report tells of the pairs, by seed and policy; None where the study does not ask.

    Args:
        branches: by seed.
        places: the seeds and policies that the answer speaks of.
    """
    found = {
        key(seed, policy): branches[seed].diagnosis(policy)
        for seed, policy in dict.fromkeys(places)
        if branches[seed].study.diagnosing is not None
    }
    return found or None


def sound(study: Teaching | Generalising, audits: Iterable[Audit]) -> AbstractContextManager[None]:
    """Inside, nothing is made where one of these audits fails, unless the study allows it."""
    return guarded(*(() if study.allow_unsound else audits))


@dataclass(eq=False)
class Branch:
    """Everything of one seed."""

    study: Study
    seed: int

    @cache  # noqa: B019 - a branch lives as long as its plan
    def raw(self) -> Preferences:
        """The data set as it came, checked and split."""
        with labelled(seed=self.seed):
            return prepare(self.study.dataset, self.study.dataset.content(), self.seed)

    def pairs(self) -> Prompts:
        """What demonstrations are taken from that name no data of their own."""
        return self.raw()

    def texts(self) -> Prompts:
        """The prompts that reward models may be told of, with what responses to them may be compared with."""
        return self.raw()

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
            shown, content = spec.demonstrations, fingerprint_path(spec.demonstrations)
            return finetune(spec.finetuning, shown, content, self.seed, self.base(spec.base), self.shown(shown))

    def shown(self, demonstrations: Demonstrations) -> Prompts:
        """What demonstrations are taken from that are not made, nor read from a file: the study's pairs, or others."""
        if demonstrations.labels is not None:
            return label(demonstrations.labels, demonstrations.labels.content(), self.seed)
        if demonstrations.data is not None:
            return prepare(demonstrations.data, demonstrations.data.content(), self.seed)
        return self.pairs()

    @cache  # noqa: B019
    def diagnosis(self, policy: str) -> Diagnosis:
        """How alike the responses of each pair are to a policy, before any training."""
        assert self.study.diagnosing is not None
        with labelled(policy=policy, seed=self.seed):
            return diagnose(self.study.diagnosing, self.policy(policy), self.learnable(policy))

    def learnable(self, policy: str) -> Preferences:
        """The pairs that a policy could be trained on."""
        return self.preferences()

    @cache  # noqa: B019
    def reward_model(self, name: str, base: str | None = None) -> RewardModel:
        """A reward model: trained here, or made of functions, folders and other reward models.

        Args:
            base: the policy that it starts from, where the study leaves that open.
        """
        kind = self.study.reward_models[name]
        labels = {"policy": base} if base else {}
        with labelled(reward_model=name, **labels, seed=self.seed):
            if isinstance(kind, Trained):
                own = self.collected(kind.on_policy_of) if kind.on_policy_of and kind.on_policy else None
                return train(kind, self.policy(kind.base or str(base)), self.preferences(), own, self.seed)
            parts = [self.reward_model(part, base) for part in kind.components]
            return derive(kind, parts, self.texts(), kind.content(), self.pooled(kind))

    def pooled(self, kind: Kind) -> Scores | None:
        """Rewards over a policy's samples, for a reward model that must know them; of questions that have samples."""
        return None

    @cache  # noqa: B019
    def audit(self, name: str, base: str | None = None) -> Audit:
        """Whether a reward model's scores can be trusted; somebody's model is also read as the first policy reads.

        The ground truth is asked about the labels that the data came with: those of `preferences` are its own.

        Args:
            base: as of `reward_model`.
        """
        theirs = isinstance(self.study.reward_models[name], Pretrained)
        reader = self.policy(next(iter(self.study.policies))) if theirs else None
        reward_model, labels = self.reward_model(name, base), {"policy": base} if base else {}
        with labelled(reward_model=name, **labels, seed=self.seed):
            pairs = self.raw() if name == self.study.ground_truth else self.preferences()
            return audit(self.study.auditing, reward_model, pairs, reader)

    @cache  # noqa: B019
    def collected(self, policy: str) -> Preferences:
        """On-policy pairs of a policy, labelled by the ground truth."""
        with labelled(policy=policy, seed=self.seed):
            truth = self.reward_model(str(self.study.ground_truth))
            return collect(self.study.collecting, self.policy(policy), self.raw(), truth, self.seed)
