"""Preference pairs and their sources: read, checked, filtered and split, before any compute is spent.

A pair is a prompt (a string, or chat messages), a chosen and a rejected response (strings). What is wrong is said with
file, row and field, and with the remedy; what is dropped is counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rmpipe.config import Config, Registry, Runtime, StudyError, nearest
from rmpipe.source import fingerprint_path
from rmpipe.text import Text, render

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("prompt", "chosen", "rejected")
Row = dict[str, Any]


class Dataset(Registry, Config, key="source", group="rmpipe.sources"):
    """Where preference pairs come from, and what is kept of them; one frozen class, found by its `source`."""

    source: str
    policy_fraction: float = Field(0.3, gt=0, lt=1)
    """Share of the prompts kept apart for policy-gradient training."""
    test_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts held out; where the data says `test` in its own split column, that is taken instead."""
    limit: int | None = Field(None, ge=1)
    """The most pairs of each split."""
    equal: Literal["drop", "refuse"] = "drop"
    """What becomes of pairs whose responses are equal."""
    leakage: Literal["drop", "refuse"] = "refuse"
    """What becomes of training rows whose prompt the data's own test split has too."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer that the length limits count in."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    max_response_tokens: int | None = Field(None, ge=1)

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """The raw rows, and what to call their origin in messages."""
        raise NotImplementedError

    def content(self) -> str:
        """What the source holds, as text that moves when it does."""
        return fingerprint_path(self)


class LocalSource(Dataset):
    """A JSONL, JSON or parquet file, or a folder that `datasets.save_to_disk` wrote."""

    source: Literal["local"] = "local"
    path: Annotated[str, Runtime]
    """Relative to the study file. Its content is in the address, its place is not."""
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Ours to theirs: {chosen = "better", rejected = "worse"}."""
    split_column: str | None = "split"

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Read the file; `split` is kept when the data has it."""
        return _renamed(_read(Path(self.path)), self.columns, self.split_column, self.path), self.path


class HubSource(Dataset):
    """A data set on the hub, or in a local folder of the same form."""

    source: Literal["hub"] = "hub"
    path: Annotated[str, Runtime]
    revision: str | None = None
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Load through `datasets`; no code of the data set's is run."""
        from datasets import load_dataset

        name = f"{self.path}[{self.split}]"
        try:
            table = load_dataset(self.path, self.subset, split=self.split, revision=self.revision)
        except ConnectionError:
            raise
        except Exception as error:
            raise StudyError(
                f"dataset.path: {name} cannot be loaded ({error}); give a hub id or a folder of that form"
            ) from error
        return _renamed(table.to_list(), self.columns, None, name), name


class WorldSource(Dataset):
    """The embedded world's own pairs."""

    source: Literal["world"] = "world"
    pairs: int = Field(1200, ge=10)

    def rows(self, seed: int) -> tuple[list[Row], str]:
        """Made from the seed."""
        from rmpipe import world

        return list(world.preferences(seed, self.pairs)), "the embedded world"


def check(dataset: Dataset) -> None:
    """Read and check a source without keeping anything; a hub's is left to its stage, which may wait for the network.

    Raises:
        StudyError: everything that is wrong with it.
    """
    if not isinstance(dataset, HubSource):
        prepare(dataset, 0)


