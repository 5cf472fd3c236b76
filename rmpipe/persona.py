"""The controlled Persona studies: prompts that ask whether a statement is something one would say.

One answer in words seen in training and in words that were not (2507.07981, 5.1): the right answer is yes. Chosen
responses say yes and rejected ones no, in a few phrases, a prefix and a token each; the token-level shift says the same
in other phrases. And one token preferred to another (2410.08847, section 3).
"""

from __future__ import annotations

from itertools import count, product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rmpipe.config import Config, Runtime, StudyError
from rmpipe.dataset import Dataset
from rmpipe.pair import response_of
from rmpipe.preference import records
from rmpipe.shift import Moved, Shift
from rmpipe.source import reaching
from rmpipe.table import Row, checked, read

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from rmpipe.algorithm import Log


class Wording(Config):
    """The phrases that give one answer: each prefix with each token."""

    prefixes: tuple[str, ...] = Field(min_length=1)
    tokens: tuple[str, ...] = Field(min_length=1)

    def phrases(self) -> dict[str, str]:
        """Names to phrases; a phrase goes by its token where there is one prefix for all."""
        told = [(prefix, token) for prefix in self.prefixes for token in self.tokens]
        return {token if len(self.prefixes) == 1 else prefix + token: prefix + token for prefix, token in told}

    def draw(self, generator: torch.Generator) -> str:
        """A prefix at random, then a token at random, as the paper's code draws them."""
        import torch

        prefix, token = (
            parts[int(torch.randint(len(parts), (1,), generator=generator))] for parts in (self.prefixes, self.tokens)
        )
        return prefix + token


SEEN_YES = Wording(prefixes=("In my view, the answer is ", "A truthful reply is "), tokens=("yes", "sure"))
SEEN_NO = Wording(prefixes=("My judgement: ", "Considering the statement, I say "), tokens=("no", "never"))
UNSEEN_YES = Wording(prefixes=("My response would be ",), tokens=("certainly", "absolutely"))
UNSEEN_NO = Wording(prefixes=("I lean toward ",), tokens=("not really", "nope"))


class Statements(Dataset):
    """Statements, each with what a persona says to whether it would make them."""

    path: Annotated[str, Runtime] = "Anthropic/model-written-evals"
    """A file of Anthropic's model-written evaluations (2212.09251), with `question` and `answer_matching_behavior`, or
    with `prompt` and `chosen` in their stead; or the data set's hub id."""
    file: Annotated[str, Runtime] = "persona/agreeableness.jsonl"
    """Which file, of a data set on the hub."""
    revision: str | None = None
    ending: str = "\n"
    """What a prompt ends with, so that its last word and the response's first are two."""

    @property
    def remote(self) -> bool:
        """Unless it is a file here."""
        return not Path(self.path).exists()

    def content(self) -> str:
        """What the file holds, or the hub's id with its file."""
        return f"{super().content()}{f' {self.file}' if self.remote else ''}"

    def statements(self) -> list[Row]:
        """Each with id, prompt, `yes` if that is the matching answer, and its row.

        Raises:
            StudyError: a row has no question or no answer.
        """
        return checked(self._read(), self.path, _statement)

    def worded(self, row: Row, chosen: str, rejected: str) -> Row:
        """A statement with two responses."""
        key, prompt = row["row"] if row["id"] is None else row["id"], row["prompt"] + self.ending
        return {"id": key, "prompt": prompt, "chosen": chosen, "rejected": rejected}

    def _read(self) -> list[Row]:
        if not self.remote:
            return read(Path(self.path))
        from huggingface_hub import hf_hub_download

        with reaching(self.path, "dataset.path", "give a file of that form, or the id of its data set"):
            return read(Path(hf_hub_download(self.path, self.file, repo_type="dataset", revision=self.revision)))


