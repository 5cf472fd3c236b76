"""Public preference data by name, each with its own columns: on the hub, or in a local folder of the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rmpipe.config import Runtime
from rmpipe.dataset import HubSource
from rmpipe.source import reaching
from rmpipe.table import Row


class Collection(HubSource):
    """A data set whose rows are taken apart here, before they are checked like any other's."""

    def taken(self, row: dict[str, Any]) -> Row | None:
        """A row of prompt, chosen and rejected; None to leave it out.

        Raises:
            KeyError: the row has not the columns of this data set.
        """
        raise NotImplementedError

    def part(self, split: str) -> list[Row]:
        """The rows of a part that are taken.

        Raises:
            StudyError: a row has not the data set's columns.
        """
        return [row for row in self.apart(split, self.taken) if row is not None]


class UltraFeedback(Collection):
    """UltraFeedback, binarised: pairs of unequal scores, without those that ask for a translation (2507.07981, 5.2)."""

    source: Literal["ultrafeedback"] = "ultrafeedback"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "HuggingFaceH4/ultrafeedback_binarized"
    split: str = "train_prefs"
    test_split: str | None = "test_prefs"
    translations: Literal["drop", "keep"] = "drop"
    """What becomes of prompts that speak of translating: a response in another language is no paraphrase there."""

    def taken(self, row: dict[str, Any]) -> Row | None:
        """The last message of each side; nothing of pairs with equal scores."""
        if row["score_chosen"] <= row["score_rejected"]:
            return None
        if self.translations == "drop" and "translat" in row["prompt"].lower():
            return None
        told = {side: row[side][-1]["content"] for side in ("chosen", "rejected")}
        return {"id": row.get("prompt_id"), "prompt": row["prompt"], **told}


class AlpacaFarm(Collection):
    """AlpacaFarm's human preferences (2305.14387), which has no part that is held out.

    On the hub it is a script, which `datasets` no longer runs; the file that the script reads is read itself.
    """

    source: Literal["alpacafarm"] = "alpacafarm"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "tatsu-lab/alpaca_farm"
    subset: str | None = "alpaca_human_preference"
    split: str = "preference"

    def raw(self, split: str) -> list[Row]:
        """The rows of `SUBSET.json`, on the hub or in a folder that has it; else of a folder of the hub's form."""
        file = Path(self.path) / f"{self.subset}.json"
        if not self.remote and not file.exists():
            return super().raw(split)
        from datasets import load_dataset

        place = f"hf://datasets/{self.path}@{self.revision or 'main'}/{file.name}" if self.remote else str(file)
        with reaching(self.path, "dataset.path", f"give a hub id or a folder that has {file.name}"):
            rows: list[Row] = load_dataset("json", data_files=place, split="train").to_list()
            return rows

    def taken(self, row: dict[str, Any]) -> Row:
        """The instruction, with its input on a line of its own, and the outputs in the order of the preference."""
        first, second = row["output_1"], row["output_2"]
        chosen, rejected = (first, second) if row["preference"] == 1 else (second, first)
        prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


class RewardBench(Collection):
    """RewardBench's pairs, of some of its subsets."""

    source: Literal["rewardbench"] = "rewardbench"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "allenai/reward-bench"
    split: str = "filtered"
    subsets: tuple[str, ...] = Field(min_length=1)
    """Names, or what names begin with: `math-prm`, `hep`."""

    def taken(self, row: dict[str, Any]) -> Row | None:
        """A row of these subsets."""
        if not row["subset"].startswith(self.subsets):
            return None
        return {"id": f"{row['subset']}-{row['id']}", **{side: row[side] for side in ("prompt", "chosen", "rejected")}}


class RewardMath(Collection):
    """RewardMATH's pairs: a right and a wrong solution, each a list of steps."""

    source: Literal["rewardmath"] = "rewardmath"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "RewardMATH/RewardMATH_pairwise"
    split: str = "test"

    def taken(self, row: dict[str, Any]) -> Row | None:
        """The steps of each side, joined."""
        first, second = (" ".join(row[f"eval_solution_{side}"]) for side in "AB")
        chosen, rejected = (first, second) if row["chosen_position"] == "A" else (second, first)
        return {"prompt": row["problem"], "chosen": chosen, "rejected": rejected}
