"""A study: one frozen value read from a TOML file, with every key checked before any compute.

A study names bases, policies, reward models and algorithms, and asks a question about them. `extends = "pocket"` takes
another study and changes only what is said; `--set a.b=c` does the same from the command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from rmpipe.algorithm import Algorithm, Finetuning
from rmpipe.config import Config, Registry, Runtime, StudyError, explain, nearest
from rmpipe.policy import check_folder
from rmpipe.preference import Dataset, check
from rmpipe.reward import Kind
from rmpipe.source import check_there


class Sampling(Config):
    """How responses are drawn from a policy; all of it decides what comes out, so all of it is in the address."""

    responses: int = Field(16, ge=2)
    """K, the responses a prompt."""
    prompts: int | None = Field(None, ge=1)
    """How many prompts of the split, None for all."""
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    """0 for the whole vocabulary. (The papers' evaluation silently sampled with 50, their training with 0.)"""
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: Annotated[int, Runtime] = 64
    """Prompts at a time."""


class Scoring(Config):
    """How texts are batched for a reward model: speed only."""

    batch_tokens: Annotated[int, Runtime] = 8192


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
    batch_size: Annotated[int, Runtime] = 128


class Base(Registry, Config, key="kind", group="rmpipe.bases"):
    """Where a language model comes from; one frozen class, found by its `kind`."""

    kind: str


class WorldBase(Base):
    """A tiny language model pretrained on the embedded world's documents."""

    kind: Literal["world"] = "world"
    documents: int = 40_000
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    training: Finetuning


class PretrainedBase(Base):
    """A causal language model in a local folder or on the hub."""

    kind: Literal["pretrained"] = "pretrained"
    path: Annotated[str, Runtime]
    """Folder or hub id; its content, or the id with its revision, is what the address hashes."""
    revision: Annotated[str | None, Runtime] = None


class Demonstrations(Config):
    """What a policy is finetuned on."""

    source: Literal["world", "chosen", "local"] = "chosen"
    """`world`: the embedded world's; `chosen`: the preferred responses of the reward split; `local`: a JSONL file with
    prompt and completion."""
    quality: Literal["weak", "strong"] | None = None
    path: Annotated[str | None, Runtime] = None
    count: int | None = None


class PolicySpec(Config):
    """A policy: a base, finetuned or as it is."""

    base: str
    demonstrations: Demonstrations | None = None
    finetuning: Finetuning | None = None


class Grid(Config):
    """Which cells are aligned with an algorithm; None is all of them."""

    algorithms: tuple[str, ...] | None = None
    policies: tuple[str, ...] | None = None
    reward_models: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


class Claim(Config):
    """A comparison that the study states beforehand; the report says whether it held."""

    name: str
    claim: str
    policy: str | None = None
    algorithm: str | None = None
    gain: Literal["truth", "proxy"] = "truth"
    assuming: tuple[Literal["less accurate", "more variance"], ...] = ()
    """What must be so of `higher` beside `lower`, by the measured means, for the claim to be tested at all."""
    higher: str | None = None
    lower: str | None = None
    reward_model: str | None = None
    policy_higher: str | None = None
    policy_lower: str | None = None
    ladder: tuple[str, ...] | None = None


CLAIMED = {
    "policy": "policies", "policy_higher": "policies", "policy_lower": "policies", "algorithm": "algorithms",
    "higher": "reward_models", "lower": "reward_models", "reward_model": "reward_models", "ladder": "reward_models",
}  # fmt: skip
"""What of a claim is a name, and in which section it must be."""


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
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    dataset: SerializeAsAny[Dataset]
    ground_truth: str | None = None
    """The reward model, of any kind, that stands for what people want; None where nobody knows it."""
    ties: Literal["keep", "drop"] = "drop"
    bases: dict[str, SerializeAsAny[Base]]
    policies: dict[str, PolicySpec]
    reward_models: dict[str, SerializeAsAny[Kind]]
    sampling: Sampling = Sampling()
    collecting: Sampling = Sampling(responses=2)
    scoring: Scoring = Scoring()
    measuring: Measuring = Measuring()
    algorithms: dict[str, SerializeAsAny[Algorithm]]
    evaluation: Evaluation = Evaluation()
    grid: tuple[Grid, ...] = (Grid(),)
    claims: tuple[Claim, ...] = ()

    @classmethod
    def read(cls, file: Path, changes: Iterable[str] = ()) -> Study:
        """Read a study.

        Args:
            file: a TOML file.
            changes: `a.b=value`, the value as TOML writes it, or plain text.

        Raises:
            StudyError: every fault, one a line, with file, path and remedy.
        """
        table = _load(file)
        for change in changes:
            _set(table, change)
        try:
            study = cls(**_typed(table))
            study._check()
        except ValidationError as error:
            raise StudyError(_prefixed(file, explain(error, cls))) from error
        except StudyError as error:
            raise StudyError(_prefixed(file, str(error))) from error
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
        check(self.dataset)
        for where, config in self._sources():
            if config.kind == "pretrained":
                try:
                    check_folder(config.path)
                except StudyError as error:
                    raise StudyError(f"{where}.path: {error}") from error

    def _sources(self) -> list[tuple[str, Any]]:
        """Everything that may name a place outside the store, by its name in the study."""
        bases = [(f"bases.{name}", base) for name, base in self.bases.items()]
        return bases + [(f"reward_models.{name}", kind) for name, kind in self.reward_models.items()]

    def _check(self) -> None:
        """Every name that one section says of another must be there."""
        known: dict[str, dict[str, Any]] = {
            "policies": self.policies,
            "reward_models": self.reward_models,
            "algorithms": self.algorithms,
        }
        if self.ground_truth is not None:
            _known("ground_truth", self.ground_truth, self.reward_models)
        for name, policy in self.policies.items():
            _known(f"policies.{name}.base", policy.base, self.bases)
        for name, kind in self.reward_models.items():
            for part in kind.components:
                _known(f"reward_models.{name}.of", part, self.reward_models)
            for attribute in ("base", "on_policy_of"):
                if (value := getattr(kind, attribute, None)) is not None:
                    _known(f"reward_models.{name}.{attribute}", value, self.policies)
        _acyclic(self.reward_models)
        shown = [(f"policies.{name}.demonstrations", spec.demonstrations) for name, spec in self.policies.items()]
        for where, config in [("dataset", self.dataset), *shown, *self._sources()]:
            check_there(config, where)
        for index, grid in enumerate(self.grid):
            for section, members in known.items():
                for member in getattr(grid, section) or ():
                    _known(f"grid.{index}.{section}", member, members)
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


def _acyclic(kinds: dict[str, Kind]) -> None:
    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise StudyError(f"reward_models.{name}.of: made of itself ({' -> '.join((*path, name))}); name another")
        for part in kinds[name].components:
            visit(part, (*path, name))

    for name in kinds:
        visit(name, ())


def _prefixed(file: Path, lines: str) -> str:
    return "\n".join(line if line.startswith(str(file)) else f"{file}: {line}" for line in lines.splitlines())


def _load(file: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text())
    except (FileNotFoundError, IsADirectoryError):
        raise StudyError(f"{file}: no such study file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: not TOML: {error}") from None
    table = _absolute(table, file.parent)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise StudyError(f"{file}: extends: expected the name of a study, got {parent!r}")
    ours, heirs = Path(__file__).parent.parent / "flows" / "studies", (*heirs, file.resolve())
    name = parent if parent.endswith(".toml") else f"{parent}.toml"
    there = [folder / name for folder in (file.parent, ours) if (folder / name).exists()]
    for place in there:
        if place.resolve() not in heirs:  # a study may have the name of the one of ours that it extends
            return _merged(_load(place, heirs), table)
    if there:
        raise StudyError(f"{file}: extends: {parent!r} extends itself by way of this file; name another")
    known = [
        path.stem for folder in (file.parent, ours) for path in folder.glob("*.toml") if path.resolve() != heirs[-1]
    ]
    raise StudyError(f"{file}: extends: no study {parent!r}; {nearest(parent, known)}")


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What a study says over what it extends; a section of another kind or source takes nothing over."""
    if any(tag in over and over[tag] != under.get(tag) for tag in ("kind", "source")):
        return dict(over)
    both = dict(under)
    for key, value in over.items():
        mine = both.get(key)
        both[key] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return both


def _absolute(value: Any, folder: Path) -> Any:
    """Every `path` that names something beside the study file, made absolute; hub ids stay as they are."""
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _place(item, folder) if key == "path" else _absolute(item, folder) for key, item in value.items()}


def _place(text: Any, folder: Path) -> Any:
    if not isinstance(text, str):
        return text
    path = folder / Path(os.path.expandvars(text)).expanduser()
    return str(path.resolve()) if path.exists() or text.startswith((".", "~", "/", "$")) else text


def _set(table: dict[str, Any], change: str) -> None:
    path, sign, text = change.partition("=")
    if not sign:
        raise StudyError(f"--set {change}: expected a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *folders, leaf = path.strip().split(".")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            raise StudyError(f"--set {change}: {folder} is not a section")
    table[leaf] = _place(value, Path.cwd()) if leaf == "path" else value


def _typed(table: dict[str, Any]) -> dict[str, Any]:
    """The sections whose class depends on their `kind` or `source`, read by their own registries."""
    table = dict(table)
    faults: list[str] = []
    if isinstance(table.get("dataset"), dict):
        table["dataset"] = _parsed(Dataset, table["dataset"], "dataset", faults)
    for section, family in (("bases", Base), ("reward_models", Kind), ("algorithms", Algorithm)):
        if isinstance(table.get(section), dict):
            table[section] = {n: _parsed(family, v, f"{section}.{n}", faults) for n, v in table[section].items()}
    unknown = [key for key in table if key not in Study.model_fields]
    faults += [f"{key}: unknown key; {nearest(key, list(Study.model_fields))}" for key in unknown]
    if faults:
        raise StudyError("\n".join(faults))
    return table


def _parsed(family: Any, value: Any, where: str, faults: list[str]) -> Any:
    try:
        return family.parse(value, where=where)
    except StudyError as error:
        faults.append(str(error))
        return None
