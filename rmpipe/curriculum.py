"""A curriculum: the prompts at which a reward model teaches a policy nothing, and the others as others read prompts.

Where the rewards of a policy's own responses do not vary, the gradient of the expected reward vanishes (2310.20703,
Theorem 1), and whatever trains on such a prompt pays for its samples and learns next to nothing from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmpipe.config import StudyError
from rmpipe.gauge import moments
from rmpipe.preference import records
from rmpipe.sieve import KEPT, Sifting, sifted
from rmpipe.source import reaching
from rmpipe.store import write_whole
from rmpipe.table import Row
from rmpipe.text import Text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from rmpipe.artifact import Rollouts, Scores

# -- which ------------------------------------------------------------------------------------------------------------


def flattest(rollouts: Rollouts, scores: Scores, threshold: float, count: int, samples: int) -> list[Row]:
    """The prompts of the least reward std, the least first.

    Args:
        rollouts: a policy's responses.
        scores: their rewards.
        threshold: std of the whitened reward below which a prompt teaches nothing.
        count: the most prompts.
        samples: the most responses of each.

    Returns:
        prompt_id, prompt, mean and std (reward units), white_std (of the whitened reward), flat (whether it teaches
        nothing), and responses, unlike ones with their rewards, the best and the worst: {"response", "reward"} each.
    """
    rewards, table = scores.rewards().astype("float64"), rollouts.table()
    columns = moments(rewards, threshold)
    first = np.argsort(columns["white_std"], kind="stable")[:count]
    asked = records(table.iloc[first], ("prompt_id", "prompt", "responses"))
    told = [{name: values[place].item() for name, values in columns.items()} for place in first]
    return [
        {"prompt_id": row["prompt_id"], "prompt": row["prompt"], **numbers,
         "responses": _ends(row["responses"], rewards[place], samples)}
        for row, numbers, place in zip(asked, told, first, strict=True)
    ]  # fmt: skip


def _ends(responses: Sequence[str], rewards: NDArray[np.float64], count: int) -> list[Row]:
    """Unlike responses with their rewards, the best first; of many the best and the worst."""
    told = dict(zip(map(str, responses), map(float, rewards), strict=True))
    best = [{"response": text, "reward": told[text]} for text in sorted(told, key=lambda text: -told[text])]
    return best if len(best) <= count else [*best[: (count + 1) // 2], *best[len(best) - count // 2 :]]


def shown(rollouts: Rollouts, scores: Scores, threshold: float, count: int) -> pd.DataFrame:
    """The flattest prompts as a person reads them, a row a prompt, with the best and the worst response of each.

    Args:
        rollouts: a policy's responses.
        scores: their rewards.
        threshold: as in `flattest`.
        count: the most prompts.
    """
    import pandas as pd

    rows = []
    for row in flattest(rollouts, scores, threshold, count, 2):
        best, *others = row["responses"]
        worst = others[0] if others else {"response": "", "reward": np.nan}
        told = {"prompt": row["prompt"], "std": row["white_std"], "teaches_nothing": row["flat"], "mean": row["mean"]}
        rows.append(told | best | {"other": worst["response"], "other_reward": worst["reward"]})
    return pd.DataFrame(rows)


def parted(rollouts: Rollouts, scores: Scores, config: Sifting) -> tuple[list[Row], list[Row]]:
    """The prompts that teach something, and those that do not, both in their order.

    Returns:
        {"id", "prompt"} each; and {"id", "prompt", "mean", "std" (reward units), "white_std", "why"} each.
    """
    asked = records(rollouts.table(), ("prompt_id", "prompt"))
    table = sifted([row["prompt_id"] for row in asked], scores.rewards(), config)
    teaching, nothing = [], []
    for row, told in zip(asked, table.to_dict("records"), strict=True):
        named = {"id": str(row["prompt_id"]), "prompt": row["prompt"]}
        if told["fate"] in KEPT:
            teaching.append(named)
        else:
            numbers = {name: told[name] for name in ("mean", "std", "white_std")}
            nothing.append(named | numbers | {"why": _why(told["std"], config)})
    return teaching, nothing


def as_read(rollouts: Rollouts, rows: Sequence[Row]) -> list[Row]:
    """Prompts as the policy read them whose responses were measured.

    Where its tokenizer has a chat template a text was a user's turn (`rmpipe.text.render`), and becomes messages, which
    others send through that template too. Adopted rollouts have no policy, and their prompts stay as they are.

    Args:
        rollouts: a policy's responses.
        rows: {"id", "prompt"} each.

    Raises:
        StudyError: the policy is not here any more.
    """
    policy = rollouts.inputs.get("policy")
    if policy is None or all(not isinstance(row["prompt"], str) for row in rows):
        return list(rows)
    from transformers import AutoTokenizer

    with reaching(str(policy.model), "policy", "run its study again, which makes it"):
        turns = bool(AutoTokenizer.from_pretrained(policy.model).chat_template)
    return [row | {"prompt": _turn(row["prompt"])} for row in rows] if turns else list(rows)


def _turn(prompt: Text) -> Text:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _why(std: float, config: Sifting) -> str:
    if std == 0:
        return "all its rewards are equal"
    return rule(config)


def rule(config: Sifting) -> str:
    """When a prompt teaches nothing, in words."""
    if config.low is not None:
        return f"its reward's std is among the lowest {config.low:.0%}"
    return f"its whitened reward's std is below {config.threshold:g}"


# -- as others read them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How a project reads prompts.

    Attributes:
        row: a row of its data from id, prompt, place in the data and the name of the data.
        endings: of the files that it reads, the usual one first.
    """

    row: Callable[[str, Text, int, str], Row]
    endings: tuple[str, ...]


