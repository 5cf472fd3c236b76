"""Evaluation sets: the pairs that a reward model is asked about, and what has moved since its training (2507.07981).

One frozen class a set, found by its `kind`. `split` says from which pairs of the study it starts: those held out, or
those that reward models are trained on. An aligned set rewrites these pairs: ids and labels carry over, and the tokens
that it shares with them can be counted. Any other set brings its own pairs, which the ground truth labels where there
is one.

A set of your own is one class in one file beside the study, `kind = "my_module:MyClass"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from rmpipe.config import Config, Registry, StudyError, nested
from rmpipe.dataset import Dataset
from rmpipe.preference import records, usable
from rmpipe.table import Row

if TYPE_CHECKING:
    import pandas as pd

    from rmpipe.algorithm import Log

Moved = Literal["in-distribution", "token", "domain"]


class Shift(
    Registry, Config, key="kind", group="rmpipe.shifts",
    ours=("rmpipe.register", "rmpipe.rewriting", "rmpipe.persona"),
):  # fmt: skip
    """An evaluation set as a study describes it.

    Attributes:
        aligned: its rows are rows of the study rewritten, by the same ids; their labels carry over.
    """

    kind: str
    shift: Moved
    """What has moved: nothing; the tokens that say the same; or the domain."""
    split: Literal["reward", "test"] = "test"
    limit: int | None = Field(None, ge=1)
    """The most pairs, drawn by the seed; None for all."""
    aligned: ClassVar[bool] = True

    def content(self) -> str:
        """A text that moves when what lies outside the store does."""
        return ""

    def check(self, seed: int) -> None:
        """Look into whatever it reads, before anything is spent; what must be fetched passes.

        Raises:
            StudyError: names file, row and field of what cannot be used, with the remedy.
        """

    def beforehand(self, originals: pd.DataFrame, seed: int) -> list[Row] | None:
        """The pairs, where they can be had at no cost and without fetching anything; else None."""
        return None

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """The pairs.

        Args:
            originals: those of the split, in an order drawn by the seed, at most `limit`.
            log: is told the progress of what takes long.

        Returns:
            rows of id, prompt, chosen, rejected; of an aligned set with ids of the originals, or `id#number` where an
            original has several. A column `group` parts the set: its numbers are told group by group too.
        """
        raise NotImplementedError


class Same(Shift):
    """The study's own pairs as they are: what was held out, or what was trained on."""

    kind: Literal["same"] = "same"
    shift: Moved = "in-distribution"

    def beforehand(self, originals: pd.DataFrame, seed: int) -> list[Row]:
        """The originals."""
        return records(originals, ("id", "prompt", "chosen", "rejected"))

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """The originals."""
        return self.beforehand(originals, seed)


class Elsewhere(Shift):
    """Pairs of another data set."""

    kind: Literal["elsewhere"] = "elsewhere"
    shift: Moved = "domain"
    data: Annotated[SerializeAsAny[Dataset], nested(Dataset)]
    aligned: ClassVar[bool] = False

    def content(self) -> str:
        """What the data set holds."""
        return self.data.content()

    def check(self, seed: int) -> None:
        """Read the rows, unless they must be fetched."""
        if not self.data.remote:
            self._rows(seed)

    def beforehand(self, originals: pd.DataFrame, seed: int) -> list[Row] | None:
        """The pairs, unless they must be fetched."""
        return None if self.data.remote else self._drawn(originals, seed)

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """The data set's held-out rows if it has such, else all, in an order drawn by the seed, at most `limit`."""
        return self._drawn(originals, seed)

    def _drawn(self, originals: pd.DataFrame, seed: int) -> list[Row]:
        from rmpipe.accuracy import subsample

        rows = self._rows(seed)
        held = [row for row in rows if row["split"] == "test"] or rows
        limits = [limit for limit in (self.limit, self.data.limit) if limit]
        return [_told(held[index]) for index in subsample(len(held), min(limits, default=None), seed)]

    def _rows(self, seed: int) -> list[Row]:
        rows, name, _ = usable(self.data, seed, Counter(), named=self.aligned)
        if not rows:
            raise StudyError(f"{name}: no pair is left; give more data or larger limits")
        return rows


def _told(row: Row) -> Row:
    return {name: row[name] for name in ("id", "prompt", "chosen", "rejected")}


class Aligned(Elsewhere):
    """The study's own pairs as another data set has rewritten them, found by their ids."""

    kind: Literal["aligned"] = "aligned"  # type: ignore[assignment]
    shift: Moved = "token"
    aligned: ClassVar[bool] = True

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """The rewritten form of each original that the data set has.

        Raises:
            StudyError: it has none of them, or few, or two of one id.
        """
        return self._drawn(originals, seed)

    def _drawn(self, originals: pd.DataFrame, seed: int) -> list[Row]:
        there = {row["id"]: _told(row) for row in self._rows(seed)}
        swapped = originals["swapped"] if "swapped" in originals else [False] * len(originals)
        asked = zip(originals["id"].astype(str), swapped, strict=True)
        found = [_turned(there[key]) if turn else there[key] for key, turn in asked if key in there]
        if 2 * len(found) < len(originals):  # of another data set or version, whatever ids they happen to share
            place = f"data.path: {self.data.path}" if hasattr(self.data, "path") else "data"
            told = f"{len(found) or 'none'} of its {len(there)} ids {'are' if len(found) > 1 else 'is'} among the"
            remedy = "give the file whose rows have the ids of dataset"
            if found:
                remedy += ', or take its rows as pairs of their own by kind = "elsewhere", shift = "token"'
            raise StudyError(f"shifts: {place}: {told} {len(originals)} of the {self.split} split; {remedy}")
        return found


def rewritten(ids: Iterable[str], originals: Iterable[str]) -> list[str]:
    """The original that each row of an aligned set rewrites: of its own id, or of what stands before its last `#`.

    Raises:
        StudyError: an id is that of one original, and numbered that of another; or it is of none.
    """
    there, told = set(originals), list(ids)
    numbered = any(key not in there for key in told)
    for key in told if numbered else ():
        if key not in there and _stem(key) not in there:
            raise StudyError(f"id: {key!r} is of no original; give rows the ids of those they rewrite, or id#1")
        if key in there and _stem(key) in there:
            meant = f"{key!r} is the id of one original, and {_stem(key)!r} that of another, of which it may be a form"
            raise StudyError(f"dataset: id: {meant}; give originals ids that do not end in # and a number")
    return [key if key in there else _stem(key) for key in told]


def _stem(key: str) -> str:
    return key.rpartition("#")[0]


def _turned(row: Row) -> Row:
    """The ground truth has turned the original round, so the rewritten pair is turned too."""
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}
