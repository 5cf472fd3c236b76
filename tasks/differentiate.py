"""How a policy's samples lie to one another: what is made likelier by making another likelier."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe import policy as lm
from rmpipe.artifact import Gradients, Rollouts, Weights
from rmpipe.foreseeing import Differentiating
from rmpipe.preference import records
from rmpipe.slopes import slopes
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def differentiate(
    config: Differentiating, policy: Weights, rollouts: Rollouts, seed: int, *, out: Path, log: Log
) -> Gradients:
    """The gradient of each sample's log-likelihood by some of the weights, for one backward pass a sample.

    It serves every reward model, ground truth and algorithm. Kept in half precision, in units of the largest.

    Args:
        seed: of which weights.
    """
    import numpy as np

    table, model = rollouts.table(), lm.load(policy.model, policy.dtype)
    prompts = [row["prompt"] for row in records(table, ("prompt",))]
    responses = [list(texts) for texts in table["responses"]]
    finished = np.stack(table["finished"].to_list()) if "finished" in table else None
    found = slopes(
        model, prompts, responses, finished=finished, weights=config.weights, seed=seed, progress=log.progress
    )
    unit = max(float(found.values.max()), -float(found.values.min())) / 2**12 or 1.0
    np.divide(found.values, unit, out=found.values)  # in place: they may fill much of the memory
    np.save(out / "slopes.npy", found.values.astype(np.float16))
    tokens = [len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for row in responses for text in row]
    ends = 1.0 if finished is None else float(finished.mean())  # tokens too, where there are any
    told = {"share": found.share, "unit": unit, "tokens": float(np.mean(tokens)) + ends}
    (out / "slopes.json").write_text(json.dumps(told))
    return Gradients.at(out, f"{' x '.join(map(str, found.values.shape))}, {found.share:.1%} of the weights")
