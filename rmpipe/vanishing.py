"""What the question `vanish` may say: where the gradient of a reward vanishes, and what is tried against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from rmpipe.config import Config, StudyError, nested
from rmpipe.controlled import Controlled
from rmpipe.dataset import Dataset
from rmpipe.gauge import Gauging
from rmpipe.imitation import Imitation
from rmpipe.labels import Labels
from rmpipe.preference import check, records
from rmpipe.reading import Reading, called
from rmpipe.reinforcement import Algorithm
from rmpipe.reward import Kind, Trained
from rmpipe.sieve import Sifting
from rmpipe.study import Base, PolicySpec, Sampling, Study, check_names, known
from rmpipe.table import Row
from rmpipe.teaching import Evaluation
from rmpipe.text import Text, encode, length

if TYPE_CHECKING:
    import pandas as pd


class Arm(Config):
    """What is done to a policy: supervised finetuning on labels, then reinforcement by the reward, or one of them."""

    finetuning: str | None = None
    algorithm: str | None = None
    sifted: bool = False
    """Without the prompts that teach nothing, as `sifting` tells them from the initial policy's samples."""

    @model_validator(mode="after")
    def _of_something(self) -> Arm:
        if self.finetuning is None and self.algorithm is None:
            raise ValueError("an arm names a finetuning, an algorithm, or both")
        if self.sifted and self.algorithm is None:
            raise ValueError("sifted: prompts are left out of what an algorithm trains on, and there is none")
        return self


class Expectation(Config):
    """A claim that the study states beforehand: a number of an arm, or of one arm less that of another, is `above`.

    Before training, without an arm: `norm` (gradient norm of high-std prompts less that of low-std ones), `correlation`
    (Spearman of std with the norm). Of an arm: `gain`, `low` and `high` (of the prompts of low and of high std), `gap`
    (high less low), `spearman` (of the gain with the initial std); `recovered`, `recovered_low` and `recovered_high`,
    shares of the reference's gain, since prompts of low std have more to gain. Of a controlled experiment the arms are
    its methods: `modified`, `unmodified`, `gap`.
    """

    name: str
    claim: str
    number: Literal[
        "norm", "correlation", "gain", "low", "high", "gap", "spearman", "recovered", "recovered_low",
        "recovered_high", "modified", "unmodified",
    ]  # fmt: skip
    policy: str | None = None
    """Of one policy; None for all of them."""
    reward: str | None = None
    """Of one reward; None for all of them."""
    arm: str | None = None
    than: str | None = None
    above: float = 0.0
    controlled: str | None = None

    @model_validator(mode="after")
    def _of_one_form(self) -> Expectation:
        before, method = self.number in ("norm", "correlation"), self.number in ("modified", "unmodified")
        if before and (self.arm or self.than):
            raise ValueError(f"arm: {self.number} is told before any training; leave arm and than out")
        if not before and self.arm is None:
            raise ValueError(f"arm: missing; {self.number} is told of one")
        if method and self.controlled is None:
            raise ValueError(f"controlled: missing; {self.number} is told of a controlled experiment")
        if self.controlled and not (method or self.number == "gap"):
            raise ValueError(f"controlled: {self.number} is not told of one; it tells modified, unmodified and gap")
        if self.controlled and (self.policy or self.reward):
            raise ValueError("controlled: its policies and rewards are its own; leave policy and reward out")
        return self


@dataclass(frozen=True)
class Trial:
    """One policy and one reward with one seed, under one arm."""

    seed: int
    policy: str
    reward: str
    arm: str


