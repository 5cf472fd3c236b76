"""Labels: a file of responses of a study's own policies, some with the ground truth's number, or ordered by pairs.

A row is a prompt with one response and its label, with a list of responses and as many labels, or with two responses of
which one was preferred; rows of one prompt are put together. A label belongs to a text: given once, it counts for every
draw of that text, and two that differ are refused. Whatever has no label is left out, and so is a prompt with fewer
than two labelled responses. What is wrong is said with file, row and field, and with the remedy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from rmpipe.adoption import check_once, number_of, responses_of, said_of
from rmpipe.artifact import Rollouts
from rmpipe.config import Config, Runtime, StudyError, nearest
from rmpipe.pair import SIDES, prompt_of
from rmpipe.source import fingerprint_files
from rmpipe.split import key_of
from rmpipe.table import Row, check_form, checked, once_each, read

FEWEST = 2
"""Labelled responses that a prompt needs: labels of one do not vary."""


class Labelling(Config):
    """A file of labels; what it holds counts, not where it is. A text alone is its path."""

    path: Annotated[str, Runtime]
    """A JSONL, JSON or parquet file, or a folder that `datasets.save_to_disk` wrote."""
    policy: str | None = None
    """Whose responses those rows have that name no policy; None for the only policy that a study has."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    def content(self) -> str:
        """SHA-256 of the file.

        Raises:
            StudyError: it is not there.
        """
        if not Path(self.path).exists():
            raise StudyError(f"{self.path}: nothing there; give a file of prompts, responses and labels")
        return fingerprint_files(Path(self.path))


@dataclass(frozen=True)
class Pool:
    """Labelled responses of one policy.

    Attributes:
        rows: {"id", "prompt", "responses", "finished"} each, all with as many responses: a prompt that has fewer
            repeats its first.
        labels: (prompts, samples); None for what is repeated, and counts for nothing.
        left: prompts with labels that are left out, since fewer than two of their responses have one.
        pairs: that labels are shares of, of which the order within a prompt counts alone; 0 of labels.
        named: whether every row names its policy.
    """

    rows: list[Row]
    labels: list[list[float | None]]
    left: int
    pairs: int
    named: bool

    @property
    def count(self) -> int:
        """How many responses have a label."""
        return sum(label is not None for labels in self.labels for label in labels)

    def told(self) -> str:
        """One line for a person."""
        left = f", {self.left} more left out, with fewer than {FEWEST} labelled responses" if self.left else ""
        by = f", by {self.pairs} pairs" if self.pairs else ""
        return f"labels of {self.count} responses to {len(self.rows)} prompts{by}{left}"


def pools(config: Labelling, policies: Iterable[str]) -> dict[str, Pool]:
    """Read a file, check it whole, and give each policy its own.

    Args:
        policies: those that labels are needed of, all that the study has.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    policies, rows = list(policies), _rows(config)
    if config.policy is not None and config.policy not in policies:
        raise StudyError(f"{config.path}: policy: no {config.policy!r} there; {nearest(config.policy, policies)}")
    nobody = next((row["row"] for row in rows if row["policy"] is None), None)
    if nobody and config.policy is None and len(policies) > 1:
        told = f"row {nobody}: policy: missing, and there are {len(policies)} ({', '.join(policies)})"
        raise StudyError(f"{config.path}: {told}; name it in each row, or the one of all such rows as labels.policy")
    return {policy: _pool(config, policy, rows) for policy in policies}


def pool(config: Labelling, policy: str) -> Pool:
    """One policy's labelled responses, of a file that `pools` has checked for all."""
    return _pool(config, policy, _rows(config))


def write(
    rollouts: Mapping[str, Rollouts], file: Path, prompts: int | None = None, responses: int | None = None
) -> int:
    """Write responses to be labelled: a JSONL file, read back once `label` is filled in, for all rows or for some.

    Args:
        rollouts: a policy's samples, by its name.
        file: where to; one that is there stays.
        prompts: how many of each policy, the first; None for all.
        responses: how many to each prompt, the first; None for all.

    Returns:
        how many rows there are.

    Raises:
        StudyError: there is such a file, or no folder for it.
    """
    lines = [
        json.dumps(row, ensure_ascii=False)
        for policy, drawn in rollouts.items()
        for row in _unlabelled(policy, drawn, prompts, responses)
    ]
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
    except FileExistsError:
        raise StudyError(f"{file}: there already; give another name") from None
    except OSError as error:
        raise StudyError(f"{file}: cannot be written ({error.strerror}); give another place") from error
    return len(lines)


