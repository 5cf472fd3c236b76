"""Supervised finetuning against REINFORCE where rewards, their std and gradients are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import controlled
from rmpipe.artifact import Measurement
from rmpipe.controlled import Controlled
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def control(config: Controlled, content: str, seed: int, *, out: Path, log: Log) -> Measurement:
    """A small policy whose reward std is made small at some inputs, finetuned by each method (2310.20703, section 4.1).

    `prompts.parquet` has single inputs before finetuning, with the std of the reward and the norms of their gradients.

    Args:
        content: SHA-256 of the file of inputs; empty for scikit-learn's digits.
    """
    import pandas as pd

    looks: list[dict[str, Any]] = []

    def told(row: dict[str, Any]) -> None:
        looks.append(row)
        values = {f"{row['method']}.{name}": value for name, value in row.items() if name not in ("method", "step")}
        log.metrics(values, row["step"])
        log.progress(len(looks), len(config.looked_at()) * len(config.methods))

    found = controlled.run(config, seed, told=told)
    pd.DataFrame(found.scatter).to_parquet(out / "prompts.parquet", index=False)
    pd.DataFrame(found.curves).to_parquet(out / "curve.parquet", index=False)
    (out / "curves.json").write_text(json.dumps(found.curves))
    numbers = {name: None if value is None else {"value": value, "low": None, "high": None}
               for name, value in found.numbers.items()}  # fmt: skip
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    values = {name: value for name, value in found.numbers.items() if value is not None}
    gains = [f"{method} {values[f'{method}.gain_modified']:+.2f}" for method in config.methods]
    told_of = f"{', '.join(gains)} at modified inputs, std {values['initial.std_modified']:.2f} there"
    return Measurement.at(out, f"{told_of} and {values['initial.std_unmodified']:.2f} elsewhere", **values)