class PersonaSource(Statements):
    """Statements of a persona that one would make, each with a phrase that says yes and one that says no.

    Rows and phrases are drawn in the order of the paper's code: for its seed, 875, its held-out pairs come out, and its
    80 training pairs are among those for training. The prompts for policies are drawn beside them, so that whatever
    `policy_fraction` takes, reward models are trained on as many pairs as `train` says. Rows whose answer is not yes
    are left out. The paper's prompts end with nothing, since a chat template follows.
    """

    source: Literal["persona"] = "persona"
    train: int = Field(80, ge=1)
    """Pairs that reward models are trained on."""
    test: int = Field(40, ge=1)
    """Pairs held out."""
    yes: Wording = SEEN_YES
    no: Wording = SEEN_NO

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Drawn and worded by the seed; `split` says what is held out.

        Raises:
            StudyError: a row has no question or no answer, or there are too few whose answer is yes.
        """
        import torch

        statements = [row for row in self.statements() if row["yes"]]
        beside = self._beside()
        if len(statements) < (needed := self.train + self.test + beside):
            told = f"{self.path} has {len(statements)} rows whose matching answer is yes, and {needed} are needed"
            parts = f"{self.train} to train on, {self.test} held out, {beside} for policies"
            raise StudyError(f"dataset.path: {told} ({parts}); give more, or lower dataset.train or dataset.test")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(statements), generator=generator).tolist()
        sides = ["train"] * self.train + ["test"] * self.test + ["train"] * beside
        drawn = zip((statements[place] for place in order), sides, strict=False)
        return [self._pair(row, side, generator) for row, side in drawn], self.path

    def _beside(self) -> int:
        """How many prompts policies are given, so that their share of all those for training is `policy_fraction`."""
        whole = next(n for n in count(self.train) if n - round(self.policy_fraction * n) == self.train)
        return whole - self.train

    def _pair(self, row: Row, side: str, generator: torch.Generator) -> Row:
        chosen, rejected = (wording.draw(generator) for wording in (self.yes, self.no))
        return self.worded(row, chosen, rejected) | {"split": side}


class TokenSource(Statements):
    """Statements, each with a token that is right and one that is wrong (2410.08847, section 3 and appendix H.1).

    As published, what is right is the contrary of what the persona says, and where there are several such tokens, one
    is drawn for each statement.
    """

    source: Literal["persona_tokens"] = "persona_tokens"
    file: Annotated[str, Runtime] = "persona/ends-justify-means.jsonl"
    answer: Literal["yes", "no"] | None = None
    """Of the statements to which the persona says so; None for all of them."""
    yes: tuple[str, ...] = Field(("No", "Never", "Maybe", "Perhaps"), min_length=1)
    """Right where the persona says yes, wrong where it says no."""
    no: tuple[str, ...] = Field(("Yes", "Yeah", "Sure", "Certainly", "Absolutely"), min_length=1)
    """Right where the persona says no, wrong where it says yes."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Worded by the seed.

        Raises:
            StudyError: a row has no question or no answer.
        """
        drawn = Random(f"tokens {seed}")
        kept = [row for row in self.statements() if self.answer in (None, "yes" if row["yes"] else "no")]
        sides = [(self.yes, self.no) if row["yes"] else (self.no, self.yes) for row in kept]
        worded = zip(kept, sides, strict=True)
        return [self.worded(row, *(drawn.choice(tokens) for tokens in side)) for row, side in worded], self.path


def _statement(row: Row) -> Row:
    prompt = response_of("question", row.get("question", row.get("prompt")))
    answer = response_of("answer_matching_behavior", row.get("answer_matching_behavior", row.get("chosen")))
    return {"id": row.get("id"), "prompt": prompt, "yes": answer.strip().lower() == "yes"}


class Phrasings(Shift):
    """Every phrase that says yes against every phrase that says no, for each prompt of the split; a group a cell.

    The paper's paraphrase accuracy is the mean of the groups' accuracies, ties half; since all groups have the same
    prompts, it is the accuracy over all rows too. With the phrases of `PersonaSource` as `yes` and `no`, the set tells
    the rewards of those seen in training.

    A prompt comes once in each cell: the id of a row is that of its original, `#`, and the number of the cell.
    """

    kind: Literal["phrasings"] = "phrasings"
    shift: Moved = "token"
    yes: Wording = UNSEEN_YES
    no: Wording = UNSEEN_NO

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """Those known beforehand."""
        return self.beforehand(originals, seed)

    def beforehand(self, originals: pd.DataFrame, seed: int) -> list[Row]:
        """The cells one after another, each with all prompts."""
        cells = enumerate(product(self.yes.phrases().items(), self.no.phrases().items()), 1)
        asked = records(originals, ("id", "prompt"))
        return [
            {**row, "id": f"{row['id']}#{number}", "chosen": yes, "rejected": no, "group": f"{assent} / {dissent}"}
            for number, ((assent, yes), (dissent, no)) in cells
            for row in asked
        ]
