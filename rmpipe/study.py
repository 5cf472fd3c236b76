"""A study: one frozen value read from a TOML file, with every key checked before any compute.

A study names bases, policies, reward models and algorithms, and asks a question about them. `extends = "pocket"` takes
another study and changes only what is said, `reward_models.half = false` takes a section away, and `--set a.b=c` does
the same from the command line; `rmpipe.sheet` has the rules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from rmpipe.algorithm import Algorithm, Finetuning
from rmpipe.claim import CLAIMED, Claim
from rmpipe.config import Config, Registry, Runtime, StudyError, explain, nearest
from rmpipe.dataset import Dataset
from rmpipe.demonstration import Demonstrations
from rmpipe.policy import check_folder
from rmpipe.preference import check
from rmpipe.reward import Explicit, Kind
from rmpipe.sheet import change_in, load, prefixed
from rmpipe.source import check_place, check_there


class Drawing(Config):
    """How responses are drawn from a policy; all of it decides what comes out, so all of it is in the address."""

    prompts: int | None = Field(None, ge=1)
    """How many prompts of the split, drawn by the seed; None for all."""
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    """0 for the whole vocabulary. (The papers' evaluation silently sampled with 50, their training with 0.)"""
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: Annotated[int, Runtime] = Field(64, ge=1)
    """Prompts at a time."""


class Sampling(Drawing):
    """How a policy is sampled: K responses to each prompt of the policy split."""

    responses: int = Field(16, ge=2)
    """K, the responses a prompt."""


class Collecting(Drawing):
    """How on-policy pairs are drawn: two responses to each prompt of the reward split make one pair."""


class Scoring(Config):
    """How texts are batched for a reward model: speed only."""

    batch_tokens: Annotated[int, Runtime] = Field(8192, ge=1)


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


class Base(Registry, Config, key="kind", group="rmpipe.bases"):
    """Where a language model comes from; one frozen class, found by its `kind`."""

    kind: str


class WorldBase(Base):
    """A tiny language model pretrained on the embedded world's documents."""

    kind: Literal["world"] = "world"
    documents: int = Field(40_000, ge=1)
    hidden: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    training: Finetuning

    @model_validator(mode="after")
    def _in_whole_heads(self) -> WorldBase:
        if self.hidden % (2 * self.heads):  # a head turns its numbers in pairs, to tell where a token stands
            told = f"hidden = {self.hidden} is no even number for each of heads = {self.heads}"
            raise ValueError(f"{told}; take a multiple of {2 * self.heads} as hidden, or other heads")
        return self


class PretrainedBase(Base):
    """A causal language model in a local folder or on the hub."""

    kind: Literal["pretrained"] = "pretrained"
    path: Annotated[str, Runtime]
    """Folder or hub id; its content, or the id with its revision, is what the address hashes."""
    revision: Annotated[str | None, Runtime] = None


class PolicySpec(Config):
    """A policy: a base, finetuned on demonstrations or as it is."""

    base: str
    demonstrations: Demonstrations | None = None
    finetuning: Finetuning | None = None


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


class Study(Config):
    """All that a person says about an inquiry."""

    name: str
    question: str = "Which reward model teaches this policy best?"
    flow: Literal["teach"] = "teach"
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (1,)
    dataset: SerializeAsAny[Dataset]
    ground_truth: str | None = None
    """The reward model, of any kind, that stands for what people want; None, or "", where nobody knows it."""
    ties: Literal["keep", "drop"] = "drop"
    bases: dict[str, SerializeAsAny[Base]]
    policies: dict[str, PolicySpec]
    reward_models: dict[str, SerializeAsAny[Kind]]
    sampling: Sampling = Sampling()
    collecting: Collecting = Collecting()
    scoring: Scoring = Scoring()
    measuring: Measuring = Measuring()
    algorithms: dict[str, SerializeAsAny[Algorithm]]
    evaluation: Evaluation = Evaluation()
    grid: tuple[Grid, ...] = (Grid(),)
    claims: tuple[Claim, ...] = ()

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if again := [str(seed) for seed, count in Counter(seeds).items() if count > 1]:
            raise ValueError(f"{', '.join(again)} more than once; name each seed once")
        return seeds

    @field_validator("ground_truth", mode="before")
    @classmethod
    def _none_if_empty(cls, name: Any) -> Any:
        return None if name == "" else name

    @field_validator("seeds", "bases", "policies", "reward_models", "algorithms", "grid")
    @classmethod
    def _some(cls, members: Any, info: ValidationInfo) -> Any:
        if not members:
            remedy = "leave it out for all cells" if info.field_name == "grid" else "name one at least"
            raise ValueError(f"empty, so no cell is left; {remedy}")
        return members

    @classmethod
    def read(cls, file: Path, changes: Iterable[str] = ()) -> Study:
        """Read a study.

        Args:
            file: a TOML file.
            changes: `a.b=value`, the value as TOML writes it, or plain text.

        Raises:
            StudyError: every fault, one a line, with file, path and remedy.
        """
        table = load(file)
        for change in changes:
            change_in(table, change)
        try:
            study = cls(**_typed(table))
            study._check()
        except ValidationError as error:
            raise StudyError(prefixed(file, explain(error, cls))) from error
        except StudyError as error:
            raise StudyError(prefixed(file, str(error))) from error
        return study

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
        self._check_prompts()
        for where, config in self._sources():
            if config.kind == "pretrained":
                try:
                    check_folder(config.path)
                except StudyError as error:
                    raise StudyError(f"{where}.path: {error}") from error
        for name, policy in self.policies.items():
            if policy.demonstrations is not None:
                try:
                    policy.demonstrations.check()
                except StudyError as error:
                    raise StudyError(f"policies.{name}.demonstrations.path: {error}") from error

    def _check_prompts(self) -> None:
        """Look into the pairs as the first seed takes them: a step takes no more prompts than its policy split has."""
        seed = next(self.cells()).seed
        pairs = check(self.dataset, seed)
        if pairs is None:
            return
        there = len({json.dumps(prompt, sort_keys=True) for prompt in pairs.loc[pairs["split"] == "policy", "prompt"]})
        for name in dict.fromkeys(cell.algorithm for cell in self.cells() if cell.seed == seed):
            asked = self.algorithms[name].prompts_per_step
            if asked > there:
                told = f"{asked} prompts a step, and the policy split of seed {seed} has {there} distinct ones"
                remedy = f"lower it to {there}, or raise dataset.policy_fraction or the number of pairs"
                raise StudyError(f"algorithms.{name}.prompts_per_step: {told}; {remedy}")

    def _sources(self) -> list[tuple[str, Any]]:
        """Everything that may name a place outside the store, by its name in the study."""
        bases = [(f"bases.{name}", base) for name, base in self.bases.items()]
        return bases + [(f"reward_models.{name}", kind) for name, kind in self.reward_models.items()]

    def _check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        if self.ground_truth is not None:
            _known("ground_truth", self.ground_truth, self.reward_models)
        for name, policy in self.policies.items():
            _known(f"policies.{name}.base", policy.base, self.bases)
            _check_finetuned(f"policies.{name}", policy)
        for name, kind in self.reward_models.items():
            for part in kind.components:
                _known(f"reward_models.{name}.of", part, self.reward_models)
            for attribute in ("base", "on_policy_of"):
                if (value := getattr(kind, attribute, None)) is not None:
                    _known(f"reward_models.{name}.{attribute}", value, self.policies)
            if isinstance(kind, Explicit):
                _check_on_policy(f"reward_models.{name}", kind, self.ground_truth)
        _acyclic(self.reward_models)
        self._check_places()
        self._check_cells()

    def _check_places(self) -> None:
        shown = [(f"policies.{name}.demonstrations", spec.demonstrations) for name, spec in self.policies.items()]
        for where, config in [("dataset", self.dataset), *shown, *self._sources()]:
            if getattr(config, "source", None) == "local" and not Path(config.path).exists():
                raise StudyError(f"{where}.path: {config.path}: nothing there; give a file or a folder that is")
            check_there(config, where)
        check_place(self.dataset.tokenizer, "dataset.tokenizer")

    def _check_cells(self) -> None:
        """What the grid and the claims name."""
        known: dict[str, dict[str, Any]] = {
            "policies": self.policies, "reward_models": self.reward_models, "algorithms": self.algorithms,
        }  # fmt: skip
        for index, grid in enumerate(self.grid):
            for section, members in known.items():
                for member in getattr(grid, section) or ():
                    _known(f"grid.{index}.{section}", member, members)
            if others := [seed for seed in grid.seeds or () if seed not in self.seeds]:
                mine = ", ".join(map(str, self.seeds))
                told = f"grid.{index}.seeds: {', '.join(map(str, others))} not among the study's seeds ({mine})"
                raise StudyError(f"{told}; add it there, or leave it out here")
        for index, claim in enumerate(self.claims):
            for key, section in CLAIMED.items():
                told = getattr(claim, key)
                for member in (told,) if isinstance(told, str) else told or ():
                    _known(f"claims.{index}.{key}", member, known[section])


def _chosen(names: tuple[str, ...] | None, known: dict[str, Any]) -> Iterable[str]:
    return known if names is None else names


def _known(where: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise StudyError(f"{where}: no {name!r} there; {nearest(name, list(known))}")


def _check_finetuned(where: str, policy: PolicySpec) -> None:
    """Either half of a finetuning alone would leave the base as it is, silently."""
    if policy.demonstrations is None and policy.finetuning is not None:
        remedy = 'say demonstrations = { source = "chosen" } or another source, or leave finetuning out'
        raise StudyError(f"{where}.demonstrations: missing, so there is nothing to finetune on; {remedy}")
    if policy.finetuning is None and policy.demonstrations is not None:
        remedy = "say how by [finetuning], or leave demonstrations out"
        raise StudyError(f"{where}.finetuning: missing, so the demonstrations would not be learnt; {remedy}")


def _check_on_policy(where: str, kind: Explicit, ground_truth: str | None) -> None:
    """On-policy pairs are drawn from somebody and labelled by something; whom alone, without how many, draws none."""
    if kind.on_policy > 0 and ground_truth is None:
        told = "pairs drawn from a policy are labelled by the ground truth, and the study has none"
        raise StudyError(f"{where}.on_policy: {told}; name a ground_truth, or set on_policy = 0")
    if kind.on_policy_of is not None and "on_policy" not in kind.model_fields_set:
        told = f"no share of the pairs is drawn from {kind.on_policy_of!r}, since on_policy is not said"
        raise StudyError(f"{where}.on_policy_of: {told}; set on_policy, from 0 to 1, or leave on_policy_of out")


def _acyclic(kinds: dict[str, Kind]) -> None:
    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise StudyError(f"reward_models.{name}.of: made of itself ({' -> '.join((*path, name))}); name another")
        for part in kinds[name].components:
            visit(part, (*path, name))

    for name in kinds:
        visit(name, ())


def _typed(table: dict[str, Any]) -> dict[str, Any]:
    """The sections whose class depends on their `kind` or `source`, read by their own registries."""
    table = dict(table)
    faults: list[str] = []
    if isinstance(table.get("dataset"), dict):
        table["dataset"] = _parsed(Dataset, table["dataset"], "dataset", faults)
    for section in ("bases", "policies", "reward_models", "algorithms"):
        if isinstance(table.get(section), dict):
            table[section] = _without_false(table[section], section, faults)
    for section, family in (("bases", Base), ("reward_models", Kind), ("algorithms", Algorithm)):
        if isinstance(table.get(section), dict):
            table[section] = {n: _parsed(family, v, f"{section}.{n}", faults) for n, v in table[section].items()}
    unknown = [key for key in table if key not in Study.model_fields]
    faults += [f"{key}: unknown key; {nearest(key, list(Study.model_fields))}" for key in unknown]
    if faults:
        raise StudyError("\n".join(faults))
    return table


def _without_false(members: dict[str, Any], section: str, faults: list[str]) -> dict[str, Any]:
    """`false` that is still there has found nothing to take away."""
    there = {name: member for name, member in members.items() if member is not False}
    gone = [name for name in members if name not in there]
    faults += [
        f"{section}.{name}: false, and there is none to take away; {nearest(name, list(there))}" for name in gone
    ]
    return there


def _parsed(family: Any, value: Any, where: str, faults: list[str]) -> Any:
    try:
        return family.parse(value, where=where)
    except StudyError as error:
        faults.append(str(error))
        return None
