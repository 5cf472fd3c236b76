"""What the question `teach` may say: how policies are sampled, measured and aligned, and with which reward models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator

from rmpipe.claim import CLAIMED, Claim
from rmpipe.config import Config, Runtime, StudyError
from rmpipe.folder import naming
from rmpipe.foreseeing import Foreseeing
from rmpipe.labelling import pools
from rmpipe.mending import Sieved
from rmpipe.preference import check
from rmpipe.racing import Racing
from rmpipe.reinforcement import Algorithm
from rmpipe.reward import Trained
from rmpipe.sieve import Sifting
from rmpipe.study import Base, Kind, Sampling, Study, known

if TYPE_CHECKING:
    import pandas as pd


class Measuring(Config):
    """What `measure` needs to know."""

    threshold: float = Field(0.05, ge=0)
    """Reward std, of the whitened reward, below which a prompt teaches nothing."""
    draws: int = Field(2000, ge=100)
    """Bootstrap draws over prompts."""


class Evaluation(Config):
    """How a policy is evaluated while it is trained: on held-out prompts, with the same random numbers each time."""

    prompts: int = Field(100, ge=2)
    responses: int = Field(4, ge=1)
    batch_size: Annotated[int, Runtime] = Field(128, ge=1)


class Grid(Config):
    """Which cells are aligned with an algorithm; None is all of them."""

    algorithms: tuple[str, ...] | None = None
    policies: tuple[str, ...] | None = None
    reward_models: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None

    @field_validator("*")
    @classmethod
    def _some(cls, names: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if names == ():
            raise ValueError("empty, so no cell is left; name one at least, or leave it out for all")
        return names


@dataclass(frozen=True)
class Cell:
    """One policy taught by one reward model with one algorithm and one seed."""

    seed: int
    policy: str
    reward_model: str
    algorithm: str


class Teaching(Study):
    """Which reward model teaches this policy best? (2503.15477)"""

    families: ClassVar[dict[str, Any]] = {"bases": Base, "reward_models": Kind, "algorithms": Algorithm}
    named: ClassVar[tuple[str, ...]] = (*Study.named, "algorithms", "grid")
    pools: ClassVar[bool] = True

    question: str = "Which reward model teaches this policy best?"
    flow: Literal["teach"] = "teach"
    sampling: Sampling = Sampling()
    measuring: Measuring = Measuring()
    sifting: Sifting | None = None
    """Leave out of RLHF, or put off, the prompts at which a reward model teaches a policy nothing: `sifting = {}`."""
    further_truths: tuple[str, ...] = ()
    """Reward models that stand, each by itself, for what others may want: gains are foretold and measured under them
    too. Labels and ranks stay those of `ground_truth`."""
    foresight: Foreseeing = Foreseeing()
    racing: Racing = Racing()
    allow_unsound: bool = False
    """Teach with reward models that fail their audit, and rank them, which the answer then says of them."""
    algorithms: dict[str, SerializeAsAny[Algorithm]]
    evaluation: Evaluation = Evaluation()
    grid: tuple[Grid, ...] = (Grid(),)
    claims: tuple[Claim, ...] = ()

    @property
    def truths(self) -> tuple[str, ...]:
        """The ground truths, the first first; none where nobody knows what people want."""
        return () if self.ground_truth is None else (self.ground_truth, *self.further_truths)

    def cells(self) -> Iterator[Cell]:
        """Policy x reward model x algorithm x seed, as far as the grid asks for them, each once."""
        seen = set()
        for seed in self.seeds:
            for grid in self.grid:
                for policy in _chosen(grid.policies, self.policies):
                    for algorithm in _chosen(grid.algorithms, self.algorithms):
                        for name in _chosen(grid.reward_models, self.reward_models):
                            cell = Cell(seed, policy, name, algorithm)
                            if cell not in seen and (grid.seeds is None or seed in grid.seeds):
                                seen.add(cell)
                                yield cell

    def check_sources(self) -> None:
        """Look into every file and folder that the study names, before anything is spent; hub ids pass.

        Raises:
            StudyError: names field, file, what is wrong and the remedy.
        """
        pairs = check(self.dataset, next(self.cells()).seed)
        self._check_prompts(pairs)
        super().check_sources()
        self.check_lengths(pairs)
        if self.foresight.labels is not None:
            with naming("foresight.labels"):
                pools(self.foresight.labels, dict.fromkeys(cell.policy for cell in self.cells()))

    def check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        super().check()
        for name, kind in self.reward_models.items():
            if isinstance(kind, Trained) and kind.base is None:
                raise StudyError(f"reward_models.{name}.base: missing; name the policy that it starts from")
        self._check_truths()
        if self.sampling.split != "policy":
            self._check_unsampled()
        if self.foresight.labels is not None:
            with naming("foresight.labels"):
                self.foresight.labels.content()
        self._check_cells()

    def _check_truths(self) -> None:
        """The further ground truths are there, each once, beside a first one; so is what calibrates forecasts."""
        named = {"further_truths": self.further_truths, "foresight.calibrate": self.foresight.calibrate}
        for where, names in named.items():
            for index, name in enumerate(names):
                known(f"{where}.{index}", name, self.reward_models)
        self._check_calibrate()
        if self.further_truths and self.ground_truth is None:
            raise StudyError("further_truths: beside no ground_truth; name one of them as that")
        if again := [name for name, count in Counter(self.truths).items() if count > 1]:
            raise StudyError(f"further_truths: {', '.join(again)} stands there more than once; name it once")

    def _check_calibrate(self) -> None:
        """What calibrates forecasts is taught with, and its gain is measured by what it is foretold under."""
        names, where = self.foresight.calibrate, "foresight.calibrate"
        if names and self.foresight.labels is not None:
            told = "nothing measures what RLHF gains by labels in a file, so that it calibrates nothing"
            raise StudyError(f"{where}: {told}; leave one of both out")
        if names and self.ground_truth is None:
            raise StudyError(f"{where}: no ground_truth measures what RLHF gains; name one, or leave this out")
        if len(set(names)) < len(names):
            raise StudyError(f"{where}: a name stands there more than once; name it once")
        taught = {cell.reward_model for cell in self.cells()} if names else set()
        for index, name in enumerate(names):
            if name not in taught:
                told = f"the grid teaches nobody with {name!r}, so that it calibrates nothing"
                raise StudyError(f"{where}.{index}: {told}; add it to a grid's reward_models, or leave it out here")

    def _check_prompts(self, pairs: pd.DataFrame | None) -> None:
        """A step takes no more prompts than the policy split has, as the first seed takes the pairs."""
        seed = next(self.cells()).seed
        if pairs is None:
            return
        there = len({json.dumps(prompt, sort_keys=True) for prompt in pairs.loc[pairs["split"] == "policy", "prompt"]})
        for name in dict.fromkeys(cell.algorithm for cell in self.cells() if cell.seed == seed):
            asked = self.algorithms[name].prompts_per_step
            if asked > there:
                told = f"{asked} prompts a step, and the policy split of seed {seed} has {there} distinct ones"
                remedy = f"lower it to {there}, or raise dataset.policy_fraction or the number of pairs"
                raise StudyError(f"algorithms.{name}.prompts_per_step: {told}; {remedy}")
        for name, kind in self.reward_models.items():
            if kind.pool and (self.sampling.prompts or there) < there:
                sampled = f"{self.sampling.prompts} of {there} prompts are sampled"
                told = f"{sampled}, and reward_models.{name} knows no others"
                raise StudyError(f"sampling.prompts: {told}; raise it to {there}")

    def _check_unsampled(self) -> None:
        """What is decided by samples needs samples of the prompts to train on."""
        mended = [f"reward_models.{name}" for name, kind in self.reward_models.items()
                  if kind.pool or isinstance(kind, Sieved)]  # fmt: skip
        for who, what in [("sifting", "sifted")] * (self.sifting is not None) + [(each, "mended") for each in mended]:
            told = f'prompts are {what} by samples of them, and "{self.sampling.split}" draws none to train on'
            raise StudyError(f"sampling.split: {told}; leave it out, or {who}")

    def _check_cells(self) -> None:
        """What the grid and the claims name."""
        there: dict[str, dict[str, Any]] = {
            "policies": self.policies, "reward_models": self.reward_models, "algorithms": self.algorithms,
        }  # fmt: skip
        for index, grid in enumerate(self.grid):
            for section, members in there.items():
                for member in getattr(grid, section) or ():
                    known(f"grid.{index}.{section}", member, members)
            if others := [seed for seed in grid.seeds or () if seed not in self.seeds]:
                mine = ", ".join(map(str, self.seeds))
                told = f"grid.{index}.seeds: {', '.join(map(str, others))} not among the study's seeds ({mine})"
                raise StudyError(f"{told}; add it there, or leave it out here")
        for index, claim in enumerate(self.claims):
            for key, section in CLAIMED.items():
                told = getattr(claim, key)
                for member in (told,) if isinstance(told, str) else told or ():
                    known(f"claims.{index}.{key}", member, there[section])


def known_as(truth: str, first: str | None = None) -> str:
    """What a ground truth is called in a policy's tables: `truth` if it is the first, else what no other is called."""
    return "truth" if truth == first else f"truth.{truth}"


def _chosen(names: tuple[str, ...] | None, known: dict[str, Any]) -> Iterable[str]:
    return known if names is None else names
