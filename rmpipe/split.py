"""Which pairs train reward models, which prompts train policies, and which are held out: no prompt is in two."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from rmpipe.config import StudyError, nearest
from rmpipe.dataset import Dataset
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


def split(rows: list[Row], dataset: Dataset, seed: int, name: str, dropped: Counter[str]) -> list[Row]:
    """Each prompt to one split: held out if the data say so, else by a seeded permutation of all prompts, sorted.

    Prompts that differ in case or outer space alone are one.

    Args:
        rows: pairs with their number in `row`, and `test` or `train` in `split`.
        name: what to call their origin.
        dropped: is told how many pairs were.

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
    if leaks and dataset.leakage == "refuse":
        told = f"row {leaks[0][0]['row']}, for training, asks what row {leaks[0][1]['row']}, held out, asks"
        more = f", and {len(leaks) - 1} more do so" if len(leaks) > 1 else ""
        raise StudyError(f'{name}: prompt: {told}{more}; remove them or set dataset.leakage = "drop"')
    dropped["prompt in test"] += len(leaks)
    gone = {row["row"] for row, _ in leaks}
    prompts = sorted(set(keys) - set(held))
    order = np.random.RandomState(seed).permutation(len(prompts))
    test = 0 if held else round(dataset.test_fraction * len(prompts))
    policy = test + round(dataset.policy_fraction * len(prompts))
    parts = dict.fromkeys(held, "test")
    parts |= {prompts[i]: SPLITS[(rank < policy) + (rank < test)] for rank, i in enumerate(order)}
    return [{**row, "split": parts[key]} for key, row in zip(keys, rows, strict=True) if row["row"] not in gone]


def drawn(rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    """Split by split in a seeded order, which is the same in whichever order the rows came; at most `limit` of each."""
    import numpy as np

    rows = sorted(rows, key=key_of)
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    return [row for split in SPLITS for row in [rows[i] for i in order if rows[i]["split"] == split][:limit]]


def asked(prompt: Text) -> str:
    """A text that two prompts share when they differ in case or outer space alone."""
    return json.dumps(prompt.strip() if isinstance(prompt, str) else prompt, sort_keys=True).lower()


def key_of(row: Row) -> str:
    """A text that two rows share when they are the same pair."""
    return json.dumps([row[field] for field in FIELDS], sort_keys=True)
