"""Adoption: rollouts and their rewards that other programs made, checked whole before anything is kept of them.

A row is a prompt with its responses and as many rewards or, in the flat form, a prompt with one response and its
reward; rows of one prompt are put together. A list of responses that is there twice is a row too many. A flat row may
be, since a policy may say a thing twice: only a flat file that is there twice as a whole is refused. Rewards are
numbers of one reward model, or an object that names those of several. What is wrong is said with file, row and field,
and with the remedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

from rmpipe.config import Config, Runtime, StudyError, digest, nearest
from rmpipe.pair import prompt_of, response_of
from rmpipe.split import key_of
from rmpipe.table import Row, check_form, checked, once_each, read

TRUTH = "truth"
"""What the rewards of a ground truth are called, unless it is said."""
LARGEST = 1e30
"""What a number may be, above and below 0."""
KEPT = ("id", "prompt", "responses", "tokens")


class Adopting(Config):
    """A file of rollouts with rewards, and what its rewards are called; what is taken of it counts, not where it is."""

    path: Annotated[str, Runtime]
    """A JSONL, JSON or parquet file, or a folder that `datasets.save_to_disk` wrote."""
    name: Annotated[str | None, Runtime] = None
    """What rewards are called that have no name; None for the name of the file."""
    truth: Annotated[str | None, Runtime] = None
    """Whose rewards stand for what people want: a name among the rewards, or a column of its own."""

    @property
    def called(self) -> str:
        """The name of the file, which is also what its policy is called."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Adopted:
    """Rollouts with their rewards.

    Attributes:
        rows: {"id", "prompt", "responses"} each, all with as many responses, and "tokens" where they were counted.
        rewards: of each reward model, (prompts, samples), reward units.
        truth: which of these stands for what people want; None where none does.
    """

    rows: list[Row]
    rewards: dict[str, list[list[float]]]
    truth: str | None

    @property
    def content(self) -> str:
        """SHA-256 of the rollouts, whatever their rewards are."""
        return digest(self.rows, 64)

    def content_of(self, name: str) -> str:
        """SHA-256 of the rewards of one reward model."""
        return digest(self.rewards[name], 64)


def adopted(config: Adopting) -> Adopted:
    """Read a file and check it whole.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    path = Path(config.path)
    if not path.exists():
        raise StudyError(f"{path}: nothing there; give a file of prompts, responses and rewards")
    files = (each.stat() for each in [path, *sorted(path.glob("*"))])
    return _adopted(config, tuple((each.st_size, each.st_mtime_ns) for each in files))


@lru_cache(maxsize=1)
def _adopted(config: Adopting, state: tuple[tuple[int, int], ...]) -> Adopted:
    """Several stages take their parts of one file."""
    name = config.path
    raw = read(Path(name))
    given = checked(raw, name, partial(_row, config))
    check_form(given, name)
    _check_alike(given, name)
    models = list(given[0]["rewards"])
    if config.truth is not None and config.truth not in models:
        told = f"no rewards and no column {config.truth!r}; {nearest(config.truth, [*models, *raw[0]])}"
        raise StudyError(f"{name}: truth: {told}")
    check_once(given, name)
    rows = _gathered(given)
    _check_counts(rows, name)
    kept = [{field: row[field] for field in KEPT if field in row} for row in rows]
    rewards = {model: [row["rewards"][model] for row in rows] for model in models}
    return Adopted(kept, rewards, config.truth or (TRUTH if TRUTH in models else None))


# -- a row ------------------------------------------------------------------------------------------------------------


def _row(config: Adopting, row: Row) -> Row:
    """A row in the listed form, whichever it has."""
    flat = row.get("responses") is None and row.get("response") is not None
    responses = responses_of(row, flat)
    told: Row = {"id": row.get("id"), "prompt": prompt_of(row.get("prompt")), "responses": responses}
    count = len(responses)
    told["rewards"] = {name: _numbers(field, value, count, flat) for name, field, value in _rewards(config, row, flat)}
    if row.get("tokens") is not None:
        told["tokens"] = [_count(number) for number in _numbers("tokens", row["tokens"], count, flat)]
    return told


def responses_of(row: Row, flat: bool) -> list[str]:
    """Texts, of which one may be empty: a policy may say nothing.

    Raises:
        StudyError: names the field that cannot be used.
    """
    if flat:
        return [said_of("response", row["response"])]
    texts = row.get("responses")
    if not isinstance(texts, list) or not texts:
        told = "empty" if texts == [] else "missing" if texts is None else f"expected a list, got {_kind(texts)}"
        raise StudyError(f"responses: {told}; every row needs a list of responses, or one `response` with its `reward`")
    return [said_of(f"responses.{place}", text) for place, text in enumerate(texts)]


def said_of(field: str, value: Any) -> str:
    """What a policy said, which may be nothing.

    Raises:
        StudyError: it is no text.
    """
    return value if isinstance(value, str) and not value.strip() else response_of(field, value)


def _rewards(config: Adopting, row: Row, flat: bool) -> Iterable[tuple[str, str, Any]]:
    """(reward model, field, its rewards) each, the ground truth's among them where it has a column of its own."""
    field = "reward" if flat else "rewards"
    given = row.get(field)
    if given is None:
        raise StudyError(f"{field}: missing; every row needs one a response, or an object of such lists by name")
    if not isinstance(given, dict):
        found = [(config.name or config.called, field, given)]
    elif config.name is not None:
        raise StudyError(f"{field}: named already ({', '.join(given)}), not to be called {config.name}; leave that out")
    else:
        found = [(name, f"{field}.{name}", values) for name, values in given.items()]
    truth = config.truth or TRUTH
    own = row.get(truth)
    if own is None or (config.truth is None and isinstance(own, str)):  # an answer in words is no reward
        return found
    if truth in {name for name, *_ in found}:
        raise StudyError(f"{truth}: told twice, among the {field} and in a column of its own; leave one of them out")
    return [*found, (truth, truth, own)]


