"""Preference pairs of which some are left out, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe.artifact import Diagnosis, Preferences
from rmpipe.config import StudyError
from rmpipe.preference import records
from rmpipe.split import asked
from rmpipe.subset import Subset
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
def select(
    config: Subset, pairs: Preferences, held_out: Preferences, diagnosis: Diagnosis | None, seed: int,
    least: int = 1, *, out: Path, log: Log,
) -> Preferences:  # fmt: skip
    """The pairs to train on that a subset keeps, with what is held out. `dropped.parquet` has the others, and why.

    Args:
        pairs: those to train on, and perhaps others.
        held_out: the study's, whose held-out pairs every subset is asked about.
        diagnosis: of the pairs to train on; None of another data set's, which are all kept but those whose prompts the
            study holds out.
        least: how many pairs a training on them takes a step, so that fewer would be taken again and again.

    Raises:
        StudyError: fewer pairs are left.
    """
    import pandas as pd

    own, tested, by = pairs.split("reward"), held_out.split("test"), getattr(config, "by", None)
    rule = f"{config.kind} by {by}" if by else config.kind
    if diagnosis is None:
        table, why = own, "its prompt is held out"
        held = {*_prompts(tested)}
        kept = own[[prompt not in held for prompt in _prompts(own)]]
        if kept.empty:
            raise StudyError("subsets: other: every prompt of its data is one of those held out; give other data")
    else:
        table, why = diagnosis.table(), f"not {rule}"
        kept = table.iloc[config.kept(table, seed)]
    equal = "" if config.equal_length is None else f" ({len(config.alike(table))} are of equal length)"
    count = f"{len(kept)} of {len(table)} pairs{equal}"
    if len(kept) < least:
        sizes = [f"trainings.{name}.training.batch_size" for name in config.trainings or ["NAME"]]
        remedy = f"ask for more, or lower {' or '.join(sizes)}"
        raise StudyError(f"subsets: {rule}: {count} left, but a training takes {least} a step; {remedy}")
    dropped = table.drop(kept.index).assign(why=why)
    mine = own.iloc[kept.index]  # the diagnosis has the pairs in their order
    pd.concat([mine, tested], ignore_index=True).to_parquet(out / "preferences.parquet")
    dropped.to_parquet(out / "dropped.parquet", index=False)
    told = {"kept": len(kept), "dropped": dropped["why"].value_counts().to_dict(), "rule": config.rule()}
    (out / "summary.json").write_text(json.dumps(told, indent=1))
    numbers = {"pairs.reward": float(len(kept)), "dropped": float(len(dropped))}
    if by and len(dropped):
        numbers |= {f"{by}.kept": float(kept[by].mean()), f"{by}.dropped": float(dropped[by].mean())}
    return Preferences.at(out, f"{count}, {rule}", **numbers)


def _prompts(frame: Any) -> list[str]:
    return [asked(row["prompt"]) for row in records(frame, ("prompt",))]
