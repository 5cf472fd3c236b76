"""Preference pairs: read, checked, filtered and split before any compute is spent; labelled, collected and mixed.

A pair is a prompt (a string, or chat messages), a chosen and a rejected response (strings). What is wrong is said with
file, row and field, and with the remedy; what is dropped is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError
from rmpipe.dataset import Dataset
from rmpipe.length import figures, lengths, within
from rmpipe.pair import FIELDS, pair_of
from rmpipe.split import SPLITS, check_held, counted, drawn, key_of, side_of, split
from rmpipe.table import TOLD, Row, check_form, checked, once_each
from rmpipe.text import Text

if TYPE_CHECKING:
    import pandas as pd


def check(dataset: Dataset, seed: int = 0) -> pd.DataFrame | None:
    """Read and check a source without keeping anything.

    What must be fetched, rows or tokenizer, is left to the stage, which may try again when the network fails.

    Returns:
        the pairs as `prepare` gives them; None where the rows must be fetched.

    Raises:
        StudyError: everything that is wrong with it.
    """
    here = dataset.here()
    return None if here is None else prepare(here, seed)[0]


def prepare(dataset: Dataset, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read, check, filter, split and shuffle.

    Data often come sorted, by topic or by length. The rows of each split are therefore put in an order drawn by the
    seed: the first n pairs or prompts of a split, here by `limit` and in every later stage, are a seeded draw.

    Returns:
        the pairs, with columns id, prompt, chosen, rejected, split in {"reward", "policy", "test"}, and what else the
        source has; and a summary of counts and lengths. No prompt is in two splits.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    import pandas as pd

    dropped: Counter[str] = Counter()
    given, name, read = usable(dataset, seed, dropped)
    rows = drawn(split(given, dataset, seed, name, dropped, dataset.policy_fraction), dataset.limit, seed)
    parts = tuple(part for part in SPLITS if part != "policy" or dataset.policy_fraction)
    counts = counted(rows, parts, given, ("pair", read, name), dropped)
    summary = {"read": read, "dropped": dict(dropped), "kept": dict(counts), **_lengths(rows)}
    if again := sum("numbered" in row for row in given):
        summary["ids numbered"] = again
    return pd.DataFrame(rows).drop(columns=["row", "tokens", "numbered"], errors="ignore"), summary


def usable(dataset: Dataset, seed: int, dropped: Counter[str], *, named: bool = False) -> tuple[list[Row], str, int]:
    """Every row that can be used: checked, with an id, once, within the length limits; `split` says train or test.

    Args:
        dropped: is told what is left out, and how often.
        named: refuse a row without an id, or with another's, since rows are to be found by theirs.

    Returns:
        the rows, what to call their origin, and how many were read.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    raw, name = dataset.rows(seed)
    pairs = checked(raw, name, partial(_pair, dataset, named))
    if named:
        _check_once(pairs, name)
    rows = _distinct(pairs, dataset, name, dropped)
    check_form(rows, name)
    return within(rows, dataset, name, dropped, FIELDS), name, len(raw)


def relabel(frame: pd.DataFrame, truth: Callable[..., Any], ties: str = "drop") -> tuple[pd.DataFrame, dict[str, int]]:
    """Label pairs afresh: swapped where the truth scores chosen strictly below rejected (2503.15477, F.1).

    Args:
        truth: prompts and responses to (n,) scores.
        ties: `keep` or `drop` pairs of one score.

    Returns:
        the pairs with chosen_score, rejected_score and swapped, and counts; without those of which the truth cannot
        tell a side (NaN), counted as `untold` where there are any.
    """
    import numpy as np

    prompts = list(frame["prompt"])
    scores = np.stack([np.asarray(truth(prompts, list(frame[side]))) for side in ("chosen", "rejected")])
    swap = scores[0] < scores[1]
    frame = frame.assign(swapped=swap, chosen_score=scores.max(0), rejected_score=scores.min(0))
    frame["chosen"], frame["rejected"] = (
        frame["chosen"].where(~swap, frame["rejected"]),
        frame["rejected"].where(~swap, frame["chosen"]),
    )
    tied, untold = scores[0] == scores[1], np.isnan(scores).any(axis=0)
    counts = {"swapped": int(swap.sum()), "ties": int(tied.sum())} | _counted("untold", untold)
    out = untold | tied if ties == "drop" else untold
    return (frame[~out].reset_index(drop=True) if ties == "drop" or out.any() else frame), counts


