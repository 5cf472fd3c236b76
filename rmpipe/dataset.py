"""Where preference pairs come from: one frozen class a source, found by its `source`.

A source of your own is one class in one file: `source = "my_module:MyClass"` finds it beside the study, and a package
adds it under its own literal through the entry point group `rmpipe.sources`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rmpipe.config import Config, Neutral, Registry, Runtime, StudyError, nearest
from rmpipe.pair import FIELDS
from rmpipe.source import WEIGHTS, fingerprint_path, fingerprint_place, reaching
from rmpipe.table import Row, read, renamed


class Dataset(
    Registry,
    Config,
    key="source",
    group="rmpipe.sources",
    ours=("rmpipe.collection", "rmpipe.hamiltonian", "rmpipe.persona"),
):
    """Where preference pairs come from, and what is kept of them."""

    source: str
    policy_fraction: float = Field(0.3, ge=0, lt=1)
    """Share of the prompts kept apart for policy-gradient training; 0 where no policy is trained or sampled."""
    test_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts held out; where the data's own split column holds rows out, those are taken instead."""
    test_splits: tuple[str, ...] | None = None
    """Values of the split column that are held out, all others being for training. None goes by the value's first word:
    test, validation, eval and their like are held out, train is for training, and others are refused."""
    limit: int | None = Field(None, ge=1)
    """The most pairs of each split, drawn by the seed."""
    equal: Literal["drop", "refuse"] = "drop"
    """What becomes of pairs whose responses are equal."""
    leakage: Literal["drop", "refuse"] = "refuse"
    """What becomes of training rows whose prompt the data's own test split has too."""
    tokenizer: Annotated[str | None, Runtime] = None
    """Folder or hub id of the tokenizer that lengths are counted in; its content is in the address, not its place."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    max_response_tokens: int | None = Field(None, ge=1)

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """The raw rows, and what to call their origin in messages."""
        raise NotImplementedError

    @property
    def remote(self) -> bool:
        """Whether its rows must be fetched, so that looking into them belongs into a stage that may try again."""
        return False

    def content(self) -> str:
        """What the source and the tokenizer hold, as text that moves when it does."""
        rows = fingerprint_path(self)
        if self.tokenizer is None:
            return rows
        return f"{rows} tokenizer {fingerprint_place(self.tokenizer, leave_out=WEIGHTS)}".strip()

    def load_tokenizer(self) -> Any:
        """The tokenizer that lengths are counted in, or None.

        Raises:
            StudyError: there is none where the study says, or a limit is set and none is named.
            UnreachableError: the hub did not answer.
        """
        limited = self.max_prompt_tokens is not None or self.max_response_tokens is not None
        if self.tokenizer is None and limited:
            raise StudyError("dataset.tokenizer: missing; the length limits are counted in tokens of a named tokenizer")
        if self.tokenizer is None:
            return None
        from transformers import AutoTokenizer

        with reaching(self.tokenizer, "dataset.tokenizer", "give a tokenizer's folder of save_pretrained, or a hub id"):
            return AutoTokenizer.from_pretrained(self.tokenizer)


class LocalSource(Dataset):
    """A JSONL, JSON or parquet file, or a folder that `datasets.save_to_disk` wrote."""

    source: Literal["local"] = "local"
    path: Annotated[str, Runtime]
    """Relative to the study file. Its content is in the address, its place is not."""
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Ours to theirs: {chosen = "better", rejected = "worse"}."""
    split_column: str | None = "split"
    """Which column says what is held out; "" to split afresh whatever the data says."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Read the file; `split` is kept when the data has it."""
        raw, column = read(Path(self.path)), self.split_column
        there = column and any(column in row for row in raw)
        if column and not there and column != "split":
            found = list(dict.fromkeys(key for row in raw for key in row))
            raise StudyError(f"dataset.split_column: {self.path} has no column {column!r}; {nearest(column, found)}")
        rows = renamed(raw, {**self.columns, "split": str(column)} if there else self.columns, FIELDS, self.path)
        return rows if there else [_without_split(row) for row in rows], self.path


class HubSource(Dataset):
    """A data set on the hub, or in a local folder of the same form."""

    source: Literal["hub"] = "hub"
    path: Annotated[str, Runtime]
    revision: str | None = None
    subset: str | None = None
    split: str = "train"
    test_split: str | None = None
    """The part that is held out, when the data set has one of its own: `test`, `test_prefs`."""
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it

    @property
    def remote(self) -> bool:
        """Unless it is a folder here."""
        return not Path(self.path).exists()

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Load through `datasets`; no code of the data set's is run."""
        rows = [{**row, "split": "train"} for row in self.part(self.split)]
        name = f"{self.path}[{self.split}]"
        if self.test_split is None:
            return rows, name
        return rows + [{**row, "split": "test"} for row in self.part(self.test_split)], f"{name} and {self.test_split}"

    def part(self, split: str) -> list[Row]:
        """The rows of a part, by our names."""
        named = renamed(self.raw(split), self.columns, FIELDS, f"{self.path}[{split}]")
        return [_without_split(row) for row in named]

    def raw(self, split: str) -> list[Row]:
        """The rows of a part as they are.

        Raises:
            StudyError: there is no such data set, or no such part.
            UnreachableError: the hub did not answer.
        """
        from datasets import load_dataset

        with reaching(
            self.path, "dataset.path", f"give a hub id or a folder of that form that has the split {split!r}"
        ):
            rows: list[Row] = load_dataset(self.path, self.subset, split=split, revision=self.revision).to_list()
            return rows


class WorldSource(Dataset):
    """The embedded world's own pairs; of its dangerous topic, a refusal chosen against a response that tells."""

    source: Literal["world"] = "world"
    pairs: int = Field(1200, ge=10)
    topics: Annotated[tuple[str, ...] | None, Neutral(None)] = None
    """What the prompts are about, None for all but the dangerous `vault`: others are another domain."""
    edited: Annotated[float, Neutral(0.0)] = Field(0.0, ge=0, le=1)
    """Share of the pairs whose rejected response is the chosen one with one word of tone made worse."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Made from the seed."""
        from rmpipe import world

        return list(world.preferences(seed, self.pairs, self.topics, self.edited)), "the embedded world"


def _without_split(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "split"}
