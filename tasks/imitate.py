"""A policy that has learnt the labels of some inputs."""

from __future__ import annotations

from pathlib import Path

from rmpipe.algorithm import finetune
from rmpipe.artifact import Gauge, Labelled, Weights
from rmpipe.config import StudyError
from rmpipe.gauge import low
from rmpipe.imitation import Imitation, rows
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def imitate(
    config: Imitation, policy: Weights, labelled: Labelled, measured: int, gauge: Gauge | None, cut: float, seed: int,
    *, out: Path, log: Log,
) -> Weights:  # fmt: skip
    """Supervised finetuning on the labels of some inputs of the policy split (2310.20703).

    Args:
        measured: the first inputs of the split, whose gain is measured: these are never labelled.
        gauge: what the policy can learn of a reward at each prompt, where only some of them may be labelled.
        cut: the share of prompts of the least std that are called low.
    """
    import numpy as np

    table = labelled.split("policy")[measured:]
    among = np.ones(len(table), dtype=bool)
    if gauge is not None:
        seen = gauge.table()
        few = dict(zip(seen["prompt_id"].astype(str), low(seen["std"].to_numpy(), cut), strict=True))
        told = [few.get(key) for key in table["id"].astype(str)]
        among = np.array([one is not None and one == (config.of == "low") for one in told])
    examples = rows(table, among, config, seed)
    if gauge is not None and all(few.values()):
        alike = "rewards vary alike at every prompt, so that none is told from the others"
        raise StudyError(f'finetunings: of = "{config.of}": {alike}; say of = "all"')
    if not examples:
        remedy = "lower sampling.prompts" if gauge is None else "raise gauging.prompts"
        raise StudyError(f'finetunings: of = "{config.of}": no input of that kind is left; {remedy}')
    finetune(policy.model, examples, out / "model", config=config.training, seed=seed, log=log)
    count = min(int(among.sum()), config.count(len(table)))
    return Weights.at(out, f"{policy.address} on the labels of {count} inputs", labels=float(count))
