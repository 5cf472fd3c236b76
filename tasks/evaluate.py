"""How a reward model fares on sets of pairs: in-distribution, and after shifts of tokens or of the domain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import accuracy, interval, overlap
from rmpipe.artifact import Measurement, Preferences, RewardModel, Scores, Weights
from rmpipe.generalising import HELD_OUT, Evaluating
from rmpipe.pair import SIDES
from rmpipe.text import parted
from tasks.execution import Log
from tasks.stage import stage

COLUMNS = ["set", "id", "asked", "group", "chosen", "rejected", "chosen_reward", "rejected_reward", "correct", "margin"]
FEW = 20
"""Distinct responses, at most, of a set whose mean rewards are told response by response."""


@stage(version=1)
def evaluate(
    config: Evaluating, reward_model: RewardModel, base: Weights, sets: dict[str, Preferences],
    scored: dict[str, Scores], *, out: Path, log: Log,
) -> Measurement:  # fmt: skip
    """Accuracy, margin, loss and mean rewards on each set; how much of the rewards the identity of tokens explains.

    2507.07981, section 5: ties earn one half, margins are absolute and in standard deviations of the set's rewards.

    Args:
        base: the language model that it was trained from, whose tokenizer says what a token is.
        scored: its rewards over each set.
    """
    import pandas as pd

    frames = {name: _frame(sets[name].table(), scored[name].pairs()) for name in sets}
    numbers: dict[str, Any] = {}
    for name, frame in frames.items():
        told = _numbers(frame, config.draws)
        numbers |= {f"{name}.{key}": number for key, number in told.items()}
    numbers |= _cues(base, frames, config)
    whole = pd.concat([frame.assign(set=name) for name, frame in frames.items()], ignore_index=True)
    whole[COLUMNS].to_parquet(out / "prompts.parquet", index=False)
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    (out / "phrases.json").write_text(json.dumps({name: _phrases(frame) for name, frame in frames.items()}, indent=1))
    (out / "looks.json").write_text(json.dumps(_looks(reward_model, scored), indent=1))
    values = {name: number["value"] for name, number in numbers.items() if number}
    summary = ", ".join(f"{name} {values[f'{name}.accuracy']:.2f}" for name in sets)
    return Measurement.at(out, summary, **values)


def _frame(table: Any, rewards: Any) -> Any:
    """A row a pair: its texts, its rewards, whether they order it right, and how far apart they are."""
    first, second = rewards[:, 0], rewards[:, 1]
    return table.assign(
        id=table["id"].astype(str),
        asked=[json.dumps(prompt, default=list) for prompt in table["prompt"]],
        group=table.get("group", ""),
        chosen_reward=first,
        rejected_reward=second,
        correct=accuracy.ranking_accuracy(first, second),
        margin=accuracy.normalised_margin(first, second),
    )


def _numbers(frame: Any, draws: int) -> dict[str, Any]:
    """Each with an interval, pairs of a prompt drawn together; accuracy group by group where the set has groups."""
    asked = frame["asked"].to_list()
    columns = {
        "margin": frame["margin"],
        "loss": accuracy.bradley_terry_losses(frame["chosen_reward"], frame["rejected_reward"]),
        "chosen": frame["chosen_reward"],
        "rejected": frame["rejected_reward"],
    }
    numbers = {"accuracy": interval.share(frame["correct"].to_list(), asked, draws=draws).json()}
    numbers |= {name: interval.clustered(list(values), asked, draws=draws).json() for name, values in columns.items()}
    for group, part in frame.groupby("group"):
        if group:
            found = interval.share(part["correct"].to_list(), part["asked"].to_list(), draws=draws)
            numbers[f"accuracy.{group}"] = found.json()
    return numbers


def _cues(base: Weights, frames: dict[str, Any], config: Evaluating) -> dict[str, Any]:
    """Of the difference of a pair's rewards, the share that a bag of tokens explains, in place and carried over.

    Token weights are fitted to the held-out pairs, each pair foretold by weights that its prompt had no part in:
    `cues` is their share there, `carried` their share of another set's rewards.
    """
    from transformers import AutoTokenizer

    if frames[HELD_OUT]["asked"].nunique() < config.folds:
        return {}  # too few prompts to foretell one from another
    tokenizer = AutoTokenizer.from_pretrained(base.model)
    bags = {name: _bags(tokenizer, frame) for name, frame in frames.items()}
    counts = overlap.token_counts(*(first + second for first, second in bags.values()))
    asked = {}
    for (name, frame), rows in zip(frames.items(), counts, strict=True):
        margins = (frame["chosen_reward"] - frame["rejected_reward"]).to_numpy()
        asked[name] = (rows[: len(frame)] - rows[len(frame) :], margins, frame["asked"].to_list())
    bag = overlap.Bag(*asked[HELD_OUT], intercept=False, folds=config.folds)
    shares = {name: interval.Estimate(bag.explain(*each).share).json() for name, each in asked.items()}
    return {f"{name}.{'cues' if name == HELD_OUT else 'carried'}": share for name, share in shares.items()}


def _bags(tokenizer: Any, frame: Any) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of the chosen and of the rejected responses, as they stand behind their prompts."""
    prompts = [json.loads(prompt) for prompt in frame["asked"]]
    first, second = ([parted(tokenizer, *pair)[1] for pair in zip(prompts, frame[side], strict=True)] for side in SIDES)
    return first, second


def _phrases(frame: Any) -> dict[str, float]:
    """The mean reward of each response that comes again and again, as a controlled set of phrases has them."""
    import pandas as pd

    texts = pd.concat([frame["chosen"], frame["rejected"]])
    rewards = pd.concat([frame["chosen_reward"], frame["rejected_reward"]])
    means = rewards.groupby(texts.to_numpy()).agg(["mean", "size"])
    if len(means) > FEW or means["size"].min() < 2:
        return {}
    return {text: float(mean) for text, mean in means["mean"].items()}


def _looks(reward_model: RewardModel, scored: dict[str, Scores]) -> list[dict[str, Any]]:
    """Accuracy and loss on each set at the steps at which the weights were kept, the end left out."""
    looks = []
    for index, step in enumerate(reward_model.looks()):
        look: dict[str, Any] = {"step": int(step)}
        for name, scores in scored.items():
            rewards = scores.looks()[index]
            look[name] = {
                "accuracy": float(accuracy.ranking_accuracy(rewards[:, 0], rewards[:, 1]).mean()),
                "loss": accuracy.bradley_terry_loss(rewards[:, 0], rewards[:, 1]),
            }
        looks.append(look)
    return looks
