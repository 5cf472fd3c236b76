"""Public preference data by name, each with its own columns: on the hub, or in a local folder of the same form."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from rmpipe.config import Runtime
from rmpipe.dataset import HubSource
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


class RewardBench2(HubSource):
    """RewardBench 2 (2506.01937): each prompt's right responses against its wrong ones, each two of them a pair.

    Its own figure calls a prompt right where the right response is above all three wrong ones, which chance does once
    in four; an accuracy over pairs is higher. `Ties`, which has many right responses a prompt and is told there by
    margins, would be most of the pairs, and is left out unless it is named.
    """

    source: Literal["rewardbench2"] = "rewardbench2"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "allenai/reward-bench-2"
    split: str = "test"
    subsets: tuple[str, ...] = Field(("Factuality", "Focus", "Math", "Precise IF", "Safety"), min_length=1)

    def part(self, split: str) -> list[Row]:
        """The pairs of the rows of these subsets.

        Raises:
            StudyError: a row has not the data set's columns, or none is of these subsets.
        """
        return [pair for pairs in self.apart(split, self._pairs) for pair in pairs]

    def _pairs(self, row: Row) -> list[Row]:
        if row["subset"] not in self.subsets:
            return []
        sides = [(right, wrong) for right in enumerate(row["chosen"]) for wrong in enumerate(row["rejected"])]
        return [
            {"id": f"{row['subset']}-{row['id']}-{i}-{j}", "prompt": row["prompt"], "chosen": right, "rejected": wrong}
            for (i, right), (j, wrong) in sides
        ]


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


class Hh(Collection):
    """Anthropic's dialogues (2204.05862): what both sides say, up to the last turn of the assistant, is the prompt.

    Left out are rows whose sides do not share their prompt, that have an empty response, or whose turns do not change.
    """

    source: Literal["hh"] = "hh"  # type: ignore[assignment]
    path: Annotated[str, Runtime] = "Anthropic/hh-rlhf"
    subset: str | None = "harmless-base"
    """A folder of the data set: `harmless-base`, `helpful-base`, `helpful-online`, `helpful-rejection-sampled`."""
    test_split: str | None = "test"
    leakage: Literal["drop", "refuse"] = "drop"
    form: Literal["text", "messages"] = "text"
    """`messages` for models with a chat template; `text` is the dialogue as it is, each turn after a blank line."""

    @property
    def selection(self) -> tuple[str | None, ...]:
        """A subset is a folder."""
        return None, self.subset

    def taken(self, row: dict[str, Any]) -> Row | None:
        """The shared dialogue, and how each side ends."""
        (prompt, chosen), (other, rejected) = (_ending(row[side]) for side in ("chosen", "rejected"))
        said = _turns(prompt)
        alternating = [turn["role"] for turn in said] == ["user", "assistant"] * (len(said) // 2) + ["user"]
        if prompt != other or not alternating or not chosen.strip() or not rejected.strip():
            return None
        if self.form == "text":
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return {"prompt": said, "chosen": chosen.strip(), "rejected": rejected.strip()}


def _ending(dialogue: str) -> tuple[str, str]:
    """A dialogue up to and with the last mark of the assistant's turn, and the rest."""
    before, mark, after = dialogue.rpartition("\n\nAssistant:")
    return before + mark, after


def _turns(prompt: str) -> list[dict[str, str]]:
    """The turns of a dialogue, without the one of the assistant that is to come."""
    roles, parts = {"Human": "user", "Assistant": "assistant"}, re.split(r"\n\n(Human|Assistant):", prompt)
    said = [{"role": roles[who], "content": text.strip()} for who, text in zip(parts[1::2], parts[2::2], strict=True)]
    return said[:-1]
