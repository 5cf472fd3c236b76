"""Language models that are asked about a response and write an answer, out of which a number is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from rmpipe import policy, truth
from rmpipe.config import StudyError, in_one_line, nearest
from rmpipe.folder import check_code, check_folder
from rmpipe.published import Published
from rmpipe.reward import Scorer
from rmpipe.source import reaching
from rmpipe.text import Template, Text, encode, filled

if TYPE_CHECKING:
    import numpy as np

Parser = Callable[[str], float | None]

QUESTION = (
    "Rate from 1 to 10 how well the response answers the request.\n\nRequest: {prompt}\n\nResponse: {response}\n\n"
    "Write the rating, and nothing else, as [[7]]."
)
"""Our words; a judge that was finetuned for the purpose wants those that it was finetuned on."""


class Judged(Published):
    """A language model whose written judgement of a response is the reward."""

    kind: Literal["judge"] = "judge"
    template: Template = QUESTION
    """What it is asked, with {prompt} and {response}; a chat template, where there is one, comes around it."""
    parser: str = "rating"
    """What is read from an answer. `rating`: the last number in double brackets, as in [[7]]; `number`: the last
    number, but for what another is out of, as in 7/10; `yes_no`: 1 where `yes` is said first, 0 where `no` is; or
    `module:function`, your own from the answer to a number, or to None where there is none."""
    unparsed: float | None = None
    """The reward of an answer that cannot be read. None: it has none, so that such a judge may label pairs, of which
    those are left out, and scores nothing once there is such an answer."""
    max_new_tokens: int = Field(64, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = Field(16, ge=1)
    """Questions at a time. It counts: padding moves last bits, and in bfloat16 the likeliest token with them."""

    @field_validator("parser")
    @classmethod
    def _there(cls, name: str) -> str:
        parser_of(name)
        return name

    def content(self) -> str:
        """That of the model, and of the file of a parser that is not ours."""
        return " ".join([super().content(), *([truth.fingerprint(self.parser)] if ":" in self.parser else [])])

    def tokens(self, tokenizer: Any, prompt: Text, response: str) -> int:
        """How many tokens the question and its answer have together."""
        return len(encode(tokenizer, filled(self.template, prompt, response))) + self.max_new_tokens

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the model at `path`."""
        return JudgeScorer(self)


class JudgeScorer:
    """The scorer of a `Judged`: what the model writes about each response, its likeliest tokens, read as a number.

    Attributes:
        unparsed: how many answers could not be read since it was made.
    """

    def __init__(self, kind: Judged):
        self.kind, self.parser, self.unparsed = kind, parser_of(kind.parser), 0
        self.model = load(kind.path, dtype=kind.dtype, revision=kind.revision, trust_remote_code=kind.trust_remote_code)

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
        """Rewards, (n,) float32, in the order given; NaN for what cannot be read and has no reward.

        Raises:
            StudyError: a text is too long, or the parser fails; names the row.
        """
        import numpy as np

        asked = [filled(self.kind.template, *row) for row in zip(prompts, responses, strict=True)]
        told = {"max_new_tokens": self.kind.max_new_tokens, "batch_size": self.kind.batch_size}
        read = [self._read(row, answer) for row, answer in enumerate(answers(self.model, asked, **told))]
        self.unparsed += sum(number is None for number in read)
        other = math.nan if self.kind.unparsed is None else self.kind.unparsed
        return np.array([other if number is None else number for number in read], dtype=np.float32)

    def _read(self, row: int, answer: str) -> float | None:
        try:
            found = self.parser(answer)
            number = None if found is None else float(found)
        except Exception as error:  # a study's own parser raises what it likes
            told = f"{self.kind.parser} cannot read the answer {answer[:80]!r} of row {row} ({in_one_line(error)})"
            raise StudyError(f"parser: {told}; return None where there is no number") from error
        if number is not None and not math.isfinite(number):
            told = f"{self.kind.parser} reads {number} from the answer {answer[:80]!r} of row {row}"
            raise StudyError(f"parser: {told}; return a finite number, or None")
        return number


# -- asking -----------------------------------------------------------------------------------------------------------


def load(
    path: str, *, dtype: str = "float32", revision: str | None = None, trust_remote_code: bool = False
) -> policy.LanguageModel:
    """A language model that is asked.

    Raises:
        StudyError: it cannot be loaded, or only by code that is not trusted.
        UnreachableError: the hub did not answer.
    """
    with reaching(path, "path", "give a causal language model with its weights as safetensors"):
        check_folder(path)
        check_code(path, revision, trusted=trust_remote_code)
        return policy.load(path, dtype, revision=revision, trust_remote_code=trust_remote_code)


def answers(model: policy.LanguageModel, asked: Sequence[str], *, max_new_tokens: int, batch_size: int) -> list[str]:
    """What a language model writes, its likeliest tokens one after the other; equal questions are asked once.

    Args:
        batch_size: questions at a time, which are padded to one length.

    Returns:
        one answer a question, without the space around it.

    Raises:
        StudyError: a question leaves no room for an answer; names it by its place among those that differ.
    """
    distinct = list(dict.fromkeys(asked))
    drawn = policy.sample(
        model, distinct, samples=1, temperature=0, seed=0, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    said = {question: sampled.responses[0].strip() for question, sampled in zip(distinct, drawn, strict=True)}
    return [said[question] for question in asked]


# -- reading ----------------------------------------------------------------------------------------------------------

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def rating(answer: str) -> float | None:
    """The last number in double brackets."""
    found = re.findall(rf"\[\[\s*({NUMBER})\s*\]\]", answer)
    return float(found[-1]) if found else None


def number(answer: str) -> float | None:
    """The last number that stands by itself, but for what another is out of (`7/10`, `7 out of 10`)."""
    found = re.findall(rf"(?<![\w./])(?<!/ )(?<!out of )({NUMBER})(?!\w)", answer)
    return float(found[-1]) if found else None


def yes_no(answer: str) -> float | None:
    """1 for what says `yes` before any `no`, 0 for what says `no` first."""
    found = re.search(r"\b(yes|no)\b", answer, re.IGNORECASE)
    return None if found is None else float(found[1].lower() == "yes")


PARSERS: dict[str, Parser] = {"rating": rating, "number": number, "yes_no": yes_no}


def parser_of(name: str) -> Parser:
    """The parser of a name, or of a `module:function`.

    Raises:
        ValueError: there is none; says what is wrong and the nearest.
    """
    if ":" in name:
        own: Any = truth.find(name)
        return own  # type: ignore[no-any-return]
    if name not in PARSERS:
        raise ValueError(f"no parser {name!r}; {nearest(name, list(PARSERS))}, or module:function")
    return PARSERS[name]