def pairs_from_samples(
    prompts: list[Text], responses: list[list[str]], rewards: Any
) -> tuple[pd.DataFrame, dict[str, int]]:
    """On-policy pairs: of two responses the better one is chosen; equal texts and ties are dropped and counted.

    Args:
        responses: two for each prompt.
        rewards: (prompts, 2), reward units; a pair with one that cannot be told (NaN) is dropped and counted too.
    """
    import numpy as np
    import pandas as pd

    rows, counts = [], Counter({"ties": 0, "equal": 0})
    for index, (prompt, texts, scores) in enumerate(zip(prompts, responses, rewards, strict=True)):
        if np.isnan(scores).any():
            counts["untold"] += 1
            continue
        if texts[0] == texts[1] or scores[0] == scores[1]:
            counts["equal" if texts[0] == texts[1] else "ties"] += 1
            continue
        best = int(scores[1] > scores[0])
        told = {
            "chosen": texts[best],
            "rejected": texts[1 - best],
            "chosen_score": float(scores[best]),
            "rejected_score": float(scores[1 - best]),
        }
        rows.append({"id": f"on-policy-{index}", "prompt": prompt, "split": "reward", **told})
    if not rows:
        raise StudyError(
            "collect: every two samples of a prompt are alike, worth the same or beyond what the ground truth can tell;"
            " raise temperature or prompts"
        )
    return pd.DataFrame(rows), dict(counts) | {"pairs": len(rows)}


def _counted(name: str, marks: Any) -> dict[str, int]:
    """A count, where there is something to count."""
    return {name: int(marks.sum())} if marks.any() else {}


def mix(
    on_policy: pd.DataFrame | None, off_policy: pd.DataFrame, share: float, seed: int, count: int | None = None
) -> pd.DataFrame:
    """Pairs of which a share is on-policy (2503.15477, 4.1).

    As the paper's code, by one seeded permutation: its first int(share * n) rows come from the one, the rest from the
    other; each is first brought to n rows, the smaller of both or `count`. Reward models of unlike shares are given
    equally many pairs by a `count` that both sources reach.

    Args:
        on_policy: None where the share is 0.
        off_policy: both in a seeded order, since those beyond the first n are left out.
        share: of on-policy pairs, from 0 to 1.
        seed: of the permutation.
        count: the most pairs, None for all.
    """
    import numpy as np
    import pandas as pd

    if on_policy is None and share > 0:
        raise ValueError(f"share: {share} of the pairs cannot be on-policy where there are none")
    sources = [table for table, part in ((on_policy, share), (off_policy, 1 - share)) if table is not None and part > 0]
    n = min([len(table) for table in sources] + [count or 1 << 62])
    order = np.random.RandomState(seed).permutation(n)
    cut = int(share * n)
    own = [] if on_policy is None else [on_policy.iloc[order[:cut]]]
    return pd.concat([*own, off_policy.iloc[order[cut:]]], ignore_index=True)


def records(frame: pd.DataFrame, columns: tuple[str, ...] = FIELDS) -> list[Row]:
    """Rows of a table as they were before parquet, which gives back messages as arrays."""
    rows = frame[list(columns)].to_dict("records")
    return [
        {**row, "prompt": row["prompt"] if isinstance(row["prompt"], str) else [dict(turn) for turn in row["prompt"]]}
        for row in rows
    ]


# -- checking ---------------------------------------------------------------------------------------------------------


def _pair(dataset: Dataset, named: bool, row: Row) -> Row:
    if named and row.get("id") is None:
        raise StudyError("id: missing; rewritten pairs are found by the ids of the pairs they rewrite")
    row = pair_of(row)
    if dataset.equal == "refuse" and row["chosen"] == row["rejected"]:
        raise StudyError('chosen and rejected are equal; remove it or set dataset.equal = "drop"')
    return {**row, "split": side_of(row.get("split"), dataset.test_splits)}


def _distinct(rows: list[Row], dataset: Dataset, name: str, dropped: Counter[str]) -> list[Row]:
    """Without pairs of equal responses and pairs seen before on the same side, with an id each."""
    check_held(rows, dataset, name)
    kept: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["split"], key_of(row))  # a pair on both sides is no duplicate but a leak
        if row["chosen"] == row["rejected"]:
            dropped["equal responses"] += 1
        elif key in kept:
            dropped["duplicates"] += 1
        else:
            kept[key] = {**row, "id": str(row["row"] if row.get("id") is None else row["id"])}
    return once_each(list(kept.values()))


def _check_once(rows: list[Row], name: str) -> None:
    """Each row is found by its id."""
    counts = Counter(str(row["id"]) for row in rows)
    if again := [key for key, count in counts.items() if count > 1]:
        others = f" and {len(again) - TOLD} others" if again[TOLD:] else ""
        told = f"more than once {', '.join(map(repr, again[:TOLD]))}{others}"
        raise StudyError(f"{name}: id: {told}; give each row the id of the pair that it rewrites")


# -- figures ----------------------------------------------------------------------------------------------------------


def _lengths(rows: list[Row]) -> dict[str, Any]:
    """Lengths over pairs, in characters, and in tokens where they were counted."""
    return {
        unit: {
            **{field: figures(values) for field, values in each.items()},
            "chosen longer": float((each["chosen"] > each["rejected"]).mean()),
        }
        for unit, each in lengths(rows, FIELDS).items()
    }
