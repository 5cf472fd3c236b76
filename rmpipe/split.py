"""Which pairs train reward models, which prompts train policies, and which are held out: no prompt is in two."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from rmpipe.config import StudyError, nearest
from rmpipe.origin import Origin
from rmpipe.pair import FIELDS
from rmpipe.table import Row
from rmpipe.text import Text

SPLITS = ("reward", "policy", "test")
TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "held")
"""First words of what data sets call their parts: `train_prefs`, `test_prefs`, `validation`, `held-out`."""


def side_of(value: Any, held: tuple[str, ...] | None) -> str:
    """Whether the data's own split column holds a row out: `test` or `train`.

    Args:
        value: what the column says; None is for training.
        held: the values that are held out, or None to go by the first word.

    Raises:
        StudyError: the value's first word is not known.
    """
    if held is not None:
        return "test" if str(value) in held else "train"
    if value is None:
        return "train"
    first = re.split(r"[^a-z]+", str(value).strip().lower())[0]
    if first in TRAINING or first in HELD_OUT:
        return "train" if first in TRAINING else "test"
    told = f"split: {value!r} is neither for training nor held out; {nearest(first, ['train', *HELD_OUT[:-2]])}"
    raise StudyError(f'{told}; name those held out in dataset.test_splits, or split afresh by split_column = ""')


def split(
    rows: list[Row], origin: Origin, seed: int, name: str, dropped: Counter[str], policy_fraction: float = 1.0
) -> list[Row]:
    """Each prompt to one split: held out if the data say so, else by a seeded permutation of all prompts, sorted.

    Prompts that differ in case or outer space alone are one.

    Args:
        rows: with their number in `row`, and `test` or `train` in `split`.
        name: what to call their origin.
        dropped: is told how many rows were.
        policy_fraction: share of the prompts for policies, as far as they are not held out; others are for reward
            models.

    Raises:
        StudyError: a row for training asks what a row held out asks; names both.
    """
    import numpy as np

    keys = [asked(row["prompt"]) for row in rows]
    held: dict[str, Row] = {}
    for key, row in zip(keys, rows, strict=True):
        if row["split"] == "test":
            held.setdefault(key, row)
    leaks = [(row, held[key]) for key, row in zip(keys, rows, strict=True) if key in held and row["split"] != "test"]
    if leaks and origin.leakage == "refuse":
        told = f"row {leaks[0][0]['row']}, for training, asks what row {leaks[0][1]['row']}, held out, asks"
        more = f", and {len(leaks) - 1} more do so" if len(leaks) > 1 else ""
        raise StudyError(f'{name}: prompt: {told}{more}; remove them or set dataset.leakage = "drop"')
    dropped["prompt in test"] += len(leaks)
    gone = {row["row"] for row, _ in leaks}
    prompts = sorted(set(keys) - set(held))
    order = np.random.RandomState(seed).permutation(len(prompts))
    test = 0 if held else round(origin.test_fraction * len(prompts))
    policy = test + round(policy_fraction * len(prompts))
    parts = dict.fromkeys(held, "test")
    parts |= {prompts[i]: SPLITS[(rank < policy) + (rank < test)] for rank, i in enumerate(order)}
    return [{**row, "split": parts[key]} for key, row in zip(keys, rows, strict=True) if row["row"] not in gone]


def drawn(rows: list[Row], limit: int | None, seed: int, fields: tuple[str, ...] = FIELDS) -> list[Row]:
    """Split by split in a seeded order, which is the same in whichever order the rows came; at most `limit` of each.

    Args:
        fields: what tells rows apart.
    """
    import numpy as np

    rows = sorted(rows, key=lambda row: key_of(row, fields))
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    return [row for split in SPLITS for row in [rows[i] for i in order if rows[i]["split"] == split][:limit]]


def asked(prompt: Text) -> str:
    """A text that two prompts share when they differ in case or outer space alone."""
    return json.dumps(prompt.strip() if isinstance(prompt, str) else prompt, sort_keys=True).lower()


def key_of(row: Row, fields: tuple[str, ...] = FIELDS) -> str:
    """A text that two rows share when they are the same in these fields, which are those of a pair."""
    return json.dumps([row[field] for field in fields], sort_keys=True)


def check_held(rows: list[Row], origin: Origin, name: str) -> None:
    """Where a study names values of the split column, some row must have one.

    Raises:
        StudyError: none has.
    """
    if origin.test_splits is not None and all(row["split"] != "test" for row in rows):
        raise StudyError(f"dataset.test_splits: no row of {name} is in {', '.join(origin.test_splits)}; name others")


def counted(
    rows: list[Row], parts: tuple[str, ...], given: list[Row], told: tuple[str, int, str], dropped: Counter[str]
) -> Counter[str]:
    """How many rows each split has, one at least.

    Args:
        rows: those that are left.
        parts: splits that must have a row.
        given: those that were split.
        told: for messages, what a row is called, how many were read, and from where.
        dropped: what was left out, and how often.

    Raises:
        StudyError: a split has none; says why.
    """
    counts, (what, read, name) = Counter(row["split"] for row in rows), told
    for part in parts:
        if not counts[part]:
            why = f"no {what} is left for the {part} split ({read} read, dropped: {_in_words(dropped)})"
            raise StudyError(f"{name}: {why}{_parted(given)}; give more data or larger limits{_whole(counts)}")
    return counts


def _in_words(dropped: Counter[str]) -> str:
    """What was left out: `60 for equal responses, 2 for prompt in test`."""
    return ", ".join(f"{count} for {what}" for what, count in dropped.items() if count) or "none"


def _parted(rows: list[Row]) -> str:
    """Why a split may be empty though rows are left: few prompts do not go round."""
    count = len({asked(row["prompt"]) for row in rows if row["split"] != "test"})
    if not count:
        return ""
    return f": the split goes by prompt, and there {'is 1 prompt' if count == 1 else f'are {count} prompts'} to split"


def _whole(counts: Counter[str]) -> str:
    return ', or split afresh by dataset.split_column = ""' if list(counts) == ["test"] else ""
