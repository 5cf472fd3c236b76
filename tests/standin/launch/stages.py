"""Stages that tests have made by several processes, which find them here by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

from torch import distributed

from rmpipe.algorithm import Finetuning
from rmpipe.artifact import Measurement, Preferences, RewardModel, Scores, Weights
from rmpipe.config import Config, Runtime, StudyError
from rmpipe.demonstration import Demonstrations
from rmpipe.explicit import Explicit
from rmpipe.reinforcement import Rloo
from rmpipe.study import Sampling
from rmpipe.teaching import Evaluation
from tasks.align import align
from tasks.execution import Log
from tasks.finetune import finetune
from tasks.stage import stage
from tasks.train import train


class Sharing(Config):
    """What shall go wrong."""

    processes: Annotated[int, Runtime] = 2
    fails: bool = False


class UnsendableError(Exception):
    """An error that asks for more than its message."""

    def __init__(self, place: str, what: str):
        super().__init__(f"{what} at {place}")


@stage(version=1)
def share(config: Sharing, *, out: Path, log: Log) -> Measurement:
    """Fails in the second process, or in none, while all others wait."""
    (log.scratch / "pid").write_text(str(os.getpid()))
    if os.environ["RANK"] == "1" and config.fails:
        raise StudyError("training.steps: too many; take fewer")
    time.sleep(300)
    return Measurement.at(out)


class Trainings(Config):
    """Three trainings, one after the other."""

    processes: Annotated[int, Runtime] = 1
    finetuning: Finetuning
    explicit: Explicit
    rloo: Rloo


@stage(version=1)
def trainings(
    config: Trainings, base: Weights, preferences: Preferences, teacher: RewardModel, scores: Scores,
    *, out: Path, log: Log,
) -> Weights:  # fmt: skip
    """A policy, a reward model, and a policy taught by a function; each beside the others."""
    outs = {name: out / name for name in ("finetuned", "trained", "aligned")}
    for folder in outs.values():
        folder.mkdir()
    shown = {"demonstrations": Demonstrations(), "content": "", "seed": 5, "base": base, "preferences": preferences}
    finetune.function(config.finetuning, **shown, out=outs["finetuned"], log=log)
    train.function(config.explicit, base, preferences, None, 5, out=outs["trained"], log=_apart(log, "trained"))
    taught: dict[str, Any] = {"policy": base, "teacher": teacher, "scores": scores, "truth": None, "truth_scores": None}
    seen = (config.rloo, Evaluation(prompts=4, responses=2), Sampling(max_new_tokens=6))
    align.function(*seen, **taught, preferences=preferences, seed=5, out=outs["aligned"], log=_apart(log, "aligned"))
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    return Weights.at(out, f"by {world}", world=float(world))


def _apart(log: Log, name: str) -> Log:
    """A log with a scratch folder of its own, so that no training resumes from another's checkpoint."""
    (log.scratch / name).mkdir(exist_ok=True)
    return Log(log.address, log.scratch / name, log.say)
