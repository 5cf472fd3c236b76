"""AlpacaFarm (2305.14387): its human preferences, and the instructions with answers that policies are finetuned on.

On the hub it is a script, which `datasets` no longer runs; the files that the script reads are read themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from rmpipe.collection import Collection
from rmpipe.config import Runtime
from rmpipe.labels import Labels
from rmpipe.origin import OnHub
from rmpipe.source import reaching
from rmpipe.table import Row


class InScript(OnHub):
    """A part whose rows lie in `SUBSET.json`."""

    path: Annotated[str, Runtime] = "tatsu-lab/alpaca_farm"

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


class AlpacaFarm(InScript, Collection):
    """AlpacaFarm's human preferences, which have no part that is held out."""

    source: Literal["alpacafarm"] = "alpacafarm"  # type: ignore[assignment]
    subset: str | None = "alpaca_human_preference"
    split: str = "preference"

    def taken(self, row: dict[str, Any]) -> Row:
        """The instruction, and the outputs in the order of the preference."""
        first, second = row["output_1"], row["output_2"]
        chosen, rejected = (first, second) if row["preference"] == 1 else (second, first)
        return {"prompt": _asked(row), "chosen": chosen, "rejected": rejected}


class AlpacaInstructions(InScript, Labels):
    """AlpacaFarm's instructions, each with its answer: what 2503.15477 finetunes policies on (section 4.1)."""

    source: Literal["alpacafarm"] = "alpacafarm"
    subset: str | None = "sft"
    split: str = "sft"

    def part(self, split: str) -> list[Row]:
        """The instruction, and its output as the one reference.

        Raises:
            StudyError: a row has not the data set's columns.
        """
        return self.apart(split, lambda row: {"prompt": _asked(row), "completion": row["output"]})


def _asked(row: Row) -> str:
    """The instruction, with its input on a line of its own."""
    return f"{row['instruction']}\n{row['input']}" if row["input"] else str(row["instruction"])
