"""The stages of a plan before they run: the models that they use, and the texts that these read, where both are here.

Lengths are means over the first seed's rows, in the tokens of the model that reads; what a policy will write is taken
to be as long as the data's preferred responses, and no longer than it may be. `rmpipe.tally` counts with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Artifact, Prompts
from rmpipe.config import canonical_json
from rmpipe.estimate import Use
from rmpipe.labelling import pool
from rmpipe.stock import Model
from rmpipe.table import Row
from rmpipe.text import encode, readable

if TYPE_CHECKING:
    import pandas as pd

Told = Mapping[str, Any]
Calls = Mapping[str, tuple[str, Told]]  # address -> name of the stage, and what it is told

BATCH_TOKENS = 8192
SAMPLE = 100
"""Rows, at most, whose lengths are counted."""
CHARACTERS = 4.0
"""Of a token, where no tokenizer is at hand."""
VERIFICATION = 25
"""Tokens that a generative reward model's question adds."""
STARTS = ("policy", "base", "before")
"""What stages call the language model that they start from."""


class UnknownError(Exception):
    """What a stage does cannot be counted before something else is here; says what."""


@dataclass(frozen=True)
class Texts:
    """Rows of prompts, and of what is said to them, as far as they are at hand."""

    frame: pd.DataFrame

    def rows(self, split: str) -> int:
        """How many rows a split has."""
        return int((self.frame["split"] == split).sum())

    def prompts(self, split: str) -> int:
        """How many distinct prompts a split has."""
        mine = self.frame.loc[self.frame["split"] == split, "prompt"]
        return len({json.dumps(prompt, default=list, sort_keys=True) for prompt in mine})


@dataclass(frozen=True)
class Reader:
    """A model that a reward model asks about a text.

    Attributes:
        question: tokens that it reads beside the text.
        answer: tokens that it writes, of a judge.
    """

    model: Model
    question: int = 0
    answer: int = 0

    def uses(self, texts: float, tokens: float, batch_tokens: int = BATCH_TOKENS) -> Iterator[Use]:
        """What it does about so many texts of so many tokens each."""
        yield reading(self.model, texts, tokens + self.question, batch_tokens)
        if self.answer:
            batches = ceil(texts / getattr(self.model.config, "batch_size", texts))
            yield Use(self.model.name, "drawn", batches * self.answer, texts * self.answer)


