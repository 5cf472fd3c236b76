"""A study: one frozen value read from a TOML file, with every key checked before any compute.

A study names bases, policies and reward models, and asks a question about them; `flow` says which, and what else it
may say: `rmpipe.teaching`, `rmpipe.generalising`. `extends = "pocket"` takes another study and changes only what is
said, `reward_models.half = false` takes a section away, and `--set a.b=c` does the same from the command line;
`rmpipe.sheet` has the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from rmpipe.adapter import Lora
from rmpipe.algorithm import Finetuning
from rmpipe.audit import Auditing
from rmpipe.config import Config, Neutral, Registry, Runtime, StudyError, explain, inside, nearest
from rmpipe.dataset import Dataset, WorldSource
from rmpipe.demonstration import Demonstrations
from rmpipe.diagnosis import Diagnosing
from rmpipe.engine import Engine
from rmpipe.engine import check as check_engine
from rmpipe.folder import check_folder, naming
from rmpipe.mending import Sieved
from rmpipe.pair import FIELDS
from rmpipe.preference import records
from rmpipe.published import Published
from rmpipe.reading import SHORTER, Reading, called
from rmpipe.refusal import Judge, Refusal
from rmpipe.reward import Kind, Trained
from rmpipe.sheet import change_in, load, prefixed
from rmpipe.source import check_place, check_there
from rmpipe.table import Row
from rmpipe.text import held, length
from rmpipe.world.words import DANGER

if TYPE_CHECKING:
    import pandas as pd


NAMED = ("id", *FIELDS)


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
    """How a policy is sampled: K responses to each prompt of a split."""

    responses: int = Field(16, ge=2)
    """K, the responses a prompt."""
    split: Annotated[Literal["policy", "test"], Neutral("policy")] = "policy"
    """Prompts that policies are trained on, or prompts held out."""
    engine: Annotated[Engine, Neutral("transformers")] = "transformers"
    """What draws them; a policy in training is looked at by transformers whichever it is."""


class Collecting(Drawing):
    """How on-policy pairs are drawn: two responses to each prompt of the reward split make one pair."""


class Scoring(Config):
    """How texts are batched for a reward model: speed only."""

    batch_tokens: Annotated[int, Runtime] = Field(8192, ge=1)


class Base(Registry, Config, key="kind", group="rmpipe.bases"):
    """Where a language model comes from; one frozen class, found by its `kind`."""

    kind: str

    def tokenizer(self) -> Any:
        """Its tokenizer, where it can be had without fetching anything; else None."""
        return None

    def context(self) -> int | None:
        """The most tokens that it holds, where that is known without fetching anything; else None."""
        return None

    def tied(self) -> bool:
        """Whether it is known, without fetching anything, that its unembedding is its embedding."""
        return False


class WorldBase(Base):
    """A tiny language model pretrained on the embedded world's documents."""

    kind: Literal["world"] = "world"
    documents: int = Field(40_000, ge=1)
    danger: Annotated[float, Neutral(0.0)] = Field(0.0, ge=0, le=1)
    """Share of the documents that are about the dangerous topic, `vault`: three in four of these refuse. At 0 the base
    has no token for what only that topic speaks of."""
    hidden: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    training: Finetuning

    def tokenizer(self) -> Any:
        """The world's."""
        from rmpipe import world

        return world.tokenizer(dangerous=self.danger > 0)

    def context(self) -> int:
        """The world's."""
        from rmpipe.world.model import LONGEST

        return LONGEST

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
    added_tokens: Annotated[tuple[str, ...], Neutral(())] = ()
    """Tokens that are added to its tokenizer, so that each is one; their embeddings begin as draws around the others'
    mean. The model with them is kept in the store."""
    dtype: Annotated[Literal["float32", "bfloat16"], Neutral("float32")] = "float32"
    """What it computes in wherever it is asked and not trained; `precision` says it of a training."""

    def tokenizer(self) -> Any:
        """That of a local folder."""
        if not Path(self.path).is_dir():
            return None
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.path)
        tokenizer.add_tokens(list(self.added_tokens))
        return tokenizer

    def context(self) -> int | None:
        """That of a local folder, as its configuration and its tokenizer say."""
        if not Path(self.path).is_dir():
            return None
        from transformers import AutoConfig, AutoTokenizer

        return held(AutoConfig.from_pretrained(self.path), AutoTokenizer.from_pretrained(self.path))

    def tied(self) -> bool:
        """As a local folder's configuration says."""
        from transformers import AutoConfig

        if not Path(self.path).is_dir():
            return False
        return bool(AutoConfig.from_pretrained(self.path).get_text_config().tie_word_embeddings)


class PolicySpec(Config):
    """A policy: a base, finetuned on demonstrations or as it is."""

    base: str
    demonstrations: Demonstrations | None = None
    finetuning: Finetuning | None = None


