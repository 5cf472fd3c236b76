"""Labelled inputs: prompts, each with what it may be answered with; read, checked and split before anything is spent.

A label is a reference: a text that supervised finetuning learns, and that a response may be measured against. A source
of your own is one class in one file: `source = "my_module:MyClass"` finds it beside the study, and a package adds it
under its own literal through the entry point group `rmpipe.labels`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from rmpipe.config import Registry, StudyError
from rmpipe.length import figures, lengths, within
from rmpipe.origin import InFile, OnHub, Origin
from rmpipe.pair import prompt_of, response_of
from rmpipe.split import check_held, counted, drawn, key_of, side_of, split
from rmpipe.table import Row, check_form, checked, once_each

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("prompt", "references")


class Labels(Registry, Origin, key="source", group="rmpipe.labels", ours=("rmpipe.grue", "rmpipe.alpaca")):
    """Where labelled inputs come from, and what is kept of them.

    A row has a prompt and its `completion`, a text, or `references`, a list of texts; rows of one prompt are one input.
    An input of which a reference is longer than `max_response_tokens` is left out.
    """

    needed: ClassVar[tuple[str, ...]] = ("prompt",)
    kept: ClassVar[tuple[str, ...]] = ("id", "split", "completion", "references", "group")

    source: str


class LocalLabels(InFile, Labels):
    """Labelled inputs of a JSONL, JSON or parquet file, or of a folder that `datasets.save_to_disk` wrote."""

    source: Literal["local"] = "local"


class HubLabels(OnHub, Labels):
    """Labelled inputs of a data set on the hub, or of a local folder of the same form."""

    source: Literal["hub"] = "hub"


class WorldLabels(Labels):
    """The embedded world's prompts, each answered as it asks.

    `group` is the place of what is asked for: 0 what is most often answered in pretraining, 6 and 7 what never is.
    """

    source: Literal["world"] = "world"
    inputs: int = Field(1200, ge=10, le=1536)
    turned: bool = False
    """Labels say what is wanted since tastes have turned: in winter another answer, which is group 8."""

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Made from the seed."""
        from rmpipe import world

        return list(world.labelled(seed, self.inputs, turned=self.turned)), "the embedded world"


def check(labels: Labels, seed: int = 0) -> pd.DataFrame | None:
    """Read and check a source without keeping anything.

    What must be fetched, rows or tokenizer, is left to the stage, which may try again when the network fails.

    Returns:
        the inputs as `prepare` gives them; None where the rows must be fetched.

    Raises:
        StudyError: everything that is wrong with it.
    """
    here = labels.here()
    return None if here is None else prepare(here, seed)[0]


def prepare(labels: Labels, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read, check, gather, filter, split and shuffle.

    The inputs of a split are in an order drawn by the seed, so that its first n, which is what `limit` and every later
    stage take, are a seeded draw.

    Returns:
        the inputs, with columns id, prompt, references (a list of texts, each once), split in {"policy", "test"}, and
        `group` where the source has it; and a summary of counts and lengths. No prompt is in both splits.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    import pandas as pd

    dropped: Counter[str] = Counter()
    raw, name = labels.rows(seed)
    read = checked(raw, name, partial(_labelled, labels))
    check_held(read, labels, name)
    check_form(read, name)
    inputs = _gathered(read)
    given = within(inputs, labels, name, dropped, FIELDS)
    rows = drawn(split(given, labels, seed, name, dropped), labels.limit, seed, FIELDS)
    kept = counted(rows, ("policy", "test"), given, ("input", len(raw), name), dropped)
    summary: dict[str, Any] = {"read": len(raw), "inputs": len(inputs), "dropped": dict(dropped), "kept": dict(kept)}
    summary |= _lengths(rows)
    if again := sum("numbered" in row for row in given):
        summary["ids numbered"] = again
    return pd.DataFrame(rows).drop(columns=["row", "tokens", "numbered"], errors="ignore"), summary


# -- checking ---------------------------------------------------------------------------------------------------------


def _labelled(labels: Labels, row: Row) -> Row:
    """An input with all its references, and the side that the data's own split column says."""
    told = {"id": row.get("id"), "prompt": prompt_of(row.get("prompt")), "references": _references(row)}
    if "group" in row:
        told["group"] = _group(row["group"])
    return {**told, "split": side_of(row.get("split"), labels.test_splits)}


def _references(row: Row) -> list[str]:
    """The completion and the references of a row, each once."""
    completion, references = row.get("completion"), row.get("references")
    if not isinstance(references, list | None):
        told = f"expected a list of texts, got {type(references).__name__}"
        raise StudyError(f"references: {told}; a column of one text each is `completion` by dataset.columns")
    texts = [] if completion is None else [response_of("completion", completion)]
    texts += [response_of(f"references.{place}", text) for place, text in enumerate(references or ())]
    if not texts:
        raise StudyError("references: missing; every row needs a completion, or a list of references with one at least")
    return list(dict.fromkeys(texts))


def _group(value: Any) -> Any:
    """What a group is called: a word, or a number."""
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        told = f"expected a word or a whole number, got {type(value).__name__}"
        raise StudyError(f"group: {told}; mend the row or leave the column out")
    return value


def _gathered(rows: list[Row]) -> list[Row]:
    """One row a prompt with the references of all its rows; a prompt on both sides is a leak, and stays two rows."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        first = found.setdefault((row["split"], key_of(row, ("prompt",))), row)
        if first is not row:
            first["references"] = list(dict.fromkeys([*first["references"], *row["references"]]))
    named = [{**row, "id": str(row["row"] if row["id"] is None else row["id"])} for row in found.values()]
    return once_each(_grouped(named))


def _grouped(rows: list[Row]) -> list[Row]:
    """A column of groups holds one form: numbers where each input has one, else words."""
    groups = [row.get("group") for row in rows]
    if all(group is None for group in groups):
        return [{name: value for name, value in row.items() if name != "group"} for row in rows]
    if all(isinstance(group, int) for group in groups):
        return rows
    return [{**row, "group": None if group is None else str(group)} for row, group in zip(rows, groups, strict=True)]


# -- figures ----------------------------------------------------------------------------------------------------------


def _lengths(rows: list[Row]) -> dict[str, Any]:
    """References an input, and lengths over inputs in characters, and in tokens where they were counted.

    Of an input's references the longest counts.
    """
    import numpy as np

    told = {
        unit: {field: figures(values) for field, values in each.items()} for unit, each in lengths(rows, FIELDS).items()
    }
    return {"references": figures(np.array([len(row["references"]) for row in rows])), **told}
