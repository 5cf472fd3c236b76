"""What the question `displace` may say: which pairs push the preferred response away, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from rmpipe.attribution import ALONE
from rmpipe.config import Config, StudyError, nested
from rmpipe.diagnosis import LENGTH, Diagnosing
from rmpipe.direct import Direct
from rmpipe.preference import check, records
from rmpipe.reading import Reading, called
from rmpipe.refusal import Judge
from rmpipe.reward import Kind
from rmpipe.single import Single
from rmpipe.study import NAMED, Base, Drawing, Sampling, Study, check_judge, check_names, known
from rmpipe.subset import Other, Subset
from rmpipe.text import length

if TYPE_CHECKING:
    import pandas as pd


class Tracking(Config):
    """What is asked of a policy before, during and after its training on a subset."""

    pairs: int | None = Field(200, ge=1)
    """The most pairs, of those trained on and of those held out, whose likelihoods are followed."""
    writing: Drawing = Drawing(prompts=32)
    """What it writes itself: how long, and how far from its beginning."""
    top: int = Field(10, ge=1)
    """How many of the tokens that gained most are told."""


class Refusing(Config):
    """How often a policy refuses, before and after."""

    judge: Annotated[SerializeAsAny[Judge], nested(Judge)]
    sampling: Sampling = Sampling(responses=2)
    """Of held-out prompts, which are to call for a refusal."""

    @field_validator("sampling")
    @classmethod
    def _of_held_out(cls, sampling: Sampling) -> Sampling:
        if "split" in sampling.model_fields_set:
            raise ValueError("split: prompts held out are asked here; leave it out")
        return sampling


class Expectation(Config):
    """A claim that the study states beforehand; the report says whether it held.

    Of a `similarity`: its rank correlation with what single-pair training does to the preferred response is below 0,
    or below that of another (`than`): plainly, given the difference in length, or among pairs of equal length (`test`).
    Or of two subsets: the preferred responses end more likely after training on `higher` than on `lower`: each subset's
    own (`chosen`), which are not the same pairs, or those of the pairs held out (`held_out`).
    """

    name: str
    claim: str
    policy: str | None = None
    """Of one policy; None for all of them."""
    similarity: str | None = None
    test: Literal["spearman", "given_length", "equal_length"] = "spearman"
    than: str | None = None
    training: str | None = None
    higher: str | None = None
    lower: str | None = None
    number: Literal["chosen", "held_out", "refusal"] = "chosen"

    @model_validator(mode="after")
    def _of_one_form(self) -> Expectation:
        if bool(self.similarity) == bool(self.higher or self.lower) or bool(self.higher) != bool(self.lower):
            raise ValueError("a claim names a similarity, or two subsets as higher and lower")
        for field in ("than", "test") if not self.similarity else ("training", "number"):
            if field in self.model_fields_set:
                told = "said of a similarity" if self.higher else "said of subsets; pairs are trained on alone here"
                raise ValueError(f"{field}: {told}; leave it out")
        if LENGTH in (self.similarity, self.than) and self.test != "spearman":
            raise ValueError(f"test: {self.test} takes out the very {LENGTH} that is asked about; leave it out")
        return self


@dataclass(frozen=True)
class Treatment:
    """One training of one policy on one subset with one seed."""

    seed: int
    policy: str
    training: str
    subset: str


class Displacing(Study):
    """Which preference pairs push the preferred response away? (2410.08847)"""

    families: ClassVar[dict[str, Any]] = {"bases": Base, "reward_models": Kind, "subsets": Subset}
    named: ClassVar[tuple[str, ...]] = ("seeds", "bases", "policies")

    question: str = "Which preference pairs push the preferred response away?"
    flow: Literal["displace"] = "displace"
    reward_models: dict[str, SerializeAsAny[Kind]] = {}  # noqa: RUF012 - pydantic copies it
    on_policy: bool = False
    """Learn from pairs of two samples each of a policy, labelled by the ground truth, instead of the data set's."""
    diagnosing: Diagnosing = Diagnosing()
    """All trainings rest on it, on each pair alone too: another similarity makes them all again."""
    single: Single | None = None
    """Training on each pair alone, from the same weights: the setting of the theory."""
    trainings: dict[str, Direct] = {}  # noqa: RUF012
    """Trainings on whole subsets, each on each that does not name others."""
    subsets: dict[str, SerializeAsAny[Subset]] = {}  # noqa: RUF012
    """By name; a section that stands for several is read as those, such as `at = [0, 0.5, 1]` of a quantile."""
    tracking: Tracking = Tracking()
    refusing: Refusing | None = None
    claims: tuple[Expectation, ...] = ()

    @field_validator("subsets")
    @classmethod
    def _members(cls, subsets: dict[str, Subset]) -> dict[str, Subset]:
        members = [member for name, subset in subsets.items() for member in subset.members(name).items()]
        if again := [name for name, count in Counter(name for name, _ in members).items() if count > 1]:
            raise ValueError(f"{', '.join(again)} more than once, by its own section and by at; call it otherwise")
        return dict(members)

    def trained(self, subset: str) -> list[str]:
        """The trainings on a subset."""
        named = self.subsets[subset].trainings
        return [name for name in self.trainings if named is None or name in named]

    def batch(self, subset: str) -> int:
        """The most pairs that a training on a subset takes a step: it can have no fewer."""
        return max(self.trainings[name].training.batch_size for name in self.trained(subset))

    def treatments(self) -> Iterator[Treatment]:
        """Seed x policy x training x subset, those that the study has of them."""
        for seed, policy, training, subset in product(self.seeds, self.policies, self.trainings, self.subsets):
            if training in self.trained(subset):
                yield Treatment(seed, policy, training, subset)

    def check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        super().check()
        if self.on_policy and self.ground_truth is None:
            told = "pairs drawn from a policy are labelled by the ground truth, and the study has none"
            raise StudyError(f"on_policy: {told}; name a ground_truth, or leave on_policy out")
        if self.trainings and not self.subsets:
            raise StudyError('subsets: none, so there is nothing to train on; say [subsets.all] kind = "whole"')
        if self.subsets and not self.trainings:
            raise StudyError("trainings: none, so that no subset is trained on; add one, or leave subsets out")
        if ALONE in self.trainings:
            raise StudyError(f"trainings.{ALONE}: what training on single pairs is called; call it otherwise")
        for name, subset in self.subsets.items():
            self._check_subset(name, subset)
        for name in self.trainings:
            if not any(name in self.trained(subset) for subset in self.subsets):
                raise StudyError(f"trainings.{name}: no subset has it in its trainings; add it there, or leave it out")
        check_names("claims", [claim.name for claim in self.claims])
        for index, claim in enumerate(self.claims):
            self._check_claim(f"claims.{index}", claim)

    def _check_subset(self, name: str, subset: Subset) -> None:
        where, asked, count = f"subsets.{name}", self.diagnosing, getattr(subset, "count", None)
        for training in subset.trainings or ():
            known(f"{where}.trainings", training, self.trainings)
        if count is not None:
            self._check_size(name, count)
        if isinstance(subset, Other):
            return self.check_words(f"{where}.data", subset.data)
        if asked.split != "reward":
            told = f"pairs of the {asked.split} split are diagnosed, and subsets are of those of the reward split"
            raise StudyError(f"{where}: {told}; leave diagnosing.split out")
        if (by := getattr(subset, "by", None)) is not None:
            known(f"{where}.by", by, asked.similarities)
        if count is not None and asked.limit is not None and count > asked.limit:
            told = f"{count}, but no more than {asked.limit} pairs are diagnosed"
            raise StudyError(f"{where}.count: {told}; lower it, or raise diagnosing.limit")

    def _check_size(self, name: str, pairs: int) -> None:
        if pairs < (batch := self.batch(name)):
            told = f"{pairs} pairs, but a training on it takes {batch} a step"
            raise StudyError(f"subsets.{name}: {told}; give it more, or lower that training.batch_size")

    def _check_claim(self, where: str, claim: Expectation) -> None:
        if claim.similarity and self.single is None:
            raise StudyError(f"{where}.similarity: it is tested by training on single pairs; add [single]")
        named: dict[str, dict[str, Any]] = {
            "similarity": self.diagnosing.similarities, "than": self.diagnosing.similarities,
            "policy": self.policies, "training": self.trainings, "higher": self.subsets, "lower": self.subsets,
        }  # fmt: skip
        for field, members in named.items():
            if (value := getattr(claim, field)) is not None:
                known(f"{where}.{field}", value, members)
        if claim.higher and claim.lower:
            self._check_sides(where, claim, *(self.trained(side) for side in (claim.higher, claim.lower)))

    def _check_sides(self, where: str, claim: Expectation, *sides: Collection[str]) -> None:
        """Two subsets are compared after one training, or each after the only one that it has."""
        if claim.number == "refusal" and self.refusing is None:
            raise StudyError(f"{where}.number: refusals are told by a judge, and the study asks none; add [refusing]")
        if claim.training and not any(claim.training in side for side in sides):
            raise StudyError(f"{where}.training: {claim.training} is of neither {claim.higher} nor {claim.lower}")
        one, other = ({claim.training} if claim.training in side else {*side} for side in sides)
        if not one & other and (len(one) > 1 or len(other) > 1):
            told = f"{claim.higher} and {claim.lower} have no training in common, and one of them has several"
            raise StudyError(f"{where}.training: {told}; name one")

    def check_sources(self) -> None:
        """Look into every file and folder that the study names, before anything is spent; hub ids pass."""
        pairs = check(self.dataset, self.seeds[0])
        super().check_sources()
        self._check_sizes(pairs)
        self.check_lengths(pairs)
        if self.refusing is not None:
            check_judge("refusing.judge", self.refusing.judge, self.refusing.sampling)

    def _check_sizes(self, pairs: pd.DataFrame | None) -> None:
        """Each subset as far as its pairs are at hand; a policy makes no more of them than there are prompts."""
        for name, subset in self.subsets.items():
            limit, frame = self.diagnosing.limit, pairs
            if isinstance(subset, Other):
                limit, frame = None, self.others.get(called(f"subsets.{name}.data", subset.data))
            if frame is None:
                continue
            there = int((frame["split"] == "reward").sum())
            there = min(there, limit or there)
            if (most := subset.count_of(there)) is not None and most > there:
                raise StudyError(f"subsets.{name}.count: {most}, but there are {there} pairs to train on; lower it")
            if most is not None:
                self._check_size(name, most)

    def readings(self, pairs: pd.DataFrame) -> Iterator[Reading]:
        """What policies are asked about and trained on: the pairs, and those of other data sets."""
        yield from super().readings(pairs)
        for base in dict.fromkeys(policy.base for policy in self.policies.values()):
            for where, frame in self.others.items():
                rows = records(frame[frame["split"] != "policy"], NAMED)
                yield Reading("trainings", f"bases.{base}", where, rows, length)

    def diagnosed(self, pairs: pd.DataFrame, asked: Diagnosing) -> pd.DataFrame:
        """With those held out, whose likelihoods are followed; of pairs that a policy is yet to write none are here."""
        return pairs[pairs["split"] == "test"] if self.on_policy else pairs[pairs["split"] != "policy"]

    @cached_property
    def others(self) -> dict[str, pd.DataFrame]:
        """The pairs of other data sets that are at hand, for the first seed, checked; each is read once."""
        found: dict[str, pd.DataFrame] = {}
        for name, subset in self.subsets.items():
            if isinstance(subset, Other):
                try:
                    pairs = check(subset.data, self.seeds[0])
                except StudyError as error:
                    raise StudyError(f"subsets.{name}.data: {error}") from error
                found |= {} if pairs is None else {called(f"subsets.{name}.data", subset.data): pairs}
        return found
