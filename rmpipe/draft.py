"""A study file about somebody's models and preference pairs, which runs as it is written and says what it assumed.

How long texts may be is what every model holds (`rmpipe.fitting`); how much is done is a budget, small for a CPU and
larger for a GPU. `draft.toml` is the file with these left open.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError
from rmpipe.corpus import Pairs
from rmpipe.dataset import Dataset
from rmpipe.fitting import Limits, fitted, guessed
from rmpipe.folder import naming
from rmpipe.labelling import Labelling, Pool, pools
from rmpipe.preference import check
from rmpipe.prospect import Model
from rmpipe.split import SPLITS
from rmpipe.text import Text

LARGE = 3e8
"""Parameters of a policy from which on memory is spared on a GPU."""
SLOW = 3e7
"""Parameters of a policy from which on a CPU is given one seed."""
UNKNOWN = 1e9
"""Parameters of a policy that was not seen, as it is planned for."""
RATES = ((2e7, 3e-4, 1e-4), (3e8, 5e-5, 2e-5), (2e9, 1e-5, 3e-6), (math.inf, 5e-6, 1e-6))
"""Parameters up to which learning rates are usual: of reward models, and of RLHF."""
PASSES, BATCH = 3, 16
"""Passes over a reward model's pairs, as far as there is time, and pairs a step."""
TAKEN = ("length", "trained", "truth")
"""Names of the reward models that nobody gave."""
WHY = {
    "columns": "ours = theirs",
    "split_column": "split afresh, whatever the data say",
    "leakage": "of rows for training whose prompt is held out too",
    "test_split": "the part that is held out",
    "form": "turns as messages, which go through the chat template",
}
"""Comments beside what a [dataset] may say."""
FRACTION = 0.3
"""Share of the prompts that RLHF is given."""
LEAST = 2
"""Prompts that RLHF and its evaluation each need."""
MANY = 1000
"""Prompts of a split from which on they are not counted one by one."""
AT = 28
"""The column of comments beside values."""


@dataclass(frozen=True)
class Budget:
    """How much is done.

    Attributes:
        limit: pairs of each split.
        prompts: whose responses are measured.
        responses: to each of them.
        learning: most steps of a reward model's training.
        steps: of RLHF.
        asked: prompts a step.
        new: most tokens of a response.
        evaluated: held-out prompts.
    """

    limit: int
    prompts: int
    responses: int
    learning: int
    steps: int
    asked: int
    new: int
    evaluated: int


CPU = Budget(limit=200, prompts=40, responses=6, learning=40, steps=20, asked=8, new=48, evaluated=40)
GPU = Budget(limit=4000, prompts=200, responses=16, learning=500, steps=200, asked=32, new=256, evaluated=200)


@dataclass(frozen=True)
class Named:
    """A model by the name that the study gives it."""

    name: str
    model: Model

    @property
    def question(self) -> str:
        """What must be decided before it can be used as a reward model; empty where nothing."""
        if self.model.needs_code:
            return f"it is read by code of its own ({', '.join(self.model.code)}), which is not run unasked"
        outputs = self.model.outputs
        if len(outputs) > 1:
            labels = ", ".join(f"{index} ({label})" for index, label in enumerate(outputs))
            return f"it has {len(outputs)} outputs, and `output` must say which is the reward: {labels}"
        return ""

    @property
    def form(self) -> str:
        """How it is given texts."""
        return "continuation" if self.model.tokenizer is not None and not self.model.template else "conversation"

    @property
    def why(self) -> str:
        """Why so."""
        if self.model.tokenizer is None:
            return "assumed: its tokenizer was not seen"
        return "through its own chat template" if self.model.template else "it has no chat template"


