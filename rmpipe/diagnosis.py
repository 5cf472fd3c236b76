"""Diagnosis: how alike the two responses of each pair are to a language model, before any training on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from rmpipe.config import Config, Runtime
from rmpipe.similarity import Similarity

LENGTH = "length"
"""The control that is always there: tokens of the rejected response less those of the chosen one."""
SIMILARITIES: dict[str, dict[str, Any]] = {
    "ches": {"kind": "ches"},
    "ches_normalised": {"kind": "ches", "normalised": True},
    "hidden": {"kind": "hidden"},
    "edit": {"kind": "edit"},
    LENGTH: {"kind": LENGTH},
}
"""Those of 2410.08847, section 5, and the control; a study adds its own beside them."""
TAKEN = frozenset((
    "id", "prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens", "chosen_logprob", "rejected_logprob",
    "change", "chosen_change", "rejected_change", "displaced", "decrease", "steady",
))  # fmt: skip
"""Columns of the tables in which similarities stand, by names that no similarity may have."""


class Diagnosing(Config):
    """What is asked of each pair before training."""

    similarities: dict[str, SerializeAsAny[Similarity]] = Field({}, validate_default=True)
    """By name; those of `SIMILARITIES` are always there."""
    split: Literal["reward", "test"] = "reward"
    limit: int | None = Field(None, ge=1)
    """The most pairs, drawn by the seed; None for all."""
    batch_size: Annotated[int, Runtime] = Field(32, ge=1)
    """Responses at a time."""

    @field_validator("similarities", mode="before")
    @classmethod
    def _beside_the_usual(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        usual = {name: Similarity.parse(table, name) for name, table in SIMILARITIES.items()}
        read = {name: Similarity.parse(one, name) if isinstance(one, dict) else one for name, one in given.items()}
        for name, one in read.items():
            if name in TAKEN or "." in name or usual.get(name, one) != one:
                told = "has a dot" if "." in name else "the name of something else"
                raise ValueError(f"{name}: {told}; call it otherwise")
        return usual | read
