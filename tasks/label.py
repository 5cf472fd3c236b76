"""Labelled inputs, validated, gathered, filtered and split."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe.artifact import Labelled
from rmpipe.labels import Labels, prepare
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def label(config: Labels, content: str, seed: int, *, out: Path, log: Log) -> Labelled:
    """Read, check, gather, filter and split labelled inputs; no prompt is in two splits.

    Args:
        config: the source and its limits.
        content: SHA-256 of the source's files and the tokenizer's, so that new rows move the address; a path does not.
    """
    inputs, summary = prepare(config, seed)
    inputs.to_parquet(out / "labelled.parquet")
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    sizes = inputs["split"].value_counts().sort_index()
    text = ", ".join(f"{count} {name}" for name, count in sizes.items())
    if (most := summary["references"]["max"]) > 1:
        text += f", {summary['references']['mean']:.1f} references each, at most {most}"
    return Labelled.at(out, text, **{f"inputs.{name}": float(count) for name, count in sizes.items()})
