"""What somebody's preference pairs are, looked at before a study is written about them.

They may lie in a file, in a folder or on the hub, under whatever names of columns: what is found is what a study's
[dataset] must say to read them. Data sets that `rmpipe.collection` takes apart are known by id or by their columns.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError, first_line
from rmpipe.dataset import Dataset
from rmpipe.pair import FIELDS, SIDES
from rmpipe.preference import prepare
from rmpipe.prospect import hub_answers
from rmpipe.source import UnreachableError, check_place, reaching
from rmpipe.split import side_of
from rmpipe.table import Row, read

if TYPE_CHECKING:
    import pandas as pd

KNOWN = {
    "ultrafeedback": {"prompt", "prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"},
    "alpacafarm": {"instruction", "input", "output_1", "output_2", "preference"},
    "rewardbench2": {"prompt", "chosen", "rejected", "num_correct", "total_completions", "subset"},
    "rewardbench": {"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset", "id"},
    "rewardmath": {"problem", "chosen_position", "eval_solution_A", "eval_solution_B"},
    "hh": {"chosen", "rejected"},
}
"""Data sets that `rmpipe.collection` takes apart -> columns by which a local copy is known."""
MARKS = {"harmless-base": "hh", "alpaca_human_preference.json": "alpacafarm"}
"""What a local copy has in its folder -> the data set that it is."""
WORDS = {
    "rejected": ("rejected", "dispreferred", "unpreferred", "loser", "worse", "incorrect", "wrong", "negative", "bad"),
    "chosen": ("chosen", "preferred", "accepted", "winner", "better", "correct", "right", "positive", "good"),
    "prompt": ("prompt", "question", "instruction", "query", "input", "messages", "conversation", "context", "problem"),
}
"""Ours -> words that others' columns have in their names, the likeliest first."""
DIALOGUE = "dialogues as text"
BENCHED = ("alpacaeval", "mt-bench", "llmbar", "refusals", "xstest", "donotanswer", "math-prm", "hep")
"""What the names of RewardBench's subsets begin with."""


@dataclass(frozen=True)
class Pairs:
    """Preference pairs, as far as they were seen.

    Attributes:
        place: file, folder or hub id.
        table: what a study's [dataset] says to read them.
        form: in words.
        frame: the pairs as `prepare` gives them for the first seed; None where they were not seen.
        dropped: what is left out, and how often.
        remarks: what was decided for them, a sentence each.
        unseen: why they could not be looked at; empty where they were.
    """

    place: str
    table: dict[str, Any]
    form: str = ""
    frame: pd.DataFrame | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    unseen: str = ""

    @property
    def dialogue(self) -> bool:
        """Whether prompts are dialogues as text."""
        return DIALOGUE in self.form

    def told(self) -> str:
        """One line for a person."""
        if self.frame is None:
            return self.unseen
        sides = self.frame["split"].eq("test")
        left = ", ".join(f"{count} left out for {what}" for what, count in self.dropped.items() if count)
        source = self.table["source"]
        named = [] if source in ("local", "hub") else [f'known as "{source}"']
        return ", ".join(
            [*named, f"{len(sides)} pairs ({int(sides.sum())} held out)", self.form, *([left] if left else [])]
        )


def preferences(place: str, *, messages: bool = False, field: str = "--preferences") -> Pairs:
    """Pairs of a prompt, a chosen and a rejected response, whatever they are called.

    Args:
        messages: dialogues that may be read as text or as messages are to be messages.

    Raises:
        StudyError: they are not there, are no pairs, or have rows that cannot be used; says what to do.
    """
    check_place(place, field)
    if (Path(place) / "config.json").exists():
        raise StudyError(f"{field}: {place}: a model; give a file of pairs, a folder of the hub's form, or a hub id")
    if place.endswith((".gz", ".zip", ".zst", ".xz")):
        raise StudyError(f"{field}: {place}: compressed; unpack it, or give the folder that it lies in")
    try:
        table, rows, remarks = _in_file(place) if _is_file(Path(place)) else _in_parts(place, field)
    except UnreachableError as error:
        return _unseen(place, str(error).partition(": ")[2], messages)
    if not rows:
        raise StudyError(f"{field}: {place}: no rows; give one with a row at least")
    table, more = (table, []) if table["source"] in KNOWN else _read_as(table, rows, field)
    if table["source"] == "hh" and messages:
        table["form"] = "messages"
    return _looked_at(place, table, [*remarks, *more], _form(table, rows))