Seeds = tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]


class Study(
    Registry,
    Config,
    key="flow",
    group="rmpipe.flows",
    ours=("rmpipe.teaching", "rmpipe.generalising", "rmpipe.displacing", "rmpipe.vanishing"),
):
    """What a person says about any inquiry.

    Attributes:
        families: the sections whose members are found by a literal of their own.
        data: the family of its data set.
        named: the sections of which one member at least must be there.
        pools: whether its policies are sampled, and reward models score what they say.
    """

    families: ClassVar[dict[str, Any]] = {"bases": Base, "reward_models": Kind}
    data: ClassVar[Any] = Dataset
    named: ClassVar[tuple[str, ...]] = ("seeds", "bases", "policies", "reward_models")
    pools: ClassVar[bool] = False

    name: str
    question: str
    flow: str
    seeds: Seeds = (1,)
    dataset: SerializeAsAny[Dataset]
    ground_truth: str | None = None
    """The reward model, of any kind, that stands for what people want; None, or "", where nobody knows it."""
    ties: Literal["keep", "drop"] = "drop"
    bases: dict[str, SerializeAsAny[Base]]
    policies: dict[str, PolicySpec]
    reward_models: dict[str, SerializeAsAny[Kind]]
    collecting: Collecting = Collecting()
    scoring: Scoring = Scoring()
    auditing: Auditing = Auditing()
    """What reward models are examined for before anything is ranked by them, and what is too much."""
    diagnosing: Diagnosing | None = None
    """Look at every pair, before training, for what may push its preferred response away: `diagnosing = {}`."""

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

    @field_validator("*")
    @classmethod
    def _some(cls, members: Any, info: ValidationInfo) -> Any:
        if info.field_name in cls.named and not members:
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
            kind = _asking(table)
            study: Study = kind(**_typed(table, kind))
            study.check()
        except ValidationError as error:
            raise StudyError(prefixed(file, explain(error, kind))) from error
        except StudyError as error:
            raise StudyError(prefixed(file, str(error))) from error
        return study

    def check_sources(self) -> None:
        """Look into every file and folder that the study names, before anything is spent; hub ids pass.

        Raises:
            StudyError: names field, file, what is wrong and the remedy.
        """
        for name, base in self.bases.items():
            if isinstance(base, PretrainedBase):
                with naming(f"bases.{name}.path"):
                    check_folder(base.path)
        for name, kind in self.reward_models.items():
            try:
                kind.check()
            except StudyError as error:
                raise StudyError(f"reward_models.{name}.{error}") from error
            if isinstance(kind, Refusal):
                check_judge(f"reward_models.{name}.judge", kind.judge, self.collecting)
        self._check_tokenizers()
        _check_extras(self)
        for name, policy in self.policies.items():
            if policy.demonstrations is not None:
                try:
                    policy.demonstrations.check()
                except StudyError as error:
                    raise StudyError(f"policies.{name}.demonstrations.path: {error}") from error

    def _check_tokenizers(self) -> None:
        """What a reward model needs of each base that it may start from, as far as it is at hand."""
        for name, kind in self.reward_models.items():
            if not isinstance(kind, Trained):
                continue
            for base in self._bases_of(kind):
                try:
                    self._check_base(kind, self.bases[base])
                except StudyError as error:
                    out = f"reward_models.{name} = false leaves it out"
                    raise StudyError(f"reward_models.{name}.{error} (bases.{base}; {out})") from error

    def _bases_of(self, kind: Trained) -> list[str]:
        """The bases that a reward model may start from."""
        policies = [kind.base] if kind.base else self.policies
        return list(dict.fromkeys(self.policies[policy].base for policy in policies))

    def check_lengths(self, pairs: pd.DataFrame | None) -> None:
        """Refuse texts that are too long for the model that reads them, where its tokenizer and they are at hand.

        Args:
            pairs: those of the data set, for the first seed; None where they must be fetched.

        Raises:
            StudyError: as `Reading.check`.
        """
        if pairs is None:
            return
        models = dict(self._sources())
        there = cache(lambda name: (models[name].tokenizer(), models[name].context()))
        for reading in self.readings(pairs):
            tokenizer, context = there(reading.model)
            if tokenizer is not None and context is not None:
                reading.check(tokenizer, context)

    def readings(self, pairs: pd.DataFrame) -> Iterator[Reading]:
        """What is read: the pairs that reward models learn from here and are asked about, and those to be diagnosed.

        Args:
            pairs: those of the data set, for the first seed.
        """
        learnt, asked = records(pairs[pairs["split"] == "reward"], NAMED), self.asked(pairs)
        for name, kind in self.reward_models.items():
            if not isinstance(kind, Trained | Published):
                continue
            who = f"reward_models.{name}"
            remedy = f"{SHORTER}, or set {who}.truncate = true" if hasattr(kind, "truncate") else SHORTER
            for model in [who] if isinstance(kind, Published) else [f"bases.{base}" for base in self._bases_of(kind)]:
                if isinstance(kind, Trained) and kind.on_policy < 1:
                    shorter = f"leave longer pairs out by {who}.training.max_length, at most what it holds"
                    rows, most = learnt[: kind.pairs], kind.training.max_length
                    yield Reading(who, model, self.pairs_called, rows, kind.tokens, shorter, most)
                for where, rows in asked.items() if not getattr(kind, "truncate", False) else ():
                    yield Reading(who, model, where, rows, kind.tokens, remedy)
        if self.diagnosing is not None:
            rows = records(self.diagnosed(pairs, self.diagnosing), NAMED)
            for base in dict.fromkeys(policy.base for policy in self.policies.values()):
                yield Reading("diagnosing", f"bases.{base}", self.pairs_called, rows, length)

    @property
    def pairs_called(self) -> str:
        """What messages call the pairs that reward models learn from."""
        return called("dataset", self.dataset)

    def diagnosed(self, pairs: pd.DataFrame, asked: Diagnosing) -> pd.DataFrame:
        """The pairs that are looked at before training, as far as they are at hand.

        Args:
            pairs: those of the data set, for the first seed.
        """
        return pairs[pairs["split"] == asked.split][: asked.limit]

    def asked(self, pairs: pd.DataFrame) -> dict[str, list[Row]]:
        """The pairs that reward models are asked about, as far as they are at hand, by what the study calls them."""
        return {self.pairs_called: records(pairs[pairs["split"] == "test"], NAMED)}

    def _check_base(self, kind: Trained, base: Base) -> None:
        if kind.particular and (tokenizer := base.tokenizer()) is not None:
            kind.check_tokenizer(tokenizer)
        if kind.training.fixed and kind.kind != "explicit" and base.tied():
            told = "its unembedding is its embedding, so that to train it moves the hidden representations"
            raise StudyError(f"training.fixed: {told}; leave fixed out")

    def _sources(self) -> list[tuple[str, Any]]:
        """Everything that may name a place outside the store, by its name in the study."""
        bases = [(f"bases.{name}", base) for name, base in self.bases.items()]
        return bases + [(f"reward_models.{name}", kind) for name, kind in self.reward_models.items()]

    def made_here(self, name: str) -> bool:
        """Whether a reward model is trained here, or made of one that is."""
        kind = self.reward_models[name]
        return isinstance(kind, Trained) or any(map(self.made_here, kind.components))

    def check(self) -> None:
        """Every name that one section says of another must be there, and so must every place of this machine."""
        _check_written(self)
        if self.ground_truth is not None:
            known("ground_truth", self.ground_truth, self.reward_models)
        for name, policy in self.policies.items():
            known(f"policies.{name}.base", policy.base, self.bases)
            _check_finetuned(f"policies.{name}", policy)
        for name, kind in self.reward_models.items():
            for part in kind.components:
                known(f"reward_models.{name}.of", part, self.reward_models)
            for attribute in ("base", "on_policy_of", "policy"):
                if (value := getattr(kind, attribute, None)) is not None:
                    known(f"reward_models.{name}.{attribute}", value, self.policies)
            if isinstance(kind, Trained):
                _check_on_policy(f"reward_models.{name}", kind, self.ground_truth)
            if (kind.pool or isinstance(kind, Sieved)) and not self.pools:
                told = f'{kind.kind} must know rewards of a policy\'s samples, and flow = "{self.flow}" has none'
                raise StudyError(f'reward_models.{name}.kind: {told}; leave it out, or ask flow = "teach"')
        self.check_words("dataset", self.dataset)
        _acyclic(self.reward_models)
        if self.ground_truth is not None and self.made_here(self.ground_truth):
            told = f"{self.ground_truth} is trained on the pairs that it is to label"
            raise StudyError(f"ground_truth: {told}; name a function, or a model from a folder or the hub")
        self._check_places()

    def check_words(self, where: str, data: Dataset) -> None:
        """Refuse the world's dangerous topic where a base has no tokens for its words.

        Args:
            where: what the study calls the data set.
        """
        topics = set(data.topics or ()) & set(DANGER) if isinstance(data, WorldSource) else ()
        for name, base in self.bases.items():
            if topics and isinstance(base, WorldBase) and not base.danger:
                told = f"0, so that the base has no tokens for {where}.topics = {sorted(topics)}"
                raise StudyError(f"bases.{name}.danger: {told}; set danger = 0.1, or leave the topic out")

    def datasets(self) -> dict[str, Any]:
        """Its data sets, by what it calls them."""
        return {"dataset": self.dataset}

    def _check_places(self) -> None:
        shown = [(f"policies.{name}.demonstrations", spec.demonstrations) for name, spec in self.policies.items()]
        members = [(f"{section}.{name}", member) for section in self.families
                   for name, member in getattr(self, section).items()]  # fmt: skip
        read = [(f"{where}.data", member.data) for where, member in members if hasattr(member, "data")]
        for where, config in [*self.datasets().items(), *shown, *members, *read]:
            if getattr(config, "source", None) == "local" and not Path(config.path).exists():
                raise StudyError(f"{where}.path: {config.path}: nothing there; give a file or a folder that is")
            check_there(config, where)
            for field in ("base_path", "chat_template"):
                check_place(getattr(config, field, None), f"{where}.{field}")
        for where, data in self.datasets().items():
            check_place(data.tokenizer, f"{where}.tokenizer")


