"""Which reward model is foretold to teach a policy best, found by as few samples, scores and labels as that takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmpipe import engine, racing
from rmpipe.artifact import Prompts, Race, RewardModel, Weights
from rmpipe.config import StudyError, digest
from rmpipe.racing import Course, Form, Predictor, Racing
from rmpipe.store import write_whole
from rmpipe.study import Sampling
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage

OUT = "leave it out of the race"
ANOTHER = "a race needs each label that it asks for; name another ground_truth, or label a pool: --to-label FILE"


@stage(version=2, retry=(ConnectionError, TimeoutError))
def race(
    config: Racing, sampling: Sampling, predictor: Predictor, felt: Form, policy: Weights,
    teachers: dict[str, RewardModel], truth: RewardModel, preferences: Prompts, seed: int, *, out: Path, log: Log,
) -> Race:  # fmt: skip
    """Draw samples in rounds, score them by the reward models still in question, and label those that tell most.

    Args:
        sampling: its prompts and responses are the most that are drawn.
        predictor: what ranks the reward models, of `rmpipe.racing`; `rmpipe.forecast.formula` without gradients.
        felt: the rewards that the algorithm feels.
        truth: what labels; it is asked of the chosen responses alone.
        seed: of the samples, and of which get a label.

    Raises:
        StudyError: fewer than two reward models, too few prompts or labels, or a reward that is not known.
    """
    import pandas as pd

    names, prompts = (part[: sampling.prompts] for part in preferences.prompts(sampling.split))
    pool = (len(prompts), sampling.responses)
    how = sampling.model_copy(update={"responses": config.samples(sampling.responses)})
    rounds = _rounds(config, len(prompts), how.responses, len(teachers))
    course = Course(list(teachers), config, predictor, felt, seed)
    asked = Asked(how, policy, teachers, truth, prompts, seed, log.scratch)
    rows: list[dict[str, Any]] = []
    for number, found in enumerate(racing.race(course, rounds, asked.rewards, asked.labels)):
        spent = course.spent()
        rows += [
            {"round": number, **row, "scored": spent["scored_by"][row["reward_model"]]}
            | {name: spent[name] for name in ("samples", "labels")}
            for row in found.rows()
        ]
        log.metrics({"in_question": float(len(found.left)), "labels": float(spent["labels"])}, number)
        log.progress(rounds[number].stop, len(prompts))
    pd.DataFrame(rows).to_parquet(out / "rounds.parquet", index=False)
    answer = racing.answer(course, found, pool)
    (out / "race.json").write_text(json.dumps(answer | {"prompt_ids": names[: found.prompts]}, indent=1))
    spent = {name: float(answer["spent"][name]) for name in ("samples", "labels", "scored")}
    return Race.at(out, answer["sentence"], **spent, left=float(len(found.left)))


def _rounds(config: Racing, prompts: int, samples: int, teachers: int) -> list[range]:
    """The prompts of each round.

    Raises:
        StudyError: nothing could be decided.
    """
    if teachers < 2:
        raise StudyError(f"reward_models: {teachers} to race, and a race is between two or more; name another")
    rounds = config.rounds(prompts, samples)
    if not rounds or rounds[-1].stop < config.fewest:
        least = min(config.labels, samples) * config.fewest
        told = f"nothing is decided before {config.fewest} prompts with {least} labels"
        if prompts < config.fewest:
            raise StudyError(f"sampling.prompts: {prompts}, and {told}; draw more, or lower racing.fewest")
        raise StudyError(f"racing.budget: {config.budget}, and {told}; raise it, or lower racing.labels")
    return rounds


class Asked:
    """What policy, reward models and ground truth say of each round; a killed run has what was said before.

    One model is held at a time.
    """

    def __init__(
        self, sampling: Sampling, policy: Weights, teachers: dict[str, RewardModel], truth: RewardModel,
        prompts: Sequence[Any], seed: int, scratch: Path,
    ):  # fmt: skip
        self.sampling, self.policy, self.teachers, self.truth = sampling, policy, teachers, truth
        self.prompts, self.seed, self.scratch = prompts, seed, scratch

    def rewards(self, part: range, left: tuple[str, ...]) -> Any:
        """Of a round's samples, by those in question, (left, prompts, samples)."""
        import numpy as np

        file = self._file(part)
        if not file.exists():
            asked = self.prompts[part.start : part.stop]
            own = int(digest([self.seed, part.start], 8), 16)  # the same again would tell the same luck each round
            drawn = engine.draw(self.policy, asked, self.sampling, seed=own)
            texts = [(prompt, text) for prompt, item in zip(asked, drawn, strict=True) for text in item.responses]
            told = {name: _scored(self.teachers[name], texts, OUT) for name in left}
            write_whole(file, json.dumps({"texts": texts, "rewards": told}))
        told = json.loads(file.read_text())["rewards"]
        return np.array([told[name] for name in left], dtype=np.float64).reshape(len(left), len(part), -1)

    def labels(self, part: range, mask: Any) -> Any:
        """The ground truth of a round's chosen samples, (prompts, samples), NaN of the others."""
        import numpy as np

        file = self._file(part, "labels")
        if not file.exists():
            texts = json.loads(self._file(part).read_text())["texts"]
            chosen = [texts[at] for at in np.flatnonzero(mask)]
            write_whole(file, json.dumps(_scored(self.truth, chosen, ANOTHER)))
        found = np.full(mask.shape, np.nan)
        found[mask] = json.loads(file.read_text())
        return found

    def _file(self, part: range, kind: str = "rewards") -> Path:
        return self.scratch / f"{kind}-{part.start:09d}.json"


def _scored(reward_model: RewardModel, texts: Sequence[Any], remedy: str) -> list[float]:
    """Rewards of prompts with responses.

    Args:
        remedy: for one that cannot tell.

    Raises:
        StudyError: of one it cannot tell.
    """
    import numpy as np

    told = scorer_of(reward_model)([prompt for prompt, _ in texts], [text for _, text in texts])
    rewards = np.asarray(told, dtype=np.float64)
    if not np.isfinite(rewards).all():
        unread = f"of {int((~np.isfinite(rewards)).sum())} of {rewards.size} responses it cannot tell"
        raise StudyError(f"{reward_model.address}: {unread}; {remedy}")
    return [float(each) for each in rewards]
