"""What the question `generalise` may say: on which sets of pairs reward models of unlike kinds are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from rmpipe.config import Config, StudyError
from rmpipe.preference import records
from rmpipe.reading import Reading, called
from rmpipe.reward import Kind, Trained
from rmpipe.shift import Same, Shift, rewritten
from rmpipe.study import NAMED, Base, Drawing, Study, check_names, known
from rmpipe.table import Row
from rmpipe.text import length

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = "test"
"""The set that every study has: its own held-out pairs."""


class Evaluating(Config):
    """How a reward model's rewards over a set of pairs are judged."""

    draws: int = Field(2000, ge=100)
    """Bootstrap draws over prompts."""
    folds: int = Field(5, ge=3)
    """Parts of the prompts, each foretold from the others, when rewards are explained by the identity of tokens."""


class Separating(Config):
    """How many pairs of a set the hidden representations of the untrained base are looked at for."""

    pairs: int = Field(200, ge=2)

    def looked_at(self, count: int) -> list[int]:
        """Which of a set's pairs, evenly apart."""
        import numpy as np

        return [int(index) for index in np.unique(np.linspace(0, count - 1, min(self.pairs, count)).astype(int))]


class Writing(Drawing):
    """How responses to held-out prompts are drawn from an implicit reward model."""

    responses: int = Field(1, ge=1)
    """Tries a prompt."""


class Generating(Config):
    """Implicit reward models are language models: how often do these write what the ground truth finds right?"""

    sampling: Writing = Writing()
    right: float = 1.0
    """What the ground truth gives to a right response, at least."""


class Expectation(Config):
    """A comparison that the study states beforehand; the report says whether it held.

    `higher` and `lower` are two reward models; or `alike` are two that are within `within` of each other.
    """

    name: str
    claim: str
    shift: Literal["in-distribution", "token", "domain"] | None = None
    """Over all sets of this kind; else `set` names one."""
    set: str | None = None
    policy: str | None = None
    """Of one policy; None for all of them."""
    higher: str | None = None
    lower: str | None = None
    alike: tuple[str, str] | None = None
    within: float = Field(0.05, gt=0, lt=1)
    """What difference of accuracies is none, for `alike`."""

    @model_validator(mode="after")
    def _of_one_form(self) -> Expectation:
        if bool(self.alike) == bool(self.higher or self.lower) or bool(self.higher) != bool(self.lower):
            raise ValueError("a claim names higher and lower, or alike")
        if bool(self.shift) == bool(self.set):
            raise ValueError("a claim names shift or set")
        return self

    @property
    def sides(self) -> tuple[str, str]:
        """The two reward models."""
        return self.alike or (str(self.higher), str(self.lower))


@dataclass(frozen=True)
class Trial:
    """One reward model, trained from one policy with one seed."""

    seed: int
    policy: str
    reward_model: str


class Generalising(Study):
    """Explicit, implicit or generative: which reward model survives a shift? (2507.07981)"""

    families: ClassVar[dict[str, Any]] = {"bases": Base, "reward_models": Kind, "shifts": Shift}

    question: str = "Explicit, implicit or generative: which reward model survives a shift?"
    flow: Literal["generalise"] = "generalise"
    shifts: dict[str, SerializeAsAny[Shift]] = {}  # noqa: RUF012 - pydantic copies it
    """Sets of pairs by name. `test`, what the data set holds out, is always there."""
    evaluating: Evaluating = Evaluating()
    separating: Separating = Separating()
    allow_unsound: bool = False
    """Compare reward models that fail their audit too, which the answer then says of them."""
    generating: Generating | None = None
    claims: tuple[Expectation, ...] = ()

    def sets(self) -> dict[str, Shift]:
        """Every set of pairs, the held-out ones first."""
        return {HELD_OUT: Same(), **self.shifts}

    def trials(self) -> Iterator[Trial]:
        """Seed x policy x reward model; one that names its base is trained from that alone."""
        for seed in self.seeds:
            for policy in self.policies:
                for name, kind in self.reward_models.items():
                    if name != self.ground_truth and getattr(kind, "base", None) in (None, policy):
                        yield Trial(seed, policy, name)

    def check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        super().check()
        if HELD_OUT in self.shifts:
            raise StudyError(f"shifts.{HELD_OUT}: the name of the pairs held out; call it otherwise")
        if dotted := [name for name in self.shifts if "." in name]:
            raise StudyError(f"shifts: {dotted[0]!r} has a dot in its name; call it otherwise")
        check_names("claims", [claim.name for claim in self.claims])
        for index, claim in enumerate(self.claims):
            for side in claim.sides:
                known(f"claims.{index}", side, dict.fromkeys(trial.reward_model for trial in self.trials()))
            if claim.set is not None:
                known(f"claims.{index}.set", claim.set, self.sets())
            if claim.shift not in {None, *(one.shift for one in self.sets().values())}:
                told = f"the study has no set of the shift {claim.shift!r}; add one, or remove the claim"
                raise StudyError(f"claims.{index}.shift: {told}")
            if claim.policy is not None:
                known(f"claims.{index}.policy", claim.policy, self.policies)
        if self.generating is not None and self.ground_truth is None:
            raise StudyError("generating: what is right is said by the ground truth, and there is none; name one")
        if not list(self.trials()):
            raise StudyError("reward_models: none besides the ground truth; name one at least")

    def check_sources(self) -> None:
        """Look into every file and folder that the study names, before anything is spent; hub ids pass."""
        from rmpipe.preference import check

        pairs = check(self.dataset, self.seeds[0])
        super().check_sources()
        for name, shift in self.shifts.items():
            try:
                shift.check(self.seeds[0])
            except StudyError as error:
                raise _named(name, error) from error
        self.check_lengths(pairs)

    def asked(self, pairs: pd.DataFrame) -> dict[str, list[Row]]:
        """Every set of pairs that is at hand."""
        found = super().asked(pairs)
        for name, shift in self.shifts.items():
            originals = pairs[pairs["split"] == shift.split].reset_index(drop=True)[: shift.limit]
            try:
                rows = shift.beforehand(originals, self.seeds[0])
                if rows is not None and shift.aligned:
                    rewritten([str(row["id"]) for row in rows], originals["id"].astype(str))
            except StudyError as error:
                raise _named(name, error) from error
            found |= {} if rows is None else {called(f"shifts.{name}", getattr(shift, "data", None)): rows}
        return found

    def readings(self, pairs: pd.DataFrame) -> Iterator[Reading]:
        """What reward models read, and what is looked at of the untrained representations."""
        yield from super().readings(pairs)
        looked = {where: [rows[index] for index in self.separating.looked_at(len(rows))]
                  for where, rows in self.asked(pairs).items()}  # fmt: skip
        seen = records(pairs[pairs["split"] == "reward"][: self.separating.pairs], NAMED)
        for base in dict.fromkeys(policy.base for policy in self.policies.values()):
            for where, rows in [(called("dataset", self.dataset), seen), *looked.items()]:
                yield Reading("separating", f"bases.{base}", where, rows, length)

    def trained(self) -> dict[str, Trained]:
        """The reward models that are trained here."""
        return {name: kind for name, kind in self.reward_models.items() if isinstance(kind, Trained)}


def _named(name: str, error: StudyError) -> StudyError:
    """What a shift says of itself, who does not know what the study calls it: `shifts: path: ...`."""
    said = str(error)
    field = said.removeprefix("shifts: ")
    return StudyError(f"shifts.{name}: {said}" if field == said else f"shifts.{name}.{field}")