def _unlabelled(policy: str, drawn: Rollouts, prompts: int | None, responses: int | None) -> Iterator[Row]:
    table = drawn.table()
    asked, _ = drawn.pairs()
    firsts = (asked[place] for place in range(0, len(asked), len(table["responses"][0])))
    ended = table["finished"] if "finished" in table else [[True] * len(each) for each in table["responses"]]
    for prompt, texts, finished in list(zip(firsts, table["responses"], ended, strict=True))[:prompts]:
        for text, whole in list(zip(texts, finished, strict=True))[:responses]:
            cut = {} if whole else {"finished": False}
            yield {"policy": policy, "prompt": prompt, "response": text, "label": None, **cut}


# -- a row ------------------------------------------------------------------------------------------------------------


def _rows(config: Labelling) -> list[Row]:
    """Every row in one form: its policy, its prompt, its responses, and their labels or whether there is a tie."""
    config.content()
    name = config.path
    raw = read(Path(name))
    rows = checked(raw, name, _row)
    check_form(rows, name)
    first = rows[0]
    if unlike := next((row for row in rows if ("tie" in row) != ("tie" in first)), None):
        forms = ["a pair" if "tie" in row else "labels" for row in (first, unlike)]
        told = f"row {first['row']} has {forms[0]}, row {unlike['row']} has {forms[1]}"
        raise StudyError(f"{name}: {told}; give pairs alone, or labels alone")
    if "tie" in first:
        return rows
    if all(label is None for row in rows for label in row["labels"]):
        columns = list(dict.fromkeys(key for row in raw for key in row))
        seen = "none" if {"label", "labels"} & set(columns) else f"no such column among {', '.join(columns)}"
        raise StudyError(f"{name}: label: {seen}; fill in a number for two responses to a prompt at least")
    check_once(rows, name, ("policy", "prompt", "responses", "labels"))
    return rows


def _row(row: Row) -> Row:
    """A row in the listed form, or a pair, whichever it is."""
    policy = row.get("policy")
    if not isinstance(policy, str | None):
        raise StudyError(f"policy: expected a name, got {type(policy).__name__}; mend the row or leave it out")
    told: Row = {"policy": policy or None, "id": row.get("id"), "prompt": prompt_of(row.get("prompt"))}
    if any(row.get(side) is not None for side in SIDES):
        return told | _pair(row)
    if row.get("response") is None and row.get("responses") is None:
        forms = "a `response` with its `label`, `responses` with `labels`, or `chosen` and `rejected`"
        raise StudyError(f"response: missing; every row needs {forms}")
    flat = row.get("responses") is None and row.get("response") is not None
    told["responses"] = responses_of(row, flat)
    labels = _listed(row, "label" if flat else "labels", len(told["responses"]), flat)
    told["labels"] = [None if label is None else number_of(field, label) for field, label in labels]
    ended = _listed(row, "finished", len(told["responses"]), flat)
    return told | {"finished": [_whether(field, value, otherwise=True) for field, value in ended]}


def _pair(row: Row) -> Row:
    """A pair's `finished` is a list, `chosen` first, or one value of both."""
    both = not isinstance(row.get("finished"), list)
    ended = _listed(row, "finished", len(SIDES), flat=both) * (1 + both)
    return {
        "responses": [said_of(side, row.get(side)) for side in SIDES],
        "tie": _whether("tie", row.get("tie"), otherwise=False),
        "finished": [_whether(field, value, otherwise=True) for field, value in ended],
    }


def _listed(row: Row, field: str, count: int, flat: bool) -> list[tuple[str, Any]]:
    """(field, value) for each response; None where nothing is said."""
    value = row.get(field)
    if flat:
        return [(field, value)]
    if value is None:
        return [(field, None)] * count
    if not isinstance(value, list) or len(value) != count:
        got = len(value) if isinstance(value, list) else type(value).__name__
        raise StudyError(
            f"{field}: expected a list of {count}, one a response, got {got}; mend the row, with null for none"
        )
    return [(f"{field}.{place}", each) for place, each in enumerate(value)]


