"""RLHF of a policy on each of some reward models, gone through on its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Gradients, Rehearsal, Scores
from rmpipe.foresight import felt, grouped, known
from rmpipe.recipe import Recipe
from tasks.execution import Log
from tasks.stage import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OWN = "ground truth "
"""What begins the name of a ground truth that teaches as a reward would."""


@stage(version=2)
def rehearse(
    config: Recipe, gradients: Gradients, rewards: dict[str, Scores], labels: dict[str, Scores], seed: int,
    *, out: Path, log: Log,
) -> Rehearsal:  # fmt: skip
    """What each reward model, and each ground truth itself, would teach a policy, step by step, under each truth.

    Args:
        gradients: of the policy's samples.
        rewards: of each reward model, over these samples.
        labels: of each ground truth, NaN where a sample has no label: it is then no draw either.
        seed: of the parts of the prompts that teach one another.
    """
    import numpy as np

    from rmpipe.rehearsal import rehearse as rehearsed

    truths = {name: each.rewards().astype(np.float64) for name, each in labels.items()}
    there = known(np.sum(list(truths.values()), axis=0))  # what one of them does not tell of is no draw for all
    rows = np.flatnonzero(there.any(axis=1))
    taught = {name: each.rewards() for name, each in rewards.items()}
    taught |= {f"{OWN}{name}": each for name, each in truths.items()}
    if len(rows) < 2:  # nobody is taught, and the forecast will say why it tells nothing
        nothing = np.full((len(taught), 1, len(there)), np.nan, dtype=np.float32)
        whole = dict.fromkeys(("proxy", "kl", "ess", *(f"truth {name}" for name in truths)), nothing)
        whole |= {f"taught {name}": nothing[:, 0] for name in truths}
        return _written(out, list(taught), [0], whole, "too few labels to rehearse on")
    feels = np.stack([felt(np.where(there, each, np.nan))[rows] for each in taught.values()])
    varying: Any = 0.0
    if config.grouped:
        feels, varying = grouped(feels, config.samples, there[rows], seed=seed)
    slopes, labelled = gradients.slopes(), {name: each[rows] for name, each in truths.items()}
    found = rehearsed(
        slopes if len(rows) == len(there) else slopes.rows(rows), feels, labelled, config, there=there[rows],
        varying=varying, tokens=gradients.json("slopes.json")["tokens"], seed=seed,
    )  # fmt: skip
    whole = {"proxy": found.proxy, "kl": found.kl, "ess": found.ess}
    whole |= {f"truth {name}": each for name, each in found.truth.items()}
    whole |= {f"taught {name}": each for name, each in found.taught.items()}
    told = f"{len(taught)} rewards, {len(config.rates)} steps, KL up to {found.kl.mean(2).max():.2f}"
    return _written(out, list(taught), found.steps, {k: _spread(v, rows, len(there)) for k, v in whole.items()}, told)


def _written(
    out: Path, names: list[str], steps: list[int], whole: dict[str, NDArray[np.float32]], told: str
) -> Rehearsal:  # fmt: skip
    import numpy as np

    held: dict[str, Any] = whole
    np.savez(out / "rehearsed.npz", **held)
    (out / "names.json").write_text(json.dumps({"names": names, "steps": steps}))
    return Rehearsal.at(out, told)


def _spread(values: NDArray[np.float32], rows: NDArray[np.int64], prompts: int) -> NDArray[np.float32]:
    """At their places among all prompts, NaN elsewhere."""
    import numpy as np

    found = np.full((*values.shape[:-1], prompts), np.nan, dtype=np.float32)
    found[..., rows] = values
    return found
