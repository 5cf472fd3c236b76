"""What training on one pair alone does to its own likelihoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import policy as lm
from rmpipe import single as trained
from rmpipe.artifact import Diagnosis, Measurement, Weights
from rmpipe.attribution import SINGLES
from rmpipe.interval import clustered, share
from rmpipe.single import Single
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def single(config: Single, policy: Weights, diagnosis: Diagnosis, seed: int, *, out: Path, log: Log) -> Measurement:
    """Some pairs, each trained on alone from the same weights (2410.08847, section 4 and Table 1).

    Args:
        diagnosis: of the pairs, of which `config.pairs` are drawn by the seed.
    """
    import numpy as np
    import pandas as pd

    table = diagnosis.table()
    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[: config.pairs])
    table = table.iloc[drawn].reset_index(drop=True)
    rows = [row | {"prompt": json.loads(row["prompt"])} for row in table.to_dict("records")]
    runs = trained.train_each(lm.load(policy.model), rows, config=config, log=log)
    (out / "runs.json").write_text(json.dumps(runs))
    frame = pd.concat([table, pd.DataFrame(map(_row, runs))], axis=1)
    frame.to_parquet(out / "prompts.parquet", index=False)
    asked = frame["prompt"].to_list()
    over = {name: share if name == "displaced" else clustered for name in SINGLES}
    numbers = {name: over[name](frame[column].astype(float), asked).json() for name, column in SINGLES.items()}
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    values = {name: number["value"] for name, number in numbers.items() if number}
    told = f"{len(rows)} pairs, log pi(y+) {values['chosen']:+.2f}, {values['displaced']:.0%} displaced"
    return Measurement.at(out, told, **values)


def _row(run: dict[str, Any]) -> dict[str, Any]:
    """What became of a pair: changes in nats, and the largest fall of pi(y+) on the way."""
    chosen, rejected, told = run["chosen"], run["rejected"], trained.followed(run)
    steady = all(after <= before for before, after in zip(run["loss"], run["loss"][1:], strict=False))
    return {
        "chosen_change": chosen[-1] - chosen[0], "rejected_change": rejected[-1] - rejected[0],
        "displaced": chosen[-1] < chosen[0], "decrease": told["start"] - told["end"], "steady": steady,
    }  # fmt: skip
