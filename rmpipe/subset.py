"""Subsets: which pairs of a data set are trained on, chosen by what was seen of them before any training.

One frozen class a subset, found by its `kind`; each sees the diagnosis of the pairs (a row a pair, a column a
similarity) and says which rows it keeps. A rule of your own is one class in one file beside the study,
`kind = "my_module:MyClass"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from rmpipe.config import Config, Neutral, Registry, Runtime, StudyError, identity, in_one_line, nested
from rmpipe.dataset import Dataset

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class Subset(Registry, Config, key="kind", group="rmpipe.subsets"):
    """Which pairs are kept for training."""

    kind: str
    equal_length: Annotated[float | None, Neutral(None)] = Field(None, ge=0, lt=1, strict=True)
    """Only from pairs whose responses are of equal length, so that it cannot tell them apart: their numbers of tokens
    differ by no more than this share of the chosen one's. 0 for exactly as many, None for any pair."""
    trainings: Annotated[tuple[str, ...] | None, Runtime] = Field(None, min_length=1)
    """Those of the study that train on it; None for all. It changes who learns from the pairs, not which they are."""

    def members(self, name: str) -> dict[str, Subset]:
        """The subsets that a section stands for, by name: itself."""
        return {name: self}

    def rule(self) -> dict[str, Any]:
        """How the pairs are chosen, as JSON holds it: nothing of this machine, and nothing of the trainings."""
        told: dict[str, Any] = {"equal_length": self.equal_length, **identity(self), "kind": self.dump()["kind"]}
        told.pop("class", None)
        return told

    def count_of(self, pairs: int) -> int | None:
        """How many of so many pairs are kept at most; None where only the pairs could tell."""
        return None

    def alike(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """The rows of pairs that are chosen among: all, or those of equal length."""
        if self.equal_length is None:
            return np.arange(len(table))
        apart = (table["rejected_tokens"] - table["chosen_tokens"]).abs()
        return np.flatnonzero(apart <= self.equal_length * table["chosen_tokens"])

    def kept(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """The rows that are kept, in their order.

        Args:
            table: id, prompt, chosen, rejected, chosen_tokens, rejected_tokens, and each similarity, a row a pair.
            seed: of what is drawn.

        Raises:
            StudyError: no pair is left, or there are fewer than are asked for; `choose`, which may be somebody's own,
                fails or gives what are no places.
        """
        among = self.alike(table)
        if not len(among):
            told = f"no pair of {len(table)} has responses of equal length"
            raise StudyError(f"subsets: {self.kind}: {told}; raise equal_length, or leave it out")
        rows = np.unique(among[self._chosen(table.iloc[among].reset_index(drop=True), seed)])
        if not len(rows):
            raise StudyError(f"subsets: {self.kind}: no pair of {len(among)} is left; ask for more")
        return rows

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """The places in the table of the pairs that are kept, from 0; or a mask, a boolean for each pair.

        Args:
            table: as `kept` has it, of the pairs that are chosen among.
            seed: of what is drawn.
        """
        raise NotImplementedError

    def _chosen(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        where = f"subsets: {self.dump()['kind']}: choose"
        try:
            given = np.asarray(self.choose(table, seed))
        except StudyError:
            raise
        except Exception as error:  # whatever a rule of somebody's own raises
            raise StudyError(f"{where} fails: {in_one_line(error)}; mend it") from error
        if given.shape == (len(table),) and given.dtype == bool:
            return np.flatnonzero(given)
        remedy = "give places in the table, or a boolean for each pair"
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            told = f"of {len(table)} pairs it gives {given.dtype} of shape {given.shape}"
            raise StudyError(f"{where}: {told}; {remedy}")
        places = given.astype(np.int64)
        if len(beyond := places[(places < 0) | (places >= len(table))]):
            raise StudyError(f"{where}: of {len(table)} pairs it gives that at {beyond[0]}; {remedy}")
        return places


class Whole(Subset):
    """Every pair."""

    kind: Literal["whole"] = "whole"

    def count_of(self, pairs: int) -> int:
        """All of them."""
        return pairs

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """All of them."""
        return np.arange(len(table))


class Sized(Subset):
    """As many pairs as `count`, or as `share` of all comes to."""

    count: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _of_one_size(self) -> Sized:
        if (self.count is None) == (self.share is None):
            raise ValueError("say count or share, one of them")
        return self

    def count_of(self, pairs: int) -> int:
        """As many as are asked for."""
        return self.count or max(1, round(pairs * float(self.share or 0)))

    def size(self, table: pd.DataFrame) -> int:
        """How many pairs of a table are kept; sets of fewer than are asked for could not be compared with others."""
        if (size := self.count_of(len(table))) > len(table):
            told = f"count = {size}, but there are {len(table)} pairs to choose from"
            raise StudyError(f"subsets: {self.kind}: {told}; lower it, or say share")
        return size


class Random(Sized):
    """Drawn by the seed: what a filter is measured against."""

    kind: Literal["random"] = "random"

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """A draw without replacement; of its own, since others draw by the bare seed, and one would hold the other."""
        return np.random.default_rng([seed, *b"random"]).permutation(len(table))[: self.size(table)]


class Ordered(Sized):
    """By a similarity."""

    by: str = "ches"
    """The similarity, as the diagnosis names it."""


class Lowest(Ordered):
    """Those that a similarity says displace least: the filter of 2410.08847, section 6."""

    kind: Literal["lowest"] = "lowest"

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """The first in ascending order."""
        return _ascending(table, self.by)[: self.size(table)]


class Highest(Ordered):
    """Those that a similarity says displace most."""

    kind: Literal["highest"] = "highest"

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """The last in ascending order."""
        return _ascending(table, self.by)[-self.size(table) :]


class Quantile(Ordered):
    """A window around a quantile of a similarity (2410.08847, section 5 and Figure 2)."""

    kind: Literal["quantile"] = "quantile"
    at: float | tuple[float, ...]
    """Where; of several, `at = [0, 0.5, 1]`, each is a subset of its own, NAME_0, NAME_50 and NAME_100."""

    @field_validator("at")
    @classmethod
    def _quantiles(cls, at: float | tuple[float, ...]) -> float | tuple[float, ...]:
        each = at if isinstance(at, tuple) else (at,)
        if not each or len(set(each)) < len(each) or not all(0 <= one <= 1 for one in each):
            raise ValueError("expected one quantile from 0 to 1, or a list of them, each once")
        return at

    def members(self, name: str) -> dict[str, Subset]:
        """A rung for each quantile."""
        if isinstance(self.at, float):
            return {name: self}
        return {f"{name}_{100 * at:g}": self.model_copy(update={"at": at}) for at in self.at}

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """As the published code: the window's middle is round(q (N - 1)), and it is moved inwards at the ends."""
        assert isinstance(self.at, float), "a study has made its members of it"
        size = self.size(table)
        start = max(0, round(self.at * (len(table) - 1)) - size // 2)
        return _ascending(table, self.by)[min(start, len(table) - size) :][:size]


class Other(Subset):
    """The pairs of another data set instead: such as gold responses, one that refuses against one that does not."""

    kind: Literal["other"] = "other"
    data: Annotated[SerializeAsAny[Dataset], nested(Dataset)]

    def count_of(self, pairs: int) -> int:
        """All of them."""
        return pairs

    @model_validator(mode="after")
    def _undiagnosed(self) -> Other:
        if self.equal_length is not None:
            raise ValueError("equal_length: the pairs of another data set are not diagnosed; leave it out")
        return self

    def choose(self, table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
        """All of them."""
        return np.arange(len(table))


def _ascending(table: pd.DataFrame, by: str) -> NDArray[np.int64]:
    """Ties stay in the order of the pairs, so that a subset is the same on every machine."""
    if by not in table:
        raise StudyError(f"subsets: by: the diagnosis has no {by!r}; name one of its similarities")
    return np.argsort(table[by].to_numpy(), kind="stable")