def _is_file(path: Path) -> bool:
    """Whether `source = "local"` reads it: a file, or a folder of `save_to_disk`."""
    return path.is_file() or any((path / name).exists() for name in ("dataset_dict.json", "state.json"))


def _in_file(place: str) -> tuple[dict[str, Any], list[Row], list[str]]:
    """Rows of a file, whose own column may say what is held out."""
    rows, remarks = read(Path(place)), []
    table: dict[str, Any] = {"source": "local", "path": place}
    try:
        sides = {side_of(row.get("split"), None) for row in rows}
    except StudyError as error:
        sides, remarks = set(), [f"its split column is not gone by ({first_line(error).partition(';')[0]})"]
    if rows and any("split" in row for row in rows) and "train" not in sides:
        table["split_column"] = ""
        remarks = remarks or ["all its rows are held out by their split column, which is not gone by"]
    return table, rows, remarks


def _in_parts(place: str, field: str) -> tuple[dict[str, Any], list[Row], list[str]]:
    """Rows of a data set on the hub, or in a folder of the hub's form, whose parts say what is held out."""
    here = Path(place)
    if not here.exists() and not hub_answers():
        raise UnreachableError(f"{place}: not looked at: the hub does not answer")
    name = next((name for part, name in MARKS.items() if (here / part).exists()), _by_id(place))
    table, remarks = ({"source": name, "path": place}, []) if name else _part_of(place, field)
    if name == "hh":
        remarks = ["of its folders, harmless-base is taken (`subset`)"]
    if name == "rewardbench":
        table |= {"subsets": BENCHED}
    source = Dataset.parse(table, "dataset")
    return table, source.raw(source.split), remarks


def _by_id(place: str) -> str:
    """The data set whose hub id this is, or the empty string."""
    ids = {Dataset.member(name, "").model_fields["path"].default.lower(): name for name in KNOWN}
    return ids.get(place.lower(), "")