def prepare(dataset: Dataset, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read, check, filter and split.

    Returns:
        the pairs, with columns id, prompt, chosen, rejected, split in {"reward", "policy", "test"}, and what else the
        source has; and a summary of counts and lengths. No prompt is in two splits.

    Raises:
        StudyError: names file, row and field of what cannot be used, with the remedy.
    """
    import pandas as pd

    raw, name = dataset.rows(seed)
    dropped: Counter[str] = Counter()
    rows = _checked(raw, name, dataset, dropped)
    rows = _short(rows, dataset, dropped)
    rows = _split(rows, dataset, seed, name, dropped)
    if dataset.limit is not None:
        rows = [
            row
            for split in ("reward", "policy", "test")
            for row in [r for r in rows if r["split"] == split][: dataset.limit]
        ]
    counts = Counter(row["split"] for row in rows)
    for split in ("reward", "policy", "test"):
        if not counts[split]:
            raise StudyError(
                f"{name}: no pair is left for the {split} split ({len(raw)} read, dropped: {dict(dropped)}); "
                "give more data or larger limits"
            )
    frame = pd.DataFrame(rows)
    summary = {"read": len(raw), "dropped": dict(dropped), "kept": dict(counts), "characters": _lengths(rows)}
    return frame, summary


def relabel(frame: pd.DataFrame, truth: Callable[..., Any], ties: str = "drop") -> tuple[pd.DataFrame, dict[str, int]]:
    """Label pairs afresh: swapped where the truth scores chosen strictly below rejected (2503.15477, F.1).

    Args:
        truth: prompts and responses to (n,) scores.
        ties: `keep` or `drop` pairs of one score.

    Returns:
        the pairs with chosen_score, rejected_score and swapped, and counts.
    """
    import numpy as np

    prompts = list(frame["prompt"])
    scores = np.stack([np.asarray(truth(prompts, list(frame[side]))) for side in ("chosen", "rejected")])
    swap = scores[0] < scores[1]
    frame = frame.assign(swapped=swap, chosen_score=scores.max(0), rejected_score=scores.min(0))
    frame["chosen"], frame["rejected"] = (
        frame["chosen"].where(~swap, frame["rejected"]),
        frame["rejected"].where(~swap, frame["chosen"]),
    )
    tied = scores[0] == scores[1]
    counts = {"swapped": int(swap.sum()), "ties": int(tied.sum())}
    return (frame[~tied].reset_index(drop=True) if ties == "drop" else frame), counts


def pairs_from_samples(
    prompts: list[Text], responses: list[list[str]], rewards: Any
) -> tuple[pd.DataFrame, dict[str, int]]:
    """On-policy pairs: of two responses the better one is chosen; equal texts and ties are dropped and counted.

    Args:
        responses: two for each prompt.
        rewards: (prompts, 2), reward units.
    """
    import pandas as pd

    rows, counts = [], Counter({"ties": 0, "equal": 0})
    for index, (prompt, texts, scores) in enumerate(zip(prompts, responses, rewards, strict=True)):
        if texts[0] == texts[1] or scores[0] == scores[1]:
            counts["equal" if texts[0] == texts[1] else "ties"] += 1
            continue
        best = int(scores[1] > scores[0])
        told = {
            "chosen": texts[best],
            "rejected": texts[1 - best],
            "chosen_score": float(scores[best]),
            "rejected_score": float(scores[1 - best]),
        }
        rows.append({"id": f"on-policy-{index}", "prompt": prompt, "split": "reward", **told})
    if not rows:
        raise StudyError(
            "collect: every two samples of a prompt are alike or worth the same; raise temperature or prompts"
        )
    return pd.DataFrame(rows), dict(counts) | {"pairs": len(rows)}


def mix(
    on_policy: pd.DataFrame, off_policy: pd.DataFrame, share: float, seed: int, count: int | None = None
) -> pd.DataFrame:
    """Pairs of which a share is on-policy (2503.15477, 4.1).

    As the paper's code, by one seeded permutation: its first int(share * n) rows come from the one, the rest from the
    other; each is first brought to n rows, the smaller of both or `count`.
    """
    import numpy as np
    import pandas as pd

    n = min(
        len(on_policy) if share > 0 else len(off_policy),
        len(off_policy) if share < 1 else len(on_policy),
        count or 1 << 62,
    )
    order = np.random.RandomState(seed).permutation(n)
    cut = int(share * n)
    return pd.concat([on_policy.iloc[order[:cut]], off_policy.iloc[order[cut:]]], ignore_index=True)


# -- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[Row]:
    if path.is_dir():
        from datasets import load_from_disk

        try:
            return load_from_disk(str(path)).to_list()
        except Exception as error:
            raise StudyError(
                f'{path}: not a folder that datasets.save_to_disk wrote ({error}); use source = "hub" for other forms'
            ) from error
    if not path.exists():
        raise StudyError(f"{path}: nothing there; dataset.path is read from the study file's folder")
    if path.suffix == ".parquet":
        import pandas as pd

        return pd.read_parquet(path).to_dict("records")
    if path.suffix == ".json":
        try:
            rows = json.loads(_text(path))
        except json.JSONDecodeError as error:
            raise StudyError(f"{path}: not JSON ({error}); use .jsonl for one row a line") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise StudyError(f"{path}: expected a list of rows; use .jsonl for one row a line")
        return rows
    lines = _text(path).split("\n")  # not splitlines: texts may hold U+2028 and other ends of lines as they are
    return [_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None


def _line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: row {number}: not JSON ({error}); one object a line is expected") from None
    if not isinstance(row, dict):
        raise StudyError(f"{path}: row {number}: expected an object, got {line[:40]}")
    return row


def _renamed(rows: list[Row], columns: dict[str, str], split_column: str | None, name: str) -> list[Row]:
    found = dict.fromkeys(key for row in rows for key in row)
    for ours, theirs in columns.items():
        if theirs not in found:
            raise StudyError(
                f"{name}: column {theirs!r}, named in dataset.columns.{ours}, is not there; "
                f"{nearest(theirs, list(found))}"
            )
    wanted = {field: columns.get(field, field) for field in FIELDS}
    for ours, theirs in wanted.items():
        if rows and theirs not in found and ours != "prompt":
            raise StudyError(
                f"{name}: column {theirs!r} is missing; {nearest(theirs, list(found))}; dataset.columns can name it"
            )
    kept = {**{name: name for name in ("id", "margin")}, **wanted}
    if split_column:
        kept["split"] = split_column
    return [{ours: row[theirs] for ours, theirs in kept.items() if theirs in row} for row in rows]


# -- checking -------------------------------------------------------------------------------------------------------


def _checked(raw: list[Row], name: str, dataset: Dataset, dropped: Counter[str]) -> list[Row]:
    if not raw:
        raise StudyError(f"{name}: no rows")
    rows, faults, seen = [], [], set()
    for number, row in enumerate(raw, 1):
        try:
            row = {"id": str(row.get("id", number)), **_apart(row)}
        except StudyError as fault:
            faults.append(f"{name}: row {number}: {fault}")
            continue
        key = json.dumps([row[field] for field in FIELDS], sort_keys=True)
        if row["chosen"] == row["rejected"]:
            if dataset.equal == "refuse":
                faults.append(
                    f'{name}: row {number}: chosen and rejected are equal; remove it or set dataset.equal = "drop"'
                )
            dropped["equal responses"] += 1
        elif key in seen:
            dropped["duplicates"] += 1
        else:
            seen.add(key)
            rows.append(row)
    if faults:
        more = (
            f"\n{name}: {len(faults)} rows of {len(raw)} cannot be used; the first are above" if len(faults) > 5 else ""
        )
        raise StudyError("\n".join(faults[:5]) + more)
    return rows


def _apart(row: Row) -> Row:
    """A row with prompt and responses apart; the prompt may be inside of both responses."""
    row = {key: _messages(value) for key, value in row.items()}
    if row.get("prompt") is None:
        row["prompt"], row["chosen"], row["rejected"] = _common(row.get("chosen"), row.get("rejected"))
    if not _is_text(row["prompt"]):
        raise StudyError(
            f"prompt: expected text or a list of messages with role and content, got {_kind(row['prompt'])}"
        )
    if not row["prompt"]:
        raise StudyError("prompt: empty; remove the row")
    for field in ("chosen", "rejected"):
        row[field] = _response(field, row.get(field))
    return row


def _messages(value: Any) -> Any:
    return (
        [dict(turn) for turn in value]
        if hasattr(value, "tolist") and len(value) and isinstance(value[0], dict)
        else value
    )


def _is_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) and "role" in turn for turn in value
    )


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _response(field: str, value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and _is_text(value):
        value = value[0]["content"]
    if isinstance(value, list):
        raise StudyError(
            f"{field}: {len(value)} messages where one response is expected; leave `prompt` out if it is inside"
        )
    if not isinstance(value, str):
        raise StudyError(f"{field}: expected text, got {_kind(value)}; remove the row or mend it")
    if not value.strip():
        raise StudyError(f"{field}: empty; remove the row")
    return value


def _common(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Prompt and responses of two whole conversations: what both begin with is the prompt."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        return chosen[:shared], chosen[shared:], rejected[shared:]
    if isinstance(chosen, str) and isinstance(rejected, str):
        marker = "\n\nAssistant:"
        cut = chosen.rfind(marker) + len(marker)
        if cut > len(marker) - 1 and chosen[:cut] == rejected[:cut]:
            return chosen[:cut], chosen[cut:], rejected[cut:]
    raise StudyError(
        "prompt: missing, and chosen and rejected do not share one that ends a turn; name its column in dataset.columns"
    )


# -- filtering and splitting ----------------------------------------------------------------------------------------


def _short(rows: list[Row], dataset: Dataset, dropped: Counter[str]) -> list[Row]:
    limits = (dataset.max_prompt_tokens, dataset.max_response_tokens)
    if limits == (None, None):
        return rows
    if dataset.tokenizer is None:
        raise StudyError("dataset.tokenizer: missing; the length limits are counted in tokens of a named tokenizer")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(dataset.tokenizer)

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    kept = []
    for row in rows:
        asked = length(render(tokenizer, row["prompt"]))
        said = max(length(row["chosen"]), length(row["rejected"]))
        if asked > (limits[0] or asked):
            dropped["prompt too long"] += 1
        elif said > (limits[1] or said):
            dropped["response too long"] += 1
        else:
            kept.append(row)
    return kept


def _split(rows: list[Row], dataset: Dataset, seed: int, name: str, dropped: Counter[str]) -> list[Row]:
    import numpy as np

    asked = [row["prompt"].strip() if isinstance(row["prompt"], str) else row["prompt"] for row in rows]
    keys = [json.dumps(prompt, sort_keys=True).lower() for prompt in asked]
    held = {key for key, row in zip(keys, rows, strict=True) if row.get("split") == "test"}
    leaks = [
        i for i, (key, row) in enumerate(zip(keys, rows, strict=True)) if key in held and row.get("split") != "test"
    ]
    if leaks and dataset.leakage == "refuse":
        told = f"{len(leaks)} training rows ask what a test row asks, first row {rows[leaks[0]]['id']}"
        raise StudyError(f'{name}: prompt: {told}; remove them or set dataset.leakage = "drop"')
    dropped["prompt in test"] += len(leaks)
    gone = set(leaks)
    prompts = sorted({key for i, key in enumerate(keys) if i not in gone and key not in held})
    order = np.random.RandomState(seed).permutation(len(prompts))
    test = 0 if held else round(dataset.test_fraction * len(prompts))
    policy = round(dataset.policy_fraction * len(prompts))
    parts = {
        prompts[i]: "test" if rank < test else "policy" if rank < test + policy else "reward"
        for rank, i in enumerate(order)
    }
    parts |= dict.fromkeys(held, "test")
    return [{**row, "split": parts[key]} for i, (key, row) in enumerate(zip(keys, rows, strict=True)) if i not in gone]


def _lengths(rows: list[Row]) -> dict[str, Any]:
    import numpy as np

    chosen, rejected = (np.array([len(row[side]) for row in rows]) for side in ("chosen", "rejected"))
    told = {side: _figures(values) for side, values in (("chosen", chosen), ("rejected", rejected))}
    return {**told, "chosen longer": float((chosen > rejected).mean())}


def _figures(values: Any) -> dict[str, float]:
    import numpy as np

    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "95th percentile": float(np.quantile(values, 0.95)),
    }