class Vanishing(Study):
    """Where does the gradient of a reward vanish, and what cures it? (2310.20703)"""

    families: ClassVar[dict[str, Any]] = {"bases": Base, "reward_models": Kind, "algorithms": Algorithm}
    data: ClassVar[Any] = Labels
    named: ClassVar[tuple[str, ...]] = ("seeds",)

    question: str = "Where does the gradient of a reward vanish, and what cures it?"
    flow: Literal["vanish"] = "vanish"
    dataset: SerializeAsAny[Labels] | None = None  # type: ignore[assignment]
    """Inputs with their labels; None only where nothing but controlled experiments are asked for."""
    preferences: Annotated[SerializeAsAny[Dataset] | None, nested(Dataset)] = None
    """Pairs that reward models are trained on here, and that policies are finetuned on whose demonstrations are
    `chosen`."""
    bases: dict[str, SerializeAsAny[Base]] = {}  # noqa: RUF012 - pydantic copies it
    policies: dict[str, PolicySpec] = {}  # noqa: RUF012
    reward_models: dict[str, SerializeAsAny[Kind]] = {}  # noqa: RUF012
    rewards: tuple[str, ...] | None = Field(None, min_length=1)
    """The reward models that policies are taught by; None for all of them but the ground truth, if there is another."""
    gauging: Gauging = Gauging()
    sampling: Sampling = Sampling()
    """Before and after an arm, for the gain of each prompt: of those that RLHF draws from, whose labels no finetuning
    learns, or by `split` of those held out."""
    finetunings: dict[str, Imitation] = {}  # noqa: RUF012
    algorithms: dict[str, SerializeAsAny[Algorithm]] = {}  # noqa: RUF012
    arms: dict[str, Arm] = {}  # noqa: RUF012
    reference: str | None = None
    """The arm whose gain counts as all that there is to gain; None, or "", for no such shares."""
    sifting: Sifting = Sifting()
    evaluation: Evaluation = Evaluation()
    controlled: dict[str, Controlled] = {}  # noqa: RUF012
    """Softmax policies over a few labels, where all is exact."""
    claims: tuple[Expectation, ...] = ()

    @field_validator("reference", mode="before")
    @classmethod
    def _none_if_unnamed(cls, name: Any) -> Any:
        return name or None

    @field_validator("rewards")
    @classmethod
    def _each_once(cls, rewards: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if again := [name for name, count in Counter(rewards).items() if count > 1]:
            raise ValueError(f"{', '.join(again)} more than once; name each reward once")
        return rewards

    @property
    def _only_controlled(self) -> bool:
        """Whether nothing is asked of language models."""
        return bool(self.controlled) and not (self.dataset or self.bases or self.policies or self.reward_models)

    def datasets(self) -> dict[str, Any]:
        """The labelled inputs and the pairs, as far as there are any."""
        told = {"dataset": self.dataset, "preferences": self.preferences}
        return {name: data for name, data in told.items() if data is not None}

    @property
    def pairs_called(self) -> str:
        """They are in a section of their own."""
        return called("preferences", self.preferences)

    def asked(self, pairs: pd.DataFrame) -> dict[str, list[Row]]:
        """None: reward models are asked about responses of policies."""
        return {}

    def climbed(self) -> tuple[str, ...]:
        """The reward models that policies are taught by."""
        others = tuple(name for name in self.reward_models if name != self.ground_truth)
        return self.rewards or others or tuple(self.reward_models)

    def measured(self) -> int:
        """How many inputs of the policy split, the first ones, have their gain measured; None of them is labelled."""
        return (self.sampling.prompts or 0) if self.sampling.split == "policy" else 0

    def places(self) -> Iterator[tuple[int, str, str]]:
        """Seed x policy x reward."""
        yield from product(self.seeds, self.policies, self.climbed())

    def trials(self) -> Iterator[Trial]:
        """Seed x policy x reward x arm."""
        for seed, policy, reward in self.places():
            for arm in self.arms:
                yield Trial(seed, policy, reward, arm)

    def check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        super().check()
        if self.diagnosing is not None:
            raise StudyError("diagnosing: pairs are not looked at here; leave it out")
        for section in ("dataset", "bases", "policies", "reward_models"):
            if not getattr(self, section) and not self._only_controlled:
                raise StudyError(f"{section}: missing; add it, or ask for nothing but [controlled.NAME]")
        for index, name in enumerate(self.rewards or ()):
            known(f"rewards.{index}", name, self.reward_models)
        for name, arm in self.arms.items():
            for field, members in (("finetuning", self.finetunings), ("algorithm", self.algorithms)):
                if (value := getattr(arm, field)) is not None:
                    known(f"arms.{name}.{field}", value, members)
        if self.reference is not None:
            known("reference", self.reference, self.arms)
        self._check_pairs()
        self._check_drawn()
        check_names("claims", [claim.name for claim in self.claims])
        for index, claim in enumerate(self.claims):
            self._check_claim(f"claims.{index}", claim)

    def _check_pairs(self) -> None:
        """What pairs are needed for, and what is needed for them."""
        for name, kind in self.reward_models.items():
            if isinstance(kind, Trained) and kind.base is None:
                raise StudyError(f"reward_models.{name}.base: missing; name the policy that it starts from")
            if isinstance(kind, Trained) and self.ground_truth and self.reward_models[self.ground_truth].referenced:
                told = "it compares responses with labels, and pairs have none that it could be told"
                raise StudyError(f"ground_truth: {told}; name another, or take {name} away")
        if self.preferences is not None:
            learnt = any(isinstance(kind, Trained) for kind in self.reward_models.values())
            given = [spec.demonstrations for spec in self.policies.values() if spec.demonstrations]
            if not learnt and not any(each.source == "chosen" and each.data is None for each in given):
                told = "no reward model is trained on pairs, and no policy is finetuned on chosen responses"
                raise StudyError(f"preferences: {told}; leave it out")
            return self.check_words("preferences", self.preferences)
        for name, kind in self.reward_models.items():
            if isinstance(kind, Trained):
                told = "it is trained here on pairs, and the study has none"
                raise StudyError(f"reward_models.{name}: {told}; say them in [preferences]")
        for name, spec in self.policies.items():
            shown = spec.demonstrations
            if shown is not None and shown.source == "chosen" and shown.data is None:
                told = "chosen responses are of pairs, and the study has none"
                raise StudyError(f"policies.{name}.demonstrations: {told}; say [preferences], or data of its own")

    def _check_drawn(self) -> None:
        """What is drawn must tell what is asked of it."""
        sampling, gauging = self.sampling, self.gauging
        if gauging.answers and gauging.bounds:
            told = "a bound is of free responses, and gauging.answers are all that count"
            raise StudyError(f"gauging.bounds: {told}; leave one of them out")
        if not self._only_controlled and gauging.gradients != 0 and not gauging.answers:
            warped = [name for name in ("temperature", "top_k", "top_p") if name in sampling.model_fields_set
                      and getattr(sampling, name) != Sampling.model_fields[name].default]  # fmt: skip
            if warped:
                told = f"with it responses are not drawn from the policy whose gradient is taken; say {warped[0]} only"
                raise StudyError(f"sampling.{warped[0]}: {told} beside gauging.gradients = 0, or leave it out")
            if sampling.responses < 4:
                told = f"{sampling.responses}, and a gradient takes two halves of two at least"
                raise StudyError(f"sampling.responses: {told}; say 4 or more, or gauging.gradients = 0")
        if gauging.prompts is not None and gauging.prompts < (sampling.prompts or gauging.prompts + 1):
            told = f"{gauging.prompts}, and {sampling.prompts or 'all'} have their gain measured"
            raise StudyError(f"gauging.prompts: {told}; raise it, or leave it out")
        self._check_labelled()

    def _check_labelled(self) -> None:
        """Inputs are left to be labelled, and told apart where only some of them are."""
        for name, finetuning in self.finetunings.items():
            if self.sampling.split == "policy" and self.sampling.prompts is None:
                told = "every input has its gain measured, so that none is left to label"
                raise StudyError(f'finetunings.{name}: {told}; say sampling.prompts, or sampling.split = "test"')
            if finetuning.of != "all" and not (self.measured() and (self.gauging.prompts or 0) > self.measured()):
                told = "inputs are told apart by samples of them, and of those to label none is drawn"
                remedy = "say gauging.prompts, more than sampling.prompts"
                if self.sampling.split == "test":
                    remedy = 'say sampling.split = "policy"'
                raise StudyError(f'finetunings.{name}.of: {told}; {remedy}, or of = "all"')
        for name, arm in self.arms.items():
            if arm.sifted and self.sampling.split == "test":
                told = 'prompts are sifted by samples of them, and sampling.split = "test" draws none to train on'
                raise StudyError(f"arms.{name}.sifted: {told}; leave sifted out, or sampling.split")
        if "sifting" in self.model_fields_set and not any(arm.sifted for arm in self.arms.values()):
            raise StudyError("sifting: no arm is sifted; say sifted = true in one of [arms], or leave it out")

    def _check_claim(self, where: str, claim: Expectation) -> None:
        if claim.controlled is not None:
            known(f"{where}.controlled", claim.controlled, self.controlled)
            arms: dict[str, Any] = dict.fromkeys(self.controlled[claim.controlled].methods)
        else:
            arms = self.arms
        for field, members in (("policy", self.policies), ("reward", dict.fromkeys(self.climbed())), ("arm", arms),
                               ("than", arms)):  # fmt: skip
            if (value := getattr(claim, field)) is not None:
                known(f"{where}.{field}", value, members)
        pooled = claim.number in ("norm", "gain", "low", "high", "gap") and claim.controlled is None
        if pooled and claim.reward is None and len(self.climbed()) > 1:
            raise StudyError(f"{where}.reward: missing; rewards have units of their own, so name one")
        if claim.number.startswith("recovered") and claim.arm == self.reference is not None:
            raise StudyError(f"{where}.arm: {claim.arm} is the reference, whose share is 1; name another")
        if claim.number.startswith("recovered") and self.reference is None:
            raise StudyError(f"{where}.number: {claim.number} is a share of the reference's gain; name a reference")

    def check_sources(self) -> None:
        """Look into every file and folder that the study names, before anything is spent; hub ids pass."""
        from rmpipe import labels

        for name, experiment in self.controlled.items():
            try:
                experiment.check()
            except StudyError as error:
                raise StudyError(f"controlled.{name}.{error}") from error
        inputs = None if self.dataset is None else labels.check(self.dataset, self.seeds[0])
        try:
            pairs = None if self.preferences is None else check(self.preferences, self.seeds[0])
        except StudyError as error:
            raise StudyError(f"preferences: {error}") from error
        super().check_sources()
        self.check_lengths(pairs)
        if inputs is not None:
            self._check_inputs(inputs)

    def _check_inputs(self, inputs: pd.DataFrame) -> None:
        """A step takes no more prompts than there are, and a label is no longer than what learns it holds."""
        there = int((inputs["split"] == "policy").sum())
        if self.finetunings and self.measured() >= there:
            told = f"{self.measured()} of {there} inputs have their gain measured, so that none is left to label"
            raise StudyError(f"sampling.prompts: {told}; lower it, or give more inputs")
        for name in dict.fromkeys(arm.algorithm for arm in self.arms.values() if arm.algorithm):
            if (asked := self.algorithms[name].prompts_per_step) > there:
                told = f"{asked} prompts a step, and the policy split has {there}"
                raise StudyError(f"algorithms.{name}.prompts_per_step: {told}; lower it, or give more inputs")
        rows = [
            {"id": row["id"], "prompt": row["prompt"], "chosen": text, "rejected": text}
            for row in records(inputs[inputs["split"] == "policy"], ("id", "prompt", "references"))
            for text in row["references"]
        ]
        models = dict(self._sources())
        for base in dict.fromkeys(policy.base for policy in self.policies.values()):
            tokenizer, context = models[f"bases.{base}"].tokenizer(), models[f"bases.{base}"].context()
            if tokenizer is None or context is None:
                continue
            self._check_room(inputs, base, tokenizer, context)
            for name, finetuning in self.finetunings.items():
                places = (f"finetunings.{name}", f"bases.{base}", called("dataset", self.dataset))
                Reading(*places, rows, length, most=finetuning.training.max_length).check(tokenizer, context)

    def _check_room(self, inputs: pd.DataFrame, base: str, tokenizer: Any, context: int) -> None:
        """Beside what is drawn a prompt must fit."""
        where, model = called("dataset", self.dataset), f"bases.{base}, beside them,"
        prompts = [{**row, "chosen": "", "rejected": ""} for row in records(inputs, ("id", "prompt"))]
        remedy = "lower it, or leave longer prompts out by dataset.max_prompt_tokens"
        drawn = {"sampling": self.sampling.max_new_tokens}
        drawn |= {f"algorithms.{name}": algorithm.max_new_tokens for name, algorithm in self.algorithms.items()}
        for who, most in drawn.items():
            asked = Reading(f"{who}.max_new_tokens = {most}", model, where, prompts, _alone, remedy)
            asked.check(tokenizer, max(0, context - most))


def _alone(tokenizer: Any, prompt: Text, _: str) -> int:
    """How many tokens a prompt has by itself."""
    return len(encode(tokenizer, prompt))
