"""RLHF: a policy taught by a reward model, and how it fares on held-out prompts while it is taught."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rmpipe import policy as lm
from rmpipe.artifact import Policy, Prompts, RewardModel, Scores, Sieve, Weights
from rmpipe.config import StudyError
from rmpipe.reinforcement import Algorithm
from rmpipe.reinforcement import align as aligned
from rmpipe.reward import Scorer
from rmpipe.sieve import FATES, KEPT, fates
from rmpipe.study import Sampling
from rmpipe.teaching import Evaluation, known_as
from rmpipe.text import Text, readable
from rmpipe.variance import shift_and_scale
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2, retry=(ConnectionError, TimeoutError))
def align(
    config: Algorithm, evaluation: Evaluation, sampling: Sampling, policy: Weights, teacher: RewardModel,
    scores: Scores, truth: RewardModel | None, truth_scores: Scores | None, preferences: Prompts, seed: int,
    sieve: Sieve | None = None, further: dict[str, RewardModel] | None = None,
    further_scores: dict[str, Scores] | None = None, *, out: Path, log: Log,
) -> Policy:  # fmt: skip
    """Train a policy on a reward, shifted and scaled by the initial policy's statistics (2503.15477, F.1).

    Args:
        sampling: how held-out responses are drawn; the same for every reward model, and the same random numbers.
        scores: rewards of the teacher over the initial policy's rollouts; their mean and std whiten the reward.
        truth_scores: those of the ground truth; they make its gain comparable with the proxy's.
        preferences: its prompts alone are read, so that labelled inputs do as well.
        sieve: which prompts are not trained on, or only after all others; those it does not know are trained on.
        further: other ground truths, by name, under which it is looked at too, as `truth.NAME`.
        further_scores: theirs, as `truth_scores`.

    Raises:
        StudyError: the sieve leaves fewer prompts than a step takes.
    """
    _, prompts = preferences.prompts("policy")
    first, later = sieved(prompts, sieve, config.prompts_per_step, log)
    shift, scale = shift_and_scale(scores.rewards())
    proxy = scorer_of(teacher)
    examiner = Examiner(policy, config.dtype, evaluation, sampling, preferences, seed, log.scratch)
    examiner.rewards["proxy"] = (proxy, shift, scale)
    if truth is not None and truth_scores is not None:
        examiner.rewards["truth"] = (scorer_of(truth), *shift_and_scale(truth_scores.rewards()))
    for name, judge in (further or {}).items():
        spread = shift_and_scale((further_scores or {})[name].rewards())
        examiner.rewards[known_as(name)] = (scorer_of(judge), *spread)

    def reward(asked: list[Any], responses: list[str]) -> Any:
        return (proxy(asked, responses) + shift) * scale

    def examine(model: Any, tokenizer: Any, step: int) -> dict[str, float]:
        numbers = examiner(lm.LanguageModel(model, tokenizer), step)
        log.metrics(numbers, step)
        return numbers

    more: dict[str, Any] = {"config": config, "seed": seed, "log": log, "evaluate": examine, "later": later}
    aligned(policy.model, first, reward, out / "model", **more)
    return examiner.write(out)


def sieved(prompts: list[Text], sieve: Sieve | None, least: int, log: Log) -> tuple[list[Text], list[Text]]:
    """The prompts to train on, in two parts: those that come first, and those after all others; counts are logged.

    Raises:
        StudyError: there are fewer than `least` of both, so that a step would take none.
    """
    if sieve is None:
        return prompts, []
    told = fates(prompts, sieve.table())
    counts = Counter(told)
    log.metrics({f"prompts.{fate}": float(counts[fate]) for fate in FATES})
    if (left := len(prompts) - counts["drop"]) < least:
        few = f"{sieve.address} leaves {left} of {len(prompts)} prompts, and prompts_per_step = {least}"
        raise StudyError(f'sifting: {few}; lower that, or set sifting.fate = "defer"')
    by = list(zip(prompts, told, strict=True))
    return [prompt for prompt, fate in by if fate in KEPT], [prompt for prompt, fate in by if fate == "defer"]


class Examiner:
    """Draws held-out responses of a policy in training, and keeps their rewards, divergence and texts.

    Each look is a file in the scratch folder, so that a run that goes on after a kill has those of before.

    Args:
        dtype: what the policy in training has its weights in, so that it begins at no divergence.

    Attributes:
        rewards: name -> (scorer, shift, scale); rewards are kept shifted and scaled, in standard deviations of the
            initial policy's.
    """

    def __init__(
        self,
        policy: Weights,
        dtype: str,
        evaluation: Evaluation,
        sampling: Sampling,
        preferences: Prompts,
        seed: int,
        scratch: Path,
    ):
        self.reference, self.evaluation, self.seed = lm.load(policy.model, dtype), evaluation, seed
        self.options = lm.options(sampling, samples=evaluation.responses, batch_size=evaluation.batch_size)
        self.prompts = preferences.prompts("test")[1][: evaluation.prompts]
        self.rewards: dict[str, tuple[Scorer, float, float]] = {}
        self.folder = scratch / "looks"
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, model: lm.LanguageModel, step: int) -> dict[str, float]:
        """Examine once; the numbers are means over held-out prompts x responses."""
        import numpy as np

        drawn = lm.sample(model, self.prompts, **self.options, seed=self.seed)
        asked = [prompt for prompt, item in zip(self.prompts, drawn, strict=True) for _ in item.responses]
        texts = [text for item in drawn for text in item.responses]
        look: dict[str, Any] = {"texts": [item.responses[0] for item in drawn]}
        for name, (scorer, shift, scale) in self.rewards.items():
            look[name] = ((np.asarray(scorer(asked, texts)) + shift) * scale).reshape(len(self.prompts), -1).tolist()
        numbers = {name: float(np.mean(look[name])) for name in self.rewards}
        numbers |= lm.divergence(model, self.reference, self.prompts, drawn, batch_size=self.evaluation.batch_size)
        numbers["length"] = float(np.mean([item.tokens for item in drawn]))
        (self.folder / f"{step:08d}.json").write_text(json.dumps({"step": step, "numbers": numbers, **look}))
        return numbers

    def write(self, out: Path) -> Policy:
        """Leave the curve, the texts of every look, and prompt by prompt the gains, in standard deviations."""
        import numpy as np
        import pandas as pd

        looks = [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]
        first, last = looks[0], looks[-1]
        gains = {f"{name}_gain": np.mean(last[name], axis=1) - np.mean(first[name], axis=1) for name in self.rewards}
        ends = (("before", first), ("after", last))
        rewards = {f"{name}_{when}": np.array(look[name])[:, 0] for name in self.rewards for when, look in ends}
        texts = {"prompt": self.prompts, "before": first["texts"], "after": last["texts"]}
        curve = [{"step": look["step"], **look["numbers"]} for look in looks]
        written = [
            {"step": look["step"], "prompt": readable(prompt), "response": text}
            | {name: look[name][index][0] for name in self.rewards}
            for look in looks for index, (prompt, text) in enumerate(zip(self.prompts, look["texts"], strict=True))
        ]  # fmt: skip
        pd.DataFrame(written).to_parquet(out / "texts.parquet", index=False)
        pd.DataFrame(curve).to_parquet(out / "curve.parquet", index=False)
        pd.DataFrame({**texts, **rewards, **gains}).to_parquet(out / "prompts.parquet", index=False)
        means = {name: float(values.mean()) for name, values in gains.items()}
        told = ", ".join(f"{name.replace('_', ' ')} {value:+.3f}" for name, value in means.items())
        return Policy.at(out, told, **means, kl=curve[-1]["kl"])
