"""Where preference pairs come from: one frozen class a source, found by its `source`.

A source of your own is one class in one file: `source = "my_module:MyClass"` finds it beside the study, and a package
adds it under its own literal through the entry point group `rmpipe.sources`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rmpipe.config import Neutral, Registry
from rmpipe.origin import InFile, OnHub, Origin
from rmpipe.pair import SIDES
from rmpipe.table import Row


class Dataset(
    Registry,
    Origin,
    key="source",
    group="rmpipe.sources",
    ours=("rmpipe.collection", "rmpipe.alpaca", "rmpipe.hamiltonian", "rmpipe.persona"),
):
    """Where preference pairs come from, and what is kept of them."""

    needed: ClassVar[tuple[str, ...]] = SIDES
    kept: ClassVar[tuple[str, ...]] = ("id", "margin", "split", "prompt")  # a prompt may be inside of the responses

    source: str
    policy_fraction: float = Field(0.3, ge=0, lt=1)
    """Share of the prompts kept apart for policy-gradient training; 0 where no policy is trained or sampled."""
    equal: Literal["drop", "refuse"] = "drop"
    """What becomes of pairs whose responses are equal."""


class LocalSource(InFile, Dataset):
    """Pairs of a JSONL, JSON or parquet file, or of a folder that `datasets.save_to_disk` wrote."""

    source: Literal["local"] = "local"


class HubSource(OnHub, Dataset):
    """Pairs of a data set on the hub, or of a local folder of the same form."""

    source: Literal["hub"] = "hub"


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