def _numbers(field: str, value: Any, count: int, flat: bool) -> list[float]:
    """As many finite numbers as there are responses; of the flat form one that is no list."""
    if not flat and (not isinstance(value, list) or len(value) != count):
        got = f"{len(value)}" if isinstance(value, list) else _kind(value)
        raise StudyError(f"{field}: expected a list of {count} numbers, one a response, got {got}; mend the row")
    return [number_of(field if flat else f"{field}.{place}", x) for place, x in enumerate([value] if flat else value)]


def number_of(field: str, value: Any) -> float:
    """A finite number.

    Raises:
        StudyError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"{field}: expected a number, got {_kind(value)}; mend the row, with 1 and 0 for yes and no")
    if not abs(value) <= LARGEST:  # squares of larger ones are no numbers
        raise StudyError(f"{field}: {value}, which no mean could have; leave the row out, or score it again")
    return float(value)


def _count(number: float) -> int:
    if number < 0 or number != int(number):
        raise StudyError(f"tokens: expected whole numbers from 0, got {number}; mend the row or leave the column out")
    return int(number)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


# -- all rows ---------------------------------------------------------------------------------------------------------


def _check_alike(rows: list[Row], name: str) -> None:
    """Every row has rewards of the same reward models, and all have tokens or none has."""
    first = rows[0]
    if not first["rewards"]:
        raise StudyError(f"{name}: row {first['row']}: rewards: none; name a reward model at least")
    for what, of in (("rewards", lambda row: set(row["rewards"])), ("tokens", lambda row: {"tokens"} & set(row))):
        unlike = [row for row in rows if of(row) != of(first)]
        if unlike:
            sides = [", ".join(sorted(of(row))) or "none" for row in (first, unlike[0])]
            told = f"row {first['row']} has {sides[0]}, row {unlike[0]['row']} has {sides[1]}"
            others = f", and {len(unlike)} rows of {len(rows)} are unlike the first" if len(unlike) > 1 else ""
            raise StudyError(f"{name}: {what}: {told}{others}; give every row the same")


def check_once(rows: list[Row], name: str, fields: tuple[str, ...] = ("prompt", "responses", "rewards")) -> None:
    """No row is there twice, where that cannot be a policy's doing: what is counted twice looks surer than it is.

    A list of responses with its rewards is one draw of all of them. Of single responses one may be said again; that
    each of them is, under prompts with unlike ones, is a file that was put together twice.

    Args:
        fields: in which two rows that are one are alike.

    Raises:
        StudyError: one is; names both.
    """
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(key_of(row, fields), []).append(row)
    again = [same for same in alike.values() if len(same) > 1]
    listed = [same for same in again if len(same[0]["responses"]) > 1]
    unlike = max(Counter(key_of(same[0], ("prompt",)) for same in alike.values()).values()) > 1
    found = listed or (again if len(again) == len(alike) and unlike else [])
    if found:
        one, other, *_ = (row["row"] for row in found[0])
        more = "" if listed else ", and so is every row"
        remedy = "leave one out, or where the policy did say the same twice, give all responses of a prompt in one row"
        raise StudyError(f"{name}: row {other} is row {one} again{more}; {remedy}")


def _gathered(rows: list[Row]) -> list[Row]:
    """One row a prompt, with the responses and rewards of all its rows in their order."""
    found: dict[str, Row] = {}
    for row in rows:
        first = found.setdefault(key_of(row, ("prompt",)), row)
        if first is not row:
            first["responses"] += row["responses"]
            for model, values in row["rewards"].items():
                first["rewards"][model] += values
            if "tokens" in first:
                first["tokens"] += row["tokens"]
    return once_each([{**row, "id": str(row["row"] if row["id"] is None else row["id"])} for row in found.values()])


def _check_counts(rows: list[Row], name: str) -> None:
    """Each prompt has as many responses, two at least: the variance of one prompt is compared with another's."""
    counts = Counter(len(row["responses"]) for row in rows)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        first = next(row for row in rows if len(row["responses"]) != usual)
        told = ", ".join(f"{count} to {prompts} of {len(rows)} prompts" for count, prompts in counts.most_common())
        also = f"the prompt of row {first['row']} has {len(first['responses'])} in all its rows"
        raise StudyError(f"{name}: responses: {told} ({also}); give each as many, or leave the other prompts out")
    if 1 in counts:
        told = "one to each prompt, and rewards of one response do not vary"
        raise StudyError(f"{name}: responses: {told}; draw two a prompt at least, several rows of one prompt will do")