def _whether(field: str, value: Any, *, otherwise: bool) -> bool:
    if not isinstance(value, bool | None):
        raise StudyError(f"{field}: expected true or false, got {value!r}; mend the row or leave it out")
    return otherwise if value is None else value


# -- a policy's rows --------------------------------------------------------------------------------------------------


def _pool(config: Labelling, policy: str, rows: list[Row]) -> Pool:
    """What is labelled of a policy, prompt by prompt."""
    mine: dict[str, list[Row]] = {}
    for row in rows:
        if (row["policy"] or config.policy or policy) == policy:
            mine.setdefault(key_of(row, ("prompt",)), []).append(row)
    if not mine:
        found = sorted({str(row["policy"] or config.policy) for row in rows})
        raise StudyError(f"{config.path}: policy: no row is of {policy!r}; {nearest(policy, found)}")
    asked = [_gathered(each, config.path) for each in mine.values()]
    kept = [row for row in asked if len(row["labels"]) >= FEWEST]
    left = sum(0 < len(row["labels"]) < FEWEST for row in asked)
    if not kept:
        told = f"of {policy!r} no prompt has {FEWEST} labelled responses, and {left} have one"
        raise StudyError(
            f"{config.path}: label: {told}; labels of one response do not vary, label two a prompt at least"
        )
    most = max(len(row["labels"]) for row in kept)
    labels = [row.pop("labels") for row in kept]
    return Pool(
        once_each([_filled(row, most) for row in kept]),
        [[*each, *[None] * (most - len(each))] for each in labels], left,
        pairs=sum(map(len, mine.values())) if "tie" in rows[0] else 0,
        named=all(row["policy"] is not None for row in rows),
    )  # fmt: skip


def _gathered(rows: list[Row], name: str) -> Row:
    """All rows of one prompt as one, of the responses that have a label."""
    pairs = "tie" in rows[0]
    labels = _shares(rows) if pairs else _agreed(rows, name)
    drawn = [each for row in rows for each in zip(row["responses"], row["finished"], strict=True) if each[0] in labels]
    if pairs:  # how often a response was drawn they do not say; it was cut off where any of them says so
        drawn = [(text, (text, False) not in drawn) for text in dict.fromkeys(text for text, _ in drawn)]
    first = rows[0]
    return {
        "id": str(first["row"] if first["id"] is None else first["id"]), "prompt": first["prompt"],
        "responses": [text for text, _ in drawn], "finished": [ended for _, ended in drawn],
        "labels": [labels[text] for text, _ in drawn],
    }  # fmt: skip


def _agreed(rows: list[Row], name: str) -> dict[str, float]:
    """The label of each text that has one."""
    found: dict[str, tuple[float, int]] = {}
    for row in rows:
        for text, label in zip(row["responses"], row["labels"], strict=True):
            if label is None:
                continue
            before, place = found.setdefault(text, (label, row["row"]))
            if before != label:
                told = f"{label:g}, and row {place} has {before:g} for the same response"
                raise StudyError(
                    f"{name}: row {row['row']}: label: {told}; give it one label, or the mean of its raters'"
                )
    return {text: label for text, (label, _) in found.items()}


def _shares(rows: list[Row]) -> dict[str, float]:
    """A response's wins less its losses as a share of its pairs, from -1 to 1, which is its Borda score.

    Of a pair of equal texts nothing is learnt.
    """
    ahead, pairs = Counter[str](), Counter[str]()
    for row in rows:
        better, worse = row["responses"]
        if better != worse:
            pairs.update((better, worse))
            ahead.update({} if row["tie"] else {better: 1, worse: -1})
    return {text: ahead[text] / count for text, count in pairs.items()}


def _filled(row: Row, count: int) -> Row:
    """As many responses as the prompt that has most."""
    return {
        **row,
        **{field: [*row[field], *row[field][:1] * (count - len(row[field]))] for field in ("responses", "finished")},
    }