def _part_of(place: str, field: str) -> tuple[dict[str, Any], list[str]]:
    """Which subset and which parts of a data set to take."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    with reaching(place, field, "give a file of pairs, a folder of the hub's form, or a hub id"):
        names = get_dataset_config_names(place)
        subset = "default" if "default" in names else names[0]
        parts = get_dataset_split_names(place, subset)
    table: dict[str, Any] = {"source": "hub", "path": place}
    remarks = [f"of its subsets ({', '.join(names)}), {subset} is taken"] if len(names) > 1 else []
    if subset != "default":
        table["subset"] = subset
    split = next((part for part in parts if _side(part) == "train" and "pref" in part), None)
    split = split or next((part for part in parts if _side(part) == "train"), parts[0])
    test = split.replace("train", "test", 1)
    held = (
        test
        if test in parts and test != split
        else next((part for part in parts if _side(part) == "test" and part != split), None)
    )
    table |= {"split": split} | ({"test_split": held} if held else {})
    return table, [*remarks, *([f"of its parts ({', '.join(parts)}), {split} is taken"] if len(parts) > 1 else [])]


def _side(part: str) -> str:
    try:
        return side_of(part, None)
    except StudyError:
        return ""


def _read_as(table: dict[str, Any], rows: list[Row], field: str) -> tuple[dict[str, Any], list[str]]:
    """The source that reads such rows, and the columns that it must be told."""
    columns = list(dict.fromkeys(key for row in rows[:100] for key in row))
    name = _by_columns(rows[0])
    if name and table["source"] == "hub" and (name != "hh" or Path(table["path"]).is_dir()):
        return _copy_of(name, table, rows), [f'its columns are those of "{name}"']
    named = _columns(rows[:100], columns)
    if missing := [ours for ours in SIDES if ours not in named]:
        told = f"no column for {' and '.join(missing)} among {', '.join(columns)}"
        hint = f'; a folder of the hub\'s form is read by source = "{name}"' if name else ""
        raise StudyError(
            f"{field}: {table['path']}: {told}{hint}; pairs have prompt, chosen and rejected: name the columns so"
        )
    other = {ours: theirs for ours, theirs in named.items() if ours != theirs}
    if other:
        table = table | {"columns": other}
    return table, [f"{theirs} is its {ours}" for ours, theirs in other.items()]


def _copy_of(name: str, table: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """What a study says of a copy of a known data set, which may have parts of other names."""
    told: dict[str, Any] = table | {"source": name}
    if name == "rewardbench":
        told["subsets"] = sorted({row["subset"] for row in rows})
    if name == "alpacafarm":
        told.setdefault("subset", "default")
    if name == "hh":
        folder = Path(table["path"]).resolve()
        told |= {"path": str(folder.parent), "subset": folder.name}
    return told


def _by_columns(row: Row) -> str:
    """The data set that such rows are from, or the empty string."""
    likely = (name for name, columns in KNOWN.items() if columns <= set(row))
    fits = {"hh": _is_dialogue(row), "rewardbench2": isinstance(row.get("chosen"), list)}
    return next((name for name in likely if fits.get(name, True)), "")


def _is_dialogue(row: Row) -> bool:
    texts = [row.get(side) for side in SIDES]
    return "prompt" not in row and all(isinstance(text, str) and text.startswith("\n\nHuman:") for text in texts)


def _columns(rows: list[Row], columns: Iterable[str]) -> dict[str, str]:
    """Ours to theirs, among columns of texts or messages: by name, by a word of the name, or by the nearest name."""
    free = [column for column in columns if any(_is_text(row.get(column)) for row in rows)]
    found: dict[str, str] = {ours: ours for ours in FIELDS if ours in free}
    for ours, words in WORDS.items():
        left = [column for column in free if column not in found.values()]
        if ours not in found and (column := _named(words, left)):
            found[ours] = column
    return {ours: found[ours] for ours in FIELDS if ours in found}


def _named(words: tuple[str, ...], columns: list[str]) -> str | None:
    """The column that one of these words names."""
    apart = {column: set(re.split(r"[^a-z]+", column.lower())) for column in columns}
    told = [
        column for column, parts in apart.items() if not parts & {"model", "score", "id", "rating", "source", "name"}
    ]
    for word in words:
        if found := [column for column in told if word in apart[column]]:
            return min(found, key=len)
    return next(iter(difflib.get_close_matches(words[0], told, 1, 0.75)), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _form(table: dict[str, Any], rows: list[Row]) -> str:
    """How their prompts and responses lie, in words."""
    row, names = rows[0], table.get("columns", {})
    prompt, chosen = (row.get(names.get(name, name)) for name in FIELDS[:2])
    if table["source"] == "hh":
        return f"dialogues as {table.get('form', 'text')}"
    if prompt is None or (isinstance(chosen, list) and len(chosen) > 1 and table["source"] in ("local", "hub")):
        return "whole conversations" if isinstance(chosen, list) else DIALOGUE
    if isinstance(prompt, str) and prompt.startswith("\n\nHuman:"):
        return f"prompts are {DIALOGUE}"
    return "prompts as messages" if isinstance(prompt, list) else "prompts as text"


def _looked_at(place: str, table: dict[str, Any], remarks: list[str], form: str) -> Pairs:
    """The pairs as the study will have them, before any limit of length."""
    try:
        frame, summary = prepare(Dataset.parse(table | {"leakage": "drop"}, "dataset"), 1)
    except StudyError as error:
        if form == DIALOGUE and table["source"] == "local":
            remedy = 'remove them, or give the folder of the data set: source = "hh" leaves such rows out'
            raise StudyError(f"{error}\n{place}: {remedy}") from error
        raise
    if leaks := summary["dropped"].get("prompt in test", 0):
        table = table | {"leakage": "drop"}
        remarks = [*remarks, f"{leaks} rows for training ask what a row held out asks, and are left out"]
    return Pairs(place, table, form, frame, summary["dropped"], tuple(remarks))


def _unseen(place: str, why: str, messages: bool) -> Pairs:
    """What is taken for granted of pairs that cannot be looked at."""
    name = _by_id(place)
    table: dict[str, Any] = {"source": name or "hub", "path": place}
    if name == "rewardbench":
        table["subsets"] = BENCHED
    if name == "hh" and messages:
        table["form"] = "messages"
    told = f'known as "{name}"' if name else "taken to have a part `train` and the columns prompt, chosen and rejected"
    return Pairs(place, table, unseen=f"{why}; {told}")
