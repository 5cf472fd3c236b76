"""Preference pairs, validated, filtered and split."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe.artifact import Preferences
from rmpipe.dataset import Dataset
from rmpipe.preference import prepare as prepared
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2, retry=(ConnectionError, TimeoutError))
def prepare(config: Dataset, content: str, seed: int, *, out: Path, log: Log) -> Preferences:
    """Read, check, filter and split a data set; no prompt is in two splits.

    The rows of a split are in an order drawn by the seed, so that its first n pairs or prompts, which is what `limit`
    and every later stage take, are a seeded draw.

    Args:
        config: the source and its limits.
        content: SHA-256 of the source's files and the tokenizer's, so that new rows move the address; a path does not.
    """
    pairs, summary = prepared(config, seed)
    pairs.to_parquet(out / "preferences.parquet")
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    sizes = pairs["split"].value_counts().sort_index()
    text = ", ".join(f"{count} {name}" for name, count in sizes.items())
    if again := summary.get("ids numbered"):
        text += f", {again} {'id that came again was' if again == 1 else 'ids that came again were'} numbered"
    return Preferences.at(out, text, **{f"pairs.{name}": float(count) for name, count in sizes.items()})
