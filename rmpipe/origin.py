"""Where rows of texts come from, whatever they are, and what is kept of them: pairs and labelled inputs alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field

from rmpipe.config import Config, Runtime, StudyError, nearest
from rmpipe.source import WEIGHTS, fingerprint_files, fingerprint_path, fingerprint_place, reaching
from rmpipe.table import Row, read, renamed

Taken = TypeVar("Taken")


class Origin(Config):
    """Where rows come from, and what is kept of them.

    Attributes:
        needed: the columns that data must have, by our names.
        kept: those that are kept where the data have them.
    """

    needed: ClassVar[tuple[str, ...]]
    kept: ClassVar[tuple[str, ...]]

    test_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts held out; where the data's own split column holds rows out, those are taken instead."""
    test_splits: tuple[str, ...] | None = None
    """Values of the split column that are held out, all others being for training. None goes by the value's first word:
    test, validation, eval and their like are held out, train is for training, and others are refused."""
    limit: int | None = Field(None, ge=1)
    """The most rows of each split, drawn by the seed."""
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

    def here(self) -> Self | None:
        """What of it can be looked into without a network: all but a tokenizer to be fetched; None without its rows.

        Raises:
            StudyError: a limit is set and no tokenizer is named, or there is none in its folder.
        """
        known = self
        if self.tokenizer is not None and not Path(self.tokenizer).exists():
            unlimited = {"tokenizer": None, "max_prompt_tokens": None, "max_response_tokens": None}
            known = self.model_copy(update=unlimited)
        if known.remote:
            known.load_tokenizer()
            return None
        return known

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


class InFile(Origin):
    """A JSONL, JSON or parquet file, or a folder that `datasets.save_to_disk` wrote."""

    path: Annotated[str, Runtime]
    """Relative to the study file. Its content is in the address, its place is not."""
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Ours to theirs: {prompt = "question"}."""
    split_column: str | None = "split"
    """Which column says what is held out; "" to split afresh whatever the data says."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Read the file; `split` is kept when the data has it."""
        raw, column = read(Path(self.path)), self.split_column
        there = column and any(column in row for row in raw)
        if column and not there and column != "split":
            found = list(dict.fromkeys(key for row in raw for key in row))
            raise StudyError(f"dataset.split_column: {self.path} has no column {column!r}; {nearest(column, found)}")
        columns = {**self.columns, "split": str(column)} if there else self.columns
        rows = renamed(raw, columns, self.needed, self.kept, self.path)
        return rows if there else [_without_split(row) for row in rows], self.path


class OnHub(Origin):
    """A data set on the hub, or in a local folder of the same form."""

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

    @property
    def selection(self) -> tuple[str | None, ...]:
        """The name of the subset, and its folder, as `datasets` asks for them."""
        return (self.subset,)

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Load through `datasets`; no code of the data set's is run."""
        rows = [{**row, "split": "train"} for row in self.part(self.split)]
        name = f"{self.path}[{self.split}]"
        if self.test_split is None:
            return rows, name
        return rows + [{**row, "split": "test"} for row in self.part(self.test_split)], f"{name} and {self.test_split}"

    def part(self, split: str) -> list[Row]:
        """The rows of a part, by our names."""
        named = renamed(self.raw(split), self.columns, self.needed, self.kept, f"{self.path}[{split}]")
        return [_without_split(row) for row in named]

    def apart(self, split: str, take: Callable[[Row], Taken]) -> list[Taken]:
        """What `take` makes of each row of a part, of a data set whose columns it knows.

        Raises:
            StudyError: a row has not those columns; names it.
        """
        found = []
        for number, row in enumerate(self.raw(split), 1):
            try:
                found.append(take(row))
            except (AttributeError, KeyError, IndexError, TypeError) as error:
                source = getattr(self, "source", type(self).__name__)
                told = f"not a row of {source} ({type(error).__name__}: {error}); it has {', '.join(sorted(row))}"
                raise StudyError(f"{self.path}[{split}]: row {number}: {told}; give the data set itself") from None
        return found

    def raw(self, split: str) -> list[Row]:
        """The rows of a part as they are.

        Raises:
            StudyError: there is no such data set, or no such part.
            UnreachableError: the hub did not answer.
        """
        rows: list[Row] = self.loaded(split).to_list()
        return rows

    def loaded(self, split: str) -> Any:
        """A part as `datasets` loads it, of which nothing is in memory yet.

        What is read of a folder is kept by the folder's content: by its name, as `datasets` keeps it where the card
        names the files, rows that have changed since would not be seen.
        """
        from datasets import config, load_dataset

        here = Path(self.path)
        kept = Path(config.HF_DATASETS_CACHE) / fingerprint_files(here)[:16] if here.exists() else None
        with reaching(
            self.path, "dataset.path", f"give a hub id or a folder of that form that has the split {split!r}"
        ):
            return load_dataset(self.path, *self.selection, split=split, revision=self.revision, cache_dir=kept)


def _without_split(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "split"}