@dataclass
class Workload:
    """The stages of a plan.

    Args:
        calls: every stage of it, those that have been made too.
    """

    calls: Calls
    _texts: dict[str, Texts | None] = field(default_factory=dict)
    _lengths: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    _models: dict[str, Model] = field(default_factory=dict)

    # -- models -------------------------------------------------------------------------------------------------------

    def model(self, weights: Artifact) -> Model:
        """The model whose shape some weights have: the base that they were trained from."""
        stage, told = self.call(weights)
        if stage in ("pretrain", "fetch"):
            return self.known(Model(told["config"]))
        start = next((told[name] for name in STARTS if isinstance(told.get(name), Artifact)), None)
        if start is None:
            raise UnknownError(f"{weights.address} is of no base that the study names")
        return self.model(start)

    def readers(self, reward_model: Artifact) -> Iterator[Reader]:
        """Each model that a reward model asks about a text; none for functions."""
        stage, told = self.call(reward_model)
        kind: Any = told.get("config")
        if stage == "train":
            model = self.model(told["base"])
            yield Reader(model, VERIFICATION if kind.kind == "generative" else 0)
            if getattr(kind, "reference", False):
                yield Reader(model)
            return
        asked = getattr(kind, "judge", kind)
        if getattr(asked, "path", None):
            yield self.judge(asked)
        elif getattr(asked, "kind", "") == "http":
            raise UnknownError("a server is asked, and how fast it answers is not known")
        for part in told.get("components") or ():
            yield from self.readers(part)

    def judge(self, config: Any) -> Reader:
        """Somebody's model: one that scores, or one that writes an answer to a question about a text."""
        answer = getattr(config, "max_new_tokens", 0)
        question = VERIFICATION if answer else 0
        return Reader(self.known(Model(config, scores=not answer)), question, answer)

    @property
    def models(self) -> dict[str, Model]:
        """Every model that has been met, by name."""
        return self._models

    def known(self, model: Model) -> Model:
        """A model, the same one for whoever uses it."""
        return self._models.setdefault(model.name, model)

    def call(self, handle: Artifact) -> tuple[str, Told]:
        """The stage that an artifact is made in, and what it is told."""
        if handle.address not in self.calls:
            raise UnknownError(f"{handle.address} is not of this plan")
        return self.calls[handle.address]

    # -- texts --------------------------------------------------------------------------------------------------------

    def texts(self, handle: Artifact) -> Texts:
        """The rows of an artifact of prompts, as it is or as it will be, about."""
        stage, told = self.call(handle)
        key = handle.address
        if stage in ("prepare", "label"):
            key = f"{stage} {canonical_json(told['config'].dump())} {told['content']}"  # alike for each seed
        if key not in self._texts:
            self._texts[key] = self._built(handle) or self._foreseen(stage, told)
        if (found := self._texts[key]) is None:
            raise UnknownError("its rows must be fetched first")
        return found

    def _built(self, handle: Artifact) -> Texts | None:
        return Texts(handle.table()) if handle.built and isinstance(handle, Prompts) else None

    def _foreseen(self, stage: str, told: Told) -> Texts | None:
        from rmpipe import labels, preference

        if stage in ("prepare", "label"):
            check = preference.check if stage == "prepare" else labels.check
            frame = check(told["config"], told["seed"])
            return None if frame is None else Texts(frame)
        if stage == "collect":
            return Texts(_first_of(self.texts(told["preferences"]).frame, "reward", told["config"].prompts))
        if stage == "select":
            return self.texts(told["pairs"])
        if stage in ("relabel", "shift"):
            return self.texts(told["preferences"])
        if stage == "grade":
            return Texts(_answered(pool(told["config"], told["whose"]).rows))
        return None

    def lengths(self, texts: Texts, model: Model) -> tuple[float, float]:
        """Mean tokens of a prompt, and of a response to it with its end."""
        key = (id(texts), model.name)
        if key not in self._lengths:
            self._lengths[key] = lengths_of(texts.frame, model.tokenizer)
        return self._lengths[key]

    def longest(self, model: str) -> float:
        """Mean tokens of the texts of a model, prompt and response together, of where they are longest; 0 of none."""
        return max((sum(lengths) for (_, name), lengths in self._lengths.items() if name == model), default=0.0)


def _answered(rows: list[Row]) -> pd.DataFrame:
    """A row for each response, in a split of their own."""
    import pandas as pd

    answers = [(row["prompt"], text) for row in rows for text in row["responses"]]
    return pd.DataFrame(answers, columns=["prompt", "chosen"]).assign(split="labelled")


def _first_of(frame: pd.DataFrame, split: str, count: int | None) -> pd.DataFrame:
    """A row for each of the first distinct prompts of a split."""
    mine = frame[frame["split"] == split]
    asked = mine["prompt"].map(lambda prompt: json.dumps(prompt, default=list, sort_keys=True))
    return mine[~asked.duplicated()][:count]


def lengths_of(frame: pd.DataFrame, tokenizer: Any) -> tuple[float, float]:
    """Mean tokens of a prompt, and of a response to it with its end, over some rows."""
    import numpy as np

    rows = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, SAMPLE).astype(int))]
    texts = rows["chosen"] if "chosen" in rows else [each[0] for each in rows["references"]]
    if tokenizer is None:
        asked = [len(readable(_plain(prompt))) / CHARACTERS for prompt in rows["prompt"]]
        return float(np.mean(asked)), float(np.mean([len(text) / CHARACTERS for text in texts])) + 1
    asked = [len(encode(tokenizer, _plain(prompt))) for prompt in rows["prompt"]]
    whole = [len(encode(tokenizer, _plain(prompt), text)) for prompt, text in zip(rows["prompt"], texts, strict=True)]
    return float(np.mean(asked)), float(np.mean(whole)) - float(np.mean(asked))


def _plain(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def reading(model: Model, texts: float, tokens: float, batch_tokens: int = BATCH_TOKENS) -> Use:
    """So many texts of so many tokens each, read in batches."""
    return Use(model.name, "read", ceil(texts * tokens / batch_tokens), texts * tokens)
