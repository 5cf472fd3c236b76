"""The seven data sets on which 2310.20703 looks for vanishing gradients, of the benchmark GRUE (2210.01241).

Each is on the hub, or in a local folder of the same form. The paper's prompts are for encoder-decoder models; ours end
where a language model naturally goes on (`form` says how, and may be changed), and a reference begins with a space,
since prompt and response are read as one text. Inputs of one prompt are one, with all references.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from rmpipe.config import Runtime
from rmpipe.labels import Labels
from rmpipe.origin import OnHub
from rmpipe.source import reaching
from rmpipe.table import Row

CONVERTED = "refs/convert/parquet"
"""The hub's own branch of parquet files, made of data sets that are scripts, which `datasets` no longer runs."""


class Grue(OnHub, Labels):
    """A data set whose rows are taken apart here, before they are checked like any other's."""

    test_split: str | None = "test"
    leakage: Literal["drop", "refuse"] = "drop"
    """What becomes of training rows whose prompt is held out too, which a user of the hub cannot remove."""
    form: str
    """What a prompt looks like: a text with what stands in braces filled in."""

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        if columns:
            raise ValueError("the columns of this data set are known; leave them out")
        return columns

    @field_validator("form")
    @classmethod
    def _filling(cls, form: str) -> str:
        usual = str(cls.model_fields["form"].default)
        if missing := [name for name in re.findall(r"\{\w+\}", usual) if name not in form]:
            raise ValueError(f"{' and '.join(missing)} missing; a prompt says {usual!r} or the same in other words")
        return form

    def taken(self, row: Row) -> list[Row]:
        """Rows of prompt and references, as many as a row of the data set holds.

        Raises:
            KeyError: the row has not the columns of this data set.
        """
        raise NotImplementedError

    def part(self, split: str) -> list[Row]:
        """The rows of a part that have a prompt and a reference.

        Raises:
            StudyError: a row has not the data set's columns.
        """
        return [row for rows in self.apart(split, self.taken) for row in rows if row["references"]]

    def filled(self, references: list[str], **words: str) -> Row:
        """A row with the prompt's form filled in; without references where there is nothing to fill in."""
        prompt = re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), self.form)
        texts = [f" {text.strip()}" for text in references if text.strip()]
        return {"prompt": prompt, "references": texts if all(word.strip() for word in words.values()) else []}


class Converted(Grue):
    """A data set that is a script on the hub, read from the parquet files that the hub has made of it."""

    revision: str | None = CONVERTED

    def loaded(self, split: str) -> Any:
        """The files `SUBSET/SPLIT/*.parquet`, on the hub or in a folder that has them; else of a usual folder."""
        inside = f"{self.subset}/{split}"
        if not self.remote and not (Path(self.path) / inside).is_dir():
            return super().loaded(split)
        from datasets import load_dataset

        home = f"hf://datasets/{self.path}@{self.revision or CONVERTED}" if self.remote else self.path
        with reaching(self.path, "dataset.path", f"give a hub id or a folder that has {inside}"):
            return load_dataset("parquet", data_files=f"{home}/{inside}/*.parquet", split="train")


class NarrativeQA(Grue):
    """NarrativeQA (1712.07040): a question about a story's summary, with two answers.

    The paper asks in lower case, the question first, and reads 512 tokens of T5.
    """

    source: Literal["narrative_qa"] = "narrative_qa"
    path: Annotated[str, Runtime] = "deepmind/narrativeqa"
    form: str = "{summary}\nQuestion: {question}\nAnswer:"
    words: int = Field(350, ge=1)
    """Of the summary, its first; about as much as the paper's models read."""

    def raw(self, split: str) -> list[Row]:
        """The rows flat, and without the stories themselves, each of which is a book."""
        table = self.loaded(split).flatten()
        heavy = [name for name in table.column_names if name == "document.text" or name.endswith(".tokens")]
        rows: list[Row] = table.remove_columns(heavy).to_list()
        return rows

    def taken(self, row: Row) -> list[Row]:
        """Every answer is a reference."""
        summary = _first(row["document.summary.text"], self.words)
        return [self.filled([one["text"] for one in row["answers"]], summary=summary, question=row["question.text"])]


class ToTTo(Converted):
    """ToTTo (2004.14373): a sentence that says what some cells of a table tell.

    The cells come with titles and headers between marks such as `<cell>`, as GEM writes them. The references of its
    test part are secret, so that its validation part is held out.
    """

    source: Literal["totto"] = "totto"
    path: Annotated[str, Runtime] = "GEM/totto"
    subset: str | None = "totto"
    test_split: str | None = "validation"
    form: str = "{table}\nSentence:"

    def taken(self, row: Row) -> list[Row]:
        """All references, of which there is one in training."""
        references = row["references"] or [row["target"]]
        return [{"id": row["gem_id"], **self.filled(references, table=row["linearized_input"])}]


