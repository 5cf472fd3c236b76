"""What a row must be: a prompt (a string, or chat messages), and responses (strings) to it.

Faults are named by field, each with its remedy; who reads the rows adds file and row.
"""

from __future__ import annotations

from typing import Any

from rmpipe.config import StudyError
from rmpipe.table import Row
from rmpipe.text import Text

FIELDS = ("prompt", "chosen", "rejected")
SIDES = FIELDS[1:]


def pair_of(row: Row) -> Row:
    """A preference pair with prompt and responses apart; the prompt may be inside of both responses, or there as well.

    Raises:
        StudyError: names the field that cannot be used.
    """
    prompt, chosen, rejected = (row.get(field) for field in FIELDS)
    if prompt is None or _again(prompt, chosen, rejected):
        prompt, chosen, rejected = _common(chosen, rejected)
    texts = {"prompt": prompt_of(prompt)}
    texts |= {"chosen": response_of("chosen", chosen), "rejected": response_of("rejected", rejected)}
    margin = row.get("margin")
    if isinstance(margin, bool) or not isinstance(margin, int | float | None):
        raise StudyError(f"margin: expected a number, got {_kind(margin)}; mend the row or leave the column out")
    return {**row, **texts}


def demonstration_of(row: Row) -> Row:
    """A prompt with its completion.

    Raises:
        StudyError: names the field that cannot be used.
    """
    for field in ("prompt", "completion"):
        if row.get(field) is None:
            raise StudyError(f"{field}: missing; every row needs prompt and completion")
    return {"prompt": prompt_of(row["prompt"]), "completion": response_of("completion", row["completion"])}


def prompt_of(value: Any) -> Text:
    """A prompt, of messages no more than role and content.

    Raises:
        StudyError: it is neither text nor messages, or says nothing.
    """
    if isinstance(value, str):
        said = value
    elif _are_messages(value):
        value = [{"role": turn["role"], "content": turn["content"]} for turn in value]
        said = "".join(turn["content"] for turn in value)
    else:
        raise StudyError(
            f"prompt: expected text or a list of messages with role and content, got {_kind(value)}; mend the row"
        )
    _check_text("prompt", said)
    return value


def response_of(field: str, value: Any) -> str:
    """A response: text, or one message, whose content is taken.

    Raises:
        StudyError: it is neither, or says nothing.
    """
    if _are_messages(value) and len(value) == 1:
        value = value[0]["content"]
    if isinstance(value, list):
        raise StudyError(
            f"{field}: {len(value)} messages where one response is expected; leave `prompt` out if it is inside"
        )
    if not isinstance(value, str):
        raise StudyError(f"{field}: expected text, got {_kind(value)}; remove the row or mend it")
    _check_text(field, value)
    return value


def _check_text(field: str, said: str) -> None:
    if not said.strip():
        raise StudyError(f"{field}: empty; remove the row")
    try:
        said.encode()
    except UnicodeEncodeError as error:  # half of a pair of surrogates, which no file of ours could hold
        raise StudyError(f"{field}: not Unicode text ({error.reason}); remove the row or mend it") from None


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) and isinstance(turn.get("role"), str)
        for turn in value
    )


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _again(prompt: Any, chosen: Any, rejected: Any) -> bool:
    """Whether both sides are whole conversations that say the prompt once more."""
    if not (_are_messages(chosen) and _are_messages(rejected)):
        return False
    shared = _common(chosen, rejected)[0]
    return any(turn["content"] == prompt for turn in shared) if isinstance(prompt, str) else bool(prompt == shared)


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