def check_judge(where: str, judge: Judge, drawing: Drawing) -> None:
    """Refuse a judge that lacks something, or cannot read what is drawn.

    Raises:
        StudyError: names the place, what is wrong and the remedy.
    """
    try:
        judge.check()
        judge.fits(drawing.max_new_tokens)
    except StudyError as error:
        raise StudyError(f"{where}.{error}") from error


def check_names(where: str, names: Iterable[str]) -> None:
    """Refuse a name that is given twice.

    Raises:
        StudyError: names the place and the name.
    """
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise StudyError(f"{where}: {', '.join(again)} more than once; give each a name of its own")


def known(where: str, name: str, members: dict[str, Any]) -> None:
    """Refuse a name that no member of a section has.

    Raises:
        StudyError: names the place and the nearest name.
    """
    if name not in members:
        raise StudyError(f"{where}: no {name!r} there; {nearest(name, list(members))}")


def _check_written(study: Study) -> None:
    """Refuse a class of somebody's own, wherever a study names it, that leaves out what its family asks for."""
    for where, value in inside(study):
        kind: Any = type(value)
        if isinstance(value, Registry) and (names := lacking(kind)):
            told = f"{kind.__module__}:{kind.__name__} has no {' and no '.join(names)}"
            raise StudyError(f"{where}.{kind.key}: {told}; write it, as docs/extending.md shows")