class CommonGen(Grue):
    """CommonGen (1911.03705): a sentence with all of some words; several sentences for most sets of words.

    Its test part has no references, so that its validation part is held out.
    """

    source: Literal["common_gen"] = "common_gen"
    path: Annotated[str, Runtime] = "allenai/common_gen"
    test_split: str | None = "validation"
    form: str = "Generate a sentence with: {concepts}.\nSentence:"

    def taken(self, row: Row) -> list[Row]:
        """The words in their order."""
        return [self.filled([row["target"]], concepts=", ".join(row["concepts"]))]


class IWSLT2017(Converted):
    """IWSLT 2017: a sentence of a talk, to be translated from English to German."""

    source: Literal["iwslt2017"] = "iwslt2017"
    path: Annotated[str, Runtime] = "IWSLT/iwslt2017"
    subset: str | None = "iwslt2017-de-en"
    form: str = "English: {english}\nGerman:"

    def taken(self, row: Row) -> list[Row]:
        """One translation."""
        return [self.filled([row["translation"]["de"]], english=row["translation"]["en"])]


class CNNDailyMail(Grue):
    """CNN and Daily Mail (1704.04368): a news article and its highlights."""

    source: Literal["cnn_dailymail"] = "cnn_dailymail"
    path: Annotated[str, Runtime] = "abisee/cnn_dailymail"
    subset: str | None = "3.0.0"
    form: str = "{article}\nTL;DR:"
    words: int = Field(350, ge=1)
    """Of the article, its first; about as much as the paper's models read, 512 tokens of T5."""

    def taken(self, row: Row) -> list[Row]:
        """The highlights, one a line."""
        return [{"id": row["id"], **self.filled([row["highlights"]], article=_first(row["article"], self.words))}]


class DailyDialog(Converted):
    """DailyDialog (1710.03957): what is said next, after some turns of a conversation between A and B."""

    source: Literal["daily_dialog"] = "daily_dialog"
    path: Annotated[str, Runtime] = "li2017dailydialog/daily_dialog"
    subset: str | None = "default"
    form: str = "{turns}"
    context: int = Field(5, ge=1)
    """Turns that a prompt has; the paper's."""

    def taken(self, row: Row) -> list[Row]:
        """Each turn that has so many before it; A says the first of them."""
        turns = [turn.strip() for turn in row["dialog"]]
        places = range(self.context, len(turns))
        return [self.filled([turns[at]], turns=_said(turns[at - self.context : at])) for at in places]


class IMDB(Grue):
    """IMDB (Maas et al., 2011): the beginning of a film review, to be gone on with; the reference is the rest of it.

    As in the paper, policies are taught on positive reviews, and those held out are of both kinds.
    """

    source: Literal["imdb"] = "imdb"
    path: Annotated[str, Runtime] = "stanfordnlp/imdb"
    form: str = "{begin}"
    words: int | None = Field(None, ge=1)
    """How many words the prompt has; None for the first half of the review, which is the paper's."""
    continuation: int | None = Field(None, ge=1)
    """The most words of a reference; None for the whole rest."""
    training: Literal["positive", "all"] = "positive"
    """Which reviews are for training."""

    def part(self, split: str) -> list[Row]:
        """The reviews of a part, without those that policies are not taught on."""
        rows, kept = super().part(split), split != self.split or self.training == "all"
        return [row for row in rows if kept or row["group"] == "positive"]

    def taken(self, row: Row) -> list[Row]:
        """A review in two; `group` says whether it is positive."""
        words = row["text"].split(" ")
        cut = len(words) // 2 if self.words is None else self.words
        rest, group = words[cut:][: self.continuation], {0: "negative", 1: "positive"}[row["label"]]
        return [{**self.filled([" ".join(rest)], begin=" ".join(words[:cut])), "group": group}]


def _first(text: str, words: int) -> str:
    """The first words of a text."""
    return " ".join(text.split()[:words])


def _said(turns: list[str]) -> str:
    """Turns by A and B, one a line, up to whose turn it is."""
    lines = [f"{'AB'[place % 2]}: {turn}" for place, turn in enumerate(turns)]
    return "\n".join([*lines, f"{'AB'[len(turns) % 2]}:"])
