"""The embedded world's other register: the same said in other words, the world's token-level shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rmpipe.preference import records
from rmpipe.shift import Moved, Shift
from rmpipe.table import Row
from rmpipe.world.words import SLOTS, SWAP, paraphrase

if TYPE_CHECKING:
    import pandas as pd

    from rmpipe.algorithm import Log


TONED = {word for words in SLOTS.values() for word in words.split()}


class Register(Shift):
    """Both responses of each pair in the world's other register; the ground truth gives both registers one score."""

    kind: Literal["register"] = "register"
    shift: Moved = "token"
    words: Literal["all", "tone"] = "all"
    """Which words are replaced: all that have a synonym, or those alone that carry tone, between words as before."""

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """Those known beforehand."""
        return self.beforehand(originals, seed)

    def beforehand(self, originals: pd.DataFrame, seed: int) -> list[Row]:
        """Every word of the responses with a synonym replaced by it."""
        rows = records(originals, ("id", "prompt", "chosen", "rejected"))
        say = paraphrase if self.words == "all" else toned
        return [row | {side: say(row[side]) for side in ("chosen", "rejected")} for row in rows]


def toned(text: str) -> str:
    """The same with each word of tone in the other register."""
    return " ".join(SWAP[word] if word in TONED else word for word in text.split(" "))
