"""Demonstrations: prompts with completions that a policy is finetuned on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from rmpipe.config import Config, Neutral, Runtime, nested
from rmpipe.dataset import Dataset
from rmpipe.labels import Labels
from rmpipe.pair import demonstration_of
from rmpipe.source import check_there
from rmpipe.table import Row, checked, read

if TYPE_CHECKING:
    import pandas as pd


class Demonstrations(Config):
    """What a policy is finetuned on."""

    source: Literal["world", "chosen", "local", "labels"] = "chosen"
    """`world`: the embedded world's; `chosen`: the preferred responses of the reward split; `local`: a file or folder
    of any form that preferences may have, with prompt and completion; `labels`: labelled inputs, each with its first
    reference."""
    quality: Literal["weak", "strong"] | None = None
    """Of the embedded world's; None is `strong`."""
    path: Annotated[str | None, Runtime] = None
    data: Annotated[SerializeAsAny[Dataset] | None, nested(Dataset), Neutral(None)] = None
    """Another data set, of which the preferred responses are taken; None for the study's own."""
    labels: Annotated[SerializeAsAny[Labels] | None, nested(Labels), Neutral(None)] = None
    """The labelled inputs, for `source = "labels"`."""
    count: int | None = Field(None, ge=1)
    """How many, drawn by the seed; None for all, and for 2,000 of the embedded world's."""

    @model_validator(mode="after")
    def _of_its_source(self) -> Demonstrations:
        if self.source == "local" and self.path is None:
            raise ValueError('source = "local" needs path, a file of prompts and completions')
        if self.source != "local" and self.path is not None:
            raise ValueError(f'path is for source = "local", not for {self.source!r}; leave one of them out')
        if self.source != "world" and self.quality is not None:
            raise ValueError(f'quality is for source = "world", not for {self.source!r}; leave one of them out')
        if self.source != "chosen" and self.data is not None:
            raise ValueError(f'data is for source = "chosen", not for {self.source!r}; leave one of them out')
        if (self.source == "labels") != (self.labels is not None):
            raise ValueError('source = "labels" needs labels, and labels that source; say both or neither')
        return self

    def check(self) -> None:
        """Read a file without keeping anything of it.

        Raises:
            StudyError: names file, row and field of what cannot be used, with the remedy.
        """
        if self.source == "local":
            self._read()
        if self.data is not None:
            from rmpipe.preference import check

            check_there(self.data, "data")
            check(self.data)
        if self.labels is not None:
            from rmpipe import labels

            check_there(self.labels, "labels")
            labels.check(self.labels)

    def rows(self, seed: int, pairs: pd.DataFrame) -> list[Row]:
        """Prompts and completions, in a seeded order.

        Args:
            seed: of the draw.
            pairs: those of the reward split, of `data` where it is said, in an order of that seed; of `labels` the
                inputs that are not held out.
        """
        from rmpipe import world
        from rmpipe.accuracy import subsample
        from rmpipe.preference import records

        if self.source == "world":
            return list(world.demonstrations(self.quality, seed, self.count or 2000))
        if self.source == "chosen":
            rows = records(pairs[: self.count], ("prompt", "chosen"))
            return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
        if self.source == "labels":
            rows = records(pairs[: self.count], ("prompt", "references"))
            return [{"prompt": row["prompt"], "completion": row["references"][0]} for row in rows]
        rows = self._read()
        return [rows[index] for index in subsample(len(rows), self.count, seed)]

    def _read(self) -> list[Row]:
        place = Path(self.path or "")
        rows = checked(read(place), str(place), demonstration_of)
        return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
