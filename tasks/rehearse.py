"""RLHF of a policy on each of some reward models, gone through on its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Gradients, Rehearsal, Scores
from rmpipe.foresight import Felt, felt, grouped, known
from rmpipe.rehearsal import Recipe
from rmpipe.rehearsal import rehearse as rehearsed
from tasks.execution import Log
from tasks.stage import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OWN = "ground truth "
"""What begins the name of a ground truth that teaches as a reward would."""


@stage(version=1)
def rehearse(
    config: Recipe, form: Felt, gradients: Gradients, rewards: dict[str, Scores], labels: dict[str, Scores], seed: int,
    *, out: Path, log: Log,
) -> Rehearsal:  # fmt: skip
    """What each reward model, and each ground truth itself, would teach a policy, step by step, under each truth.

    Args:
        form: the rewards that the algorithm feels.
        gradients: of the policy's samples.
        rewards: of each reward model, over these samples.
        labels: of each ground truth, NaN where a sample has no label: it is then no draw either.
        seed: of the parts of the prompts that teach one another.
    """
    import numpy as np

    truths = {name: each.rewards().astype(np.float64) for name, each in labels.items()}
    there = np.any([known(each) for each in truths.values()], axis=0)
    rows = np.flatnonzero(there.any(axis=1))
    taught = {name: each.rewards() for name, each in rewards.items()}
    taught |= {f"{OWN}{name}": each for name, each in truths.items()}
    if len(rows) < 2:
        return _nothing(out, list(taught), list(truths), there.shape[0])
    white: Felt = "whitened" if config.grouped else form
    feels = np.stack([np.nan_to_num(felt(np.where(there, each, np.nan), white)[rows]) for each in taught.values()])
    varying: Any = 0.0
    if config.grouped:
        feels, varying = grouped(feels, config.samples, there[rows], seed=seed)
    slopes, told = gradients.slopes(), {name: each[rows] for name, each in truths.items()}
    found = rehearsed(
        slopes if len(rows) == len(there) else slopes.rows(rows), feels, told, config, there=there[rows],
        varying=varying, tokens=gradients.json("slopes.json")["tokens"], seed=seed,
    )  # fmt: skip
    whole = {"proxy": found.proxy, "kl": found.kl, "ess": found.ess}
    whole |= {f"truth {name}": each for name, each in found.truth.items()}
    held: dict[str, Any] = {name: _spread(each, rows, len(there)) for name, each in whole.items()}
    np.savez(out / "rehearsed.npz", **held)
    (out / "names.json").write_text(json.dumps({"names": list(taught), "steps": found.steps}))
    return Rehearsal.at(out, f"{len(taught)} rewards, {len(config.rates)} steps, KL up to {found.kl.mean(2).max():.2f}")


def _nothing(out: Path, names: list[str], truths: list[str], prompts: int) -> Rehearsal:
    """Where fewer than two prompts have labels: nobody is taught, and the forecast will say why it tells nothing."""
    import numpy as np

    empty = np.full((len(names), 1, prompts), np.nan, dtype=np.float32)
    held: dict[str, Any] = dict.fromkeys(("proxy", "kl", "ess", *(f"truth {each}" for each in truths)), empty)
    np.savez(out / "rehearsed.npz", **held)
    (out / "names.json").write_text(json.dumps({"names": names, "steps": [0]}))
    return Rehearsal.at(out, "too few labels to rehearse on")


def _spread(values: NDArray[np.float32], rows: NDArray[np.int64], prompts: int) -> NDArray[np.float32]:
    """At their places among all prompts, NaN elsewhere."""
    import numpy as np

    found = np.full((*values.shape[:2], prompts), np.nan, dtype=np.float32)
    found[:, :, rows] = values
    return found
