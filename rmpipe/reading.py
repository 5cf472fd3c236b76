"""Readings: pairs that a model is to read, none of which may be longer than what it holds.

One rule for whoever reads, refused before anything is spent where the tokenizer and the pairs are at hand. Training and
scoring refuse the same once they begin, for what had to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rmpipe.config import StudyError
from rmpipe.pair import SIDES
from rmpipe.table import Row
from rmpipe.text import Text

SHORTER = "leave longer texts out by the source's max_prompt_tokens and max_response_tokens, counted by its tokenizer"


@dataclass(frozen=True)
class Reading:
    """Pairs that a model is to read."""

    who: str
    """Who reads them, as the study names it: `reward_models.implicit`."""
    model: str
    """Whose tokenizer and context are meant, as the study names it: `bases.small`."""
    where: str
    """Where the pairs are from: `dataset (pairs.jsonl)`."""
    rows: Sequence[Row]
    """{"id", "prompt", "chosen", "rejected"}."""
    tokens: Callable[[Any, Text, str], int]
    """How many tokens of a tokenizer a prompt with a response is read as."""
    remedy: str = SHORTER
    most: int | None = None
    """Pairs that are longer than this are left out by who reads them."""

    def check(self, tokenizer: Any, context: int) -> None:
        """Refuse pairs of which a side is longer than what the model holds.

        A token is a byte of the text at least, so that most texts need not be tokenised to be known to fit.

        Args:
            context: how many tokens the model holds.

        Raises:
            StudyError: names who reads, the source, the longest pair, its tokens, the context and the remedy.
        """
        around: dict[Any, int] = {}
        found = []
        for row in self.rows:
            shape, length = _shape(row["prompt"])
            if shape not in around:
                bare = "a" if shape is None else [{"role": role, "content": "a"} for role in shape]
                around[shape] = self.tokens(tokenizer, bare, "a")
            sides = [row[side] for side in SIDES if around[shape] + length + len(row[side].encode()) > context]
            count = max((self.tokens(tokenizer, row["prompt"], text) for text in sides), default=0)
            if context < count <= (self.most or count):
                found.append((count, str(row["id"])))
        if found:
            count, key = max(found)
            others = f"; {len(found)} rows are too long" if len(found) > 1 else ""
            told = f"row {key} has {count} tokens, but {self.model} holds {context}{others}"
            raise StudyError(f"{self.who}: {self.where}: {told}; {self.remedy}")


def called(where: str, source: Any) -> str:
    """A source by its place in the study, with its file where it has one."""
    return f"{where} ({source.path})" if getattr(source, "path", None) else where


def _shape(prompt: Text) -> tuple[tuple[str, ...] | None, int]:
    """Whose turns a prompt has, None where it has none, and the bytes of what is said in them."""
    if isinstance(prompt, str):
        return None, len(prompt.encode())
    return tuple(turn["role"] for turn in prompt), sum(len(turn["content"].encode()) for turn in prompt)