@dataclass(frozen=True)
class Draft:
    """A study that is to be written.

    Attributes:
        file: where to.
        policies: language models, one at least.
        scorers: reward models of others'.
        pairs: what they are compared on.
        truth: what stands for what people want: a function's name, a model, or None where nobody knows it.
        gpu: whether it is to run on one.
        labels: a file of the policies' own responses with labels, from which gains are foretold; None for none.
    """

    file: Path
    policies: Sequence[Model]
    scorers: Sequence[Model]
    pairs: Pairs
    truth: str | Model | None
    gpu: bool
    labels: str | None = None

    def check(self) -> None:
        """Refuse a ground truth about which something must be decided first, and labels that cannot be used.

        Raises:
            StudyError: says what.
        """
        if isinstance(self.truth, Model) and (question := Named("truth", self.truth).question):
            remedy = "write the study without, and add it by hand"
            raise StudyError(f"--ground-truth: {self.truth.place}: {question}; {remedy}")
        with naming("--labels"):
            self.pools  # noqa: B018 - read

    # -- what is decided ----------------------------------------------------------------------------------------------

    @property
    def budget(self) -> Budget:
        """What this machine is given to do."""
        return GPU if self.gpu else CPU

    @property
    def size(self) -> float:
        """Parameters of the largest policy."""
        return max(model.parameters or UNKNOWN for model in self.policies)

    @property
    def seeds(self) -> list[int]:
        """Three, which intervals need; one where each takes long."""
        return [1, 2, 3] if self.gpu or self.size < SLOW else [1]

    @cached_property
    def limits(self) -> Limits:
        """How long pairs and responses may be."""
        truths = [self.truth] if isinstance(self.truth, Model) else []
        models = [*self.policies, *self.scorers, *truths]
        if self.pairs.frame is None or self.policies[0].context is None:
            return guessed(models, self.budget.new)
        return fitted(models, self.pairs, self.budget.new)

    @cached_property
    def prompts(self) -> dict[str, int]:
        """How many distinct prompts each split has for the seed that has fewest; empty where nobody can tell.

        Where limits foresee many they are not counted: prompts by the thousand are more than any budget asks for.

        Raises:
            StudyError: a split has too few; says how many pairs would do.
        """
        foreseen = self.limits.prompts
        if self.pairs.frame is None or min(foreseen.get(split, 0) for split in ("policy", "test")) > MANY:
            return foreseen
        table = self.pairs.table | {
            "limit": self.budget.limit, "tokenizer": self.policies[0].place, "policy_fraction": FRACTION,
            "max_prompt_tokens": self.limits.prompt, "max_response_tokens": self.limits.response,
        }  # fmt: skip
        frames = [check(Dataset.parse(table, "dataset"), seed) for seed in self.seeds]
        parts = [frame.groupby("split")["prompt"] for frame in frames if frame is not None]
        counts = {split: min(_distinct(part.get_group(split)) for part in parts) for split in SPLITS if parts}
        for split, whose in (("policy", "left for RLHF"), ("test", "held out")):
            if counts.get(split, LEAST) < LEAST:
                needed = math.ceil(LEAST * sum(counts.values()) / counts[split])
                told = f"{counts[split]} prompt is {whose} of {sum(counts.values())} that are short enough"
                raise StudyError(f"--preferences: {self.pairs.place}: {told}; give pairs of about {needed} prompts")
        return counts or foreseen

    def most(self, split: str, wanted: int) -> int:
        """As many prompts of a split as are wanted, or are there."""
        return max(1, min(wanted, self.prompts.get(split, wanted)))

    @cached_property
    def named(self) -> tuple[list[Named], list[Named]]:
        """Policies and reward models by names of their own."""
        taken = set(TAKEN)
        models = [Named(_name(model.place, taken), model) for model in [*self.policies, *self.scorers]]
        return models[: len(self.policies)], models[len(self.policies) :]

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The labelled responses of each policy, by its name; empty where there is no file of any."""
        return pools(Labelling(path=self.labels), [one.name for one in self.named[0]]) if self.labels else {}

    def seen(self) -> Iterator[tuple[str, str, str]]:
        """What was looked at: what it is, its place, and what was seen of it."""
        yield from (("policy", model.place, model.told()) for model in self.policies)
        yield "preferences", self.pairs.place, self.pairs.told()
        yield from (("reward model", model.place, model.told()) for model in self.scorers)
        if isinstance(self.truth, Model):
            yield "ground truth", self.truth.place, self.truth.told()
        yield from (("labels", str(self.labels), f"{name}: {pool.told()}") for name, pool in self.pools.items())
        yield from (("tokens", place, told) for place, told in self.limits.lengths.items())

    def assumed(self) -> Iterator[str]:
        """What was decided or taken for granted, a sentence each."""
        yield from (f"{self.pairs.place}: {remark}" for remark in self.pairs.remarks)
        looked = [(model.place, model.unseen) for model in [*self.policies, *self.scorers]]
        yield from (f"{place}: {why}" for place, why in [*looked, (self.pairs.place, self.pairs.unseen)] if why)
        if self.limits.why:
            yield self.limits.why
        if self.pairs.dialogue and self.policies[0].template:
            yield "its chat template takes a dialogue as text for one message; give dialogues as messages"
        yield from (f"{one.model.place}: {one.question}; left out till then" for one in self.named[1] if one.question)
        if self.truth is None:
            yield "no ground truth: ranks go by the proxy gain, which each reward model awards itself"
        yield from self._of_labels()
        if (few := self.most("policy", self.budget.asked)) < self.budget.asked:
            yield f"{few} prompts are left for RLHF, and each of its steps takes them all; give more pairs"
        if len(self.seeds) == 1:
            yield f"one seed, since a CPU is slow with {self.size / 1e6:,.0f} M parameters: no interval over seeds"
        machine = "a GPU" if self.gpu else "a CPU, since no GPU is here"
        yield f"steps, prompts and learning rates are usual ones for this size on {machine}; none is tuned"

    def _of_labels(self) -> Iterator[str]:
        """What was taken for granted of labels."""
        first = next(iter(self.pools.values()), None)
        if first is None:
            return
        yield f"{self.labels}: `rmpipe forecast` goes by these labels; RLHF, and what ranks after it, does not"
        if not first.named:
            yield f"{self.labels}: rows that name no policy are responses of {self.named[0][0].name}, as it came"
        if first.pairs:
            share = "a response's wins less its losses, as a share of its pairs"
            yield f"{self.labels}: a label is {share}, so that only the order within a prompt counts"

    # -- what is written ----------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The study file."""
        from jinja2 import Environment

        environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        environment.globals |= {"said": _said, "wrapped": _wrapped, "place": self._place}
        form = environment.from_string(files("rmpipe").joinpath("draft.toml").read_text(encoding="utf-8"))
        policies, scorers = self.named
        left = self.limits
        return form.render(
            file=self.file.name, name=self.file.stem, seeds=self.seeds, seen=self.seen(), assumed=self.assumed(),
            truth=self._truth(), dataset=self._dataset(), budget=self.budget, limits=left, policies=policies,
            scorers=scorers, large=self.gpu and self.size >= LARGE,
            rates=next(rates for most, *rates in RATES if self.size < most),
            learning=min(self.budget.learning, max(10, math.ceil(PASSES * left.pairs / BATCH))),
            prompts=self.most("policy", self.budget.prompts), evaluated=self.most("test", self.budget.evaluated),
            asked=self.most("policy", self.budget.asked), fraction=FRACTION, labels=self.labels,
        )  # fmt: skip

    def _truth(self) -> dict[str, Any] | Named | None:
        if isinstance(self.truth, Model):
            return Named("truth", self.truth)
        return None if self.truth is None else {"function": self.truth}

    def _dataset(self) -> Iterator[tuple[str, Any, str]]:
        for key, value in self.pairs.table.items():
            yield key, self._place(value) if key == "path" else value, WHY.get(key, "")

    def _place(self, place: str) -> str:
        """A path below the study's folder from there, any other whole; a hub id as it is."""
        if not Path(place).exists():
            return place
        here, folder = Path(place).resolve(), self.file.absolute().parent.resolve()
        return str(here.relative_to(folder) if here.is_relative_to(folder) else here)


def _distinct(prompts: Iterable[Text]) -> int:
    return len({json.dumps(prompt, sort_keys=True) for prompt in prompts})


def _name(place: str, taken: set[str]) -> str:
    """A name that a section may have, after the last part of a place."""
    name = stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(place).name).strip("_") or "model"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _said(key: str, value: Any = None, why: str = "") -> str:
    """A line of TOML, with its comment."""
    line = key if value is None else f"{key} = {_toml(value)}"
    return f"{line:<{AT - 1}} # {why}" if why else line


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _wrapped(text: str, begin: str = "") -> str:
    """A comment, broken into lines; places stay whole."""
    lines = textwrap.wrap(f"{begin}{text}", 118, subsequent_indent=" " * len(begin), break_long_words=False,
                          break_on_hyphens=False)  # fmt: skip
    return "\n".join(f"# {line}" for line in lines)