def _check_extras(study: Study) -> None:
    """Refuse an engine or an adapter, wherever a study names it, for which a package is missing."""
    for where, value in inside(study):
        if isinstance(value, Sampling):
            check_engine(where, value)
        if isinstance(value, Lora):
            value.check(where)


def lacking(kind: type) -> list[str]:
    """The methods that a class leaves open: those that do nothing but raise NotImplementedError."""
    codes = {name: getattr(getattr(kind, name, None), "__code__", None) for name in dir(kind)}
    return [name for name, code in codes.items() if code and code.co_names == (NotImplementedError.__name__,)]


def _check_finetuned(where: str, policy: PolicySpec) -> None:
    """Either half of a finetuning alone would leave the base as it is, silently."""
    if policy.demonstrations is None and policy.finetuning is not None:
        remedy = 'say demonstrations = { source = "chosen" } or another source, or leave finetuning out'
        raise StudyError(f"{where}.demonstrations: missing, so there is nothing to finetune on; {remedy}")
    if policy.finetuning is None and policy.demonstrations is not None:
        remedy = "say how by [finetuning], or leave demonstrations out"
        raise StudyError(f"{where}.finetuning: missing, so the demonstrations would not be learnt; {remedy}")


def _check_on_policy(where: str, kind: Trained, ground_truth: str | None) -> None:
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


def _asking(table: dict[str, Any]) -> type[Study]:
    """The class of what a study asks: `teach` where it does not say."""
    flow = table.setdefault("flow", "teach")
    kind: Any = Study.member(flow, "")
    return kind


def _typed(table: dict[str, Any], kind: type[Study]) -> dict[str, Any]:
    """The sections whose class depends on their `kind` or `source`, read by their own registries."""
    table = dict(table)
    faults: list[str] = []
    if isinstance(table.get("dataset"), dict):
        table["dataset"] = _parsed(kind.data, table["dataset"], "dataset", faults)
    for section in ("policies", *kind.families):
        if isinstance(table.get(section), dict):
            table[section] = _without_false(table[section], section, faults)
    for section, family in kind.families.items():
        if isinstance(table.get(section), dict):
            table[section] = {n: _parsed(family, v, f"{section}.{n}", faults) for n, v in table[section].items()}
    unknown = [key for key in table if key not in kind.model_fields]
    faults += [f"{key}: unknown key; {nearest(key, list(kind.model_fields))}" for key in unknown]
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
