"""The form of an answer: by which columns the rows of a question are told apart, and by which numbers they are read.

All that shows or compares answers, whichever question they are to, asks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rmpipe.verdict import COLUMNS


@dataclass(frozen=True)
class Form:
    """How the rows of one question read.

    Args:
        keys: the columns that name a row: the first two say where it stands, the last what is ranked there.
        about: further columns of text that say where it stands.
        numbers: the columns that it is read by, each with its words, the first first.
        runs: a heading -> (the stage that a run of it was made in, the input of that which is meant; "" for itself).
        claims: the columns that name a claim.
        unit: what an interval of a row's number is drawn over, where there are two or more.
    """

    keys: tuple[str, str, str]
    numbers: dict[str, str]
    runs: dict[str, tuple[str, str]]
    claims: tuple[str, ...]
    unit: str
    about: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Form:
        """The form of an answer, which names its question unless it is `teach`."""
        return FORMS[answer.get("flow", "teach")]

    def names(self, row: dict[str, Any]) -> tuple[str, ...]:
        """What a row is of, and no other row of its answer."""
        return tuple(row[key] for key in self.keys)

    @property
    def ranked(self) -> str:
        """What is ranked, in words: a reward model, a subset."""
        return self.keys[2].replace("_", " ")

    def where(self, row: dict[str, Any]) -> str:
        """Where a row stands, among those that it is ranked with."""
        return ", ".join(row[key] for key in (*self.keys[:2], *self.about))

    @property
    def first(self) -> tuple[str, ...]:
        """The columns in the order in which they are read."""
        return ("rank", self.keys[2], *self.keys[:2], *self.about, *self.numbers)


FORMS = {
    "teach": Form(
        keys=("policy", "algorithm", "reward_model"),
        numbers=COLUMNS,
        runs={"made": ("align", "teacher"), "measured": ("measure", ""), "taught": ("align", "")},
        claims=("name", "policy", "algorithm", "gain"),
        unit="seed",
    ),
    "generalise": Form(
        keys=("policy", "set", "reward_model"),
        about=("shift",),
        numbers={"accuracy": "accuracy", "margin": "margin", "loss": "loss"},
        runs={"made": ("evaluate", "reward_model"), "evaluated": ("evaluate", "")},
        claims=("name", "policy"),
        unit="base",
    ),
    "displace": Form(
        keys=("policy", "training", "subset"),
        numbers={
            "chosen": "log pi(y+)", "rejected": "log pi(y-)", "displaced": "displaced", "accuracy": "accuracy",
            "held_out": "log pi(y+), held out", "kl": "KL", "refusal": "refusal",
        },
        runs={"trained": ("track", "after"), "followed": ("track", "")},
        claims=("name", "policy"),
        unit="base",
    ),
    "vanish": Form(
        keys=("policy", "reward", "arm"),
        numbers={
            "gain": "gain", "low": "gain, low std", "high": "gain, high std", "recovered": "recovered", "kl": "KL",
        },
        runs={"finetuned": ("imitate", ""), "taught": ("align", ""), "rewarded": ("score", "")},
        claims=("name", "policy", "reward"),
        unit="base",
    ),
}  # fmt: skip
"""By question."""
