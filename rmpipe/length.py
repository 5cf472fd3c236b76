"""How long texts are, in characters and in tokens; those too long are left out."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError
from rmpipe.origin import Origin
from rmpipe.table import Row
from rmpipe.text import Text, render

if TYPE_CHECKING:
    from numpy.typing import NDArray


def within(rows: list[Row], origin: Origin, name: str, dropped: Counter[str], fields: tuple[str, ...]) -> list[Row]:
    """Those within the length limits, with their lengths in `tokens` if a tokenizer is named.

    Args:
        name: what to call their origin.
        dropped: is told what is left out, and how often.
        fields: the prompt, and those of responses, each a text or a list of texts, of which the longest counts.

    Raises:
        StudyError: a chat template refuses a prompt; names the row.
    """
    tokenizer = origin.load_tokenizer()
    if tokenizer is None or not rows:
        return rows
    counts = {"prompt": _tokens(tokenizer, [_rendered(tokenizer, row, name) for row in rows])}
    counts |= {field: _tokens(tokenizer, [row[field] for row in rows]) for field in fields[1:]}
    kept = []
    for index, row in enumerate(rows):
        tokens = {field: counts[field][index] for field in fields}
        if tokens["prompt"] > (origin.max_prompt_tokens or tokens["prompt"]):
            dropped["prompt too long"] += 1
        elif (longest := max(tokens[field] for field in fields[1:])) > (origin.max_response_tokens or longest):
            dropped["response too long"] += 1
        else:
            kept.append({**row, "tokens": tokens})
    return kept


def lengths(rows: list[Row], fields: tuple[str, ...]) -> dict[str, dict[str, NDArray[Any]]]:
    """Lengths by unit and field, each (rows,): in characters, and in tokens where they were counted."""
    import numpy as np

    characters = [{field: _characters(row[field]) for field in fields} for row in rows]
    counts = {"characters": characters, "tokens": [row["tokens"] for row in rows if "tokens" in row]}
    return {
        unit: {field: np.array([count[field] for count in each]) for field in fields}
        for unit, each in counts.items() if each
    }  # fmt: skip


def figures(values: NDArray[Any]) -> dict[str, Any]:
    """Counts in short: least, median, mean and most."""
    import numpy as np

    told = {"min": int(values.min()), "median": float(np.median(values)), "mean": float(values.mean())}
    return {**told, "max": int(values.max())}


def _tokens(tokenizer: Any, texts: list[str] | list[list[str]]) -> list[int]:
    """The tokens of each text, or of the longest of each list of texts."""
    lists = [[text] if isinstance(text, str) else text for text in texts]
    ids = tokenizer([text for each in lists for text in each], add_special_tokens=False, verbose=False)["input_ids"]
    counts = (len(each) for each in ids)
    return [max(islice(counts, len(each))) for each in lists]


def _rendered(tokenizer: Any, row: Row, name: str) -> str:
    try:
        return render(tokenizer, row["prompt"])
    except Exception as error:  # templates raise what they like
        told = f"the chat template of {tokenizer.name_or_path} refuses it ({error})"
        raise StudyError(f"{name}: row {row['row']}: prompt: {told}; mend the row or name another tokenizer") from error


def _characters(text: Text | list[str]) -> int:
    """Of a text, of all that messages say, or of the longest of several texts."""
    if isinstance(text, str):
        return len(text)
    if isinstance(text[0], str):
        return max(map(len, text))
    return sum(len(turn["content"]) for turn in text)