def trl(name: str, prompt: Text, place: int, source: str) -> Row:
    """A row of TRL's prompt-only data, which `RLOOTrainer` and `GRPOTrainer` train on.

    They take `prompt` alone (`_set_signature_columns_if_needed`), and `trl.data_utils.is_conversational` tells messages
    from text. Further columns would go to reward functions as arguments.
    """
    return {"prompt": prompt}


def verl(name: str, prompt: Text, place: int, source: str) -> Row:
    """A row as `RLHFDataset` of verl reads it (`verl/utils/dataset/rl_dataset.py`).

    Its prompt goes to a chat template as it is (`maybe_filter_out_long_prompts`, `__getitem__`), so it must be
    messages. `NaiveRewardManager.run_single` wants data_source, reward_model.ground_truth and extra_info in each row;
    for a reward model they are as in verl's own example, `generate_rl_dataset` of
    `examples/data_preprocess/full_hh_rlhf.py`, where the truth is there, and not used.
    """
    judged = {"style": "model", "ground_truth": ""}
    about = {"index": place, "split": "train", "id": name}
    return {
        "data_source": source, "prompt": _turn(prompt), "ability": "alignment", "reward_model": judged,
        "extra_info": about,
    }  # fmt: skip


def openrlhf(name: str, prompt: Text, place: int, source: str) -> Row:
    """A row as `PromptDataset` of OpenRLHF reads it (`preprocess_data` of `openrlhf/datasets/prompts_dataset.py`).

    `input` is what `--input_key` is unless told, and `datasource` what its figures are told apart by. Messages need
    `--apply_chat_template`, which also makes messages of a text. Files are read by `blending_datasets`.
    """
    return {"input": prompt, "datasource": source}


FORMS = {
    "trl": Form(trl, ("jsonl", "parquet")),
    "verl": Form(verl, ("parquet",)),
    "openrlhf": Form(openrlhf, ("jsonl", "parquet")),
}
"""How prompts are written for whom."""


def destination(out: Path, form: str) -> tuple[Path, Path]:
    """The files that prompts and those left out go to: one that is named with the other beside it, or in a folder.

    Raises:
        StudyError: the form is not read from such a file, or something is there already.
    """
    endings = FORMS[form].endings
    ending = out.suffix.removeprefix(".")
    if ending in ("jsonl", "json", "parquet", "csv", "arrow") and ending not in endings:
        raise StudyError(f"{out}: {form} takes its prompts as .{' or .'.join(endings)}; give such a file, or a folder")
    named = ending in endings
    files = (out, out.with_name(f"{out.stem}.left-out.jsonl")) if named else (
        out / f"train.{endings[0]}", out / "left-out.jsonl"
    )  # fmt: skip
    if there := [file for file in files if file.exists()]:
        raise StudyError(f"{there[0]}: something is there; remove it, or give another place")
    return files


def write(rows: Sequence[Row], left_out: Sequence[Row], form: str, source: str, out: Path) -> tuple[Path, Path]:
    """Write prompts for whoever trains on them, and beside them a list of those that were left out.

    Args:
        rows: {"id", "prompt"} each, as `as_read` gives them.
        left_out: as `parted` gives them.
        form: one of `FORMS`.
        source: what the data are called.
        out: a file, or a folder.

    Returns:
        both files.

    Raises:
        StudyError: no prompt is left, or they cannot go there.
    """
    data, rest = destination(out, form)
    if not rows:
        raise StudyError(f"{out}: none of {len(left_out)} prompts would be left; lower the threshold, or the share")
    data.parent.mkdir(parents=True, exist_ok=True)
    made = [FORMS[form].row(row["id"], row["prompt"], number, source) for number, row in enumerate(rows)]
    write_whole(rest, _lines(left_out))
    if data.suffix == ".parquet":
        _parquet(made, data)
    else:
        write_whole(data, _lines(made))
    return data, rest


def _lines(rows: Sequence[Row]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _parquet(rows: Sequence[Row], file: Path) -> None:
    """A parquet file that is there whole or not at all."""
    import pyarrow
    import pyarrow.parquet as pq

    part = file.with_name(f".{file.name}.part")
    try:
        pq.write_table(pyarrow.Table.from_pylist(list(rows)), part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
