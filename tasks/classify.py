"""How often a policy refuses."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe import engine
from rmpipe.artifact import Measurement, Preferences, Weights
from rmpipe.displacing import Refusing
from rmpipe.interval import bootstrap, share
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def classify(
    config: Refusing, content: str, policy: Weights, preferences: Preferences, seed: int, *, out: Path, log: Log
) -> Measurement:
    """The share of responses that refuse, of those that a judge could tell (2410.08847, section 6).

    Args:
        content: what moves when the files do that the judge is read from.
        preferences: its held-out prompts are those that call for a refusal.
    """
    import numpy as np
    import pandas as pd

    ids, prompts = (part[: config.sampling.prompts] for part in preferences.prompts("test"))
    drawn = engine.draw(policy, prompts, config.sampling, seed=seed, progress=log.progress)
    flat = [
        (key, prompt, text) for key, prompt, item in zip(ids, prompts, drawn, strict=True) for text in item.responses
    ]
    told = config.judge.judge([prompt for _, prompt, _ in flat], [text for *_, text in flat])
    frame = pd.DataFrame({
        "id": [key for key, *_ in flat], "prompt": [json.dumps(prompt) for _, prompt, _ in flat],
        "response": [text for *_, text in flat], "refused": pd.array(told, dtype="Float64"),
    })  # fmt: skip
    frame.to_parquet(out / "prompts.parquet", index=False)
    rates = frame.groupby("id", sort=False)["refused"].mean().dropna().to_numpy(dtype=float)
    unparsed = float(frame["refused"].isna().mean())
    numbers = {
        "refusal": share(rates).json() if len(rates) else None,
        "unparsed": {"value": unparsed, "low": None, "high": None},
        "tokens": bootstrap([float(np.mean(item.tokens)) for item in drawn]).json(),
    }
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    values = {name: float(number["value"] or 0.0) for name, number in numbers.items() if number}
    rate = f"{values['refusal']:.0%} refused" if "refusal" in values else "no response could be told"
    return Measurement.at(out, f"{rate}, {unparsed:.0%} not told", **values)
